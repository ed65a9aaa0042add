//! Half precision and bfloat16, alone and in pairs.
//!
//! Sums and products go through singles, which have more than twice the bits, so that rounding twice rounds once; fused
//! multiply-adds go through doubles.

use super::Exec;
use super::arithmetic::rows;
use super::float::{maximum, maximum_nan, minimum, minimum_nan};
use super::lanes::{binary, ternary, unary};
use crate::program::{Act, Class, DecodeError, Decoder, Inst};
use crate::ptx::ast::{Instruction, Type};
use half::{bf16, f16};

type Result<T> = std::result::Result<T, DecodeError>;

/// A 16-bit float by its bits.
trait Half {
    fn single(bits: u16) -> f32;
    fn round(value: f32) -> u16;
    fn round_double(value: f64) -> u16;
}

struct F16;
struct Bf16;

impl Half for F16 {
    #[inline(always)]
    fn single(bits: u16) -> f32 {
        f16::from_bits(bits).to_f32_const()
    }

    #[inline(always)]
    fn round(value: f32) -> u16 {
        f16::from_f32_const(value).to_bits()
    }

    #[inline(always)]
    fn round_double(value: f64) -> u16 {
        f16::from_f64_const(value).to_bits()
    }
}

impl Half for Bf16 {
    #[inline(always)]
    fn single(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[inline(always)]
    fn round(value: f32) -> u16 {
        bf16::from_f32_const(value).to_bits()
    }

    #[inline(always)]
    fn round_double(value: f64) -> u16 {
        bf16::from_f64_const(value).to_bits()
    }
}

/// `f` on both halves.
#[inline(always)]
fn pair(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

fn relu(value: f32) -> f32 {
    if value > 0.0 || value.is_nan() { value } else { 0.0 }
}

fn add<H: Half>(a: u16, b: u16) -> u16 {
    H::round(H::single(a) + H::single(b))
}

fn sub<H: Half>(a: u16, b: u16) -> u16 {
    H::round(H::single(a) - H::single(b))
}

fn mul<H: Half>(a: u16, b: u16) -> u16 {
    H::round(H::single(a) * H::single(b))
}

fn fma<H: Half>(a: u16, b: u16, c: u16) -> u16 {
    H::round_double(f64::from(H::single(a)) * f64::from(H::single(b)) + f64::from(H::single(c)))
}

fn fma_relu<H: Half>(a: u16, b: u16, c: u16) -> u16 {
    H::round(relu(H::single(fma::<H>(a, b, c))))
}

fn min<H: Half>(a: u16, b: u16) -> u16 {
    H::round(minimum(H::single(a), H::single(b)))
}

fn max<H: Half>(a: u16, b: u16) -> u16 {
    H::round(maximum(H::single(a), H::single(b)))
}

fn min_nan<H: Half>(a: u16, b: u16) -> u16 {
    H::round(minimum_nan(H::single(a), H::single(b)))
}

fn max_nan<H: Half>(a: u16, b: u16) -> u16 {
    H::round(maximum_nan(H::single(a), H::single(b)))
}

fn exp2<H: Half>(a: u16) -> u16 {
    H::round(H::single(a).exp2())
}

fn tanh<H: Half>(a: u16) -> u16 {
    H::round(H::single(a).tanh())
}

macro_rules! by_type {
    ($ty:expr, unary $f:ident) => {
        match $ty {
            Type::F16 => unary(|a: u16| $f::<F16>(a)),
            Type::Bf16 => unary(|a: u16| $f::<Bf16>(a)),
            Type::F16x2 => unary(|a: u32| pair($f::<F16>(a as u16), $f::<F16>((a >> 16) as u16))),
            _ => unary(|a: u32| pair($f::<Bf16>(a as u16), $f::<Bf16>((a >> 16) as u16))),
        }
    };
    ($ty:expr, binary $f:ident) => {
        match $ty {
            Type::F16 => binary(|a: u16, b: u16| $f::<F16>(a, b)),
            Type::Bf16 => binary(|a: u16, b: u16| $f::<Bf16>(a, b)),
            Type::F16x2 => binary(|a: u32, b: u32| {
                pair($f::<F16>(a as u16, b as u16), $f::<F16>((a >> 16) as u16, (b >> 16) as u16))
            }),
            _ => binary(|a: u32, b: u32| {
                pair($f::<Bf16>(a as u16, b as u16), $f::<Bf16>((a >> 16) as u16, (b >> 16) as u16))
            }),
        }
    };
    ($ty:expr, ternary $f:ident) => {
        match $ty {
            Type::F16 => ternary(|a: u16, b: u16, c: u16| $f::<F16>(a, b, c)),
            Type::Bf16 => ternary(|a: u16, b: u16, c: u16| $f::<Bf16>(a, b, c)),
            Type::F16x2 => ternary(|a: u32, b: u32, c: u32| {
                let high = $f::<F16>((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16);
                pair($f::<F16>(a as u16, b as u16, c as u16), high)
            }),
            _ => ternary(|a: u32, b: u32, c: u32| {
                let high = $f::<Bf16>((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16);
                pair($f::<Bf16>(a as u16, b as u16, c as u16), high)
            }),
        }
    };
}

/// `ex2` and `tanh` of halves.
pub(super) fn special(opcode: &str, ty: Type) -> Option<Exec> {
    Some(match opcode {
        "ex2" => by_type!(ty, unary exp2),
        "tanh" => by_type!(ty, unary tanh),
        _ => return None,
    })
}

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    for word in &ins.modifiers {
        let known = matches!(word.as_str(), "rn" | "NaN" | "relu") || Type::parse(word).is_some();
        if !known {
            return d.unsupported(ins);
        }
    }
    let inputs = match ins.opcode.as_str() {
        "abs" | "neg" => 1,
        "fma" => 3,
        _ => 2,
    };
    let rows = rows(d, ins, ty, inputs)?;
    let (nan, clipped) = (ins.has("NaN"), ins.has("relu"));
    let exec = match ins.opcode.as_str() {
        "fma" if clipped => by_type!(ty, ternary fma_relu),
        _ if clipped => return d.unsupported(ins),
        "add" => by_type!(ty, binary add),
        "sub" => by_type!(ty, binary sub),
        "mul" => by_type!(ty, binary mul),
        "fma" => by_type!(ty, ternary fma),
        "min" if nan => by_type!(ty, binary min_nan),
        "max" if nan => by_type!(ty, binary max_nan),
        "min" => by_type!(ty, binary min),
        "max" => by_type!(ty, binary max),
        "neg" if ty.size() == 2 => unary(|a: u16| a ^ 0x8000),
        "neg" => unary(|a: u32| a ^ 0x8000_8000),
        "abs" if ty.size() == 2 => unary(|a: u16| a & 0x7fff),
        "abs" => unary(|a: u32| a & 0x7fff_7fff),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Float, Act::Lanes(exec), &rows))
}
