//! Views of buffers, which know how wide their numbers are, and the tiles of `f32` that kernels make of them.
//!
//! Kernels compute in `f32` whatever the storage: one reads a tile of narrow numbers widened, and what it writes is narrowed when
//! the tile is done, while both lie in the cache. Where numbers are `f32` already, a tile is the memory itself.

use super::scratch::Scratch;
use super::simd::simd;
use crate::device::{DeviceError, Elements};
use half::bf16;

/// A shared view.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    /// What lies in `f32`: everything, or everything but activations on a device that stores those narrow.
    Full(&'a [f32]),
    /// Activations and their gradients, on such a device.
    Narrow(&'a [bf16]),
}

/// An exclusive view.
#[derive(Debug)]
pub enum ViewMut<'a> {
    /// What lies in `f32`: everything, or everything but activations on a device that stores those narrow.
    Full(&'a mut [f32]),
    /// Activations and their gradients, on such a device.
    Narrow(&'a mut [bf16]),
}

impl<'a> View<'a> {
    /// Its numbers; refused in the name of `kernel` if they are not stored as `E`.
    pub(super) fn of<E: Number>(self, kernel: &'static str) -> Result<&'a [E], DeviceError> {
        E::of(self).ok_or_else(|| other_width(kernel))
    }

    /// Bytes of each of its numbers.
    pub(super) fn width(&self) -> usize {
        match self {
            View::Full(_) => size_of::<f32>(),
            View::Narrow(_) => size_of::<bf16>(),
        }
    }

    /// Bytes of its numbers.
    pub(super) fn bytes(&self) -> usize {
        self.count() * self.width()
    }
}

impl<'a> ViewMut<'a> {
    /// Its numbers; refused in the name of `kernel` if they are not stored as `E`.
    pub(super) fn of<E: Number>(self, kernel: &'static str) -> Result<&'a mut [E], DeviceError> {
        E::of_mut(self).ok_or_else(|| other_width(kernel))
    }

    /// Bytes of each of its numbers.
    pub(super) fn width(&self) -> usize {
        match self {
            ViewMut::Full(_) => size_of::<f32>(),
            ViewMut::Narrow(_) => size_of::<bf16>(),
        }
    }

    /// Bytes of its numbers.
    pub(super) fn bytes(&self) -> usize {
        self.count() * self.width()
    }
}

fn other_width(kernel: &'static str) -> DeviceError {
    let reason = "an operand is stored in another width than this device stores its kind".to_string();
    DeviceError::Shape { kernel, reason }
}

impl Elements for View<'_> {
    fn count(&self) -> usize {
        match self {
            View::Full(numbers) => numbers.len(),
            View::Narrow(numbers) => numbers.len(),
        }
    }
}

impl Elements for ViewMut<'_> {
    fn count(&self) -> usize {
        match self {
            ViewMut::Full(numbers) => numbers.len(),
            ViewMut::Narrow(numbers) => numbers.len(),
        }
    }
}

/// A number as it is stored.
pub(super) trait Number: bytemuck::Pod + Send + Sync {
    /// The numbers of a view, if they are stored so.
    fn of(view: View<'_>) -> Option<&[Self]>;

    /// The numbers of an exclusive view, if they are stored so.
    fn of_mut(view: ViewMut<'_>) -> Option<&mut [Self]>;

    /// The number, widened.
    fn wide(self) -> f32;

    /// The nearest number that can be stored, ties to the even one.
    fn nearest(x: f32) -> Self;

    /// `to = from`, widened.
    fn widen(to: &mut [f32], from: &[Self]);

    /// The first `width` of every `stride` numbers, to be read: copied to `scratch`, unless they are `f32` where they lie. With
    /// them comes how far it is from one row to the next.
    fn rows<'s>(from: &'s [Self], stride: usize, width: usize, scratch: &'s mut Scratch) -> (&'s [f32], usize);

    /// The numbers, to be read: copied to `scratch`, unless they are `f32` where they lie.
    fn read<'s>(from: &'s [Self], scratch: &'s mut Scratch) -> &'s [f32] {
        Self::rows(from, from.len(), from.len(), scratch).0
    }

    /// Stores what `work` makes of a tile. The tile begins with what `to` holds if `keep` is set, and with anything otherwise.
    fn write(to: &mut [Self], keep: bool, work: impl FnOnce(&mut [f32]));

    /// Rounds numbers as storing them would.
    fn as_stored(numbers: &mut [f32]);
}

impl Number for f32 {
    fn of(view: View<'_>) -> Option<&[f32]> {
        match view {
            View::Full(numbers) => Some(numbers),
            View::Narrow(_) => None,
        }
    }

    fn of_mut(view: ViewMut<'_>) -> Option<&mut [f32]> {
        match view {
            ViewMut::Full(numbers) => Some(numbers),
            ViewMut::Narrow(_) => None,
        }
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn nearest(x: f32) -> f32 {
        x
    }

    fn widen(to: &mut [f32], from: &[f32]) {
        to.copy_from_slice(from);
    }

    fn rows<'s>(from: &'s [f32], stride: usize, _: usize, _: &'s mut Scratch) -> (&'s [f32], usize) {
        (from, stride)
    }

    fn write(to: &mut [f32], _: bool, work: impl FnOnce(&mut [f32])) {
        work(to);
    }

    fn as_stored(_: &mut [f32]) {}
}

impl Number for bf16 {
    fn of(view: View<'_>) -> Option<&[bf16]> {
        match view {
            View::Full(_) => None,
            View::Narrow(numbers) => Some(numbers),
        }
    }

    fn of_mut(view: ViewMut<'_>) -> Option<&mut [bf16]> {
        match view {
            ViewMut::Full(_) => None,
            ViewMut::Narrow(numbers) => Some(numbers),
        }
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn nearest(x: f32) -> bf16 {
        bf16::from_bits((nearest(x) >> 16) as u16)
    }

    fn widen(to: &mut [f32], from: &[bf16]) {
        widen_all(to, from);
    }

    fn rows<'s>(from: &'s [bf16], stride: usize, width: usize, scratch: &'s mut Scratch) -> (&'s [f32], usize) {
        scratch.resize(from.len().div_ceil(stride.max(1)) * width);
        if width > 0 {
            for (to, from) in scratch.chunks_exact_mut(width).zip(from.chunks(stride)) {
                widen_all(to, &from[..width]);
            }
        }
        (scratch, width)
    }

    fn write(to: &mut [bf16], keep: bool, work: impl FnOnce(&mut [f32])) {
        let mut tile = Scratch::new(to.len());
        if keep {
            widen_all(&mut tile, to);
        }
        work(&mut tile);
        narrow_all(to, &tile);
    }

    fn as_stored(numbers: &mut [f32]) {
        round_all(numbers);
    }
}

/// Replaces each of these views by its numbers, or returns the refusal of [`View::of`] if they are not stored as `$number`.
macro_rules! stored_as {
    ($number:ty, $kernel:expr; $($view:ident),*) => {
        $(let $view = $view.of::<$number>($kernel)?;)*
    };
}
pub(super) use stored_as;

/// Does `$body`, in which `$number` is the type that this device stores activations as.
macro_rules! by_width {
    ($device:expr, $number:ident => $body:expr) => {
        match $device.precision() {
            $crate::device::Precision::Bf16 => {
                type $number = half::bf16;
                $body
            }
            $crate::device::Precision::F32 | $crate::device::Precision::Tf32 => {
                type $number = f32;
                $body
            }
        }
    };
}
pub(super) use by_width;

/// The nearest bfloat16, ties to the even one, in the upper half of an `f32`'s bits. `half`'s own has a branch for NaN, which no
/// vector takes.
#[inline(always)]
fn nearest(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // A NaN whose payload lies in the lower half alone must not become an infinity.
    if x.is_nan() { bits | 0x0040_0000 } else { rounded }
}

simd! {
    fn widen_all(to: &mut [f32], from: &[bf16]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.wide();
        }
    }

    fn narrow_all(to: &mut [bf16], from: &[f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = bf16::nearest(*from);
        }
    }

    fn round_all(numbers: &mut [f32]) {
        for number in numbers {
            *number = f32::from_bits(nearest(*number) & 0xffff_0000);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::simd::tests::on_each_level;

    /// Numbers of every kind, among them ties and those next to them.
    fn numbers() -> Vec<f32> {
        let halves = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        (0..=u16::MAX)
            .step_by(7)
            .flat_map(|high| halves.map(|low| f32::from_bits(u32::from(high) << 16 | low)))
            .collect()
    }

    #[test]
    fn numbers_become_the_nearest_bfloat16() {
        let numbers = numbers();
        let expected: Vec<u16> = numbers.iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
        for found in on_each_level(|| {
            let (mut narrow, mut wide, mut rounded) =
                (vec![bf16::ZERO; numbers.len()], numbers.clone(), numbers.clone());
            bf16::write(&mut narrow, false, |tile| tile.copy_from_slice(&numbers));
            bf16::widen(&mut wide, &narrow);
            bf16::as_stored(&mut rounded);
            assert!(rounded.iter().zip(&wide).all(|(rounded, wide)| rounded.to_bits() == wide.to_bits()));
            narrow.into_iter().map(bf16::to_bits).collect::<Vec<u16>>()
        }) {
            assert!(found == expected);
        }
    }

    #[test]
    fn rows_are_read_from_the_middle_of_others() {
        let numbers: Vec<bf16> = (0..10).map(|x| bf16::from_f32(x as f32)).collect();
        let mut scratch = Scratch::new(0);
        // Columns 1 and 2 of rows of four; the last row ends with them.
        let (read, stride) = bf16::rows(&numbers[1..7], 4, 2, &mut scratch);
        assert_eq!((read, stride), (&[1.0, 2.0, 5.0, 6.0][..], 2));
        let full = [0.0, 1.0, 2.0, 3.0, 4.0];
        assert_eq!(f32::rows(&full, 3, 2, &mut Scratch::new(0)), (&full[..], 3));
        assert_eq!(bf16::read(&numbers[8..], &mut scratch), [8.0, 9.0]);
    }

    #[test]
    fn what_is_kept_is_there_when_a_tile_is_written() {
        let mut numbers = [bf16::from_f32(3.0), bf16::from_f32(-5.0)];
        bf16::write(&mut numbers, true, |tile| tile.iter_mut().for_each(|x| *x += 1.0));
        assert_eq!(numbers.map(bf16::to_f32), [4.0, -4.0]);
        let mut numbers = [3.0, -5.0];
        f32::write(&mut numbers, true, |tile| tile.iter_mut().for_each(|x| *x += 1.0));
        assert_eq!(numbers, [4.0, -4.0]);
    }

    #[test]
    fn another_width_is_refused() {
        assert!(View::Full(&[1.0]).of::<bf16>("conv_forward").is_err());
        let error = ViewMut::Narrow(&mut [bf16::ZERO]).of::<f32>("dense_forward").unwrap_err();
        assert!(error.to_string().starts_with("dense_forward: an operand is stored in another width"), "{error}");
    }
}
