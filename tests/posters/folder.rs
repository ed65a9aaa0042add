//! Which files of a folder are posters, and what is said of the others.

use std::fs::{self, File};
use std::path::Path;

use onesheet::data::films::FilmId;
use onesheet::data::posters::{self, Links, PosterFolder, ReadError};

fn found<'a>(folder: &'a PosterFolder, id: &str) -> Option<&'a str> {
    let path = folder.find(&FilmId::parse(id).unwrap()).first()?;
    path.strip_prefix(folder.root()).unwrap().to_str()
}

fn not_read<'a>(folder: &'a PosterFolder, id: &str) -> &'a str {
    folder.not_read(&FilmId::parse(id).unwrap()).unwrap_or("")
}

#[test]
fn a_poster_is_found_under_any_spelling() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("1995/07")).unwrap();
    for name in [
        "tt0000001.jpg",
        "2.JPEG",
        "0000003.png",
        "4.0.webp",
        "1995/07/tt5.Jpg",
        "tt0000006.gif",
        "7",
        "8.jpg.txt",
        "my-film.png",
        "9.jpg",
        "tt0000009.jpg",
    ] {
        File::create(folder.path().join(name)).unwrap();
    }
    let folder = PosterFolder::index(folder.path(), Links::Inside).unwrap();
    for (id, name) in [
        ("1", Some("tt0000001.jpg")),
        ("2", Some("2.JPEG")),
        ("3", Some("0000003.png")),
        ("4", Some("4.0.webp")),
        ("5", Some("1995/07/tt5.Jpg")),
        ("6", None),
        ("7", None),
        ("8", None),
        ("my-film", Some("my-film.png")),
        ("9", Some("9.jpg")), // the first by path of two
    ] {
        assert_eq!(found(&folder, id), name, "{id}");
    }
    assert_eq!(folder.find(&FilmId::parse("9").unwrap()).len(), 2);
    assert!(PosterFolder::index(Path::new("no/such/folder"), Links::Inside).is_err());
}

#[cfg(unix)]
#[test]
fn nothing_outside_the_folder_is_touched_and_a_pipe_never_opened() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let inside = tempfile::tempdir().unwrap();
    let (canary, root) = (outside.path().join("1.jpg"), inside.path());
    fs::write(&canary, "canary").unwrap();
    fs::write(root.join("real.jpg"), "poster").unwrap();
    symlink(&canary, root.join("1.jpg")).unwrap();
    symlink(outside.path(), root.join("2")).unwrap(); // a folder with 1.jpg in it
    symlink("../../../../../etc/passwd", root.join("3.jpg")).unwrap();
    symlink("real.jpg", root.join("4.jpg")).unwrap();
    symlink("5.jpg", root.join("5.jpg")).unwrap(); // a circle
    symlink("nowhere.jpg", root.join("6.jpg")).unwrap();
    symlink("/dev/zero", root.join("7.jpg")).unwrap();
    let pipe = root.join("8.jpg");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink("8.jpg", root.join("9.jpg")).unwrap();
    fs::create_dir(root.join("10.jpg")).unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    symlink("../real.jpg", root.join("sub/11.jpg")).unwrap(); // out of its own folder, and inside the whole

    let folder = PosterFolder::index(root, Links::Inside).unwrap();
    let all: Vec<_> = (1..=11).map(|id| found(&folder, &id.to_string())).collect();
    let expected = [None, None, None, Some("4.jpg"), None, None, None, None, None, None, Some("sub/11.jpg")];
    assert_eq!(all, expected);
    let refusal = |path: &Path| posters::read(path).unwrap_err().to_string();
    assert!(refusal(&pipe).contains("it is a pipe or a device"), "{}", refusal(&pipe));
    assert!(refusal(Path::new("/dev/zero")).contains("it is a pipe or a device"));
    assert!(refusal(root).contains("it is a folder"));
    assert_eq!(fs::read(&canary).unwrap(), b"canary");
    // Said once, however the error is printed.
    let none = format!("{:#}", anyhow::Error::from(posters::read(&root.join("none.jpg")).unwrap_err()));
    assert_eq!(none.matches("No such file").count(), 1, "{none}");
}

#[test]
fn a_huge_file_is_not_opened() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 40).unwrap();
    assert!(matches!(posters::read(file.path()), Err(ReadError::TooLarge(bytes)) if bytes == 1 << 40));
}

#[cfg(unix)]
#[test]
fn what_is_passed_over_is_named() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let inside = tempfile::tempdir().unwrap();
    let root = inside.path();
    fs::write(outside.path().join("1.jpg"), "poster").unwrap();
    symlink(outside.path().join("1.jpg"), root.join("1.jpg")).unwrap();
    symlink(outside.path(), root.join("elsewhere")).unwrap();
    symlink("nowhere", root.join("3.jpg")).unwrap();
    symlink(".", root.join("ring")).unwrap();
    fs::write(root.join("4.gif"), "GIF89a").unwrap();
    assert!(std::process::Command::new("mkfifo").arg(root.join("5.jpg")).status().unwrap().success());
    fs::write(root.join("a film.jpg"), "poster").unwrap();
    fs::create_dir_all(root.join("a/b/c/d")).unwrap();
    fs::write(root.join("a/b/c/6.jpg"), "poster").unwrap();
    fs::write(root.join("a/b/c/d/7.jpg"), "poster").unwrap();

    let folder = PosterFolder::index(root, Links::Inside).unwrap();
    for (id, why) in [
        ("1", "1.jpg is not read: it is a link out of the folder; --follow-links follows it"),
        ("3", "3.jpg is not read: it is a link that leads nowhere"),
        ("4", "4.gif is not read: only .jpg, .jpeg, .png, .webp are"),
        ("5", "5.jpg is not read: it is a pipe or a device"),
        ("6", ""),
    ] {
        assert_eq!(found(&folder, id), (id == "6").then_some("a/b/c/6.jpg"));
        assert!(not_read(&folder, id).ends_with(why) && not_read(&folder, id).is_empty() == why.is_empty(), "{id}");
    }
    let notes = folder.notes().join("\n");
    assert!(notes.contains("not looked into, more than 3 folders deep: ") && notes.contains("a/b/c/d"), "{notes}");
    // 1, 3, 4, 5, the film without an id, and two links to folders.
    assert!(notes.contains(": 7 files; the first: ") && notes.contains("1.jpg, it is a link out of"), "{notes}");

    // Followed, each folder once.
    let folder = PosterFolder::index(root, Links::All).unwrap();
    assert_eq!([found(&folder, "1"), found(&folder, "3")], [Some("1.jpg"), None]);
    assert_eq!(folder.find(&FilmId::parse("1").unwrap()).len(), 2, "by the link to it and by the link to its folder");
    assert_eq!(folder.find(&FilmId::parse("6").unwrap()).len(), 1);
}
