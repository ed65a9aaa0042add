//! A folder for each genre.

use std::fs;
use std::path::Path;

use onesheet::data::labels::{self, LabelError};

use crate::{films, skipped};

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn a_folder_for_each_genre() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[
            ("Sci-Fi/1.jpg", "one"),
            ("Comedy/2.png", "two"),
            ("Comedy/1.jpg", "one"),
            ("Comedy/notes.txt", ""),
            ("Comedy/deeper/9.jpg", ""),
            (".hidden/3.jpg", ""),
            ("Empty/notes.txt", ""),
            ("4.jpg", ""),
        ],
    );
    let table = labels::read(folder.path()).unwrap();
    assert_eq!(films(&table), ["1: Comedy|Sci-Fi", "2: Comedy"]);
    assert_eq!((skipped(&table), &table.warnings), (vec![], &vec![]));
    assert_eq!(table.dialect.to_string(), "a folder for each genre: Comedy, Sci-Fi");
}

#[test]
fn files_numbered_in_each_folder_are_not_one_film() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("Comedy/1.jpg", "a comedy"), ("War/1.jpg", "a war film"), ("War/2 3.jpg", "x")]);
    let table = labels::read(folder.path()).unwrap();
    assert_eq!(films(&table), ["1: Comedy"]);
    assert_eq!(skipped(&table), ["2: bad row", "3: bad id"]);
    assert_eq!(
        table.skipped[0].reason.detail(),
        "War/1.jpg has the name of Comedy/1.jpg and is another picture, so perhaps another film"
    );
}

#[cfg(unix)]
#[test]
fn links_count_where_they_stay_inside() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(folder.path(), &[("Comedy/1.jpg", "one"), ("War/2.jpg", "two")]);
    write(outside.path(), &[("3.jpg", "three")]);
    std::os::unix::fs::symlink("../Comedy/1.jpg", folder.path().join("War/1.jpg")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("3.jpg"), folder.path().join("War/3.jpg")).unwrap();
    assert_eq!(films(&labels::read(folder.path()).unwrap()), ["1: Comedy|War", "2: War"]);
}

#[test]
fn a_folder_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("1.jpg", ""), ("Comedy/labels.csv", "")]);
    let error = labels::read(folder.path()).unwrap_err();
    assert!(matches!(error, LabelError::NoFolders { .. }), "{error}");
}
