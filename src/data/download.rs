//! Fetching the posters a Kaggle table points at.
//!
//! The table is a stranger's and so are the servers, so every poster has a deadline that covers name lookup, all attempts, all
//! redirects and the last byte; a body is cut off at the size of the largest poster; only what begins like an image is kept; and
//! a redirect may not lead into a private network (or to `file:` and the like), which is checked on the very address that is then
//! connected to. A file appears under its name only when it is complete, and existing ones are not fetched again: a run that was
//! stopped is resumed by starting it again.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::config::Config;
use ureq::http::{Uri, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::films::{Film, FilmId};
use super::posters::{LARGEST_FILE, PosterFolder};

/// The most redirects that are followed for one poster.
const MOST_REDIRECTS: usize = 5;
/// So many posters in a row without an answer from any server: the network is away.
const UNREACHABLE: usize = 100;
/// The pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

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
        Downloader {
            connections: 4,
            attempts: 3,
            deadline: Duration::from_secs(30),
        }
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
    /// No server answers.
    #[error(
        "no server answered for {UNREACHABLE} posters in a row, the last: {last}; check the network, then run the command again: it goes on where it stopped"
    )]
    Unreachable {
        /// What went wrong with the last one.
        last: String,
    },
}

/// Why one poster did not come.
#[derive(Debug)]
enum FetchError {
    BadAddress(String),
    Private(String),
    TooManyRedirects,
    Status {
        code: u16,
        retry_after: Option<Duration>,
    },
    TooLarge,
    NotAnImage,
    /// No answer, or one that breaks off.
    Network(String),
    /// Nothing to do with the server: the poster cannot be stored.
    Store(io::Error),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::BadAddress(url) => write!(f, "`{url}` is no http or https address"),
            FetchError::Private(host) => {
                write!(f, "redirected to {host}, which is in a private network")
            }
            FetchError::TooManyRedirects => write!(f, "more than {MOST_REDIRECTS} redirects"),
            FetchError::Status { code, .. } => write!(f, "the server answered {code}"),
            FetchError::TooLarge => write!(f, "more than {} MB", LARGEST_FILE >> 20),
            FetchError::NotAnImage => write!(f, "what came is no JPEG, PNG or WebP image"),
            FetchError::Network(why) => write!(f, "{why}"),
            FetchError::Store(error) => write!(f, "{error}"),
        }
    }
}

impl FetchError {
    /// Whether another attempt may do better.
    fn may_pass(&self) -> bool {
        matches!(
            self,
            FetchError::Network(_)
                | FetchError::Status {
                    code: 408 | 429 | 500..=599,
                    ..
                }
        )
    }
}

impl Downloader {
    /// Fetches the posters of `films` that `folder` does not have, and returns of each that did not come why.
    ///
    /// `progress` hears how many of how many are dealt with.
    pub fn fetch_missing(
        &self,
        films: &[&Film],
        folder: &Path,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<HashMap<FilmId, String>, DownloadError> {
        if films.iter().all(|film| film.poster_url.is_none()) {
            return Err(DownloadError::NoAddresses);
        }
        let failed = |source| DownloadError::Folder {
            folder: folder.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let present = PosterFolder::index(folder).map_err(failed)?;
        let mut seen = HashSet::new();
        let address = |film: &&&Film| film.poster_url.is_some() && present.find(&film.id).is_none();
        let wanted: Vec<&Film> = films
            .iter()
            .filter(address)
            .copied()
            .filter(|film| seen.insert(&film.id))
            .collect();

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
                        if report
                            .send((film, self.deliver(web, film, folder)))
                            .is_err()
                        {
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
                silent = if let Err(FetchError::Network(_)) = result {
                    silent + 1
                } else {
                    0
                };
                match result {
                    Err(FetchError::Store(source)) => return Err(failed(source)),
                    Err(error) if silent == UNREACHABLE => {
                        return Err(DownloadError::Unreachable {
                            last: error.to_string(),
                        });
                    }
                    Err(error) => {
                        failures.insert(film.id.clone(), format!("download failed: {error}"));
                    }
                    Ok(()) => {}
                }
                progress(done, wanted.len());
            }
            Ok(failures)
        })
    }

