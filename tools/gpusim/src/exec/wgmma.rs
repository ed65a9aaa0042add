//! `wgmma`: products of a warpgroup whose right side, and mostly left, lie in shared memory.
//!
//! Each of the four warps computes its own 16 of the 64 rows, so warps need not meet: A is 16×K from a descriptor or from
//! registers (as for `mma.sync`), B is K×N from a descriptor, D is in registers. A descriptor names 16-byte pieces of
//! shared memory: start, two strides (leading and stride byte offset) and a swizzle, which within rows of 32, 64 or 128
//! bytes exchanges pieces by bits 7 to 9 of their address, so that a column of pieces is spread over all banks. (PTX ISA,
//! "matrix descriptor"; the layouts are spelt out in CUTLASS's `mma_traits_sm90_gmma.hpp`.)
//!
//! A product is done at once, but in the race check its reads are the work of the warpgroup's tensor core: nobody has
//! seen them before the wait for their group. What is not checked: registers touched before that wait, and a missing
//! `wgmma.fence`.

use super::bulk_copy::seen_until;
use super::matrix::whole_warp;
use super::processor::{Body, best};
use super::tensor_sums::{Factors, TensorSums};
use super::{Core, Done, Exec, Stop};
use crate::check::TENSOR;
use crate::fault::Kind;
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Operand, Type};
use half::{bf16, f16};
use std::marker::PhantomData;

type Result<T> = std::result::Result<T, DecodeError>;

/// Bits of an instruction's immediate.
const A_IN_REGISTERS: i64 = 1;
const NEGATE_A: i64 = 2;
const NEGATE_B: i64 = 4;
const A_BY_COLUMNS: i64 = 8;
const B_BY_ROWS: i64 = 16;
const ZERO_WHEN_TRUE: i64 = 32;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let act = |exec| Inst::new(Class::Matrix, Act::Lanes(exec), &[]);
    match ins.modifiers.first().map(String::as_str) {
        Some("fence") => Ok(act(fence)),
        Some("commit_group") => Ok(act(commit)),
        Some("wait_group") => match d.operand(ins, 0)? {
            &Operand::Integer(groups) => Ok(act(wait).imm(groups as i64)),
            _ => d.unsupported(ins),
        },
        Some("mma_async") => product(d, ins),
        _ => d.unsupported(ins),
    }
}

/// Is an immediate operand of scale −1, or of "transposed" 1?
fn flag(d: &Decoder<'_>, ins: &Instruction, index: usize, value: i64) -> Result<bool> {
    match d.operand(ins, index)? {
        &Operand::Integer(found) => Ok(found as i64 == value),
        _ => d.unsupported(ins),
    }
}

