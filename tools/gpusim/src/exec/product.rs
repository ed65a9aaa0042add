//! Tensor-core products: `mma.sync`.
//!
//! A fragment is spread over the warp: with g = lane / 4 and t = lane % 4, register r of A holds row g + 8·(r mod 2) and
//! columns from p·t + 4p·(r div 2) on, where p elements share a register; register r of B holds column g and rows from
//! p·t + 4p·r on; C and D hold rows g and g + 8, columns 2t and 2t + 1.

use super::matrix::whole_warp;
use super::processor::{Body, best};
use super::tensor_sums::{TensorSums, Truncated};
use super::{Core, Done, Exec};
use crate::program::{Act, Class, DecodeError, Decoder, Inst};
use crate::ptx::ast::{Instruction, Type};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::marker::PhantomData;

type Result<T> = std::result::Result<T, DecodeError>;

/// How a register's 32 bits become elements.
pub(super) trait Elements: 'static {
    /// Elements a register.
    const PER: usize;
    /// What an element becomes.
    type Value: Copy + Default;
    /// Element `e` of every lane.
    fn split(row: &[u32; 32], e: usize) -> [Self::Value; 32];
}

/// Floats, by name.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Bf16,
    F16,
    Tf32,
}

impl Kind {
    /// The smallest exponent of a normal number.
    pub fn least_exponent(self) -> i32 {
        if matches!(self, Self::F16) { -14 } else { -126 }
    }
}

/// Elements that are floats, and become singles.
pub(super) trait Float: Elements<Value = f32> {
    /// Which.
    const KIND: Kind;
}

struct Bf16;
struct F16;
struct Tf32;

impl Float for Bf16 {
    const KIND: Kind = Kind::Bf16;
}

impl Float for F16 {
    const KIND: Kind = Kind::F16;
}

impl Float for Tf32 {
    const KIND: Kind = Kind::Tf32;
}

struct S8;
struct U8;

impl Elements for Bf16 {
    const PER: usize = 2;
    type Value = f32;

    #[inline(always)]
    fn split(row: &[u32; 32], e: usize) -> [f32; 32] {
        let shift = if e == 0 { 16 } else { 0 };
        let mut out = [0.0; 32];
        for lane in 0..32 {
            out[lane] = f32::from_bits(row[lane] << shift & 0xffff_0000);
        }
        out
    }
}

impl Elements for F16 {
    const PER: usize = 2;
    type Value = f32;

    #[inline(always)]
    fn split(row: &[u32; 32], e: usize) -> [f32; 32] {
        let mut halves = [f16::ZERO; 32];
        for lane in 0..32 {
            halves[lane] = f16::from_bits((row[lane] >> (16 * e)) as u16);
        }
        let mut out = [0.0; 32];
        halves.convert_to_f32_slice(&mut out);
        out
    }
}

impl Elements for Tf32 {
    const PER: usize = 1;
    type Value = f32;

    #[inline(always)]
    fn split(row: &[u32; 32], _: usize) -> [f32; 32] {
        // The tensor core reads 19 bits and ignores the others.
        row.map(|bits| f32::from_bits(bits & 0xffff_e000))
    }
}

impl Elements for S8 {
    const PER: usize = 4;
    type Value = i32;

    #[inline(always)]
    fn split(row: &[u32; 32], e: usize) -> [i32; 32] {
        row.map(|bits| i32::from((bits >> (8 * e)) as i8))
    }
}

impl Elements for U8 {
    const PER: usize = 4;
    type Value = i32;

    #[inline(always)]
    fn split(row: &[u32; 32], e: usize) -> [i32; 32] {
        row.map(|bits| i32::from((bits >> (8 * e)) as u8))
    }
}

/// The operands of a product as dense matrices.
pub(super) struct Operands<V, const K: usize> {
    pub a: [[V; K]; 16],
    pub b: [[V; 8]; K],
}

