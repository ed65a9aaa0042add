//! Protocol buffers, as far as TensorBoard's event files and ONNX take them: <https://protobuf.dev/programming-guides/encoding>.
//!
//! A message is its fields one after the other, each a tag (the field's number and how its value is written) and a value. One in
//! another stands behind its length, so it is written first.

/// How a value is written.
#[derive(Clone, Copy)]
enum Wire {
    /// An integer in as many bytes as it needs, seven bits in each.
    Varint = 0,
    /// Eight bytes.
    Fixed64 = 1,
    /// So many bytes, their number in front.
    Bytes = 2,
    /// Four bytes.
    Fixed32 = 5,
}

/// The bytes of a message.
#[derive(Clone, Debug, Default)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// An integer of any kind, or an enumeration.
    pub fn integer(&mut self, field: u32, value: i64) -> &mut Self {
        self.tag(field, Wire::Varint);
        // Of a negative one all 64 bits, as the format has it.
        self.varint(value as u64);
        self
    }

    pub fn float(&mut self, field: u32, value: f32) -> &mut Self {
        self.tag(field, Wire::Fixed32);
        self.append(&value.to_le_bytes())
    }

    pub fn double(&mut self, field: u32, value: f64) -> &mut Self {
        self.tag(field, Wire::Fixed64);
        self.append(&value.to_le_bytes())
    }

    /// A repeated field in one piece.
    pub fn doubles(&mut self, field: u32, values: &[f64]) -> &mut Self {
        self.raw(field, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
    }

    pub fn text(&mut self, field: u32, value: &str) -> &mut Self {
        self.raw(field, value.as_bytes())
    }

    pub fn message(&mut self, field: u32, value: &Message) -> &mut Self {
        self.raw(field, &value.bytes)
    }

    pub fn raw(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.announce(field, value.len()).append(value)
    }

    /// The beginning of a field of so many bytes, which belong behind it.
    pub fn announce(&mut self, field: u32, bytes: usize) -> &mut Self {
        self.tag(field, Wire::Bytes);
        self.varint(bytes as u64);
        self
    }

    /// What belongs behind [`announce`](Self::announce).
    pub fn append(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    fn tag(&mut self, field: u32, wire: Wire) {
        self.varint(u64::from((field << 3) | wire as u32));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

/// A value as it is read: an integer, the bytes of anything else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message; none where the bytes are none.
pub fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Field<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (tag, rest) = varint(bytes)?;
        let (value, rest) = match tag & 7 {
            0 => varint(rest).map(|(value, rest)| (Field::Integer(value), rest))?,
            1 => rest.split_at_checked(8).map(|(value, rest)| (Field::Bytes(value), rest))?,
            2 => {
                let (length, rest) = varint(rest)?;
                let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Field::Bytes(value), rest)
            }
            5 => rest.split_at_checked(4).map(|(value, rest)| (Field::Bytes(value), rest))?,
            _ => return None,
        };
        found.push((u32::try_from(tag >> 3).ok()?, value));
        bytes = rest;
    }
    Some(found)
}

/// The integer at the beginning of `bytes`, and what is behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = 1 + bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let value = bytes[..length].iter().rev().fold(0, |value: u64, byte| (value << 7) | u64::from(byte & 0x7f));
    Some((value, &bytes[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's own description, and the largest and the least number.
    #[test]
    fn fields_are_written_as_the_format_has_them_and_read_again() {
        let written = |write: &dyn Fn(&mut Message)| {
            let mut message = Message::default();
            write(&mut message);
            message.bytes
        };
        assert_eq!(written(&|message| _ = message.integer(1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(written(&|message| _ = message.integer(1, -2)), b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        // Field 16 is the first whose tag takes two bytes; 127 and 128 are a length of one byte and one of two.
        assert_eq!(written(&|message| _ = message.announce(15, 127)), [0x7a, 127]);
        assert_eq!(written(&|message| _ = message.announce(16, 128)), [0x82, 0x01, 0x80, 0x01]);
        let mut inner = Message::default();
        inner.integer(1, 150);
        let mut message = Message::default();
        message
            .text(2, "testing")
            .message(3, &inner)
            .float(4, 1.5)
            .double(5, -2.0)
            .doubles(16, &[1.0, 0.0])
            .integer(17, -1);
        let [one, minus_two] = [1.0_f64, -2.0].map(f64::to_le_bytes);
        let expected = [
            &b"\x12\x07testing\x1a\x03\x08\x96\x01\x25\0\0\xc0\x3f\x29"[..],
            &minus_two,
            &[0x82, 0x01, 16],
            &one,
            &[0; 8],
            &[0x88, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ];
        assert_eq!(message.bytes(), expected.concat());
        let read = fields(message.bytes()).unwrap();
        assert_eq!(read.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 3, 4, 5, 16, 17]);
        assert_eq!((read[0].1, read[1].1), (Field::Bytes(b"testing"), Field::Bytes(inner.bytes())));
        assert_eq!((read[3].1, read[5].1), (Field::Bytes(&minus_two), Field::Integer(u64::MAX)));
        // Cut off anywhere inside a field, it is none.
        let ends = [0, 9, 14, 19, 28, 47, message.bytes().len()];
        for cut in 0..=message.bytes().len() {
            assert_eq!(fields(&message.bytes()[..cut]).is_some(), ends.contains(&cut), "{cut}");
        }
        assert_eq!(fields(&[0x0b]), None, "a kind of value that there is not");
    }
}