    /// Fetches the poster of `film` into `folder`.
    fn deliver(&self, web: &Web, film: &Film, folder: &Path) -> Result<(), FetchError> {
        let url = film.poster_url.as_deref().unwrap_or_default();
        let bytes = self.fetch(web, url)?;
        let extension = image_extension(&bytes).ok_or(FetchError::NotAnImage)?;
        // The id is safe as a file name, and `.part` is no extension a poster is looked for under.
        let beside = folder.join(format!("{}.part", film.id));
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            fs::rename(&beside, folder.join(format!("{}.{extension}", film.id)))
        };
        write().map_err(FetchError::Store)
    }

    /// The bytes at `url`, after as many attempts as are allowed and make sense.
    fn fetch(&self, web: &Web, url: &str) -> Result<Vec<u8>, FetchError> {
        let end = Instant::now() + self.deadline;
        let mut pause = FIRST_PAUSE;
        for _ in 1..self.attempts {
            match web.get(url, end) {
                Err(error) if error.may_pass() => {
                    let wait = match error {
                        FetchError::Status {
                            retry_after: Some(wait),
                            ..
                        } => wait,
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
        web.get(url, end)
    }
}

/// The two ways out.
struct Web {
    /// For the addresses of the table itself.
    anywhere: Agent,
    /// For redirects: connects to public addresses only.
    public: Agent,
}

impl Web {
    fn new() -> Web {
        let config = || {
            Config::builder()
                .user_agent(concat!("onesheet/", env!("CARGO_PKG_VERSION")))
                .accept("image/*")
                .accept_encoding("identity")
                .http_status_as_error(false)
                .max_redirects(0)
                .timeout_connect(Some(Duration::from_secs(10)))
                .build()
        };
        Web {
            anywhere: Agent::with_parts(
                config(),
                DefaultConnector::default(),
                DefaultResolver::default(),
            ),
            public: Agent::with_parts(config(), DefaultConnector::default(), PublicOnly::default()),
        }
    }

    /// One attempt, redirects included.
    ///
    /// A redirect within one authority (host and port) says nothing new and is followed; one to another authority must lead to
    /// a public address. Behind an HTTP proxy names are the proxy's to look up, and only addresses in figures are checked here.
    fn get(&self, url: &str, end: Instant) -> Result<Vec<u8>, FetchError> {
        let first = web_address(url)?;
        let mut at = first.clone();
        for _ in 0..=MOST_REDIRECTS {
            let agent = if at.authority() == first.authority() {
                &self.anywhere
            } else {
                &self.public
            };
            if std::ptr::eq(agent, &self.public)
                && host_in_figures(&at).is_some_and(|address| !is_public(address))
            {
                return Err(FetchError::Private(
                    at.host().unwrap_or_default().to_owned(),
                ));
            }
            let left = end.saturating_duration_since(Instant::now());
            let request = agent
                .get(at.clone())
                .config()
                .timeout_global(Some(left.max(Duration::from_millis(1))))
                .build();
            let mut response = request.call().map_err(|error| match error {
                ureq::Error::Other(other) if other.is::<PrivateAddress>() => {
                    FetchError::Private(at.host().unwrap_or_default().to_owned())
                }
                error => FetchError::Network(error.to_string()),
            })?;
            let code = response.status().as_u16();
            let header = |name| {
                response
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok())
            };
            match (code, header(header::LOCATION)) {
                (200, _) => {
                    let mut bytes = Vec::new();
                    let body = response.body_mut().as_reader();
                    body.take(LARGEST_FILE + 1)
                        .read_to_end(&mut bytes)
                        .map_err(|error| FetchError::Network(error.to_string()))?;
                    return if bytes.len() as u64 > LARGEST_FILE {
                        Err(FetchError::TooLarge)
                    } else {
                        Ok(bytes)
                    };
                }
                (301 | 302 | 303 | 307 | 308, Some(location)) => at = follow(&at, location)?,
                _ => {
                    let seconds =
                        header(header::RETRY_AFTER).and_then(|seconds| seconds.parse::<u32>().ok());
                    return Err(FetchError::Status {
                        code,
                        retry_after: seconds.map(|seconds| Duration::from_secs(seconds.into())),
                    });
                }
            }
        }
        Err(FetchError::TooManyRedirects)
    }
}

/// `text` as an address, if it is one of http or https.
fn web_address(text: &str) -> Result<Uri, FetchError> {
    let address: Option<Uri> = text.parse().ok();
    let usable = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    };
    address
        .filter(usable)
        .ok_or_else(|| FetchError::BadAddress(text.chars().take(200).collect()))
}

/// Where `location`, which may be relative, leads from `at`.
fn follow(at: &Uri, location: &str) -> Result<Uri, FetchError> {
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) = (
        at.scheme_str().unwrap_or_default(),
        at.authority().map_or("", |authority| authority.as_str()),
    );
    // A colon before any slash ends a scheme, whether http or not.
    let has_scheme = location
        .split(['/', '?'])
        .next()
        .is_some_and(|head| head.contains(':'));
    let folder = at.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    web_address(&match location {
        _ if has_scheme => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => format!("{scheme}://{authority}{folder}/{location}"),
    })
}

