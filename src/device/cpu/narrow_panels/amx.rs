//! The product on tile registers (AMX): `tdpbf16ps` adds 16×32 numbers of a times 32×16 of b to 16×16 sums.
//!
//! A step multiplies 32 rows of a by two panels, on four tiles of sums, two of a and two of b, which are all there are. For each sum it
//! adds up the sixteen products of a's even columns and those of its odd ones, and both to the sum. For the last rows of a the registers are
//! given fewer rows, and the instruction takes less time. They always have all columns: what the last columns of a lack is filled up with
//! zeros, b was when it was packed, and c goes through a buffer where the edge of the matrix is nearer.

use super::{COLUMNS, DEPTH, Pairs, Part, Product, SLICE, Target};
use crate::device::cpu::scratch::Scratch;
use half::bf16;
use std::arch::asm;
use std::ops::Range;

/// Rows and columns of c in a step: two tile registers each way.
const SIDE: usize = 32;

/// Rows of a tile register, and bytes in one.
const TILE_ROWS: usize = 16;
const ROW_BYTES: usize = 64;

/// Most columns of several runs that are a slice together: a few more than of one run, since their rows overlap and take less of a cache.
const MOST_OF_RUNS: usize = SLICE + SLICE / 4;

/// What `ldtilecfg` reads. Every tile register has rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// For blocks of so many rows: registers 0, 1 and 4 have the first sixteen, 2, 3 and 5 the others, and 6 and 7 are b's.
    fn of(block: usize) -> Self {
        let upper = block.min(TILE_ROWS) as u8;
        // A register without rows would be none. Where there are no other rows, these are not used.
        let lower = if block > TILE_ROWS { (block - TILE_ROWS) as u8 } else { TILE_ROWS as u8 };
        let all = TILE_ROWS as u8;
        let (mut bytes, mut rows) = ([0; 16], [0; 16]);
        bytes[..8].fill(ROW_BYTES as u16);
        rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, all, all]);
        Shapes { palette: 1, start: 0, reserved: [0; 14], bytes, rows }
    }

    /// Gives the registers these shapes.
    ///
    /// # Safety
    ///
    /// The processor has AMX for bfloat16, and the system lets this process use it.
    unsafe fn load(&self) {
        // SAFETY: the shapes are such as the instruction wants.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, readonly, preserves_flags)) };
    }
}

/// All of a product.
///
/// # Safety
///
/// The processor has AMX for bfloat16, and the system lets this process use it.
pub(super) unsafe fn multiply(product: &Product, target: &mut Target) {
    let Product { a, b, .. } = product;
    let mut filled = Scratch::<bf16>::of(SIDE * SLICE);
    let panels = b.width.div_ceil(COLUMNS);
    let mut shaped = 0;
    for part in product.parts(SIDE, MOST_OF_RUNS) {
        product.begin(target, &part);
        for row in part.rows.clone().step_by(SIDE) {
            let block = Block::new(a, row, part.columns.clone(), &mut filled);
            if block.rows != shaped {
                shaped = block.rows;
                // SAFETY: the caller's promise.
                unsafe { Shapes::of(shaped).load() };
            }
            for panel in (0..panels).step_by(2) {
                // SAFETY: the caller's promise, and the registers have the shapes of this block.
                unsafe { block.multiply(product, target, panel, &part) };
            }
        }
        product.end(target, part);
    }
    // SAFETY: nothing is kept in the registers, and now the system need not save them.
    unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
}

/// A slice of K of some rows of a: what can be read where it lies, and the rest filled up.
struct Block<'a> {
    /// The first row, and how many there are.
    row: usize,
    rows: usize,
    direct: Left<'a>,
    /// The columns after those, and how many numbers a row of them has.
    filled: &'a [bf16],
    width: usize,
}

/// Rows of a left operand as [`step`] reads them: `runs` times `steps` steps, a row every `stride` numbers and a run every `run_stride`.
#[derive(Clone, Copy)]
struct Left<'a> {
    data: &'a [bf16],
    stride: usize,
    steps: usize,
    runs: usize,
    run_stride: usize,
}

