//! Fetching the posters a Kaggle table points at.
//!
//! The table is a stranger's and so are the servers, so every poster has a deadline that covers name lookup, all attempts, all
//! redirects and the last byte; a body is cut off at the size of the largest poster; only what is a whole image is kept; and
//! a redirect may not lead into a private network (or to `file:` and the like), which is checked on the very address that is then
//! connected to. A file appears under its name only when it is complete, and existing ones are not fetched again: a run that was
//! stopped is resumed by starting it again.

mod address;
mod web;

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use self::web::{FetchError, Web};
use super::films::{Film, FilmId};
use super::pixels::{self, PixelError};
use super::posters::{Links, PosterFolder};
use super::squaring::{Alpha, Exif, Resize, Squaring};
use crate::files::{self, Disk};

/// So many posters in a row without an answer from any server: the network is away.
const UNREACHABLE: usize = 100;
/// The pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// What an image is decoded to when only its wholeness matters.
const TRIAL: Squaring = Squaring { size: 1, resize: Resize::Nearest, exif: Exif::Ignore, alpha: Alpha::Drop };

/// How to fetch.
#[derive(Clone, Debug)]
pub struct Downloader {
    /// Posters fetched at the same time.
    pub connections: usize,
    /// How often a poster is tried when the failure may pass.
    pub attempts: u32,
    /// The time for one poster, all attempts together.
    pub deadline: Duration,
}

impl Default for Downloader {
    fn default() -> Downloader {
        Downloader { connections: 4, attempts: 3, deadline: Duration::from_secs(30) }
    }
}

/// Why fetching ended altogether.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No row of the table has an address.
    #[error(
        "the label table has no addresses of posters; `--download` needs Kaggle's MovieGenre.csv, with its column `Poster`"
    )]
    NoAddresses,
    /// The folder for the posters is unusable.
    #[error("cannot write posters into {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever heard how far it is has ended it.
    #[error("stopped before all posters were fetched; those that came are kept")]
    Stopped,
    /// No server answers.
    #[error(
        "no server answered for {UNREACHABLE} posters in a row, the last: {last}; check the network, then run the command again: it goes on where it stopped"
    )]
    Unreachable {
        /// What went wrong with the last one.
        last: String,
    },
}

impl Downloader {
    /// Fetches the posters of `films` that `folder` does not have, and returns of each that did not come why. `links` says
    /// which links in the folder are posters that are there.
    ///
    /// `progress` hears how many of how many are dealt with, and may end it there: then those under way still come.
    pub fn fetch_missing(
        &self,
        films: &[&Film],
        folder: &Path,
        links: Links,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<HashMap<FilmId, String>, DownloadError> {
        if films.iter().all(|film| film.poster_url.is_none()) {
            return Err(DownloadError::NoAddresses);
        }
        let failed = |source| DownloadError::Folder { folder: folder.to_owned(), source };
        files::create_folder(&Disk, folder).map_err(failed)?;
        let present = PosterFolder::index(folder, links).map_err(failed)?;
        let mut seen = HashSet::new();
        let address = |film: &&&Film| film.poster_url.is_some() && present.find(&film.id).is_empty();
        let wanted: Vec<&Film> = films.iter().filter(address).copied().filter(|film| seen.insert(&film.id)).collect();

        let web = Web::new();
        let next = AtomicUsize::new(0);
        let (report, reports) = mpsc::channel();
        let mut failures = HashMap::new();
        thread::scope(|scope| {
            for _ in 0..self.connections.max(1) {
                let (report, web, next, wanted) = (report.clone(), &web, &next, &wanted);
                scope.spawn(move || {
                    while let Some(film) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                        // Nobody listens any more when the run has failed as a whole.
                        if report.send((film, self.deliver(web, film, folder))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(report);
            // Leaving this closure early drops `reports`, which ends the threads after their current poster.
            let reports = reports;
            let mut silent = 0;
            for (done, (film, result)) in (1..).zip(&reports) {
                silent = if let Err(FetchError::Network(_)) = result { silent + 1 } else { 0 };
                match result {
                    Err(FetchError::Store(source)) => return Err(failed(source)),
                    Err(error) if silent == UNREACHABLE => {
                        return Err(DownloadError::Unreachable { last: error.to_string() });
                    }
                    Err(error) => {
                        failures.insert(film.id.clone(), format!("download failed: {error}"));
                    }
                    Ok(()) => {}
                }
                if progress(done, wanted.len()).is_break() {
                    return Err(DownloadError::Stopped);
                }
            }
            Ok(failures)
        })
    }

    /// Fetches the poster of `film` into `folder`.
    fn deliver(&self, web: &Web, film: &Film, folder: &Path) -> Result<(), FetchError> {
        let url = film.poster_url.as_deref().unwrap_or_default();
        let (bytes, extension) = self.fetch(web, url)?;
        // The id is safe as a file name.
        files::replace(&Disk, &folder.join(format!("{}.{extension}", film.id)), &bytes)
            .map_err(|error| FetchError::Store(io::Error::other(error)))
    }

    /// The image at `url` and what its file ends in, after as many attempts as are allowed and make sense.
    fn fetch(&self, web: &Web, url: &str) -> Result<(Vec<u8>, &'static str), FetchError> {
        let end = Instant::now() + self.deadline;
        let mut pause = FIRST_PAUSE;
        for _ in 1..self.attempts {
            match get_image(web, url, end) {
                Err(error) if error.may_pass() => {
                    let wait = match error {
                        FetchError::Status { retry_after: Some(wait), .. } => wait,
                        _ => pause,
                    };
                    if Instant::now() + wait >= end {
                        return Err(error);
                    }
                    thread::sleep(wait);
                    pause *= 2;
                }
                settled => return settled,
            }
        }
        get_image(web, url, end)
    }
}

/// One attempt at the image at `url`.
fn get_image(web: &Web, url: &str, end: Instant) -> Result<(Vec<u8>, &'static str), FetchError> {
    let bytes = web.get(url, end)?;
    let extension = image_extension(&bytes).ok_or(FetchError::NotAnImage)?;
    match pixels::square(&bytes, &TRIAL) {
        Ok(_) => Ok((bytes, extension)),
        // Larger than a poster may be: another attempt brings the same.
        Err(error @ (PixelError::TooLarge { .. } | PixelError::TooDeep { .. } | PixelError::Limits(_))) => {
            Err(FetchError::Unusable(error.to_string()))
        }
        Err(error) => Err(FetchError::Damaged(error.to_string())),
    }
}

/// What a file with these bytes ends in, if they begin like an image.
fn image_extension(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("jpg"),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("png"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}
