//! Tensor maps: what `cuTensorMapEncode…` makes on the host and `cp.async.bulk.tensor` copies by.
//!
//! A map describes a tensor of one to five dimensions in device memory and a box of it that one copy moves. CUDA passes
//! it as 128 opaque bytes; what is in them here is this GPU's own (kernels may change them by `tensormap.replace` only). The rules are those that `cuda.h` gives for each
//! parameter, the walks through a tensor those of the PTX ISA ("Tensors").

mod image;
mod rows;
mod rules;

pub use image::{Broken, Field, Words, replace};
pub use rows::Row;
pub use rules::Wrong;

/// The most dimensions that a tensor can have.
pub const RANK: usize = 5;

/// What a tensor is made of, numbered as `CUtensorMapDataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are CUDA's own")]
pub enum Element {
    U8,
    U16,
    U32,
    S32,
    U64,
    S64,
    F16,
    F32,
    F64,
    Bf16,
    /// Singles; those too small to be normal become zero on their way into shared memory.
    F32Ftz,
    /// Singles that are rounded to tf32 (to nearest, ties to even) on their way into shared memory.
    Tf32,
    /// Both.
    Tf32Ftz,
}

impl Element {
    /// In the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::U8,
        Self::U16,
        Self::U32,
        Self::S32,
        Self::U64,
        Self::S64,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bf16,
        Self::F32Ftz,
        Self::Tf32,
        Self::Tf32Ftz,
    ];

    /// Bytes of one.
    #[must_use]
    pub fn bytes(self) -> u32 {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::U64 | Self::S64 | Self::F64 => 8,
            Self::U32 | Self::S32 | Self::F32 | Self::F32Ftz | Self::Tf32 | Self::Tf32Ftz => 4,
        }
    }

    /// Is it a floating-point type?
    #[must_use]
    pub fn is_float(self) -> bool {
        use Element::{Bf16, F16, F32, F32Ftz, F64, Tf32, Tf32Ftz};
        matches!(self, F16 | F32 | F64 | Bf16 | F32Ftz | Tf32 | Tf32Ftz)
    }

    /// What stands for "outside" where a map asks for NaN: PTX's canonical one (CUDA documents no value).
    #[must_use]
    pub fn nan(self) -> &'static [u8] {
        match self.bytes() {
            2 => &[0xff, 0x7f],
            4 => &[0xff, 0xff, 0xff, 0x7f],
            _ => &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        }
    }

    /// Converts elements that come from device memory, where the type asks for it.
    pub fn convert(self, bytes: &mut [u8]) {
        let (flush, round) = match self {
            Self::F32Ftz => (true, false),
            Self::Tf32 => (false, true),
            Self::Tf32Ftz => (true, true),
            _ => return,
        };
        for element in bytes.chunks_exact_mut(4) {
            let mut bits = u32::from_le_bytes([element[0], element[1], element[2], element[3]]);
            let exponent = bits >> 23 & 0xff;
            if flush && exponent == 0 {
                bits &= 1 << 31;
            }
            if round && exponent != 0xff {
                // Thirteen bits go; an even result of a tie.
                bits = bits.wrapping_add(0xfff + (bits >> 13 & 1)) & !0x1fff;
            }
            element.copy_from_slice(&bits.to_le_bytes());
        }
    }
}

/// How pieces of 16 bytes are exchanged in shared memory, numbered as `CUtensorMapSwizzle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Swizzle {
    /// Not at all.
    None,
    /// Within 32 bytes.
    Within32,
    /// Within 64 bytes.
    Within64,
    /// Within 128 bytes.
    Within128,
}

impl Swizzle {
    /// In the order of their numbers.
    pub const ALL: [Self; 4] = [Self::None, Self::Within32, Self::Within64, Self::Within128];

    /// The bytes within which pieces are exchanged: 16 where they are not.
    #[must_use]
    pub fn span(self) -> u32 {
        16 << self as u32
    }