impl<'a> Block<'a> {
    fn new(a: &Pairs<'a>, row: usize, slice: Range<usize>, filled: &'a mut [bf16]) -> Self {
        let rows = SIDE.min(a.rows - row);
        // Several runs are read where they lie.
        let runs = (slice.len() / a.run).max(1);
        let steps = if a.pair_stride == 2 { slice.len() / runs / DEPTH } else { 0 };
        let data = &a.data[a.place(row, slice.start)..];
        let direct = Left { data, stride: a.row_stride, steps, runs, run_stride: a.run_stride };
        let rest = slice.start + runs * steps * DEPTH..slice.end;
        let width = rest.len().next_multiple_of(DEPTH);
        let filled = &mut filled[..rows * width];
        if width > 0 {
            fill(filled, width, a, row..row + rows, rest);
        }
        Block { row, rows, direct, filled, width }
    }

    /// The product by two panels.
    ///
    /// # Safety
    ///
    /// As for [`step`].
    unsafe fn multiply(&self, product: &Product, target: &mut Target, panel: usize, part: &Part) {
        let Product { b, first, .. } = product;
        let of = |panel: usize| &b.panel(panel)[(first + part.columns.start) * COLUMNS..];
        // The last panel may have no neighbour: it is multiplied twice.
        let b = [panel, (panel + 1).min(b.width.div_ceil(COLUMNS) - 1)].map(of);
        let at = part.block(self.row..self.row + self.rows, panel, SIDE);
        let (sums, stride) = target.open(&at);
        // SAFETY: the caller's promise.
        unsafe { self.add(sums, stride, part.keep, b) };
        target.close(&at);
    }

    /// Both parts of K, on sums a row of which comes every `stride` floats.
    ///
    /// # Safety
    ///
    /// As for [`step`].
    unsafe fn add(&self, c: &mut [f32], stride: usize, keep: bool, b: [&[bf16]; 2]) {
        let Block { rows, direct, filled, width, .. } = *self;
        let steps = direct.runs * direct.steps;
        if steps > 0 {
            // SAFETY: the caller's promise.
            unsafe { step(rows, c, stride, keep, direct, b) };
        }
        if width > 0 {
            let b = b.map(|b| &b[steps * DEPTH * COLUMNS..]);
            let filled = Left { data: filled, stride: width, steps: width / DEPTH, runs: 1, run_stride: 0 };
            // SAFETY: as above.
            unsafe { step(rows, c, stride, keep || steps > 0, filled, b) };
        }
    }
}

/// Columns `cols` of some rows of a, `out [rows, width]`, with zeros behind them.
fn fill(out: &mut [bf16], width: usize, a: &Pairs, rows: Range<usize>, cols: Range<usize>) {
    out.fill(bf16::ZERO);
    let (first, count) = (rows.start, rows.len());
    if a.pair_stride == 2 {
        for (out, row) in out.chunks_exact_mut(width).zip(rows) {
            let from = row * a.row_stride + cols.start;
            out[..cols.len()].copy_from_slice(&a.data[from..from + cols.len()]);
        }
        return;
    }
    // By columns: neighbours are the pairs of neighbouring rows.
    for (at, pair) in (cols.start / 2..cols.end.div_ceil(2)).enumerate() {
        let pairs = a.data[first * a.row_stride + pair * a.pair_stride..][..2 * count].as_chunks::<2>().0;
        for (out, pair) in out.chunks_exact_mut(width).zip(pairs) {
            out[2 * at..2 * at + 2].copy_from_slice(pair);
        }
    }
}

/// What the loops of [`step`] count by; it has more to keep than there are registers.
#[repr(C)]
struct Loops {
    steps: usize,
    runs: usize,
    /// Bytes from the end of a run to the next one.
    gap: isize,
}

