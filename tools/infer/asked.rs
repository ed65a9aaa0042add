//! Which posters `infer` is asked about: what files, folders, patterns and standard input come to.

use anyhow::Context;
use onesheet::data::posters;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A file that is asked about, or what was typed, and why that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub path: PathBuf,
    pub refused: Option<String>,
}

impl Asked {
    fn refused(path: &Path, why: impl ToString) -> Self {
        Asked { path: path.to_owned(), refused: Some(why.to_string()) }
    }
}

impl From<PathBuf> for Asked {
    fn from(path: PathBuf) -> Self {
        Asked { path, refused: None }
    }
}

/// What `words` come to, in their order.
///
/// # Errors
/// The system's, if standard input cannot be read.
pub fn posters(words: &[PathBuf]) -> anyhow::Result<Vec<Asked>> {
    let mut asked = Vec::new();
    for word in words {
        if word.as_os_str() == "-" {
            let mut lines = Vec::new();
            io::stdin().lock().read_to_end(&mut lines).context("cannot read paths from standard input")?;
            paths(&lines).iter().for_each(|path| asked.extend(file_or_folder(path)));
        } else if let Some(pattern) = pattern(word) {
            asked.extend(matching(word, pattern));
        } else {
            asked.extend(file_or_folder(word));
        }
    }
    Ok(asked)
}

/// The paths in some lines. Whatever bytes a path has, it is one; empty lines are none.
fn paths(lines: &[u8]) -> Vec<PathBuf> {
    let lines = lines.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let path = |line: &[u8]| {
        #[cfg(unix)]
        return PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(line));
        #[cfg(not(unix))]
        PathBuf::from(String::from_utf8_lossy(line).into_owned())
    };
    lines.filter(|line| !line.is_empty()).map(path).collect()
}

/// A word with `*`, `?` or `[` in it that is no path: what a shell leaves when the pattern stands in quotes, and some shells always.
fn pattern(word: &Path) -> Option<&str> {
    word.to_str().filter(|text| text.contains(['*', '?', '[']) && !word.exists())
}

/// What matches a pattern, by path.
fn matching(word: &Path, pattern: &str) -> Vec<Asked> {
    let matches = match glob::glob(pattern) {
        Ok(matches) => matches,
        Err(error) => return vec![Asked::refused(word, format!("it is no pattern: {error}"))],
    };
    let mut asked: Vec<Asked> = Vec::new();
    for found in matches {
        match found {
            Ok(path) => asked.extend(file_or_folder(&path)),
            Err(error) => asked.push(Asked::refused(error.path(), error.error())),
        }
    }
    if asked.is_empty() { vec![Asked::refused(word, "nothing matches it")] } else { asked }
}

/// The file itself, or the posters in a folder.
fn file_or_folder(path: &Path) -> Vec<Asked> {
    if !path.is_dir() {
        return vec![path.to_owned().into()];
    }
    match posters::in_folder(path) {
        Ok(files) if files.is_empty() => {
            let endings = posters::EXTENSIONS.map(|extension| format!(".{extension}")).join(", ");
            vec![Asked::refused(
                path,
                format!("there is no poster in this folder, nor up to three folders below it ({endings})"),
            )]
        }
        Ok(files) => files.into_iter().map(Asked::from).collect(),
        Err(error) => vec![Asked::refused(path, error)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_folders_and_patterns_come_to_posters_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("year/1999/a/too deep")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        for name in
            ["b.jpg", "a [1].png", "notes.txt", "year/c.webp", "year/1999/a/d.JPG", "year/1999/a/too deep/e.png"]
        {
            fs::write(root.join(name), "").unwrap();
        }
        let asked = |words: &[&str]| -> Vec<(String, Option<String>)> {
            let words: Vec<PathBuf> = words.iter().map(|word| root.join(word)).collect();
            let name = |path: PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            posters(&words).unwrap().into_iter().map(|asked| (name(asked.path), asked.refused)).collect()
        };
        let files = |words: &[&str]| -> Vec<String> {
            let asked = asked(words);
            assert!(asked.iter().all(|(_, refused)| refused.is_none()), "{asked:?}");
            asked.into_iter().map(|(path, _)| path).collect()
        };
        assert_eq!(
            files(&["b.jpg", "notes.txt", "absent.png", "b.jpg"]),
            ["b.jpg", "notes.txt", "absent.png", "b.jpg"]
        );
        assert_eq!(files(&[""]), ["a [1].png", "b.jpg", "year/1999/a/d.JPG", "year/c.webp"], "three folders deep");
        assert_eq!(files(&["a [1].png"]), ["a [1].png"], "a path that looks like a pattern");
        assert_eq!(files(&["?.jpg", "*/c.*"]), ["b.jpg", "year/c.webp"]);
        let in_year = ["year/1999/a/d.JPG", "year/1999/a/too deep/e.png", "year/c.webp"];
        assert_eq!(files(&["y*"]), in_year, "a folder that a pattern matches, and three below that");
        let why = |word: &str| asked(&[word])[0].1.clone().unwrap();
        assert_eq!(why("*.gif"), "nothing matches it");
        assert!(why("empty").starts_with("there is no poster in this folder"));
        assert!(why("a[b.png").starts_with("it is no pattern"), "{}", why("a[b.png"));
    }

    #[test]
    fn lines_are_paths_whatever_is_in_them() {
        let found = paths(b"a b.jpg\r\n\n*.png\nlast");
        assert_eq!(found, ["a b.jpg", "*.png", "last"].map(PathBuf::from));
        assert_eq!(paths(b""), Vec::<PathBuf>::new());
        #[cfg(unix)]
        assert_eq!(std::os::unix::ffi::OsStrExt::as_bytes(paths(b"caf\xe9.png\n")[0].as_os_str()), b"caf\xe9.png");
    }
}