/// The 16×K matrix that the rows of A hold, and the K×8 matrix of B's.
#[inline(always)]
pub(super) unsafe fn gather<A: Elements, B: Elements<Value = A::Value>, const K: usize>(
    core: &Core<'_>,
    inst: &Inst,
    first: usize,
) -> Operands<A::Value, K> {
    let (mut a, mut b) = ([[A::Value::default(); K]; 16], [[A::Value::default(); 8]; K]);
    let registers = K / (4 * A::PER);
    for r in 0..2 * registers {
        // SAFETY: the decoder put rows of u32 here.
        let row = unsafe { core.row::<u32>(inst.wide[first + r]) };
        for e in 0..A::PER {
            let values = A::split(&row, e);
            for (lane, value) in values.into_iter().enumerate() {
                let (g, t) = (lane / 4, lane % 4);
                a[g + 8 * (r % 2)][A::PER * t + e + 4 * A::PER * (r / 2)] = value;
            }
        }
    }
    for r in 0..registers {
        // SAFETY: as above.
        let row = unsafe { core.row::<u32>(inst.wide[first + 2 * registers + r]) };
        for e in 0..B::PER {
            let values = B::split(&row, e);
            for (lane, value) in values.into_iter().enumerate() {
                let (g, t) = (lane / 4, lane % 4);
                b[B::PER * t + e + 4 * B::PER * r][g] = value;
            }
        }
    }
    Operands { a, b }
}

/// D = A·B + C in singles: rows of D first, then A, B, C. `HALF`: C and D are halves in two registers.
struct FloatProduct<E, const K: usize, const HALF: bool>(PhantomData<E>);

impl<E: Float, const K: usize, const HALF: bool> Body for FloatProduct<E, K, HALF> {
    /// Nothing is gathered but B. Element e of A's register 2q + h holds, for rows g + 8h, the factors of every
    /// k = PER·t + e + 4·PER·q, read one by one; and C's registers hold the even columns of a row side by side, and the
    /// odd ones, so that a row of D is summed in that order of columns.
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        whole_warp(core, mask, "mma")?;
        let registers = if HALF { 2 } else { 4 };
        let (a_at, steps) = (registers, K / (4 * E::PER));
        let (b_at, c_at) = (a_at + 2 * steps, inst.wide.len() - registers);
        // SAFETY: the decoder put rows of 32 bits everywhere.
        unsafe {
            let (mut a, mut b, mut c) = ([[0f32; 32]; 8], [[0f32; 8]; K], [[0f32; 32]; 4]);
            for r in 0..2 * steps {
                let row = core.row::<u32>(inst.wide[a_at + r]);
                for e in 0..E::PER {
                    a[E::PER * r + e] = E::split(&row, e);
                }
            }
            for q in 0..steps {
                let row = core.row::<u32>(inst.wide[b_at + q]);
                for e in 0..E::PER {
                    let values = E::split(&row, e);
                    for t in 0..4 {
                        for column in 0..8 {
                            b[E::PER * t + e + 4 * E::PER * q][column / 2 + column % 2 * 4] = values[4 * column + t];
                        }
                    }
                }
            }
            for (r, c) in c.iter_mut().enumerate() {
                *c = if HALF {
                    F16::split(&core.row::<u32>(inst.wide[c_at + r / 2]), r % 2)
                } else {
                    core.row::<f32>(inst.wide[c_at + r])
                };
            }
            for h in 0..2 {
                // Eight rows at once: as many sums as hide the latency of a multiply-add.
                let mut sums = [[0f32; 8]; 8];
                for (g, sums) in sums.iter_mut().enumerate() {
                    sums[..4].copy_from_slice(&c[2 * h][4 * g..][..4]);
                    sums[4..].copy_from_slice(&c[2 * h + 1][4 * g..][..4]);
                }
                for (k, columns) in b.iter().enumerate() {
                    let (q, t, e) = (k / (4 * E::PER), k / E::PER % 4, k % E::PER);
                    let factors = &a[E::PER * (2 * q + h) + e];
                    for g in 0..8 {
                        for column in 0..8 {
                            sums[g][column] = factors[4 * g + t].mul_add(columns[column], sums[g][column]);
                        }
                    }
                }
                for (g, sums) in sums.iter().enumerate() {
                    c[2 * h][4 * g..][..4].copy_from_slice(&sums[..4]);
                    c[2 * h + 1][4 * g..][..4].copy_from_slice(&sums[4..]);
                }
            }
            for r in 0..registers {
                if HALF {
                    let half = |value: f32| u32::from(f16::from_f32(value).to_bits());
                    let row = std::array::from_fn(|lane| half(c[2 * r][lane]) | half(c[2 * r + 1][lane]) << 16);
                    core.set_row(inst.wide[r], row, mask);
                } else {
                    core.set_row::<f32>(inst.wide[r], c[r], mask);
                }
            }
        }
        Ok(())
    }
}

