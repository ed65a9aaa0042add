//! Columns, rows, ids and encodings.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use onesheet::data::films::FilmId;
use onesheet::data::labels::{self, LabelError, Options, Warning};

use crate::{clean, films, parse, skipped};

#[test]
fn columns_between_semicolons_tabs_and_bars() {
    for (separator, told) in [(";", "`;`"), ("\t", "tabs"), ("|", "`|`")] {
        let table = "Title,Id,Genre\n\"a, b\",1,\"['Comedy', 'Drama']\"\nc,2,['War']\n";
        let table = table.replace(',', separator).replace("a;", "a,").replace("Comedy'; ", "Comedy', ");
        let table = table.replace("'Comedy'\t", "'Comedy',").replace("'Comedy'|", "'Comedy',");
        assert_eq!(clean(&table), ["1: Comedy|Drama", "2: War"], "{table}");
        let dialect = parse(&table).unwrap().dialect.to_string();
        assert_eq!(dialect, format!("columns separated by {told}, ids from `Id`, genres from `Genre`"));
    }
}

#[test]
fn known_columns_are_found_in_any_spelling() {
    for (header, expected) in [
        ("id,imdb_id,genre_names", "2: War"),
        ("filename,Id,Genre", "2: War"),
        ("Label,Image Path,x", "x: 1"),
        ("movieId,title,genres", "1: War"),
    ] {
        let row = if header.starts_with("Label") { "1,x.jpg,War" } else { "1,2,War" };
        assert_eq!(clean(format!("{header}\n{row}\n")), [expected], "{header}");
    }
}

#[test]
fn columns_can_be_named() {
    let table = b"Id,key,Genre,mood\n1,7,War,sad\n";
    let options = |id: &str, genre: &str| Options {
        id_column: Some(id.to_owned()),
        genre_column: Some(genre.to_owned()),
        ..Options::default()
    };
    let read = |id, genre| options(id, genre).parse(Path::new("table.csv"), table);
    assert_eq!(films(&read("key", "Mood").unwrap()), ["7: sad"]);
    for (id, genre, wanted) in [("keys", "mood", "keys"), ("key", "moods", "moods")] {
        let message = read(id, genre).unwrap_err().to_string();
        assert_eq!(message, format!("table.csv has no column `{wanted}`; its columns are Id, key, Genre, mood"));
    }
}

#[test]
fn file_names_are_ids() {
    let table = "filename,genres\nposters/1.jpg,War\n2.PNG,War\nc:\\x\\3.0.webp,War\n4,War\n";
    assert_eq!(clean(table), ["1: War", "2: War", "3: War", "4: War"]);
    // Posters are found by the name alone, so these cannot be told apart.
    let table = parse("filename,genres\na/1.jpg,War\nb/1.jpg,Drama\na/1.jpg,Crime\n1,Comedy\n").unwrap();
    assert_eq!(films(&table), ["1: War", "1: Crime", "1: Comedy"]);
    assert_eq!(skipped(&table), ["3: bad row"]);
    assert_eq!(
        table.skipped[0].reason.detail(),
        "b/1.jpg and a/1.jpg on line 2 have the same name, by which posters are found"
    );
}

#[test]
fn imdbs_own_table() {
    let table = "tconst\ttitleType\tprimaryTitle\tisAdult\tgenres\n\
        tt0000001\tmovie\t\"Giliap\t0\tCrime,Drama\n\
        tt0000002\tmovie\t\"A\" and \"B\"\t0\t\\N\n\
        tt0000003\tmovie\t\"C\"\t0\tDrama\n";
    let table = parse(table).unwrap();
    assert_eq!(films(&table), ["1: Crime|Drama", "3: Drama"]);
    assert_eq!(skipped(&table), ["3: no genre"]);
}

#[test]
fn one_column_for_each_genre() {
    let table =
        "Id,Title,Year,Comedy,Sci-Fi,War\n1,a,1999,1,0,1\n2,\"b, c\",2000,0,1.0,\n3,d,1,False,TRUE,0\n4,e,0,0,0,0\n";
    let parsed = parse(table).unwrap();
    assert_eq!(films(&parsed), ["1: Comedy|War", "2: Sci-Fi", "3: Sci-Fi"]);
    assert_eq!(skipped(&parsed), ["5: no genre"]);
    let told = "ids from `Id`, a column for each genre: Comedy, Sci-Fi, War (and none of these: Title, Year)";
    assert_eq!(parsed.dialect.to_string(), told);
    // In a row with a cell too many every 1 may stand in the wrong column.
    let parsed = parse(format!("{table}5,f, g,2001,1,0,0\n6,h,1\n")).unwrap();
    assert_eq!(parsed.dialect.to_string(), told);
    assert_eq!(skipped(&parsed), ["5: no genre", "6: bad row", "7: bad row"]);
    // Columns of 0 and 1 beside one of genres are not asked.
    assert_eq!(clean("Id,Genre,adult,video\n1,War,0,1\n"), ["1: War"]);
    // One such column alone is none of genres, nor is one without a name.
    for table in ["Id,Title,adult\n1,a,1\n", ",Id,adult\n0,1,1\n1,2,0\n"] {
        assert!(matches!(parse(table), Err(LabelError::Header { .. })), "{table}");
    }
}

