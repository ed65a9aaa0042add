//! `cvt`.

use super::lanes::{binary, set_wide_row, unary, wide_row};
use super::rounding::{Direction, flush, round_double, round_single, saturate};
use super::{Core, Done, Exec};
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Type};
use half::{bf16, f16};

type Result<T> = std::result::Result<T, DecodeError>;

/// Types that [`general`] converts, by the number inside an instruction.
const TYPES: [Type; 12] = [
    Type::U8,
    Type::U16,
    Type::U32,
    Type::U64,
    Type::S8,
    Type::S16,
    Type::S32,
    Type::S64,
    Type::F16,
    Type::Bf16,
    Type::F32,
    Type::F64,
];

/// How to convert, as an instruction holds it.
#[derive(Clone, Copy)]
struct How {
    to: Type,
    from: Type,
    /// The rounding of a float result, or of a float to an integer.
    direction: Direction,
    /// A float result is to be integral (`rni` and its kin).
    integral: bool,
    ftz: bool,
    sat: bool,
    relu: bool,
}

impl How {
    fn pack(self) -> i64 {
        let number = |ty| TYPES.iter().position(|&t| t == ty).unwrap_or(0) as i64;
        let flag = |on: bool, bit: i64| i64::from(on) << bit;
        number(self.to)
            | number(self.from) << 4
            | self.direction.number() << 8
            | flag(self.integral, 10)
            | flag(self.ftz, 11)
            | flag(self.sat, 12)
            | flag(self.relu, 13)
    }

    fn unpack(imm: i64) -> Self {
        let flag = |bit: i64| imm >> bit & 1 != 0;
        Self {
            to: TYPES[(imm & 15) as usize],
            from: TYPES[(imm >> 4 & 15) as usize],
            direction: Direction::from_number(imm >> 8),
            integral: flag(10),
            ftz: flag(11),
            sat: flag(12),
            relu: flag(13),
        }
    }
}

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let types = ins.types();
    match types[..] {
        [to @ (Type::F16x2 | Type::Bf16x2), Type::F32] => return pack_pair(d, ins, to),
        [Type::Tf32, Type::F32] => return to_tf32(d, ins),
        _ => {}
    }
    let [to, from] = types[..] else {
        return d.unsupported(ins);
    };
    if !TYPES.contains(&to) || !TYPES.contains(&from) {
        return d.unsupported(ins);
    }
    let mut how = How { to, from, direction: Direction::Nearest, integral: false, ftz: false, sat: false, relu: false };
    for word in &ins.modifiers {
        match word.as_str() {
            "ftz" => how.ftz = true,
            "sat" => how.sat = true,
            "relu" => how.relu = true,
            "rni" => how.integral = true,
            "rzi" => (how.integral, how.direction) = (true, Direction::Zero),
            "rmi" => (how.integral, how.direction) = (true, Direction::Down),
            "rpi" => (how.integral, how.direction) = (true, Direction::Up),
            word => match (Direction::parse(word), Type::parse(word)) {
                (Some(direction), _) => how.direction = direction,
                (_, Some(_)) => {}
                _ => return d.unsupported(ins),
            },
        }
    }
    let (target, have) = d.register(d.operand(ins, 0)?)?;
    let (source, size) = d.src_any(d.operand(ins, 1)?, from)?;
    if have.size() < to.size() {
        return d.fail(format!("`{}` into {have:?}", ins.name()));
    }
    let plain = !how.ftz && !how.sat && !how.relu;
    if plain
        && (have.size().max(2), size) == (to.size(), from.size())
        && let Some(exec) = quick(how)
    {
        return Ok(Inst::new(Class::Convert, Act::Lanes(exec), &[target, source]));
    }
    let sizes = vec![have.size().max(2) as Slot, size as Slot];
    Ok(Inst::new(Class::Convert, Act::Lanes(convert_lanes), &[target, source]).imm(how.pack()).wide(sizes))
}