fn product(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let shape = ins.modifiers.iter().find_map(|word| word.strip_prefix("m64n")?.split_once('k'));
    let Some((Ok(n), k)) = shape.map(|(n, k)| (n.parse::<usize>(), k.to_owned())) else {
        return d.unsupported(ins);
    };
    let [Type::F32, ty, tb] = ins.types()[..] else {
        return d.unsupported(ins);
    };
    let (exec, depth): (Exec, usize) = match (k.as_str(), ty) {
        ("16", Type::F16) => (best::<Product<f16>>(), 16),
        ("16", Type::Bf16) => (best::<Product<bf16>>(), 16),
        ("8", Type::Tf32) => (best::<Product<Tf32>>(), 8),
        _ => return d.unsupported(ins),
    };
    d.only(ins, &["mma_async", "sync", "aligned", &format!("m64n{n}k{k}")])?;
    if tb != ty || !n.is_multiple_of(8) || !(8..=MOST_COLUMNS).contains(&n) {
        return d.unsupported(ins);
    }
    let results = d.elements(d.operand(ins, 0)?).to_vec();
    let mut wide: Vec<Slot> = results.iter().map(|result| d.dst(result, Type::F32)).collect::<Result<_>>()?;
    if wide.len() != n / 2 {
        return d.fail(format!("`{}` with {} registers of D", ins.name(), wide.len()));
    }
    let mut flags = 0;
    let left = d.operand(ins, 1)?.clone();
    let a = if let Operand::Vector(parts) = &left {
        flags |= A_IN_REGISTERS;
        if parts.len() != 4 {
            return d.unsupported(ins);
        }
        for part in parts {
            wide.push(d.src(part, Type::B32)?);
        }
        0
    } else {
        d.src(&left, Type::B64)?
    };
    let b = d.src(d.operand(ins, 2)?, Type::B64)?;
    let (keep, negated) = d.predicate(d.operand(ins, 3)?)?;
    let mut set = |yes: bool, bit: i64| flags |= if yes { bit } else { 0 };
    set(negated, ZERO_WHEN_TRUE);
    set(flag(d, ins, 4, -1)?, NEGATE_A);
    set(flag(d, ins, 5, -1)?, NEGATE_B);
    if ty != Type::Tf32 {
        // A in registers can't be transposed, and has no operand to say so.
        let of_b = if matches!(left, Operand::Vector(_)) { 6 } else { 7 };
        set(of_b == 7 && flag(d, ins, 6, 1)?, A_BY_COLUMNS);
        set(flag(d, ins, of_b, 1)?, B_BY_ROWS);
    }
    let mut inst = Inst::new(Class::Matrix, Act::Lanes(exec), &[a, b, keep]).imm(flags).wide(wide);
    // A warp's share; tf32 goes at half the rate.
    inst.flops = (2 * 16 * n * depth) as u32;
    inst.tensor_cost = if ty == Type::Tf32 { 2 * inst.flops } else { inst.flops };
    Ok(inst)
}

/// Columns of the widest product.
const MOST_COLUMNS: usize = 256;

/// A matrix descriptor.
#[derive(Clone, Copy, Debug)]
struct Matrix {
    start: u64,
    leading: u64,
    stride: u64,
    /// Bytes of a row within which pieces are exchanged; 16 for none.
    row: u64,
}

impl Matrix {
    /// Of its 64 bits; none when its pattern begins elsewhere than at a multiple of its size.
    fn new(bits: u64) -> Option<Self> {
        let field = |at: u32| (bits >> at & 0x3fff) << 4;
        let row = [16, 128, 64, 32][(bits >> 62) as usize];
        (bits >> 49 & 7 == 0).then(|| Self { start: field(0), leading: field(16), stride: field(32), row })
    }

    /// Where hardware finds what an unswizzled layout has at `address`.
    fn swizzle(self, address: u64) -> u64 {
        address ^ ((address >> 7 & (self.row / 16 - 1)) << 4)
    }

    /// The piece that holds half `half` of 32 bytes along k, in row (of A) or column (of B) `line`: "K-major".
    fn along_k(self, line: u64, half: u64) -> u64 {
        let step = if self.row == 16 { self.leading } else { 16 };
        self.swizzle(self.start + line / 8 * self.stride + line % 8 * self.row + half * step)
    }

    /// The piece that holds eight rows (of A) or columns (of B), the `group`th eight, at this k: "MN-major".
    fn across_k(self, group: u64, k: u64) -> u64 {
        if self.row == 16 {
            return self.start + group * self.stride + k % 8 * 16 + k / 8 * self.leading;
        }
        let per_row = self.row / 16;
        let line = group % per_row * 16 + group / per_row * self.leading;
        self.swizzle(self.start + line + k % 8 * self.row + k / 8 * self.stride)
    }
}

/// An element as it lies in memory.
trait Element: 'static {
    const BYTES: usize;
    /// The smallest exponent of a normal number.
    const LEAST: i32;
    fn value(bytes: &[u8]) -> f32;
}

struct Tf32;

impl Element for f16 {
    const BYTES: usize = 2;
    const LEAST: i32 = -14;
    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        Self::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }
}

impl Element for bf16 {
    const BYTES: usize = 2;
    const LEAST: i32 = -126;
    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        Self::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }
}

impl Element for Tf32 {
    const BYTES: usize = 4;
    const LEAST: i32 = -126;
    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        // The tensor core reads 19 bits and ignores the others.
        f32::from_bits(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) & 0xffff_e000)
    }
}