#[test]
fn a_quoted_cell_over_several_lines_loses_no_film() {
    let table =
        "Id,Title,Genre\n1,\"of\ntwo lines\",['War']\n2,\"a \"\"b\"\"\r\n\r\n\",\"Drama|\nWar\"\r\n3,c,[Drama]\n";
    let parsed = parse(table).unwrap();
    assert_eq!(films(&parsed), ["1: War", "2: Drama|War"]);
    assert_eq!((parsed.rows[1].line, skipped(&parsed)), (4, vec!["8: bad genres".to_owned()]));
}

#[test]
fn an_open_quote_costs_its_line_and_no_more_even_a_hundred_thousand_times() {
    let parsed = parse("Id,Title,Genre\n1,\"a,War\n2,b,War\n3,\"c\",War\n4,\"d\ne,War\n5,f,War\n").unwrap();
    assert_eq!(films(&parsed), ["2: War", "3: War", "5: War"]);
    assert_eq!(skipped(&parsed), ["2: bad row", "5: bad row", "6: bad row"]);

    let start = Instant::now();
    for open in ["\"\n", "1,\"x\n", "1,\"x\"\"\n", "1,\"\n\n\n\n\n\n\n\n"] {
        let parsed = parse(format!("Id,Title,Genre\n{}2,b,War\n", open.repeat(100_000))).unwrap();
        assert_eq!(films(&parsed), ["2: War"], "{open:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn many_genres_take_linear_time() {
    let start = Instant::now();
    // One film on many rows, each with another genre; and rows with as many genres as there is room for.
    let rows: String = (0..100_000).map(|row| format!("7,g{row}\n")).collect();
    let full: String = (0..12_000).map(|genre| format!("{genre:x}|")).collect();
    let full: String = (0..20).map(|row| format!("{row},{full}\n")).collect();
    let parsed = parse(format!("Id,Genre\n{rows}{full}")).unwrap();
    assert_eq!(parsed.rows.len(), 100_020);
    assert_eq!(parsed.rows[100_000].genres.len(), 12_000);
    let (merged, _) = onesheet::data::films::merge_duplicates(parsed.rows);
    assert_eq!(merged[0].genres.len(), 112_000);
    let (choice, rest) = (onesheet::data::genres::GenreChoice::AtLeast(1), onesheet::data::genres::Rest::Other);
    let message = onesheet::data::genres::Classes::choose(&choice, rest, &merged).unwrap_err().to_string();
    assert!(message.starts_with("no film in the table is `Other`"), "{message:.100}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn rows_with_more_cells_than_the_header_are_told() {
    let parsed = parse("Id,Genre\n1,War\n2,Comedy,Drama\n3,War,,\n4,War,x\n").unwrap();
    assert_eq!(films(&parsed), ["1: War", "2: Comedy", "3: War", "4: War"]);
    assert_eq!(parsed.warnings, [Warning::MoreCells { rows: 2, line: 3 }]);
}

#[test]
fn utf16_in_either_order() {
    let table = "Id,Genre\r\n1,Comédie|War\r\n";
    for bytes in [
        table.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(),
        table.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    ] {
        let mark: &[u8] = if bytes[0] == b'I' { b"\xff\xfe" } else { b"\xfe\xff" };
        assert_eq!(clean([mark, &bytes].concat()), ["1: Comédie|War"]);
    }
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for (read, what) in [
        (labels::read(&pipe).map(drop), "a label table"),
        (labels::Aliases::read(&pipe).map(drop), "a table of aliases"),
    ] {
        let error = read.expect_err(what);
        let why = match error {
            LabelError::Read { source, .. } => source.to_string(),
            LabelError::Aliases { why, .. } => why,
            error => panic!("{error}"),
        };
        assert_eq!(why, "it is a pipe or a device, not a file");
    }
}

#[test]
fn of_a_table_too_large_the_wanted_films_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("title.basics.tsv");
    fs::write(&path, "tconst\tgenres\ntt0000001\tDrama\ntt0000002\tWar\ntt0000003\tCrime,Drama\n").unwrap();
    // The rest is a hole in the file, so that it takes no room.
    fs::File::options().write(true).open(&path).unwrap().set_len(257 << 20).unwrap();
    assert!(labels::is_large(&path));
    let message = labels::read(&path).unwrap_err().to_string();
    assert!(message.contains("larger than 256 MB; with --posters DIR"), "{message}");

    let wanted: HashSet<FilmId> = ["1", "3"].iter().filter_map(|id| FilmId::parse(id)).collect();
    let parsed = Options { wanted: Some(wanted), ..Options::default() }.read(&path).unwrap();
    assert_eq!(films(&parsed), ["1: Drama", "3: Crime|Drama"]);
    assert_eq!((skipped(&parsed), parsed.rows[1].line), (vec![], 4));
}

#[test]
fn genres_in_a_second_column_are_not_lost_without_a_word() {
    let read = |text: &str| Options::default().parse(Path::new("t.csv"), text.as_bytes());
    let error = read("Id,Genre,Genre\n1,Action,Drama\n").unwrap_err().to_string();
    assert!(error.contains("t.csv has two columns named `Genre`"), "{error}");
    let parsed = read("Id,Genre,\n1,Action,Drama\n2,War,\n").unwrap();
    assert_eq!(parsed.warnings, [Warning::MoreCells { rows: 1, line: 2 }]);
}
