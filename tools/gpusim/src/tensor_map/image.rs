//! A tensor map as the 128 bytes that a program passes around, or makes itself by `tensormap.replace`: of zeros, which are
//! a map of nothing yet.

use super::{Element, RANK, Shape, Swizzle, TensorMap, Wrong};

/// The first word of a map.
const MARK: u64 = u64::from_le_bytes(*b"gpusimTM");

/// 128 bytes.
pub type Words = [u64; 16];

/// Bytes that can't be used as a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Somebody else's.
    #[error("these 128 bytes are none (cuTensorMapEncodeTiled and cuTensorMapEncodeIm2col make them)")]
    NoMap,
    /// A map that breaks a rule.
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

/// What a program can replace in a map for tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are PTX's own")]
pub enum Field {
    GlobalAddress,
    Rank,
    BoxDim,
    GlobalDim,
    GlobalStride,
    ElementStride,
    Elemtype,
    InterleaveLayout,
    SwizzleMode,
    SwizzleAtomicity,
    FillMode,
}

impl Field {
    /// By their names in an instruction.
    pub const NAMES: [(&str, Self); 11] = [
        ("global_address", Self::GlobalAddress),
        ("rank", Self::Rank),
        ("box_dim", Self::BoxDim),
        ("global_dim", Self::GlobalDim),
        ("global_stride", Self::GlobalStride),
        ("element_stride", Self::ElementStride),
        ("elemtype", Self::Elemtype),
        ("interleave_layout", Self::InterleaveLayout),
        ("swizzle_mode", Self::SwizzleMode),
        ("swizzle_atomicity", Self::SwizzleAtomicity),
        ("fill_mode", Self::FillMode),
    ];

    /// Dimensions for which a map has a value of its own; 0 where it has one for all.
    #[must_use]
    pub fn dimensions(self) -> usize {
        match self {
            Self::BoxDim | Self::GlobalDim | Self::ElementStride => RANK,
            Self::GlobalStride => RANK - 1,
            _ => 0,
        }
    }
}

/// The element types in the order that `tensormap.replace` numbers them.
const ELEMTYPES: [Element; 13] = [
    Element::U8,
    Element::U16,
    Element::U32,
    Element::S32,
    Element::U64,
    Element::S64,
    Element::F16,
    Element::F32,
    Element::F32Ftz,
    Element::F64,
    Element::Bf16,
    Element::Tf32,
    Element::Tf32Ftz,
];

/// Bits of a number in the words of small ones: element, rank, swizzle, fill and kind; the box; the steps.
const SMALL: u32 = 8;
const BOX: u32 = 12;
const STEP: u32 = 8;

/// Packs numbers of `bits` bits each, the first lowest.
fn pack<const N: usize>(values: [u64; N], bits: u32) -> u64 {
    values.iter().rev().fold(0, |word, value| word << bits | value & ((1 << bits) - 1))
}

/// Puts a number of `bits` bits, which it must fit, at the `index`th place.
fn put(word: &mut u64, index: usize, bits: u32, value: u64, name: &'static str) -> Result<(), Wrong> {
    if value >> bits != 0 {
        return Err(Wrong { parameter: name, found: value.to_string(), rule: "no map has room for it" });
    }
    let shift = index as u32 * bits;
    *word = *word & !(((1 << bits) - 1) << shift) | value << shift;
    Ok(())
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
        words[11] = pack(small, SMALL);
        words[12] = pack(self.steps.map(u64::from), STEP);
        match self.shape {
            Shape::Tiled(extents) => words[13] = pack(extents.map(u64::from), BOX),
            Shape::Im2col { lower, upper, channels, pixels } => {
                words[13] = pack(lower.map(|offset| offset as u64), 16);
                words[14] = pack(upper.map(|offset| offset as u64), 16);
                words[15] = pack([u64::from(channels), u64::from(pixels)], 16);
            }
        }
        words
    }

    /// From words.
    ///
    /// # Errors
    /// They are no map, or one that breaks a rule.
    pub fn decode(words: &Words) -> Result<Self, Broken> {
        let small = |index| field(words[11], index, SMALL) as usize;
        let (element, swizzle) = (Element::ALL.get(small(0)), Swizzle::ALL.get(small(2)));
        let (MARK, Some(&element), Some(&swizzle), rank @ 0..=RANK, kind @ 0..=1) =
            (words[0], element, swizzle, small(1), small(4))
        else {
            return Err(Broken::NoMap);
        };
        let (address, nan) = (words[1], small(3) != 0);
        let (extents, strides) = (&words[2..2 + rank], &words[7..7 + rank.saturating_sub(1)]);
        let steps: [u32; RANK] = std::array::from_fn(|i| field(words[12], i, STEP) as u32);
        let steps = &steps[..rank];
        if kind == 0 {
            let box_: [u32; RANK] = std::array::from_fn(|i| field(words[13], i, BOX) as u32);
            return Ok(Self::tiled(element, address, extents, strides, &box_[..rank], steps, swizzle, nan)?);
        }
        let corner = |word: u64| -> [i32; 3] { std::array::from_fn(|i| i32::from(field(word, i, 16) as i16)) };
        let (lower, upper) = (corner(words[13]), corner(words[14]));
        let (channels, pixels) = (field(words[15], 0, 16) as u32, field(words[15], 1, 16) as u32);
        let spatial = rank.saturating_sub(2).min(3);
        let (lower, upper) = (&lower[..spatial], &upper[..spatial]);
        Ok(Self::im2col(element, address, extents, strides, lower, upper, channels, pixels, steps, swizzle, nan)?)
    }
}