/// The float product for this processor.
fn float<E: Float, const K: usize, const HALF: bool>() -> Exec {
    if HALF { in_order::<E, K, HALF>() } else { product::<E, K> }
}

/// A product whose sums are taken as its launch says.
unsafe fn product<E: Float, const K: usize>(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let exec = match core.launch.setup.sums {
        TensorSums::InOrder => in_order::<E, K, false>(),
        TensorSums::Truncated(_) => best::<Truncated<E, K>>(),
    };
    // SAFETY: the caller's promise, and the processor was asked.
    unsafe { exec(core, inst, mask) }
}

/// The product whose sums are taken in order.
fn in_order<E: Float, const K: usize, const HALF: bool>() -> Exec {
    #[cfg(target_arch = "x86_64")]
    if super::processor::has_avx512() {
        return super::product_avx512::product::<E, K, HALF>;
    }
    best::<FloatProduct<E, K, HALF>>()
}

/// D = A·B + C in 32-bit integers.
struct IntegerProduct<A, B, const K: usize>(PhantomData<(A, B)>);

impl<A: Elements<Value = i32>, B: Elements<Value = i32>, const K: usize> Body for IntegerProduct<A, B, K> {
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        whole_warp(core, mask, "mma")?;
        let c_at = inst.wide.len() - 4;
        // SAFETY: the decoder put rows of 32 bits everywhere.
        unsafe {
            let Operands { a, b } = gather::<A, B, K>(core, inst, 4);
            for r in 0..4 {
                let c = core.row::<i32>(inst.wide[c_at + r]);
                let out = std::array::from_fn(|lane: usize| {
                    let (row, column) = (lane / 4 + 8 * (r / 2), lane % 4 * 2 + r % 2);
                    (0..K).fold(c[lane], |sum, k| sum.wrapping_add(a[row][k] * b[k][column]))
                });
                core.set_row::<i32>(inst.wide[r], out, mask);
            }
        }
        Ok(())
    }
}

