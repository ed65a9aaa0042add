//! Tables of random names, written by another crate in every dialect, come back as they were.

use std::collections::HashSet;
use std::path::Path;

use onesheet::data::labels::Options;
use proptest::prelude::*;

/// How the genres of a film are written into a cell.
const CELLS: [fn(&[String]) -> String; 10] = [
    |genres| genres.join("|"),
    |genres| genres.join(", "),
    |genres| genres.join(","),
    |genres| genres.join(" ; "),
    |genres| genres.join(" / "),
    |genres| format!("['{}']", genres.join("', '")),
    |genres| format!("('{}',)", genres.join("', '")),
    |genres| format!("{{'{}'}}", genres.join("', '")),
    |genres| serde_json::json!(genres).to_string(),
    |genres| {
        let object = |genre: &String| serde_json::json!({ "id": 1, "name": genre });
        serde_json::Value::from_iter(genres.iter().map(object)).to_string()
    },
];

const ENCODINGS: [fn(&str) -> Vec<u8>; 3] = [
    |table| table.as_bytes().to_vec(),
    |table| format!("\u{feff}{table}").into_bytes(),
    |table| "\u{feff}".encode_utf16().chain(table.encode_utf16()).flat_map(u16::to_le_bytes).collect(),
];

/// Genres, and films of them: a title of anything, and which genres.
fn films() -> impl Strategy<Value = (Vec<String>, Vec<(String, Vec<prop::sample::Index>)>)> {
    let genres = prop::collection::hash_set("[A-Z][a-zé]{2,9}(-[A-Z][a-z]{1,9})?", 2..9);
    let title = "([a-zA-Z0-9é,;|' \"]|\t|\n|\r\n){0,20}";
    let film = (title, prop::collection::vec(any::<prop::sample::Index>(), 1..4));
    (genres.prop_map(Vec::from_iter), prop::collection::vec(film, 1..20))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_table_in_any_dialect(
        (genres, films) in films(),
        separator in prop::sample::select(&[b',', b';', b'\t', b'|'][..]),
        cell in prop::sample::select(&CELLS[..]),
        encode in prop::sample::select(&ENCODINGS[..]),
        names in prop::sample::select(&[["imdbId", "Genre"], ["tconst", "genres"], ["Id", "Genre"], ["file_name", "labels"]][..]),
    ) {
        // Spellings of one genre would be merged, and these words say that a film has none.
        let mut keys = HashSet::from(["nan", "none", "null"].map(String::from));
        let genres: Vec<String> =
            genres.into_iter().filter(|genre| keys.insert(genre.to_lowercase().replace('-', ""))).collect();
        // Each genre alone once, so that no separator is in doubt.
        let alone = genres.iter().map(|genre| (String::new(), vec![genre.clone()]));
        let films: Vec<(String, Vec<String>)> = films
            .into_iter()
            .map(|(mut title, chosen)| {
                // Between tabs a quote may be a letter, so a cell with both a tab and a line break in it can be read in two ways.
                if separator == b'\t' {
                    title = title.replace('\t', " ");
                }
                let mut of: Vec<String> = Vec::new();
                for index in chosen {
                    let genre = index.get(&genres);
                    if !of.contains(genre) {
                        of.push(genre.clone());
                    }
                }
                (title, of)
            })
            .chain(alone)
            .collect();

        let mut table = csv::WriterBuilder::new().delimiter(separator).from_writer(Vec::new());
        table.write_record(["Title", names[0], names[1]]).unwrap();
        for (number, (title, genres)) in (1..).zip(&films) {
            let id = if names[0] == "file_name" { format!("a/{number}.jpg") } else { number.to_string() };
            table.write_record([title, &id, &cell(genres)]).unwrap();
        }
        let table = String::from_utf8(table.into_inner().unwrap()).unwrap();
        let parsed = Options::default().parse(Path::new("table.csv"), &encode(&table)).unwrap();

        prop_assert_eq!((&parsed.skipped, &parsed.warnings), (&vec![], &vec![]), "{}", table);
        let read: Vec<_> = parsed.rows.iter().map(|film| (film.id.to_string(), &film.genres)).collect();
        let written: Vec<_> =
            (1..).zip(&films).map(|(number, (_, genres))| (format!("tt{number:07}"), genres)).collect();
        prop_assert_eq!(read, written, "{}", table);
    }
}
