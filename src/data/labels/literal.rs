//! Lists in a cell: Python's lists, tuples and sets of strings, JSON's lists, and lists of objects that have a `name`, as TMDb
//! writes them in either. Read, never evaluated.

use serde::Deserialize;

/// An item of a JSON list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Name(String),
    Object { name: String },
}

/// Whether `cell` is a list, by its first letter.
pub(super) fn is_list(cell: &str) -> bool {
    cell.starts_with(['[', '(', '{'])
}

/// Reads `['A', "B"]`, `('A', 'B')`, `{'A', 'B'}` or `[{"id": 1, "name": "A"}]`, and nothing else of Python or JSON.
pub(super) fn parse(cell: &str) -> Result<Vec<String>, String> {
    // JSON has escapes that Python's way of writing a string has not.
    if let Ok(items) = serde_json::from_str::<Vec<Item>>(cell) {
        let name = |item| match item {
            Item::Name(name) | Item::Object { name } => name,
        };
        return Ok(items.into_iter().map(name).collect());
    }
    let end = match cell.chars().next() {
        Some('[') => ']',
        Some('(') => ')',
        Some('{') => '}',
        _ => return Err("a list begins with [, ( or {".to_owned()),
    };
    let mut rest = cell[1..].trim_start();
    let mut items = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(end) {
            return if after.trim().is_empty() { Ok(items) } else { Err(format!("text after the list's {end}")) };
        }
        let (item, after) = if rest.starts_with('{') { object(rest)? } else { string(rest)? };
        items.push(item);
        rest = after_comma(after, end)
            .ok_or_else(|| "a list of strings in quotes, with commas between, was expected".to_owned())?;
    }
}

/// What follows the comma at the head of `text`, which may be missing before the `end`.
fn after_comma(text: &str, end: char) -> Option<&str> {
    let text = text.trim_start();
    text.strip_prefix(',').map(str::trim_start).or_else(|| text.starts_with(end).then_some(text))
}

/// Reads `{'id': 1, 'name': 'A'}` at the head of `text`: its name, and what comes after it.
fn object(text: &str) -> Result<(String, &str), String> {
    let wrong = || "an object with a name, as {'id': 1, 'name': 'A'}, was expected".to_owned();
    let mut rest = text[1..].trim_start();
    let mut name = None;
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return name.map(|name| (name, after)).ok_or_else(wrong);
        }
        let (key, after) = string(rest)?;
        let value = after.trim_start().strip_prefix(':').ok_or_else(wrong)?.trim_start();
        let after = if value.starts_with(['\'', '"']) {
            let (value, after) = string(value)?;
            if key == "name" {
                name = Some(value);
            }
            after
        } else {
            // A number, True, null and their like: of no interest.
            value.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
        };
        rest = after_comma(after, '}').ok_or_else(wrong)?;
    }
}

/// Reads a Python string literal at the head of `text`: its value, and what comes after it.
fn string(text: &str) -> Result<(String, &str), String> {
    let mut letters = text.char_indices();
    let quote = match letters.next() {
        Some((_, quote @ ('\'' | '"'))) => quote,
        _ => return Err("a list of strings in quotes was expected".to_owned()),
    };
    let mut value = String::new();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some((_, escaped @ ('\\' | '\'' | '"'))) => value.push(escaped),
                _ => return Err("an escape other than \\\\, \\' and \\\"".to_owned()),
            },
            _ if letter == quote => return Ok((value, &text[at + 1..])),
            _ => value.push(letter),
        }
    }
    Err("a string that is never closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cell: &str) -> Result<Vec<String>, ()> {
        parse(cell).map_err(|_| ())
    }

    fn strings(items: &[&str]) -> Result<Vec<String>, ()> {
        Ok(items.iter().map(|item| item.to_string()).collect())
    }

    #[test]
    fn lists_tuples_sets_and_objects() {
        for (cell, expected) in [
            ("['Comedy', 'Drama']", strings(&["Comedy", "Drama"])),
            (r#"[ "Film-Noir" ,'D\'Art', "a\\b", ]"#, strings(&["Film-Noir", "D'Art", "a\\b"])),
            ("['A',\n'B']", strings(&["A", "B"])),
            ("[]", strings(&[])),
            ("('Comedy',)", strings(&["Comedy"])),
            ("('A', 'B')", strings(&["A", "B"])),
            ("{'A', \"B\"}", strings(&["A", "B"])),
            (r#"["A\u00e9", "a\/b"]"#, strings(&["Aé", "a/b"])),
            (
                r#"[{"id": 18, "name": "Drama"}, {"name": "War", "adult": false, "x": null}]"#,
                strings(&["Drama", "War"]),
            ),
            (
                "[{'id': 18, 'name': 'Drama'}, {'name': \"D'Art\", 'x': False, 'y': 'z', }]",
                strings(&["Drama", "D'Art"]),
            ),
        ] {
            assert_eq!(read(cell), expected, "{cell}");
        }
    }

    #[test]
    fn a_list_is_read_and_never_evaluated() {
        for bad in [
            "[",
            "['A'",
            "['A",
            "['A' 'B']",
            "[A]",
            "['A'] + ['B']",
            "[['A']]",
            "[,]",
            "['A',,'B']",
            "[__import__('os')]",
            r"['\x41']",
            "['A\\",
            "[None]",
            "[1]",
            "['A'] x",
            "['A')",
            "('A'}",
            "{'id': 'A'}",
            "[{'id': 1}]",
            "[{'name': 1}]",
            "[{'name': ['A']}]",
            "[{'name' 'A'}]",
            "[{\"name\": \"A\"",
        ] {
            assert_eq!(read(bad), Err(()), "{bad}");
        }
        assert_eq!(read(&"[".repeat(60_000)), Err(()));
        assert_eq!(read(&"[{'name':".repeat(6_000)), Err(()));
    }
}