/// D = A·B + D, or without D where the predicate says so.
struct Product<E>(PhantomData<E>);

impl<E: Element> Body for Product<E> {
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        let clock = core.begin_product(mask)?;
        let in_registers = inst.imm & A_IN_REGISTERS != 0;
        let registers = inst.wide.len() - if in_registers { 4 } else { 0 };
        let columns = registers * 2;
        let depth = 32 / E::BYTES;
        let (mut a, mut b) = ([[0f32; 16]; 16], [[0f32; MOST_COLUMNS]; 16]);
        // SAFETY: the decoder put rows of u64 in operands 0 and 1 (where they are used), a predicate in 2, and rows of
        // 32 bits behind.
        unsafe {
            if in_registers {
                for r in 0..4 {
                    let row = core.row::<u32>(inst.wide[registers + r]).map(u32::to_le_bytes);
                    let per = 4 / E::BYTES;
                    for (lane, bytes) in row.iter().enumerate() {
                        for (e, bytes) in bytes.chunks_exact(E::BYTES).enumerate() {
                            let k = per * (lane % 4) + e + 4 * per * (r / 2);
                            a[lane / 4 + 8 * (r % 2)][k] = E::value(bytes);
                        }
                    }
                }
            } else {
                let first = u64::from(core.warp.number % 4) * 16;
                let bits = core.row::<u64>(inst.a[0])[0];
                core.operand::<E>(bits, inst.imm & A_BY_COLUMNS != 0, first, 16, clock, |line, k, value| {
                    a[line][k] = value;
                })?;
            }
            let bits = core.row::<u64>(inst.a[1])[0];
            core.operand::<E>(bits, inst.imm & B_BY_ROWS != 0, 0, columns, clock, |line, k, value| {
                b[k][line] = value;
            })?;
            let keep = (core.predicate(inst.a[2]) & 1 != 0) != (inst.imm & ZERO_WHEN_TRUE != 0);
            let negative = (inst.imm & NEGATE_A != 0) != (inst.imm & NEGATE_B != 0);
            let mut sums = [[0f32; MOST_COLUMNS]; 16];
            if keep {
                for r in 0..registers {
                    let row = core.row::<f32>(inst.wide[r]);
                    for (lane, value) in row.into_iter().enumerate() {
                        let (line, column) = place(r, lane);
                        sums[line][column] = value;
                    }
                }
            }
            if negative {
                a = a.map(|line| line.map(|value| -value));
            }
            match core.launch.setup.sums {
                TensorSums::InOrder => {
                    for (sum, a) in sums.iter_mut().zip(&a) {
                        let sum = &mut sum[..columns];
                        for (factor, b) in a[..depth].iter().zip(&b) {
                            for (sum, &value) in sum.iter_mut().zip(b) {
                                *sum = factor.mul_add(value, *sum);
                            }
                        }
                    }
                }
                TensorSums::Truncated(truncation) => {
                    let a = a.map(|line| Factors::new(&line, E::LEAST));
                    for column in (0..columns).step_by(8) {
                        let b = b.map(|b| Factors::new(b[column..].first_chunk().unwrap_or(&[0.0; 8]), E::LEAST));
                        for (sum, a) in sums.iter_mut().zip(&a) {
                            if let Some(sum) = sum[column..].first_chunk_mut() {
                                truncation.add(sum, a, &b[..depth], truncation.group(E::BYTES));
                            }
                        }
                    }
                }
            }
            for r in 0..registers {
                let row = std::array::from_fn(|lane| {
                    let (line, column) = place(r, lane);
                    sums[line][column]
                });
                core.set_row::<f32>(inst.wide[r], row, mask);
            }
        }
        Ok(())
    }
}

/// Row (of a warp's 16) and column that register `r` of D holds in `lane`.
#[inline(always)]
fn place(r: usize, lane: usize) -> (usize, usize) {
    (lane / 4 + 8 * (r / 2 % 2), r / 4 * 8 + lane % 4 * 2 + r % 2)
}

