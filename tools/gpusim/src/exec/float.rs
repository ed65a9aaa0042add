//! Singles and doubles.
//!
//! Operations that PTX rounds exactly are exact here. The approximations (`ex2.approx`, `rcp.approx`, …) are computed
//! to full precision instead, which is within the error that PTX allows them.

use super::arithmetic::rows;
use super::lanes::{binary, compare, ternary, ternary_immediate, unary};
use super::rounding::{self, Direction, flush, saturate};
use super::{Exec, half_float};
use crate::program::{Act, Class, DecodeError, Decoder, Inst};
use crate::ptx::ast::{Instruction, Type};

type Result<T> = std::result::Result<T, DecodeError>;

/// The rounding direction among the modifiers.
pub(super) fn direction(ins: &Instruction) -> Direction {
    ins.modifiers.iter().find_map(|word| Direction::parse(word)).unwrap_or(Direction::Nearest)
}

/// The smaller; a number rather than a NaN, −0 rather than +0.
#[inline(always)]
pub(super) fn minimum(a: f32, b: f32) -> f32 {
    if a < b || b.is_nan() || (a == b && a.is_sign_negative()) { a } else { b }
}

/// The larger; a number rather than a NaN, +0 rather than −0.
#[inline(always)]
pub(super) fn maximum(a: f32, b: f32) -> f32 {
    if a > b || b.is_nan() || (a == b && a.is_sign_positive()) { a } else { b }
}

/// As [`minimum`], but NaN if either is.
pub(super) fn minimum_nan(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { minimum(a, b) }
}

/// As [`maximum`], but NaN if either is.
pub(super) fn maximum_nan(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { maximum(a, b) }
}

const FTZ: i64 = 4;
const SAT: i64 = 8;

/// `$f` in every form that modifiers can ask for: plain and flushed as loops of their own, the rest by the immediate.
macro_rules! shaped {
    ($imm:expr, |$($x:ident),+| $plain:expr, $general:expr) => {{
        let general = |a: f32, b: f32, c: f32, imm: i64| {
            let from = |value: f32| if imm & FTZ != 0 { flush(value) } else { value };
            let (a, b, c) = (from(a), from(b), from(c));
            let value: f32 = $general(a, b, c, Direction::from_number(imm));
            let value = from(value);
            if imm & SAT != 0 { saturate(value) } else { value }
        };
        match $imm {
            0 => shaped!(@plain |$($x),+| $plain),
            FTZ => shaped!(@flushed |$($x),+| $plain),
            _ => ternary_immediate(general),
        }
    }};
    (@plain |$a:ident, $b:ident| $plain:expr) => { binary(|$a: f32, $b: f32| $plain) };
    (@plain |$a:ident, $b:ident, $c:ident| $plain:expr) => { ternary(|$a: f32, $b: f32, $c: f32| $plain) };
    (@flushed |$a:ident, $b:ident| $plain:expr) => {
        binary(|$a: f32, $b: f32| { let ($a, $b) = (flush($a), flush($b)); flush($plain) })
    };
    (@flushed |$a:ident, $b:ident, $c:ident| $plain:expr) => {
        ternary(|$a: f32, $b: f32, $c: f32| { let ($a, $b, $c) = (flush($a), flush($b), flush($c)); flush($plain) })
    };
}

/// `add`, `mul`, `fma` and their kin.
pub(super) fn arithmetic(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    for word in &ins.modifiers {
        let known = matches!(word.as_str(), "ftz" | "sat" | "approx" | "full" | "NaN")
            || Direction::parse(word).is_some()
            || Type::parse(word).is_some();
        if !known {
            return d.unsupported(ins);
        }
    }
    let inputs = match ins.opcode.as_str() {
        "abs" | "neg" => 1,
        "fma" | "mad" => 3,
        _ => 2,
    };
    let mut rows = rows(d, ins, ty, inputs)?;
    if rows.len() != ins.operands.len() {
        return d.unsupported(ins);
    }
    if ty == Type::F64 {
        let Some(exec) = double(ins) else {
            return d.unsupported(ins);
        };
        return Ok(Inst::new(Class::Double, Act::Lanes(exec), &rows));
    }
    let imm = direction(ins).number() | if ins.has("ftz") { FTZ } else { 0 } | if ins.has("sat") { SAT } else { 0 };
    let nan = ins.has("NaN");
    let exec = match ins.opcode.as_str() {
        "add" => shaped!(imm, |a, b| a + b, |a, b, _, d| rounding::add(a, b, d)),
        "sub" => shaped!(imm, |a, b| a - b, |a: f32, b: f32, _, d| rounding::add(a, -b, d)),
        "mul" => shaped!(imm, |a, b| a * b, |a, b, _, d| rounding::mul(a, b, d)),
        "fma" | "mad" => shaped!(imm, |a, b, c| a.mul_add(b, c), rounding::fma),
        "div" => shaped!(imm, |a, b| a / b, |a, b, _, d| rounding::div(a, b, d)),
        "min" if nan => shaped!(imm, |a, b| minimum_nan(a, b), |a, b, _, _| minimum_nan(a, b)),
        "max" if nan => shaped!(imm, |a, b| maximum_nan(a, b), |a, b, _, _| maximum_nan(a, b)),
        "min" => shaped!(imm, |a, b| minimum(a, b), |a, b, _, _| minimum(a, b)),
        "max" => shaped!(imm, |a, b| maximum(a, b), |a, b, _, _| maximum(a, b)),
        "abs" if imm == FTZ => unary(|a: f32| flush(a.abs())),
        "neg" if imm == FTZ => unary(|a: f32| flush(-a)),
        "abs" => unary(|a: f32| a.abs()),
        "neg" => unary(|a: f32| -a),
        _ => return d.unsupported(ins),
    };
    // The general form reads three rows.
    while rows.len() < 4 {
        rows.push(rows[1]);
    }
    let class = if ins.opcode == "div" { Class::Special } else { Class::Float };
    Ok(Inst::new(class, Act::Lanes(exec), &rows).imm(imm))
}