    /// Where in shared memory the piece is that an unswizzled box has at `address`: bits 4 to 6 of an address (as many
    /// as the span has pieces) change with bits 7 to 9. It is the address that counts, not the offset in the box.
    #[must_use]
    pub fn place(self, address: u64) -> u64 {
        address ^ ((address >> 7 & u64::from(self.span() / 16 - 1)) << 4)
    }
}

/// What one copy moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A box: so many elements along each dimension, before the steps between them.
    Tiled([u32; RANK]),
    /// The pixels under one position of a filter: a walk over W, H and D within the tensor's borders moved by these
    /// corners, then over N.
    Im2col {
        /// The first pixel of the walk, for W, H and D, as seen from the tensor's first.
        lower: [i32; 3],
        /// The end of the walk, as seen from the tensor's end.
        upper: [i32; 3],
        /// Elements along the channels that a copy moves.
        channels: u32,
        /// Pixels that a copy moves.
        pixels: u32,
    },
}

/// A tensor in device memory, and how a copy walks through it. Dimension 0 is the innermost, its elements side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    pub(crate) element: Element,
    pub(crate) rank: usize,
    pub(crate) address: u64,
    pub(crate) extents: [u64; RANK],
    /// Bytes between neighbours.
    pub(crate) strides: [u64; RANK],
    pub(crate) shape: Shape,
    /// Elements between those that a copy takes.
    pub(crate) steps: [u32; RANK],
    pub(crate) swizzle: Swizzle,
    /// Fill what is outside with NaN, and not with zeros.
    pub(crate) nan: bool,
}

impl TensorMap {
    /// A map that copies boxes of `box_` elements.
    ///
    /// `extents`, `box_` and `steps` have a number a dimension, innermost first; `strides` are the bytes between
    /// neighbours of all dimensions but the innermost.
    ///
    /// # Errors
    /// The rule of `cuTensorMapEncodeTiled` that a parameter breaks.
    pub fn tiled(
        element: Element,
        address: u64,
        extents: &[u64],
        strides: &[u64],
        box_: &[u32],
        steps: &[u32],
        swizzle: Swizzle,
        nan: bool,
    ) -> Result<Self, Wrong> {
        let mut map = Self::of(element, address, extents, strides, steps, swizzle, nan)?;
        map.shape = Shape::Tiled(rules::boxed(&map, box_)?);
        Ok(map)
    }

    /// A map that copies `pixels` pixels of `channels` channels under one position of a filter; `lower` and `upper` have
    /// a number a spatial dimension, W first.
    ///
    /// # Errors
    /// The rule of `cuTensorMapEncodeIm2col` that a parameter breaks.
    pub fn im2col(
        element: Element,
        address: u64,
        extents: &[u64],
        strides: &[u64],
        lower: &[i32],
        upper: &[i32],
        channels: u32,
        pixels: u32,
        steps: &[u32],
        swizzle: Swizzle,
        nan: bool,
    ) -> Result<Self, Wrong> {
        let mut map = Self::of(element, address, extents, strides, steps, swizzle, nan)?;
        map.shape = rules::im2col(&map, lower, upper, channels, pixels)?;
        Ok(map)
    }

    /// The same map of a tensor elsewhere.
    ///
    /// # Errors
    /// An address that isn't aligned.
    pub fn at(mut self, address: u64) -> Result<Self, Wrong> {
        self.address = rules::aligned(address)?;
        Ok(self)
    }

    /// Address of the tensor's first element.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes of a row of the box in shared memory.
    #[must_use]
    pub fn row_bytes(&self) -> u32 {
        let elements = match self.shape {
            Shape::Tiled(extents) => extents[0],
            Shape::Im2col { channels, .. } => channels,
        };
        elements * self.element.bytes()
    }

    /// Bytes of the box in shared memory, those outside of the tensor too: what a barrier is told.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        let rows = match self.shape {
            Shape::Tiled(extents) => (1..self.rank).map(|i| extents[i].div_ceil(self.steps[i])).product(),
            Shape::Im2col { pixels, .. } => pixels,
        };
        self.row_bytes() * rows
    }
}