/// What a file with these bytes ends in, if they begin like an image.
fn image_extension(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("jpg"),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("png"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("webp"),
        _ => None,
    }
}

/// Looks names up like everybody, and forgets the addresses that are not public.
#[derive(Debug, Default)]
struct PublicOnly(DefaultResolver);

/// All addresses of a name were private.
#[derive(Debug, thiserror::Error)]
#[error("a private address")]
struct PrivateAddress;

impl Resolver for PublicOnly {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let all = self.0.resolve(uri, config, timeout)?;
        let mut public = self.empty();
        for &address in all.iter().filter(|address| is_public(address.ip())) {
            public.push(address);
        }
        if public.is_empty() {
            Err(ureq::Error::Other(Box::new(PrivateAddress)))
        } else {
            Ok(public)
        }
    }
}

/// The address of a host that is written in figures.
fn host_in_figures(uri: &Uri) -> Option<IpAddr> {
    uri.host()?
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

/// Whether an address is on the open internet: none of the blocks set aside for private, local or special use.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation();
    let in_block = matches!(
        address.octets(),
        [0, ..] // this network
            | [100, 64..=127, ..] // shared by carriers
            | [192, 0, 0, _] // protocols
            | [198, 18..=19, ..] // benchmarks
            | [240..=255, ..] // reserved, broadcast
    );
    !special && !in_block
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        // An IPv4 address inside: mapped, translated, 6to4.
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => is_public_v4(v4(g, h)),
        [0x2002, ..] => is_public_v4(v4(b, c)),
        [0x2001, 0xdb8, ..] => false,
        // Global unicast is 2000::/3; the rest is local, multicast or unassigned.
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_networks_are_known_in_every_disguise() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn redirects_are_resolved_like_links() {
        let at: Uri = "http://host:81/posters/a.jpg?x=1".parse().unwrap();
        let follow = |location| {
            follow(&at, location)
                .map(|uri| uri.to_string())
                .map_err(|_| ())
        };
        assert_eq!(
            follow("b.jpg"),
            Ok("http://host:81/posters/b.jpg".to_owned())
        );
        assert_eq!(
            follow("/b.jpg?y#top"),
            Ok("http://host:81/b.jpg?y".to_owned())
        );
        assert_eq!(follow("//other/b"), Ok("http://other/b".to_owned()));
        assert_eq!(follow("https://other/b"), Ok("https://other/b".to_owned()));
        for refused in [
            "file:///etc/passwd",
            "file:/etc/passwd",
            "ftp://other/b",
            "data:image/png;base64,xx",
            "http://",
            "x y",
        ] {
            assert_eq!(follow(refused), Err(()), "{refused}");
        }
    }
}