fn double(ins: &Instruction) -> Option<Exec> {
    let nearest = direction(ins) == Direction::Nearest;
    Some(match ins.opcode.as_str() {
        "abs" => unary(|a: f64| a.abs()),
        "neg" => unary(|a: f64| -a),
        // As [`minimum`] and [`maximum`].
        "min" => binary(|a: f64, b: f64| if a < b || b.is_nan() || (a == b && a.is_sign_negative()) { a } else { b }),
        "max" => binary(|a: f64, b: f64| if a > b || b.is_nan() || (a == b && a.is_sign_positive()) { a } else { b }),
        "add" if nearest => binary(|a: f64, b: f64| a + b),
        "sub" if nearest => binary(|a: f64, b: f64| a - b),
        "mul" if nearest => binary(|a: f64, b: f64| a * b),
        "div" if nearest => binary(|a: f64, b: f64| a / b),
        "fma" | "mad" if nearest => ternary(|a: f64, b: f64, c: f64| a.mul_add(b, c)),
        _ => return None,
    })
}

/// Roots, reciprocals, exponentials, and the odd ones.
pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let [ty] = ins.types()[..] else {
        return d.unsupported(ins);
    };
    match ins.opcode.as_str() {
        "testp" => return test(d, ins, ty),
        "copysign" => {
            let rows = rows(d, ins, ty, 2)?;
            let exec = match ty {
                Type::F32 => binary(|sign: f32, value: f32| value.copysign(sign)),
                Type::F64 => binary(|sign: f64, value: f64| value.copysign(sign)),
                _ => return d.unsupported(ins),
            };
            return Ok(Inst::new(Class::Float, Act::Lanes(exec), &rows));
        }
        _ => {}
    }
    let mut rows = rows(d, ins, ty, 1)?;
    let ftz = ins.has("ftz");
    let towards = direction(ins);
    macro_rules! single {
        ($f:expr) => {
            if ftz { unary(|a: f32| flush($f(flush(a)))) } else { unary(|a: f32| $f(a)) }
        };
    }
    if ty == Type::F32 && towards != Direction::Nearest {
        fn flushed(value: f32, imm: i64) -> f32 {
            if imm & FTZ != 0 { flush(value) } else { value }
        }
        let exec = match ins.opcode.as_str() {
            "rcp" => ternary_immediate(|a: f32, _: f32, _: f32, imm| {
                flushed(rounding::div(1.0, flushed(a, imm), Direction::from_number(imm)), imm)
            }),
            "sqrt" => ternary_immediate(|a: f32, _: f32, _: f32, imm| {
                flushed(rounding::sqrt(flushed(a, imm), Direction::from_number(imm)), imm)
            }),
            _ => return d.unsupported(ins),
        };
        rows.extend([rows[1]; 2]);
        let imm = towards.number() | if ftz { FTZ } else { 0 };
        return Ok(Inst::new(Class::Special, Act::Lanes(exec), &rows).imm(imm));
    }
    let exec = match (ins.opcode.as_str(), ty) {
        ("rcp", Type::F32) => single!(|a: f32| 1.0 / a),
        ("sqrt", Type::F32) => single!(|a: f32| a.sqrt()),
        ("rsqrt", Type::F32) => single!(|a: f32| (1.0 / f64::from(a).sqrt()) as f32),
        ("sin", Type::F32) => single!(|a: f32| f64::from(a).sin() as f32),
        ("cos", Type::F32) => single!(|a: f32| f64::from(a).cos() as f32),
        ("ex2", Type::F32) => single!(|a: f32| a.exp2()),
        ("lg2", Type::F32) => single!(|a: f32| a.log2()),
        ("tanh", Type::F32) => single!(|a: f32| a.tanh()),
        ("rcp", Type::F64) if towards == Direction::Nearest => unary(|a: f64| 1.0 / a),
        ("sqrt", Type::F64) if towards == Direction::Nearest => unary(|a: f64| a.sqrt()),
        ("rsqrt", Type::F64) => unary(|a: f64| 1.0 / a.sqrt()),
        ("ex2" | "tanh", Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2) => {
            match half_float::special(&ins.opcode, ty) {
                Some(exec) => exec,
                None => return d.unsupported(ins),
            }
        }
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Special, Act::Lanes(exec), &rows))
}

fn test(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let predicate = d.dst_predicate(d.operand(ins, 0)?)?;
    let value = d.src(d.operand(ins, 1)?, ty)?;
    macro_rules! by_type {
        ($ty:ty) => {
            match ins.modifiers[0].as_str() {
                "finite" => compare(|a: $ty, _| a.is_finite()),
                "infinite" => compare(|a: $ty, _| a.is_infinite()),
                "number" => compare(|a: $ty, _| !a.is_nan()),
                "notanumber" => compare(|a: $ty, _| a.is_nan()),
                "normal" => compare(|a: $ty, _| a.is_normal()),
                "subnormal" => compare(|a: $ty, _| a.is_subnormal()),
                _ => return d.unsupported(ins),
            }
        };
    }
    let exec = match ty {
        Type::F32 => by_type!(f32),
        Type::F64 => by_type!(f64),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Float, Act::Lanes(exec), &[predicate, 0, value, value, 0]))
}
