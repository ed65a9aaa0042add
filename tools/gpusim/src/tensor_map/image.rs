//! A tensor map as the 128 bytes that a program passes around.

use super::{Element, RANK, Shape, Swizzle, TensorMap};

/// The first word of a map.
const MARK: u64 = u64::from_le_bytes(*b"gpusimTM");

/// 128 bytes.
pub type Words = [u64; 16];

/// Packs numbers of `bits` bits each, the first lowest.
fn pack<const N: usize>(values: [u64; N], bits: u32) -> u64 {
    values.iter().rev().fold(0, |word, value| word << bits | value & ((1 << bits) - 1))
}

/// The `index`th number of `bits` bits.
fn field(word: u64, index: usize, bits: u32) -> u64 {
    word >> (index as u32 * bits) & ((1 << bits) - 1)
}

impl TensorMap {
    /// As words: a mark, the address, extents, strides, then everything small.
    #[must_use]
    pub fn encode(&self) -> Words {
        let mut words = [0; 16];
        words[0] = MARK;
        words[1] = self.address;
        words[2..7].copy_from_slice(&self.extents);
        words[7..11].copy_from_slice(&self.strides[1..]);
        let kind = u64::from(matches!(self.shape, Shape::Im2col { .. }));
        let small = [self.element as u64, self.rank as u64, self.swizzle as u64, u64::from(self.nan), kind];
        words[11] = pack(small, 8);
        words[12] = pack(self.steps.map(u64::from), 8);
        match self.shape {
            Shape::Tiled(extents) => words[13] = pack(extents.map(u64::from), 12),
            Shape::Im2col { lower, upper, channels, pixels } => {
                words[13] = pack(lower.map(|offset| offset as u64), 16);
                words[14] = pack(upper.map(|offset| offset as u64), 16);
                words[15] = pack([u64::from(channels), u64::from(pixels)], 16);
            }
        }
        words
    }

    /// From words; none if they are no map.
    #[must_use]
    pub fn decode(words: &Words) -> Option<Self> {
        if words[0] != MARK {
            return None;
        }
        let small = |index| field(words[11], index, 8) as usize;
        let element = *Element::ALL.get(small(0))?;
        let mut strides = [u64::from(element.bytes()); RANK];
        strides[1..].copy_from_slice(&words[7..11]);
        let corner = |word: u64| std::array::from_fn(|i| i32::from(field(word, i, 16) as i16));
        let shape = match small(4) {
            0 => Shape::Tiled(std::array::from_fn(|i| field(words[13], i, 12) as u32)),
            1 => Shape::Im2col {
                lower: corner(words[13]),
                upper: corner(words[14]),
                channels: field(words[15], 0, 16) as u32,
                pixels: field(words[15], 1, 16) as u32,
            },
            _ => return None,
        };
        Some(Self {
            element,
            rank: Some(small(1)).filter(|rank| (1..=RANK).contains(rank))?,
            address: words[1],
            extents: std::array::from_fn(|i| words[2 + i]),
            strides,
            shape,
            steps: std::array::from_fn(|i| field(words[12], i, 8) as u32),
            swizzle: *Swizzle::ALL.get(small(2))?,
            nan: small(3) != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_survives_its_bytes() {
        let (extents, strides) = ([64, 14, 1 << 32, 2], [128, 1792, (1 << 40) - 16]);
        let swizzle = Swizzle::Within128;
        let tiled = TensorMap::tiled(
            Element::Bf16,
            1 << 47,
            &extents,
            &strides,
            &[64, 256, 1, 3],
            &[1, 2, 8, 1],
            swizzle,
            true,
        );
        let filter = TensorMap::im2col(
            Element::Tf32,
            512,
            &extents,
            &strides,
            &[-128, -3],
            &[127, -9],
            32,
            1024,
            &[1; 4],
            swizzle,
            false,
        );
        for map in [tiled.unwrap(), filter.unwrap()] {
            assert_eq!(TensorMap::decode(&map.encode()), Some(map));
        }
        assert_eq!(TensorMap::decode(&[0; 16]), None);
    }
}
