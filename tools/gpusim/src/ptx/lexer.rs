//! Cuts PTX text into tokens, each with its line.

use super::ParseError;

/// One lexical element of PTX.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// A register, label, variable or opcode stem: `%r1`, `$L__BB0_3`, `mov`.
    Word(String),
    /// A directive or modifier, without its dot: `.visible`, `.global`, `.shared::cta`, `.m16n8k16`.
    Dot(String),
    /// An integer literal, two's complement in 64 bits.
    Integer(u64),
    /// `0f…`: the bits of a single.
    Single(u32),
    /// `0d…` or a decimal literal: the bits of a double.
    Double(u64),
    /// A quoted string, without its quotes.
    Text(String),
    /// Any other character that means something: `{ } ( ) [ ] , ; : @ ! | + - = < >`.
    Mark(char),
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub struct Lexeme {
    /// What it is.
    pub token: Token,
    /// The line it stands on, from 1.
    pub line: u32,
}

fn is_word_start(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%')
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$')
}

/// Cuts `text` into tokens; comments vanish, and so do the line-oriented debug directives `.loc` and `.file`.
///
/// # Errors
/// A character that PTX doesn't know, a malformed number, an open comment or string.
pub fn lex(text: &str) -> Result<Vec<Lexeme>, ParseError> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len() / 4);
    let (mut i, mut line) = (0, 1u32);
    while i < bytes.len() {
        let c = bytes[i];
        let start = i;
        let rest = &bytes[i..];
        if c == b'\n' {
            line += 1;
            i += 1;
        } else if c.is_ascii_whitespace() || c == 0 {
            i += 1;
        } else if rest.starts_with(b"//") {
            i += rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            let Some(length) = rest.windows(2).position(|pair| pair == b"*/") else {
                return Err(ParseError::new(line, "a comment that never ends"));
            };
            line += rest[..length].iter().filter(|&&b| b == b'\n').count() as u32;
            i += length + 2;
        } else if c == b'"' {
            let Some(length) = rest[1..].iter().position(|&b| b == b'"') else {
                return Err(ParseError::new(line, "a string that never ends"));
            };
            let inside = &text[i + 1..i + 1 + length];
            out.push(Lexeme { token: Token::Text(inside.to_owned()), line });
            line += inside.matches('\n').count() as u32;
            i += length + 2;
        } else if is_word_start(c) {
            i += 1;
            while i < bytes.len() && is_word(bytes[i]) {
                i += 1;
            }
            out.push(Lexeme { token: Token::Word(text[start..i].to_owned()), line });
        } else if c == b'.' {
            i += 1;
            while i < bytes.len() && (is_word(bytes[i]) || bytes[i..].starts_with(b"::")) {
                i += if bytes[i] == b':' { 2 } else { 1 };
            }
            let word = &text[start + 1..i];
            if matches!(word, "loc" | "file") {
                i += bytes[i..].iter().position(|&b| b == b'\n').unwrap_or(bytes.len() - i);
            } else {
                out.push(Lexeme { token: Token::Dot(word.to_owned()), line });
            }
        } else if c.is_ascii_digit() {
            let (token, length) = number(&text[i..]).ok_or_else(|| ParseError::new(line, "a malformed number"))?;
            out.push(Lexeme { token, line });
            i += length;
        } else if b"{}()[],;:@!|+-=<>".contains(&c) {
            out.push(Lexeme { token: Token::Mark(c as char), line });
            i += 1;
        } else {
            return Err(ParseError::new(line, format!("the character {:?}", c as char)));
        }
    }
    Ok(out)
}

/// The number at the start of `text` and its length.
fn number(text: &str) -> Option<(Token, usize)> {
    let bytes = text.as_bytes();
    let run = |from: usize, accept: fn(&u8) -> bool| from + bytes[from..].iter().take_while(|b| accept(b)).count();
    let radix = |prefix: usize, radix: u32, accept: fn(&u8) -> bool| {
        let end = run(prefix, accept);
        let value = u64::from_str_radix(&text[prefix..end], radix).ok()?;
        let end = end + usize::from(bytes.get(end).is_some_and(|&b| b == b'U'));
        Some((Token::Integer(value), end))
    };
    if bytes[0] == b'0' && bytes.len() > 1 {
        match bytes[1] {
            b'f' | b'F' => {
                let bits = u32::from_str_radix(text.get(2..10)?, 16).ok()?;
                return Some((Token::Single(bits), 10));
            }
            b'd' | b'D' => {
                let bits = u64::from_str_radix(text.get(2..18)?, 16).ok()?;
                return Some((Token::Double(bits), 18));
            }
            b'x' | b'X' => return radix(2, 16, u8::is_ascii_hexdigit),
            b'b' | b'B' => return radix(2, 2, |b| matches!(b, b'0' | b'1')),
            b'0'..=b'7' => return radix(1, 8, |b| (b'0'..=b'7').contains(b)),
            _ => {}
        }
    }
    let end = run(0, u8::is_ascii_digit);
    let fraction = bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
    if fraction || matches!(bytes.get(end), Some(b'e' | b'E')) {
        let mut stop = if fraction { run(end + 1, u8::is_ascii_digit) } else { end };
        if matches!(bytes.get(stop), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(stop + 1), Some(b'+' | b'-')));
            stop = run(stop + 1 + sign, u8::is_ascii_digit);
        }
        let value: f64 = text[..stop].parse().ok()?;
        return Some((Token::Double(value.to_bits()), stop));
    }
    radix(0, 10, u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        lex(text).unwrap().into_iter().map(|lexeme| lexeme.token).collect()
    }

    #[test]
    fn numbers_keep_their_bits() {
        assert_eq!(
            tokens("0f3F800000 0d3FF0000000000000 0x1F 017 0b101 42U 1.5 0"),
            [
                Token::Single(0x3F80_0000),
                Token::Double(1.0f64.to_bits()),
                Token::Integer(31),
                Token::Integer(15),
                Token::Integer(5),
                Token::Integer(42),
                Token::Double(1.5f64.to_bits()),
                Token::Integer(0),
            ]
        );
    }

    #[test]
    fn lines_are_counted_through_comments_and_debug_directives() {
        let text = "// one\n/* two\nthree */ .loc 1 2 3\nadd.s32 %r1, %r2, -1;";
        let lexemes = lex(text).unwrap();
        assert!(lexemes.iter().all(|lexeme| lexeme.line == 4));
        assert_eq!(lexemes[0].token, Token::Word("add".into()));
        assert_eq!(lexemes[1].token, Token::Dot("s32".into()));
    }

    #[test]
    fn scoped_modifiers_are_one_token() {
        let expected = [Token::Word("cp".into()), Token::Dot("shared::cta".into()), Token::Dot("L2::128B".into())];
        assert_eq!(tokens("cp.shared::cta.L2::128B"), expected);
    }

    #[test]
    fn an_unknown_character_is_an_error_with_its_line() {
        assert_eq!(lex("mov\n#").unwrap_err().line, 2);
    }
}