/// m8n8k4 in doubles: D two registers, A one, B one, C two.
unsafe fn double_product(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    whole_warp(core, mask, "mma")?;
    // SAFETY: the decoder put rows of f64 everywhere.
    unsafe {
        let (a, b) = (core.row::<f64>(inst.wide[2]), core.row::<f64>(inst.wide[3]));
        for r in 0..2 {
            let c = core.row::<f64>(inst.wide[4 + r]);
            let out = std::array::from_fn(|lane: usize| {
                let (row, column) = (lane / 4, lane % 4 * 2 + r);
                (0..4).fold(c[lane], |sum, k| a[row * 4 + k].mul_add(b[column * 4 + k], sum))
            });
            core.set_row::<f64>(inst.wide[r], out, mask);
        }
    }
    Ok(())
}

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let Some(shape) = ins.modifiers.iter().find(|word| word.starts_with('m') && word.contains('k')).cloned() else {
        return d.unsupported(ins);
    };
    d.only(ins, &["sync", "aligned", "row", "col", &shape])?;
    // The types stand in the order D, A, B, C.
    let types = ins.types();
    let ([dt, at, bt, ct], true) =
        (<[Type; 4]>::try_from(types).unwrap_or([Type::Pred; 4]), ins.has("row") && ins.has("col"))
    else {
        return d.unsupported(ins);
    };
    use Type::{Bf16 as TBf16, F16 as TF16, F32, F64, S8 as TS8, S32, Tf32 as TTf32, U8 as TU8};
    let exec: Exec = match (shape.as_str(), dt, at, bt, ct) {
        ("m16n8k16", F32, TF16, TF16, F32) => float::<F16, 16, false>(),
        ("m16n8k16", F32, TBf16, TBf16, F32) => float::<Bf16, 16, false>(),
        ("m16n8k16", TF16, TF16, TF16, TF16) => float::<F16, 16, true>(),
        ("m16n8k8", F32, TF16, TF16, F32) => float::<F16, 8, false>(),
        ("m16n8k8", F32, TBf16, TBf16, F32) => float::<Bf16, 8, false>(),
        ("m16n8k8", TF16, TF16, TF16, TF16) => float::<F16, 8, true>(),
        ("m16n8k8", F32, TTf32, TTf32, F32) => float::<Tf32, 8, false>(),
        ("m16n8k4", F32, TTf32, TTf32, F32) => float::<Tf32, 4, false>(),
        ("m16n8k32", S32, TS8, TS8, S32) => best::<IntegerProduct<S8, S8, 32>>(),
        ("m16n8k32", S32, TU8, TU8, S32) => best::<IntegerProduct<U8, U8, 32>>(),
        ("m16n8k32", S32, TS8, TU8, S32) => best::<IntegerProduct<S8, U8, 32>>(),
        ("m16n8k32", S32, TU8, TS8, S32) => best::<IntegerProduct<U8, S8, 32>>(),
        ("m16n8k16", S32, TS8, TS8, S32) => best::<IntegerProduct<S8, S8, 16>>(),
        ("m16n8k16", S32, TU8, TU8, S32) => best::<IntegerProduct<U8, U8, 16>>(),
        ("m16n8k16", S32, TS8, TU8, S32) => best::<IntegerProduct<S8, U8, 16>>(),
        ("m16n8k16", S32, TU8, TS8, S32) => best::<IntegerProduct<U8, S8, 16>>(),
        ("m8n8k4", F64, F64, F64, F64) => double_product,
        _ => return d.unsupported(ins),
    };
    let double = dt == F64;
    let register = if double { F64 } else { Type::B32 };
    let k: usize = shape.rsplit('k').next().and_then(|k| k.parse().ok()).unwrap_or(0);
    let per = if double { 1 } else { 4 / at.size() };
    let fragments = k / (4 * per);
    let of_c = if dt == TF16 || double { 2 } else { 4 };
    let expected = [of_c, if double { 1 } else { 2 * fragments }, fragments, of_c];
    let mut wide = Vec::new();
    for (index, count) in expected.into_iter().enumerate() {
        let elements = d.elements(d.operand(ins, index)?).to_vec();
        if elements.len() != count {
            return d.fail(format!("`{}` with {} registers in operand {}", ins.name(), elements.len(), index + 1));
        }
        for element in &elements {
            wide.push(if index == 0 { d.dst(element, register)? } else { d.src(element, register)? });
        }
    }
    let mut inst = Inst::new(Class::Matrix, Act::Lanes(exec), &[]).wide(wide);
    let (m, n) = if double { (8, 8) } else { (16, 8) };
    inst.flops = (2 * m * n * k) as u32;
    // Half the rate in tf32, twice in 8 bits, a sixteenth in doubles.
    inst.tensor_cost = match at {
        TTf32 => 2 * inst.flops,
        TS8 | TU8 => inst.flops / 2,
        F64 => 16 * inst.flops,
        _ => inst.flops,
    };
    Ok(inst)
}
