//! What is in a cell of genres, in whatever form, and one name for one genre.

use std::path::Path;

use onesheet::data::labels::{LabelError, Options, Warning};

use crate::{clean, films, parse, skipped};

#[test]
fn every_separator_is_found_and_told() {
    for (cells, told) in [
        (["Comedy|Sci-Fi", "Sci-Fi|Comedy"], "`|`"),
        (["Comedy, Sci-Fi", "Sci-Fi, Comedy"], "`,`"),
        (["Comedy,Sci-Fi", "Sci-Fi,Comedy"], "`,`"),
        (["Comedy;Sci-Fi", "Sci-Fi; Comedy"], "`;`"),
        (["Comedy / Sci-Fi", "Sci-Fi/Comedy"], "`/`"),
        (["Comedy Sci-Fi", "Sci-Fi Comedy"], "a blank"),
    ] {
        let table = format!("Id,Genre\n1,\"{}\"\n2,\"{}\"\n3,Comedy\n4,N/A\n5,\"Comedy\"\n", cells[0], cells[1]);
        let table = parse(table).unwrap();
        assert_eq!(films(&table), ["1: Comedy|Sci-Fi", "2: Sci-Fi|Comedy", "3: Comedy", "5: Comedy"], "{told}");
        assert_eq!(skipped(&table), ["5: no genre"]);
        assert_eq!(table.dialect.to_string(), format!("ids from `Id`, genres from `Genre` separated by {told}"));
        assert_eq!(table.warnings, []);
    }
}

#[test]
fn lists_tuples_sets_and_json() {
    for cell in [
        "['Comedy', 'Sci-Fi']",
        "('Comedy', 'Sci-Fi')",
        "{'Comedy', 'Sci-Fi'}",
        r#"[""Comedy"", ""Sci-Fi""]"#,
        r#"[{""id"": 35, ""name"": ""Comedy""}, {""id"": 878, ""name"": ""Sci\u002dFi""}]"#,
        "[{'id': 35, 'name': 'Comedy'}, {'id': 878, 'name': 'Sci-Fi'}]",
    ] {
        assert_eq!(clean(format!("Id,Genre\n1,\"{cell}\"\n")), ["1: Comedy|Sci-Fi"], "{cell}");
    }
    // Lists and separated genres in one column.
    assert_eq!(clean("Id,Genre\n1,\"['A, B']\"\n2,C|D\n"), ["1: A, B", "2: C|D"]);
}

#[test]
fn a_separator_that_may_be_none_is_refused_with_what_to_say() {
    let table = "tconst;Genres\n1;Sci-Fi/Fantasy\n2;War\n3;Drama\n";
    let error = parse(table).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot tell whether `/` separates genres in the column `Genres` of table.csv: on line 2, `Sci-Fi/Fantasy` may be one genre \
         or several; say --genre-separator / if it is several, --genre-separator none if it is one"
    );
    assert!(matches!(error, LabelError::Separator { line: 2, .. }));
    for (said, first) in [("/", "1: Sci-Fi|Fantasy"), ("none", "1: Sci-Fi/Fantasy"), (",;", "1: Sci-Fi/Fantasy")] {
        let options = Options { genre_separator: Some(said.parse().unwrap()), ..Options::default() };
        let table = options.parse(Path::new("table.csv"), table.as_bytes()).unwrap();
        assert_eq!(films(&table), [first, "2: War", "3: Drama"], "{said}");
    }
    assert!(matches!(parse("Id,Genre\n1,\"Comedy, War\"\n"), Err(LabelError::Separator { .. })));
}

#[test]
fn names_of_several_words_stay_whole() {
    for name in ["Film-Noir", "Talk-Show", "Reality-TV", "Game Show", "Science Fiction", "Children's Film"] {
        let table = format!("Id,Genre\n1,{name}\n2,War\n3,{name}\n4,Drama\n");
        assert_eq!(clean(table), [format!("1: {name}"), "2: War".into(), format!("3: {name}"), "4: Drama".into()]);
    }
    assert_eq!(
        clean("Id,Genre\n1,\"Game Show, Sci-Fi/Fantasy\"\n2,Sci-Fi/Fantasy\n"),
        ["1: Game Show|Sci-Fi/Fantasy", "2: Sci-Fi/Fantasy"]
    );
}

#[test]
fn what_was_left_together_is_told() {
    let table = parse("Id,Genre\n1,War\n2,Action/Adventure\n3,War\n4,Action/Adventure\n5,War\n").unwrap();
    let [warning @ Warning::KeptTogether { genre, .. }] = &*table.warnings else { panic!("{:?}", table.warnings) };
    assert_eq!(genre, "Action/Adventure");
    assert!(warning.to_string().ends_with("if it separates genres, say --genre-separator /"), "{warning}");

    let table = parse("Id,Genre\n1,Comedy|Drama\n2,comedy/Drama\n3,Sci-Fi/Fantasy\n4,\"['Drama, Comedy']\"\n").unwrap();
    assert_eq!(films(&table)[1], "2: comedy/Drama");
    let several = [("comedy/Drama".to_owned(), 1), ("Drama, Comedy".to_owned(), 1)];
    assert_eq!(table.warnings, [Warning::MayBeSeveral(several.into())]);
}

#[test]
fn spellings_of_one_genre_are_merged_with_a_warning() {
    let table = parse(
        "Id,Genre\n1,SciFi|comedy\n2,Sci-Fi\n3,Comedy|COMEDY\n4,sci fi|Film-Noir\n5,Sci-Fi|Film Noir\n6,\"['Comedy']\"\n7,War\n",
    )
    .unwrap();
    // Of `Film-Noir` and `Film Noir`, which are as frequent, the first stays.
    assert_eq!(
        films(&table),
        [
            "1: Sci-Fi|Comedy",
            "2: Sci-Fi",
            "3: Comedy",
            "4: Sci-Fi|Film-Noir",
            "5: Sci-Fi|Film-Noir",
            "6: Comedy",
            "7: War"
        ]
    );
    let [warning] = &*table.warnings else { panic!("{:?}", table.warnings) };
    assert_eq!(
        warning.to_string(),
        "spellings of one genre are merged: `SciFi` (1 row), `sci fi` (1 row) into `Sci-Fi`, `comedy` (1 row), `COMEDY` (1 row) \
         into `Comedy`, `Film Noir` (1 row) into `Film-Noir`"
    );
}

#[test]
fn aliases_come_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("aliases.csv");
    std::fs::write(&file, "alias,genre\nScience Fiction,Sci-Fi\nSciFi,Sci-Fi\nRomcom,Romance\n").unwrap();
    let aliases = onesheet::data::labels::Aliases::read(&file).unwrap();
    let options = Options { aliases: Some(aliases), ..Options::default() };
    let table = b"Id,Genre\n1,science-fiction|scifi\n2,SCIFI\n3,romcom|Romance|War\n";
    let table = options.parse(Path::new("table.csv"), table).unwrap();
    assert_eq!(films(&table), ["1: Sci-Fi", "2: Sci-Fi", "3: Romance|War"]);
    assert_eq!(table.warnings, [], "what an alias names needs no warning");

    std::fs::write(&file, "alias,genre\nRomcom,Romance\nromcom,Comedy\n").unwrap();
    let message = onesheet::data::labels::Aliases::read(&file).unwrap_err().to_string();
    assert!(
        message.ends_with("aliases.csv: line 3 makes `romcom` `Comedy`, but line 2 makes it `Romance`"),
        "{message}"
    );
}