/// The conversions that compilers emit in every loop, as loops of their own.
fn quick(how: How) -> Option<Exec> {
    use Type::{Bf16, F16, F32, F64, S16, S32, S64, U16, U32, U64};
    let nearest = how.direction == Direction::Nearest && !how.integral;
    Some(match (how.to, how.from) {
        (U64 | S64, U32) => unary(|a: u32| u64::from(a)),
        (U64 | S64, S32) => unary(|a: i32| i64::from(a)),
        (U32 | S32, U64 | S64) => unary(|a: u64| a as u32),
        (U32 | S32, U16) => unary(|a: u16| u32::from(a)),
        (U32 | S32, S16) => unary(|a: i16| i32::from(a)),
        (U16 | S16, U32 | S32) => unary(|a: u32| a as u16),
        (U32 | S32, U32 | S32) => unary(|a: u32| a),
        (F32, S32) if nearest => unary(|a: i32| a as f32),
        (F32, U32) if nearest => unary(|a: u32| a as f32),
        (F64, F32) => unary(|a: f32| f64::from(a)),
        (F32, F64) if nearest => unary(|a: f64| a as f32),
        (F32, Bf16) => unary(|a: u16| f32::from_bits(u32::from(a) << 16)),
        (F32, F16) => unary(|a: u16| f16::from_bits(a).to_f32_const()),
        (F16, F32) if nearest => unary(|a: f32| f16::from_f32_const(a).to_bits()),
        (Bf16, F32) if nearest => unary(|a: f32| bf16::from_f32_const(a).to_bits()),
        _ => return None,
    })
}

unsafe fn convert_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let how = How::unpack(inst.imm);
    // SAFETY: the decoder gave the rows these sizes.
    unsafe {
        let values = wide_row(core, inst.a[1], inst.wide[1]);
        set_wide_row(core, inst.a[0], inst.wide[0], values.map(|bits| general(bits, how)), mask);
    }
    Ok(())
}

fn is_float(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::Bf16 | Type::F32 | Type::F64)
}

/// Any conversion of one value, by its bits. A signed integer result comes back with its sign extended.
fn general(bits: u64, how: How) -> u64 {
    match (is_float(how.from), is_float(how.to)) {
        (false, false) => {
            let value = integer(bits, how.from);
            cut(if how.sat { clamp(value, how.to) } else { value }, how.to)
        }
        (false, true) => {
            let value = integer(bits, how.from);
            // Integers of up to 53 bits are exact doubles; longer ones leave a remainder to round with.
            let high = value as f64;
            let low = (value - high as i128) as f64;
            round(high, low, how)
        }
        (true, false) => {
            let mut value = double(bits, how.from);
            if how.ftz && how.from == Type::F32 {
                value = flush(value as f32).into();
            }
            let value = integral(value, how.direction);
            let value = if value.is_nan() { 0 } else { value as i128 };
            cut(clamp(value, how.to), how.to)
        }
        (true, true) => {
            let mut value = double(bits, how.from);
            if how.ftz && how.from == Type::F32 {
                value = flush(value as f32).into();
            }
            if how.integral {
                value = integral(value, how.direction);
            }
            round(value, 0.0, how)
        }
    }
}

fn integer(bits: u64, from: Type) -> i128 {
    let unused = 64 - from.size() as u32 * 8;
    if from.is_signed() { i128::from((bits << unused) as i64 >> unused) } else { i128::from(bits << unused >> unused) }
}

fn clamp(value: i128, to: Type) -> i128 {
    let bits = to.size() as u32 * 8;
    if to.is_signed() {
        value.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        value.clamp(0, (1 << bits) - 1)
    }
}

/// The low bits, extended by the target's sign, as PTX extends a result into a wider register.
fn cut(value: i128, to: Type) -> u64 {
    integer(value as u64, to) as u64
}

