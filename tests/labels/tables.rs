//! Label tables: the three dialects, and everything that can be wrong with one.

use std::path::Path;

use onesheet::data::films::Film;
use onesheet::data::labels::{self, LabelError, LabelTable, Options};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn parse(table: impl AsRef<[u8]>) -> Result<LabelTable, LabelError> {
    Options::default().parse(Path::new("table.csv"), table.as_ref())
}

/// `id: genres` of every usable row, and `line: kind of reason` of every other.
fn read(table: impl AsRef<[u8]>) -> (Vec<String>, Vec<String>) {
    let table = parse(table).unwrap();
    let film = |film: &Film| format!("{}: {}", film.id, film.genres.join("|"));
    let rows = table.rows.iter().map(film).collect();
    let skipped = table.skipped.iter().map(|row| format!("{}: {}", row.line, row.reason.kind())).collect();
    (rows, skipped)
}

#[test]
fn kaggles_table() {
    let table = b"imdbId,Imdb Link,Title,IMDB Score,Genre,Poster\r\n\
        114709,http://www.imdb.com/title/tt114709,\"Toy Story, The (1995)\",8.3,Animation|Comedy,http://host/a.jpg\r\n\
        245429,http://www.imdb.com/title/tt245429,Am\xe9lie (2001),8.3,Comedy|Romance,\r\n";
    let table = parse(table).unwrap();
    let urls: Vec<_> = table.rows.iter().map(|film| film.poster_url.as_deref()).collect();
    assert_eq!(urls, [Some("http://host/a.jpg"), None]);
    assert_eq!(table.rows[1].id.as_str(), "tt0245429");
    assert_eq!(table.rows[1].genres, ["Comedy", "Romance"]);
    assert_eq!(table.rows[1].line, 3);
}

#[test]
fn the_papers_table_and_the_plain_one() {
    let paper = parse("imdbId,Genre\n114709.0,\"['Animation', 'Comedy']\"\n").unwrap();
    let plain = parse("Id,Genre\r\ntt0114709,\"['Animation', 'Comedy']\"\r\n").unwrap();
    assert_eq!(paper.rows, plain.rows);
}

#[test]
fn columns_are_found_by_name() {
    let (rows, _) = read("\u{feff} genre ,x, ID\nDrama|War,?,7\n");
    assert_eq!(rows, ["tt0000007: Drama|War"]);
}

#[test]
fn each_bad_row_is_put_aside_and_no_other() {
    let long_cell = "x".repeat(10 << 20);
    let long_id = "9".repeat(65);
    for (row, reason) in [
        ("1", "bad row"),
        ("1,\"['Drama']", "bad row"),
        ("\"1,Drama", "bad row"),
        (&*format!("1,{long_cell}"), "bad row"),
        (&*format!("1,\"{long_cell}"), "bad row"),
        (",Drama", "bad id"),
        ("a b.jpg,Drama", "bad id"),
        ("1.gif,Drama", "bad id"),
        ("1 2,Drama", "bad id"),
        ("1.5,Drama", "bad id"),
        ("../../etc/passwd,Drama", "bad id"),
        ("a/b,Drama", "bad id"),
        ("1\0,Drama", "bad id"),
        ("é,Drama", "bad id"),
        ("=1+1,Drama", "bad id"),
        (&*format!("{long_id},Drama"), "bad id"),
        ("1,", "no genre"),
        ("1,\"\"", "no genre"),
        ("1,[]", "no genre"),
        ("1,['N/A']", "no genre"),
        ("1,nan", "no genre"),
        ("1,|", "no genre"),
        ("1,\\N", "no genre"),
        ("1,(no genres listed)", "no genre"),
        ("1,\"('Drama'\"", "bad genres"),
        ("1,{Drama}", "bad genres"),
        ("1,[{'id': 1}]", "bad genres"),
        ("1,[Drama]", "bad genres"),
        ("1,['Drama'", "bad genres"),
        ("1,['Drama", "bad genres"),
        ("1,\"['Drama' 'War']\"", "bad genres"),
        ("1,[['Drama']]", "bad genres"),
        ("1,[__import__('os').system('true')]", "bad genres"),
        ("1,Dra\0ma", "bad genres"),
        ("1,\"[\"\"a\\\"", "bad genres"),
        (&*format!("1,{}", "x".repeat(41)), "bad genres"),
    ] {
        let table = format!("Id,Genre\n8,War\n{row}\n9,Crime\n");
        let shown: String = row.chars().take(40).collect();
        let (rows, skipped) = read(&table);
        assert_eq!(rows, ["tt0000008: War", "tt0000009: Crime"], "{shown:?}");
        assert_eq!(skipped, [format!("3: {reason}")], "{shown:?}");
    }
}

