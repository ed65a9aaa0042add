//! How b is packed: by pairs of rows, in panels.

use super::{COLUMNS, DEPTH};
use crate::device::cpu::matmul::Matrix;
use crate::device::cpu::scratch::Scratch;
use crate::device::cpu::simd::simd;
use crate::device::cpu::view::Number;
use half::bf16;
use rayon::prelude::*;

/// Numbers of a packed `b [K, N]`: K and the columns of the last panel are filled up with zeros.
pub(in crate::device::cpu) fn packed_len([depth, width]: [usize; 2]) -> usize {
    depth.next_multiple_of(DEPTH) * width.next_multiple_of(COLUMNS)
}

/// Packs `b`, rounded to bfloat16, into `out`, on all threads.
pub(in crate::device::cpu) fn pack(out: &mut [bf16], b: Matrix) {
    let [depth, _] = b.extents();
    let panels = out.par_chunks_exact_mut(depth.next_multiple_of(DEPTH) * COLUMNS).enumerate();
    panels.for_each(|(panel, out)| {
        let mut columns = Scratch::<bf16>::of(depth * COLUMNS);
        let cols = panel * COLUMNS..(panel + 1) * COLUMNS;
        bf16::write(&mut columns, false, |columns| b.columns(cols, columns));
        let rows = columns.as_chunks().0;
        pair_up(out, |row| rows.get(row).copied().unwrap_or([bf16::ZERO; COLUMNS]));
    });
}

/// Packs `b [K, N]`, which is stored in bfloat16 and a row of which comes every `stride` numbers, into `out`, on the calling thread.
pub(in crate::device::cpu) fn pack_here(out: &mut [bf16], b: &[bf16], [depth, width]: [usize; 2], stride: usize) {
    for (panel, out) in out.chunks_exact_mut(depth.next_multiple_of(DEPTH) * COLUMNS).enumerate() {
        let from = panel * COLUMNS;
        let columns = COLUMNS.min(width - from);
        let (whole, out) = match columns == COLUMNS {
            true => out.split_at_mut(depth / 2 * 2 * COLUMNS),
            false => out.split_at_mut(0),
        };
        pair_rows(bytemuck::cast_slice_mut(whole), &b[from..], stride);
        let first = whole.len() / COLUMNS;
        pair_up(out, |row| {
            let row = first + row;
            let mut line = [bf16::ZERO; COLUMNS];
            if row < depth {
                let row = &b[row * stride + from..][..columns];
                // A copy of known length is a move of a register.
                match row.first_chunk() {
                    Some(all) => line = *all,
                    None => line[..columns].copy_from_slice(row),
                }
            }
            line
        });
    }
}

simd! {
    /// The same pair by pair for pairs of whole rows; each pair is 16 words.
    fn pair_rows(pairs: &mut [u32], b: &[bf16], stride: usize) {
        for (pair, b) in pairs.as_chunks_mut::<COLUMNS>().0.iter_mut().zip(b.chunks(2 * stride)) {
            let (Some(first), Some(second)) = (b.first_chunk::<COLUMNS>(), b[stride..].first_chunk::<COLUMNS>()) else { return };
            for (pair, (first, second)) in pair.iter_mut().zip(first.iter().zip(second)) {
                *pair = u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16;
            }
        }
    }
}

/// Fills a panel from its rows.
#[inline(always)]
fn pair_up(panel: &mut [bf16], row: impl Fn(usize) -> [bf16; COLUMNS]) {
    for (pair, out) in panel.as_chunks_mut::<{ 2 * COLUMNS }>().0.iter_mut().enumerate() {
        let (first, second) = (row(2 * pair), row(2 * pair + 1));
        for column in 0..COLUMNS {
            (out[2 * column], out[2 * column + 1]) = (first[column], second[column]);
        }
    }
}
