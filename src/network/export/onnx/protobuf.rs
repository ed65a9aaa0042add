//! Protocol buffers, as far as writing ONNX takes them: <https://protobuf.dev/programming-guides/encoding>.
//!
//! A message is its fields one after the other, each a tag (the field's number and how its value is written) and a value. One in
//! another stands behind its length, so it is written first.

/// How a value is written.
#[derive(Clone, Copy)]
enum Wire {
    /// An integer in as many bytes as it needs, seven bits in each.
    Varint = 0,
    /// So many bytes, their number in front.
    Bytes = 2,
    /// Four bytes.
    Fixed32 = 5,
}

/// The bytes of a message.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A signed integer or an enumeration.
    pub fn integer(&mut self, field: u32, value: i64) -> &mut Self {
        self.tag(field, Wire::Varint);
        // Of a negative one all 64 bits, as the format has it.
        self.varint(value as u64);
        self
    }

    pub fn float(&mut self, field: u32, value: f32) -> &mut Self {
        self.tag(field, Wire::Fixed32);
        self.bytes.extend(value.to_le_bytes());
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's own description, and the largest and the least number.
    #[test]
    fn fields_are_written_as_the_format_has_them() {
        let written = |write: &dyn Fn(&mut Message)| {
            let mut message = Message::default();
            write(&mut message);
            message.bytes
        };
        assert_eq!(written(&|message| _ = message.integer(1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(written(&|message| _ = message.text(2, "testing")), b"\x12\x07testing");
        let inner = Message { bytes: vec![0x08, 0x96, 0x01] };
        assert_eq!(written(&|message| _ = message.message(3, &inner)), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(written(&|message| _ = message.integer(1, -2)), b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        assert_eq!(written(&|message| _ = message.float(2, 1.5)), [0x15, 0, 0, 0xc0, 0x3f]);
        // Field 16 is the first whose tag takes two bytes; 127 and 128 are a length of one byte and one of two.
        assert_eq!(written(&|message| _ = message.integer(16, 0)), [0x80, 0x01, 0]);
        assert_eq!(written(&|message| _ = message.announce(1, 127)), [0x0a, 127]);
        assert_eq!(written(&|message| _ = message.announce(1, 128)), [0x0a, 0x80, 0x01]);
    }
}
