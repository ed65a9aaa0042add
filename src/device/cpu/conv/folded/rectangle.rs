//! What is done with a product's sums while they are stored: bias, the other way of a residual block, the activation.

use crate::device::Activation;
use crate::device::cpu::rows::bounded;
use crate::device::cpu::simd::simd;
#[cfg(target_arch = "x86_64")]
use crate::device::cpu::simd::{Products, products};
use crate::device::cpu::view::Number;
use half::bf16;
use std::marker::PhantomData;
use std::ops::Range;

/// What follows a product.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    /// `[K]`.
    pub(super) bias: &'a [f32],
    pub(super) activation: Activation,
    /// Whether what is there is added in front of the activation.
    pub(super) accumulate: bool,
}

/// An activation `[pixels, K]` that tasks write rectangles of.
pub(super) struct Rectangles<'a, E> {
    start: *mut E,
    len: usize,
    end: End<'a>,
    borrowed: PhantomData<&'a mut [E]>,
}

// SAFETY: all that is done with it is to write rectangles, of which whoever does so promises that they do not meet.
unsafe impl<E: Send> Sync for Rectangles<'_, E> {}

impl<'a, E: Finish> Rectangles<'a, E> {
    pub(super) fn new(y: &'a mut [E], end: End<'a>) -> Self {
        Rectangles { start: y.as_mut_ptr(), len: y.len(), end, borrowed: PhantomData }
    }

    /// `y = activation(sums + bias)`, or with `accumulate` `activation(y + sums + bias)`, in some columns of some pixels; `sums` has as many.
    ///
    /// # Safety
    ///
    /// No other thread writes to this rectangle.
    pub(super) unsafe fn store(&self, pixels: Range<usize>, columns: Range<usize>, sums: &[f32]) {
        let End { bias, activation, accumulate } = self.end;
        let width = bias.len();
        assert!(columns.end <= width && pixels.end * width <= self.len && sums.len() >= pixels.len() * columns.len());
        // SAFETY: the rows are inside, as was just seen, and nobody else's, as the caller promises.
        let start = unsafe { self.start.add(pixels.start * width + columns.start) };
        let rows = Rows { start, stride: width, width: columns.len(), rows: pixels.len(), borrowed: PhantomData };
        E::finish(rows, sums, End { bias: &bias[columns], activation, accumulate });
    }
}

/// The rows of a rectangle: `width` numbers of every `stride`. Whoever makes one promises that they are there, and nobody else's meanwhile.
pub(super) struct Rows<'a, E> {
    start: *mut E,
    stride: usize,
    width: usize,
    rows: usize,
    borrowed: PhantomData<&'a mut [E]>,
}

impl<E> Rows<'_, E> {
    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [E] {
        debug_assert!(row < self.rows);
        // SAFETY: whoever made this promised that the row is there, and as this is borrowed no other one is lent.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.width) }
    }
}

/// Numbers that sums are stored as.
pub(super) trait Finish: Number {
    /// `out = activation(sums + bias)` of every row, or with `accumulate` `activation(out + sums + bias)`; there is a bias for each column.
    fn finish(out: Rows<'_, Self>, sums: &[f32], end: End) {
        finish(out, sums, end);
    }
}

impl Finish for f32 {}

impl Finish for bf16 {
    fn finish(out: Rows<'_, bf16>, sums: &[f32], end: End) {
        #[cfg(target_arch = "x86_64")]
        if products() != Products::Widened && out.width.is_multiple_of(16) {
            // SAFETY: a processor that multiplies bfloat16 numbers has all instructions for them.
            return unsafe { finish_narrow(out, sums, end) };
        }
        finish(out, sums, end);
    }
}

simd! {
    fn finish<E: Number>(out: Rows<'_, E>, sums: &[f32], end: End<'_>) {
        let (mut out, End { bias, activation, accumulate }) = (out, end);
        let bounds = activation.bounds();
        for (row, sums) in (0..out.rows).zip(sums.chunks_exact(bias.len())) {
            for ((out, sum), bias) in out.row(row).iter_mut().zip(sums).zip(bias) {
                let sum = if accumulate { out.wide() + sum } else { *sum };
                *out = E::nearest(bounded(sum + bias, bounds));
            }
        }
    }
}

/// The same for whole vectors, by the instruction that rounds to bfloat16. To round in plain Rust takes longer than everything else here.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn finish_narrow(mut out: Rows<'_, bf16>, sums: &[f32], End { bias, activation, accumulate }: End) {
    use std::arch::x86_64::*;
    let [low, high] = activation.bounds().map(|bound| _mm512_set1_ps(bound));
    for (row, sums) in (0..out.rows).zip(sums.chunks_exact(bias.len())) {
        let out = out.row(row).as_chunks_mut::<16>().0;
        for ((out, sums), bias) in out.iter_mut().zip(sums.as_chunks::<16>().0).zip(bias.as_chunks::<16>().0) {
            // SAFETY: each is sixteen numbers, and none of these asks for an alignment.
            unsafe {
                // In the order above: a row that is no whole vectors wide must have the same bits, and threads decide how wide it is.
                let mut sum = _mm512_loadu_ps(sums.as_ptr());
                if accumulate {
                    let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(out.as_ptr().cast()));
                    sum = _mm512_add_ps(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)), sum);
                }
                let sum = _mm512_add_ps(sum, _mm512_loadu_ps(bias.as_ptr()));
                // Of two numbers one of which is NaN these give the second.
                let bounded = _mm512_min_ps(high, _mm512_max_ps(low, sum));
                let narrow = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(bounded));
                _mm256_storeu_si256(out.as_mut_ptr().cast(), narrow);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::simd::tests::numbers;

    /// Rows of whole vectors are finished by instructions of their own, and how wide a task's rows are, the number of threads decides.
    #[test]
    fn how_wide_a_rectangle_is_changes_no_bit() {
        const WIDTH: usize = 96;
        const PIXELS: usize = 4096;
        let [sums, before] = [1, 2].map(|seed| numbers(seed, PIXELS * WIDTH));
        let bias = numbers(3, WIDTH);
        for (accumulate, activation) in
            [(false, Activation::Linear), (true, Activation::Linear), (true, Activation::Relu)]
        {
            let finished = |cuts: &[usize]| {
                let mut y: Vec<bf16> = before.iter().map(|&x| bf16::from_f32(x)).collect();
                let out = Rectangles::new(&mut y, End { bias: &bias, activation, accumulate });
                for cut in cuts.windows(2) {
                    let rows = sums.chunks_exact(WIDTH).map(|row| &row[cut[0]..cut[1]]);
                    let sums = rows.collect::<Vec<_>>().concat();
                    // SAFETY: there is no other thread.
                    unsafe { out.store(0..PIXELS, cut[0]..cut[1], &sums) };
                }
                y.into_iter().map(bf16::to_bits).collect::<Vec<u16>>()
            };
            assert!(finished(&[0, WIDTH]) == finished(&[0, 40, WIDTH]), "{accumulate} {activation:?}");
        }
    }
}
