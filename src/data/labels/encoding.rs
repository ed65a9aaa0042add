//! From the bytes of a table to text: UTF-8, Latin-1, and UTF-16 where a byte order mark says so.

use std::borrow::Cow;

/// The byte order marks of UTF-16, little end first and big end first.
const UTF16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// `bytes` without a byte order mark; UTF-16 becomes UTF-8.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, [u8]> {
    if let Some(bytes) = bytes.strip_prefix(b"\xef\xbb\xbf") {
        return Cow::Borrowed(bytes);
    }
    let unit: fn([u8; 2]) -> u16 = match bytes {
        _ if bytes.starts_with(&UTF16[0]) => u16::from_le_bytes,
        _ if bytes.starts_with(&UTF16[1]) => u16::from_be_bytes,
        _ => return Cow::Borrowed(bytes),
    };
    // A last odd byte is half a letter; half a pair of surrogates becomes the replacement character.
    let units = bytes[2..].chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let letters = char::decode_utf16(units).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER));
    Cow::Owned(letters.collect::<String>().into_bytes())
}

/// Whether `bytes` begin like UTF-16.
pub(super) fn is_utf16(bytes: &[u8]) -> bool {
    UTF16.iter().any(|mark| bytes.starts_with(mark))
}

/// `bytes` as text: UTF-8 where it is that, else Latin-1, in which every byte is a character.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_taken_off_and_utf16_becomes_utf8() {
        assert_eq!(&*decode(b"\xef\xbb\xbfId"), b"Id");
        assert_eq!(&*decode(b"\xff\xfeI\0d\0\xe9\0"), "Idé".as_bytes());
        assert_eq!(&*decode(b"\xfe\xff\0I\0d\0\xe9"), "Idé".as_bytes());
        assert_eq!(&*decode(b"\xff\xfe\x3d\xd8\x00\xde"), "😀".as_bytes());
        assert_eq!(&*decode(b"\xff\xfeI\0\x3d\xd8d"), "I\u{fffd}".as_bytes());
        assert_eq!(&*decode(b"I\0d\0"), b"I\0d\0");
        assert_eq!(text(b"Am\xe9lie"), "Amélie");
    }
}
