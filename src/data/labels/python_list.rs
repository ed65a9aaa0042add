//! The one piece of Python in label tables: a list of strings, `['Comedy', 'Drama']`. Read, never evaluated.

/// Reads a Python list of strings, `['A', "B"]`, and nothing else of Python.
pub(super) fn parse(cell: &str) -> Result<Vec<String>, String> {
    let inside = cell.strip_prefix('[').ok_or("a list begins with [")?;
    let mut rest = inside.trim_start();
    let mut items = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(']') {
            return if after.trim().is_empty() { Ok(items) } else { Err("text after the list's ]".to_owned()) };
        }
        let (item, after) = string(rest)?;
        items.push(item);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with(']') => {}
            None => {
                return Err("a list of strings in quotes, with commas between, was expected".to_owned());
            }
        }
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

    #[test]
    fn a_python_list_is_read_and_never_evaluated() {
        let read = |cell: &str| parse(cell).map_err(|_| ());
        let strings = |items: &[&str]| Ok(items.iter().map(|item| item.to_string()).collect());
        assert_eq!(read("['Comedy', 'Drama']"), strings(&["Comedy", "Drama"]));
        assert_eq!(read(r#"[ "Film-Noir" ,'D\'Art', "a\\b", ]"#), strings(&["Film-Noir", "D'Art", "a\\b"]));
        assert_eq!(read("[]"), strings(&[]));
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
            "['A'] x",
        ] {
            assert_eq!(read(bad), Err(()), "{bad}");
        }
    }
}