#[test]
fn odd_rows_that_are_fine() {
    for (row, expected) in [
        ("", None),
        (" ", None),
        (",,,", None),
        ("\r", None),
        ("7,Drama,and,more", Some("tt0000007: Drama")),
        (" 7 , Drama | War ", Some("tt0000007: Drama|War")),
        ("7,Drama|Drama", Some("tt0000007: Drama")),
        ("7,Kitchen Sink", Some("tt0000007: Kitchen Sink")),
        ("7,\"[\"\"Drama\"\", 'D\\'Art']\"", Some("tt0000007: Drama|D'Art")),
        ("\"7\",\"['Drama', 'N/A']\"", Some("tt0000007: Drama")),
        ("TT0000007,['Drama']", Some("tt0000007: Drama")),
        ("my-film_3,['Drama']", Some("my-film_3: Drama")),
    ] {
        let (mut rows, skipped) = read(format!("Id,Genre\n8,War\n{row}\n"));
        assert_eq!(rows.remove(0), "tt0000008: War");
        assert_eq!(rows, Vec::from_iter(expected), "{row:?}");
        assert_eq!(skipped, [""; 0], "{row:?}");
    }
}

#[test]
fn repeated_and_conflicting_rows_stay_until_they_are_merged() {
    let (rows, skipped) = read("Id,Genre\n7,War\n0007.0,Drama\n");
    assert_eq!((rows.len(), skipped.len()), (2, 0));
}

#[test]
fn a_table_without_the_columns_is_refused_with_its_header() {
    for header in ["", "a,b", "Id", "Genre", "Title,Genre", "\"Id,Genre", "\u{fffe}I\0d\0", "Id,Gen\u{1b}[31mre"] {
        let error = parse(format!("{header}\n1,Drama\n")).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, LabelError::Header { .. }), "{message}");
        let beginning = format!("the header of table.csv is `{header}`; understood are ");
        assert!(message.starts_with(&beginning), "{beginning:?} before {message}");
        for part in ["imdbId,Genre", "Id,Genre", "MovieGenre.csv", "--genre-column NAME"] {
            assert!(message.contains(part), "{part:?} in {message}");
        }
    }
    assert!(matches!(parse(""), Err(LabelError::Header { .. })));
}

#[test]
fn a_table_without_a_usable_row_is_refused_with_the_first_reason() {
    let message = parse("Id,Genre\n\n1,\n2,\n").unwrap_err().to_string();
    assert_eq!(message, "table.csv has no usable row among 2; line 3: no genre ");
    assert!(matches!(parse("Id,Genre\n"), Err(LabelError::NoFilm { skipped: 0, .. })));
}

#[test]
fn a_missing_table_is_named() {
    let message = labels::read(Path::new("no/such.csv")).unwrap_err().to_string();
    assert_eq!(message, "cannot read the label table no/such.csv");
}

/// Whatever is done to a table, every row is either read or accounted for, and nothing panics.
#[test]
fn a_hundred_thousand_damaged_tables() {
    const TABLES: [&[u8]; 4] = [
        b"\xef\xbb\xbfimdbId,Imdb Link,Title,IMDB Score,Genre,Poster\r\n\
        114709,http://a/tt114709,\"Toy, \"\"Story\"\"\",8.3,Animation|Comedy,http://host/a.jpg\r\n\
        tt0113497,,Jumanji,6.9,\"['Action', \"\"Family\"\"]\",http://host/b.jpg\n\
        113228.0,,Am\xe9lie,,['Drama'],\n\n,,,,,\n",
        b"tconst\ttitle\tgenres\ntt1\t\"A\tDrama,War\ntt2\t\"B \"\"b\"\"\"\tWar, Crime\ntt3\tC\t\\N\n",
        b"filename;overview;genres\na/1.jpg;\"two\nlines\";[{\"\"id\"\": 1, \"\"name\"\": \"\"War\"\"}]\n\
        2.png;;\"[{'id': 1, 'name': 'Drama'}]\"\n3;\"\r\n\";('A', \"\"B\"\")\n4;x;{'A'}\n",
        b"\xff\xfeI\0d\0,\0A\0,\0B\0\n\0\x31\0,\0\x31\0,\0\x30\0\n\0\x32\0,\0\x30\0,\0\x31\0\n\0",
    ];
    const SPLICES: [&[u8]; 10] = [b"\"", b"'", b"\n", b"\r", b",", b"[", b"]", b"\\", b"\0", b"\xff\xfe"];
    let mut random = StdRng::seed_from_u64(12);
    let mut read = 0;
    for _ in 0..100_000 {
        let mut table = TABLES[random.random_range(0..4)].to_vec();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..table.len().max(1));
            table.resize(table.len().max(1), b'\n');
            match random.random_range(0..4) {
                0 => table[at] = random.random(),
                1 => drop(table.remove(at)),
                2 => drop(table.splice(at..at, SPLICES[random.random_range(0..10)].iter().copied())),
                _ => table.truncate(at.max(1)),
            }
        }
        if let Ok(parsed) = parse(&table) {
            read += 1;
            let lines = table.split(|&byte| byte == b'\n').count() - 1;
            assert!(parsed.rows.len() + parsed.skipped.len() <= lines);
            assert!(parsed.rows.iter().all(|film| !film.genres.is_empty()));
        }
    }
    assert!((20_000..99_000).contains(&read), "{read}: the damage should neither spare all tables nor ruin all");
}