fn double(bits: u64, from: Type) -> f64 {
    match from {
        Type::F16 => f16::from_bits(bits as u16).to_f64_const(),
        Type::Bf16 => bf16::from_bits(bits as u16).to_f64_const(),
        Type::F32 => f32::from_bits(bits as u32).into(),
        _ => f64::from_bits(bits),
    }
}

fn integral(value: f64, direction: Direction) -> f64 {
    match direction {
        Direction::Nearest => value.round_ties_even(),
        Direction::Zero => value.trunc(),
        Direction::Down => value.floor(),
        Direction::Up => value.ceil(),
    }
}

/// `high + low` as the target float's bits.
fn round(high: f64, low: f64, how: How) -> u64 {
    let shape = |value: f64| {
        let value = if how.sat { if value > 0.0 { value.min(1.0) } else { 0.0 } } else { value };
        if how.relu && value < 0.0 { 0.0 } else { value }
    };
    let direction = if how.integral { Direction::Nearest } else { how.direction };
    match how.to {
        Type::F64 => shape(round_double(high, low, direction)).to_bits(),
        Type::F32 => {
            let value = round_single(high, low, direction);
            let value = if how.ftz { flush(value) } else { value };
            let value = if how.sat { saturate(value) } else { value };
            u64::from(if how.relu && value < 0.0 { 0.0 } else { value }.to_bits())
        }
        Type::F16 => {
            let near = f16::from_f64_const(shape(high));
            u64::from(directed(near.to_f64_const(), shape(high), near.to_bits(), direction))
        }
        _ => {
            let near = bf16::from_f64_const(shape(high));
            u64::from(directed(near.to_f64_const(), shape(high), near.to_bits(), direction))
        }
    }
}

/// A 16-bit float next to `near` in `direction`, if `exact` lies on that side of it.
fn directed(near: f64, exact: f64, bits: u16, direction: Direction) -> u16 {
    let shrink = bits.wrapping_sub(1);
    let grow = bits.wrapping_add(1);
    match direction {
        Direction::Zero if near.abs() > exact.abs() => shrink,
        Direction::Down if near > exact => {
            if near > 0.0 {
                shrink
            } else {
                grow
            }
        }
        Direction::Up if near < exact => {
            if near < 0.0 {
                shrink
            } else {
                grow
            }
        }
        _ => bits,
    }
}

/// `cvt.rn.f16x2.f32 d, high, low`.
fn pack_pair(d: &mut Decoder<'_>, ins: &Instruction, to: Type) -> Result<Inst> {
    let rows = [
        d.dst(d.operand(ins, 0)?, Type::B32)?,
        d.src(d.operand(ins, 1)?, Type::F32)?,
        d.src(d.operand(ins, 2)?, Type::F32)?,
    ];
    fn clip(value: f32) -> f32 {
        if value < 0.0 { 0.0 } else { value }
    }
    fn halves(high: f32, low: f32) -> u32 {
        u32::from(f16::from_f32_const(high).to_bits()) << 16 | u32::from(f16::from_f32_const(low).to_bits())
    }
    fn bfloats(high: f32, low: f32) -> u32 {
        u32::from(bf16::from_f32_const(high).to_bits()) << 16 | u32::from(bf16::from_f32_const(low).to_bits())
    }
    fn cut(high: f32, low: f32) -> u32 {
        high.to_bits() & 0xffff_0000 | low.to_bits() >> 16
    }
    let finite = !ins.has("satfinite") && !ins.has("sat");
    let exec = match (to, ins.has("rn"), ins.has("relu")) {
        (Type::F16x2, true, false) if finite => binary(halves),
        (Type::F16x2, true, true) if finite => binary(|high, low| halves(clip(high), clip(low))),
        (Type::Bf16x2, true, false) if finite => binary(bfloats),
        (Type::Bf16x2, true, true) if finite => binary(|high, low| bfloats(clip(high), clip(low))),
        (Type::Bf16x2, false, false) if finite && ins.has("rz") => binary(cut),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Convert, Act::Lanes(exec), &rows))
}

