//! `infer --explain`: pictures of what a model sees on posters.

use super::Poster;
use crate::answering::answers::Answered;
use crate::exit::Usage;
use anyhow::Context;
use image::ImageFormat;
use onesheet::files::{self, Disk, quoted};
use onesheet::model::HeatMap;
use onesheet::pictures::heat;
use std::collections::HashSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Most bytes of a poster's or a genre's name in the name of a picture.
const LONGEST: usize = 100;

/// A folder that pictures are written into.
pub struct Pictures {
    folder: PathBuf,
    /// Of each of the model's genres, as a part of a file's name.
    genres: Vec<String>,
    posters: Names,
    drawn: usize,
}

impl Pictures {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// The system's.
    pub fn new(folder: &Path, genres: &[String]) -> anyhow::Result<Self> {
        if folder.is_file() {
            let why =
                "is a file: --explain takes the folder for the pictures, then come the posters, --explain seen a.jpg";
            return Err(Usage(format!("{} {why}", folder.display())).into());
        }
        files::create_folder(&Disk, folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let mut names = Names::default();
        let genres = genres.iter().map(|genre| names.new_one(genre)).collect();
        Ok(Pictures { folder: folder.to_owned(), genres, posters: Names::default(), drawn: 0 })
    }

    /// Draws the heat maps of a batch of posters, which are by rank. The answers learn where they are drawn.
    ///
    /// # Errors
    /// The disk's.
    pub fn draw(
        &mut self,
        batch: &[Poster<'_>],
        maps: Vec<Vec<(usize, HeatMap)>>,
        answers: &mut [Vec<Answered<'_>>],
    ) -> anyhow::Result<()> {
        for ((Poster { path, shown, .. }, maps), genres) in batch.iter().zip(maps).zip(answers) {
            let poster = self.posters.new_one(&path.file_stem().unwrap_or_default().to_string_lossy());
            let Some(shown) = shown else { continue };
            for (rank, map) in maps {
                let answered = &mut genres[rank];
                let caption = format!("{} {:.4}", answered.genre, answered.probability);
                let mut png = Cursor::new(Vec::new());
                heat::drawn(shown, &map, &caption).write_to(&mut png, ImageFormat::Png)?;
                let picture = self.folder.join(format!("{poster}.{}.png", self.genres[answered.place]));
                files::replace(&Disk, &picture, &png.into_inner())?;
                answered.picture = Some(picture);
                self.drawn += 1;
            }
        }
        Ok(())
    }

    /// What was drawn, in words.
    pub fn told(&self) -> String {
        match self.drawn {
            0 => "no picture was drawn, since no genre was named; --top 1 draws the most probable one".to_owned(),
            drawn => format!("{drawn} pictures of where it sees them are in {}", quoted(&self.folder)),
        }
    }
}

/// Parts of file names that differ from each other, also for systems that take capitals for small letters.
#[derive(Default)]
struct Names {
    taken: HashSet<String>,
}

impl Names {
    /// A name like `wanted` that no file system objects to.
    fn new_one(&mut self, wanted: &str) -> String {
        let is_plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_');
        let fits = |(at, letter): &(usize, char)| at + letter.len_utf8() <= LONGEST;
        let letters = wanted.char_indices().take_while(fits);
        let plain: String = letters.map(|(_, letter)| if is_plain(letter) { letter } else { '-' }).collect();
        let plain = if plain.is_empty() { "poster".to_owned() } else { plain };
        let numbered = |number: usize| if number == 1 { plain.clone() } else { format!("{plain}-{number}") };
        let mut names = (1..).map(numbered);
        names.find(|name| self.taken.insert(name.to_lowercase())).expect("there is always a next number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_differ() {
        let mut names = Names::default();
        let wanted = ["Drama", "Sci/Fi", "sci-fi", "Sci-Fi-2", "drama", "Ça va", "剧情", "", ""];
        let found: Vec<String> = wanted.iter().map(|wanted| names.new_one(wanted)).collect();
        assert_eq!(
            found,
            ["Drama", "Sci-Fi", "sci-fi-2", "Sci-Fi-2-2", "drama-2", "Ça-va", "剧情", "poster", "poster-2"]
        );
        assert_eq!(names.new_one(&"a".repeat(300)), "a".repeat(100));
        assert_eq!(names.new_one(&"剧".repeat(300)), "剧".repeat(33));
    }
}