impl Core<'_> {
    /// Begins a product, which has seen what its warp has done so far; gives its clock.
    fn begin_product(&mut self, mask: u32) -> std::result::Result<u32, Stop> {
        whole_warp(self, mask, "wgmma.mma_async")?;
        let group = self.warp.number / 4;
        if group * 4 + 4 > self.launch.warps() {
            return Err(self.fault(0, Kind::Unsupported("wgmma in a warpgroup of less than four warps".into())));
        }
        self.warp.clocks.tick();
        let clock = self.common.tensor_clock;
        self.common.tensor_clock += 1;
        self.warp.products.note(clock + 1);
        Ok(clock)
    }

    /// Reads an operand: `lines` rows of A or columns of B from `first` on, with all their k.
    #[inline(always)]
    fn operand<E: Element>(
        &mut self,
        bits: u64,
        across: bool,
        first: u64,
        lines: usize,
        clock: u32,
        mut set: impl FnMut(usize, usize, f32),
    ) -> Done {
        let Some(matrix) = Matrix::new(bits) else {
            let what = format!("the matrix descriptor {bits:#x} with a base offset");
            return Err(self.fault(0, Kind::Unsupported(what)));
        };
        let per = 16 / E::BYTES;
        let (groups, steps) = if across { (lines / per, 32 / E::BYTES) } else { (lines, 2) };
        for group in 0..groups {
            for step in 0..steps {
                let address = if across {
                    matrix.across_k(first / per as u64 + group as u64, step as u64)
                } else {
                    matrix.along_k(first + group as u64, step as u64)
                };
                let piece = self.piece(address, clock)?;
                for (e, bytes) in piece.chunks_exact(E::BYTES).enumerate() {
                    let (line, k) = if across { (group * per + e, step) } else { (group, step * per + e) };
                    set(line, k, E::value(bytes));
                }
            }
        }
        Ok(())
    }

    /// The 16 bytes at `offset`, as the tensor core reads them.
    fn piece(&mut self, offset: u64, clock: u32) -> std::result::Result<[u8; 16], Stop> {
        self.agent_touch(offset, 16, false, TENSOR + self.warp.number / 4, clock, 0)?;
        // SAFETY: `agent_touch` found the piece in shared memory.
        Ok(unsafe { self.common.shared.pointer().add(offset as usize).cast::<[u8; 16]>().read() })
    }
}

unsafe fn fence(core: &mut Core<'_>, _: &Inst, mask: u32) -> Done {
    whole_warp(core, mask, "wgmma.fence")
}

unsafe fn commit(core: &mut Core<'_>, _: &Inst, mask: u32) -> Done {
    whole_warp(core, mask, "wgmma.commit_group")?;
    core.warp.products.commit();
    Ok(())
}

unsafe fn wait(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    whole_warp(core, mask, "wgmma.wait_group")?;
    if let Some(clock) = core.warp.products.wait(inst.imm as usize) {
        core.warp.clocks.see(&seen_until(TENSOR + core.warp.number / 4, clock));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A descriptor of these fields.
    fn matrix(swizzle: u64, start: u64, leading: u64, stride: u64) -> Matrix {
        Matrix::new(swizzle << 62 | stride >> 4 << 32 | leading >> 4 << 16 | start >> 4).unwrap()
    }

    #[test]
    fn rows_of_128_bytes_exchange_their_pieces_by_their_number() {
        let m = matrix(1, 1024, 0, 1024);
        for line in 0..16 {
            assert_eq!(m.along_k(line, 1), 1024 + line * 128 + (1 ^ (line % 8)) * 16);
        }
        // The second 16 of k begin 32 bytes on, at piece 2, and the pattern stays where it was: 2 ^ 3 is 1.
        assert_eq!(matrix(1, 1056, 0, 1024).along_k(3, 0), 1024 + 3 * 128 + 16);
    }

    #[test]
    fn without_a_swizzle_core_matrices_stand_at_both_strides() {
        let m = matrix(0, 256, 128, 2048);
        assert_eq!(m.along_k(9, 1), 256 + 2048 + 16 + 128);
        assert_eq!(m.across_k(3, 9), 256 + 3 * 2048 + 16 + 128);
    }
}