/// `cvt.rna.tf32.f32`: the low 13 bits rounded away; ties go away from zero (`rna`) or to even (`rn`).
fn to_tf32(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let rows = [d.dst(d.operand(ins, 0)?, Type::B32)?, d.src(d.operand(ins, 1)?, Type::F32)?];
    let exec =
        match ins.modifiers[0].as_str() {
            "rna" if !ins.has("satfinite") => {
                unary(|a: u32| if a & 0x7f80_0000 == 0x7f80_0000 { a } else { a.wrapping_add(0x1000) & 0xffff_e000 })
            }
            "rn" if !ins.has("satfinite") && !ins.has("relu") => unary(|a: u32| {
                if a & 0x7f80_0000 == 0x7f80_0000 { a } else { a.wrapping_add(0xfff + (a >> 13 & 1)) & 0xffff_e000 }
            }),
            "rz" if !ins.has("satfinite") && !ins.has("relu") => unary(|a: u32| a & 0xffff_e000),
            _ => return d.unsupported(ins),
        };
    Ok(Inst::new(Class::Convert, Act::Lanes(exec), &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(to: Type, from: Type) -> How {
        How { to, from, direction: Direction::Nearest, integral: false, ftz: false, sat: false, relu: false }
    }

    fn single(value: f32) -> u64 {
        value.to_bits().into()
    }

    #[test]
    fn floats_become_integers_clamped() {
        let to = |ty, direction| How { direction, integral: true, ..how(ty, Type::F32) };
        assert_eq!(general(single(-1.5), to(Type::S32, Direction::Zero)) as i32, -1);
        assert_eq!(general(single(-1.5), to(Type::S32, Direction::Down)) as i32, -2);
        assert_eq!(general(single(2.5), to(Type::S32, Direction::Nearest)) as i32, 2);
        assert_eq!(general(single(1e20), to(Type::S32, Direction::Zero)) as i32, i32::MAX);
        assert_eq!(general(single(-3.0), to(Type::U32, Direction::Zero)) as u32, 0);
        assert_eq!(general(single(f32::NAN), to(Type::S32, Direction::Zero)), 0);
        assert_eq!(general(single(300.0), to(Type::U8, Direction::Zero)), 255);
    }

    #[test]
    fn narrow_integers_keep_their_sign() {
        assert_eq!(general(0xff, how(Type::S32, Type::S8)) as i32, -1);
        assert_eq!(general(0xff, how(Type::S32, Type::U8)) as i32, 255);
        assert_eq!(general(0x1_80, how(Type::S8, Type::S32)) as i64, -128);
        assert_eq!(general(1000, How { sat: true, ..how(Type::S8, Type::S32) }) as i64, 127);
    }

    #[test]
    fn long_integers_round_once() {
        // 2^60 + 2^36 + 1 lies just above the tie of two singles.
        let value = (1u64 << 60) + (1 << 36) + 1;
        assert_eq!(general(value, how(Type::F32, Type::U64)), single(value as f32));
        let down = How { direction: Direction::Down, ..how(Type::F32, Type::U64) };
        assert_eq!(general(value, down), single((1u64 << 60) as f32));
    }

    #[test]
    fn halves_round_in_every_direction() {
        let third = 1.0f32 / 3.0;
        let near = general(single(third), how(Type::F16, Type::F32)) as u16;
        assert_eq!(near, f16::from_f32(third).to_bits());
        let towards = |direction| general(single(third), How { direction, ..how(Type::F16, Type::F32) }) as u16;
        let (down, up) = (towards(Direction::Down), towards(Direction::Up));
        assert_eq!(up - down, 1);
        assert_eq!(towards(Direction::Zero), down);
        assert!(f16::from_bits(down).to_f32() < third && f16::from_bits(up).to_f32() > third);
        let minus = general(single(-third), How { direction: Direction::Down, ..how(Type::F16, Type::F32) }) as u16;
        assert_eq!(minus, up | 0x8000);
    }
}