/// `c [rows, 32] = a [rows, 32·steps·runs] · b`, or `+=` with `keep`; a row of c comes every so many numbers, and b is two panels.
///
/// # Safety
///
/// The processor has AMX for bfloat16, the system lets this process use it, and the registers have the [`Shapes`] of so many rows.
unsafe fn step(rows: usize, c: &mut [f32], c_stride: usize, keep: bool, a: Left, b: [&[bf16]; 2]) {
    let Left { data: a, stride: a_stride, steps, runs, run_stride } = a;
    assert!((1..=SIDE).contains(&rows) && steps > 0 && runs > 0);
    let columns = (runs - 1) * run_stride + steps * DEPTH;
    assert!(c.len() >= (rows - 1) * c_stride + SIDE && a.len() >= (rows - 1) * a_stride + columns);
    assert!(b.iter().all(|b| b.len() >= runs * steps * DEPTH * COLUMNS));
    let loops = &mut Loops { steps, runs, gap: 2 * (run_stride as isize - (steps * DEPTH) as isize) };
    let (a, c, [first, second]) = (a.as_ptr(), c.as_mut_ptr(), b.map(<[bf16]>::as_ptr));
    if rows <= TILE_ROWS {
        // SAFETY: the slices were found long enough, and only these registers are used.
        unsafe {
            asm!(
                "test {keep:e}, {keep:e}",
                "jz 2f",
                "tileloadd tmm0, [{c} + {c_bytes}]",
                "tileloadd tmm1, [{c} + {c_bytes} + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "3:",
                "mov {steps}, [{loops}]",
                "4:",
                "tileloadd tmm4, [{a} + {a_bytes}]",
                "tileloadd tmm6, [{first} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{second} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, 64",
                "add {first}, 1024",
                "add {second}, 1024",
                "dec {steps}",
                "jnz 4b",
                "add {a}, [{loops} + 16]",
                "dec qword ptr [{loops} + 8]",
                "jnz 3b",
                "tilestored [{c} + {c_bytes}], tmm0",
                "tilestored [{c} + {c_bytes} + 64], tmm1",
                keep = in(reg) u32::from(keep),
                c = in(reg) c,
                c_bytes = in(reg) 4 * c_stride,
                a = inout(reg) a => _,
                a_bytes = in(reg) 2 * a_stride,
                first = inout(reg) first => _,
                second = inout(reg) second => _,
                row = in(reg) ROW_BYTES,
                steps = out(reg) _,
                loops = in(reg) loops,
                options(nostack),
            );
        }
        return;
    }
    // SAFETY: as above; and there are more than sixteen rows.
    unsafe {
        asm!(
            "test {lower:e}, {lower:e}",
            "lea {lower}, [{c_bytes} + {c_bytes}]",
            "lea {lower}, [{c} + 8 * {lower}]",
            "jz 2f",
            "tileloadd tmm0, [{c} + {c_bytes}]",
            "tileloadd tmm1, [{c} + {c_bytes} + 64]",
            "tileloadd tmm2, [{lower} + {c_bytes}]",
            "tileloadd tmm3, [{lower} + {c_bytes} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "mov {steps}, [{loops}]",
            "4:",
            "tileloadd tmm6, [{b0} + {row}]",
            "tileloadd tmm4, [{a0} + {a_bytes}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {a_bytes}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {steps}",
            "jnz 4b",
            "add {a0}, [{loops} + 16]",
            "add {a1}, [{loops} + 16]",
            "dec qword ptr [{loops} + 8]",
            "jnz 3b",
            "tilestored [{c} + {c_bytes}], tmm0",
            "tilestored [{c} + {c_bytes} + 64], tmm1",
            "tilestored [{lower} + {c_bytes}], tmm2",
            "tilestored [{lower} + {c_bytes} + 64], tmm3",
            // Whether to keep what is there, and from then on where the lower sums are.
            lower = inout(reg) u64::from(keep) => _,
            c = in(reg) c,
            c_bytes = in(reg) 4 * c_stride,
            a0 = inout(reg) a => _,
            a1 = inout(reg) a.add(TILE_ROWS * a_stride) => _,
            a_bytes = in(reg) 2 * a_stride,
            b0 = inout(reg) first => _,
            b1 = inout(reg) second => _,
            row = in(reg) ROW_BYTES,
            steps = out(reg) _,
            loops = in(reg) loops,
            options(nostack),
        );
    }
}