/// Replaces a field of a map for tiles; of `dimension`, where it has one for each. The map as a whole is looked at when it
/// is used.
///
/// # Errors
/// No map, or a value that no map can have.
pub fn replace(words: &mut Words, what: Field, dimension: usize, value: u64) -> Result<(), Broken> {
    let blank = words.iter().all(|&word| word == 0);
    if !blank && (words[0] != MARK || field(words[11], 4, SMALL) != 0) {
        return Err(Broken::NoMap);
    }
    words[0] = MARK;
    let wrong = |parameter, rule| Err(Wrong { parameter, found: value.to_string(), rule }.into());
    match what {
        Field::GlobalAddress => words[1] = value,
        Field::GlobalDim => words[2 + dimension] = value,
        Field::GlobalStride => words[7 + dimension] = value,
        Field::BoxDim => put(&mut words[13], dimension, BOX, value, "box_dim")?,
        Field::ElementStride => put(&mut words[12], dimension, STEP, value, "element_stride")?,
        // Counted from 0.
        Field::Rank if value < RANK as u64 => put(&mut words[11], 1, SMALL, value + 1, "rank")?,
        Field::Rank => return wrong("rank", "0 to 4 are possible, one less than dimensions"),
        Field::Elemtype => match ELEMTYPES.get(value as usize) {
            Some(&element) => put(&mut words[11], 0, SMALL, element as u64, "elemtype")?,
            None => return wrong("elemtype", "0 to 12 are supported"),
        },
        Field::SwizzleMode if value < Swizzle::ALL.len() as u64 => {
            put(&mut words[11], 2, SMALL, value, "swizzle_mode")?;
        }
        Field::SwizzleMode => return wrong("swizzle_mode", "0 to 3 are supported"),
        Field::FillMode if value < 2 => put(&mut words[11], 3, SMALL, value, "fill_mode")?,
        Field::FillMode => return wrong("fill_mode", "0 and 1 are possible"),
        Field::InterleaveLayout | Field::SwizzleAtomicity if value == 0 => {}
        Field::InterleaveLayout => return wrong("interleave_layout", "only 0 is supported"),
        Field::SwizzleAtomicity => return wrong("swizzle_atomicity", "only 0 is supported"),
    }
    Ok(())
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
            assert_eq!(TensorMap::decode(&map.encode()), Ok(map));
        }
        assert_eq!(TensorMap::decode(&[0; 16]), Err(Broken::NoMap));
    }

    #[test]
    fn a_map_is_made_of_zeros() {
        let fields = [
            (Field::GlobalAddress, 0, 4096),
            (Field::Rank, 0, 1),
            (Field::BoxDim, 0, 32),
            (Field::BoxDim, 1, 256),
            (Field::GlobalDim, 0, 70),
            (Field::GlobalDim, 1, 1 << 31),
            (Field::GlobalStride, 0, 288),
            (Field::ElementStride, 0, 1),
            (Field::ElementStride, 1, 2),
            (Field::Elemtype, 0, 10),
            (Field::InterleaveLayout, 0, 0),
            (Field::SwizzleMode, 0, 2),
            (Field::FillMode, 0, 1),
        ];
        let made = |skip: Option<usize>| {
            let mut words = [0; 16];
            for (_, &(what, dimension, value)) in fields.iter().enumerate().filter(|&(i, _)| Some(i) != skip) {
                replace(&mut words, what, dimension, value).unwrap();
            }
            TensorMap::decode(&words)
        };
        let (extents, swizzle) = ([70, 1 << 31], Swizzle::Within64);
        let expected = TensorMap::tiled(Element::Bf16, 4096, &extents, &[288], &[32, 256], &[1, 2], swizzle, true);
        assert_eq!(made(None), Ok(expected.unwrap()));
        // A box that was forgotten.
        assert!(matches!(made(Some(3)), Err(Broken::Wrong(Wrong { parameter: "boxDim", .. }))), "{:?}", made(Some(3)));
        let mut others = [7; 16];
        assert_eq!(replace(&mut others, Field::Rank, 0, 1), Err(Broken::NoMap));
        let mut words = [0; 16];
        assert!(replace(&mut words, Field::Rank, 0, 5).is_err());
        assert!(replace(&mut words, Field::BoxDim, 0, 1 << 12).is_err());
        assert!(replace(&mut words, Field::InterleaveLayout, 0, 1).is_err());
    }
}
