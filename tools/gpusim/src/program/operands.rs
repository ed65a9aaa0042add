//! Operands: the rows, addresses and predicates that the instruction families ask for.

use super::decode::{Decoder, Result};
use super::names::{self, Meaning};
use super::{Inst, Slot};
use crate::ptx::ast::{Instruction, Operand, Type};

/// A base address in an operand: its row, whether that row is of 32 bits, and the constant added to it.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// The row.
    pub base: Slot,
    /// A row of 32-bit values?
    pub narrow: bool,
    /// What to add.
    pub offset: i64,
}

impl Decoder<'_> {
    /// The operand at `index`.
    ///
    /// # Errors
    /// Too few operands.
    pub fn operand<'i>(&self, ins: &'i Instruction, index: usize) -> Result<&'i Operand> {
        match ins.operands.get(index) {
            Some(operand) => Ok(operand),
            None => self.fail(format!("`{}` lacks operand {}", ins.name(), index + 1)),
        }
    }

    pub(super) fn meaning(&self, name: &str) -> Result<Meaning> {
        match self.scopes.find(name) {
            Some(meaning) => Ok(meaning.clone()),
            None => self.fail(format!("`{name}` is not declared")),
        }
    }

    /// The row and type of a register.
    ///
    /// # Errors
    /// The operand isn't one.
    pub fn register(&self, operand: &Operand) -> Result<(Slot, Type)> {
        if let Operand::Name(name) = operand
            && let Meaning::Register(slot, ty) = self.meaning(name)?
        {
            return Ok((slot, ty));
        }
        self.fail(format!("{operand:?} is not a register"))
    }

    /// A row to read a value of `ty` from: a register's, or a new one that holds the constant, address or special
    /// register.
    ///
    /// # Errors
    /// Not a value, or a register of another size.
    pub fn src(&mut self, operand: &Operand, ty: Type) -> Result<Slot> {
        let (slot, size) = self.src_any(operand, ty)?;
        if size != ty.size().max(2) {
            return self.fail(format!("{operand:?} has {size} bytes where {ty:?} is read"));
        }
        Ok(slot)
    }

    /// As [`Self::src`], for any register of at least `ty`'s size; also gives the row's element size.
    ///
    /// # Errors
    /// Not a value, or a register that is too small.
    pub fn src_any(&mut self, operand: &Operand, ty: Type) -> Result<(Slot, usize)> {
        let size = ty.size().max(2);
        let bits = match operand {
            Operand::Integer(bits) => match ty {
                Type::F32 => u64::from((*bits as i64 as f32).to_bits()),
                Type::F64 => (*bits as i64 as f64).to_bits(),
                _ => *bits,
            },
            Operand::Single(bits) => match ty {
                Type::F64 => f64::from(f32::from_bits(*bits)).to_bits(),
                _ => u64::from(*bits),
            },
            Operand::Double(bits) => match ty {
                Type::F32 => u64::from((f64::from_bits(*bits) as f32).to_bits()),
                _ => *bits,
            },
            Operand::Name(name) => {
                if let Some(special) = names::special(name) {
                    return Ok((self.rows.special(special), 4));
                }
                if name == "WARP_SZ" {
                    return Ok((self.rows.constant(size, 32), size));
                }
                match self.meaning(name)? {
                    Meaning::Register(slot, have) if have.size().max(2) >= size && have != Type::Pred => {
                        return Ok((slot, have.size().max(2)));
                    }
                    Meaning::Register(_, have) => {
                        return self.fail(format!("{name} is {have:?} where {ty:?} is read"));
                    }
                    _ => {
                        let (slot, narrow) = self.address_of(name)?;
                        return if narrow || size == 8 {
                            Ok((slot, 8))
                        } else {
                            match self.meaning(name)? {
                                Meaning::Address(bits) => Ok((self.rows.constant(size, bits), size)),
                                Meaning::Dynamic => Ok((slot, 8)),
                                _ => self.fail(format!("the address of {name} in {size} bytes")),
                            }
                        };
                    }
                }
            }
            other => return self.fail(format!("{other:?} is not a value")),
        };
        Ok((self.rows.constant(size, bits), size))
    }

    /// A row to write a value of `ty` to; `_` gives one that nobody reads.
    ///
    /// # Errors
    /// Not a register, or one of another size.
    pub fn dst(&mut self, operand: &Operand, ty: Type) -> Result<Slot> {
        if *operand == Operand::Sink {
            return Ok(self.scratch(ty));
        }
        let (slot, have) = self.register(operand)?;
        if have == Type::Pred || have.size().max(2) != ty.size().max(2) {
            return self.fail(format!("{operand:?} is {have:?} where {ty:?} is written"));
        }
        Ok(slot)
    }

    /// Puts an instruction before the one in hand, which is more than one step. It writes rows that nobody else uses,
    /// so it needs no guard.
    pub fn emit(&mut self, inst: Inst) {
        self.code.push(Inst { line: self.line, ..inst });
    }

    /// A row that nobody else uses.
    pub fn scratch(&mut self, ty: Type) -> Slot {
        let declared = self.rows.declared;
        let slot = self.rows.register(ty);
        self.rows.declared = declared;
        slot
    }

    /// A row that holds `bits` in every lane.
    pub fn constant(&mut self, ty: Type, bits: u64) -> Slot {
        self.rows.constant(ty.size(), bits)
    }

    /// A predicate to read, and whether it is negated.
    ///
    /// # Errors
    /// Not a predicate.
    pub fn predicate(&mut self, operand: &Operand) -> Result<(Slot, bool)> {
        match operand {
            Operand::Name(name) => self.predicate_named(name).map(|slot| (slot, false)),
            Operand::Not(name) => self.predicate_named(name).map(|slot| (slot, true)),
            Operand::Integer(value) => Ok((self.rows.constant_predicate(*value != 0), false)),
            other => self.fail(format!("{other:?} is not a predicate")),
        }
    }

    pub(super) fn predicate_named(&self, name: &str) -> Result<Slot> {
        match self.meaning(name)? {
            Meaning::Register(slot, Type::Pred) => Ok(slot),
            _ => self.fail(format!("{name} is not a predicate")),
        }
    }

    /// A predicate to write; `_` gives one that nobody reads.
    ///
    /// # Errors
    /// Not a predicate.
    pub fn dst_predicate(&mut self, operand: &Operand) -> Result<Slot> {
        match operand {
            Operand::Sink => Ok(self.scratch(Type::Pred)),
            Operand::Name(name) => self.predicate_named(name),
            other => self.fail(format!("{other:?} is not a predicate")),
        }
    }

    /// The elements of a vector operand, or the operand itself.
    #[must_use]
    pub fn elements<'i>(&self, operand: &'i Operand) -> &'i [Operand] {
        match operand {
            Operand::Vector(elements) => elements,
            single => std::slice::from_ref(single),
        }
    }

    /// The row that holds a variable's address, and whether the variable is a parameter.
    pub(super) fn address_of(&mut self, name: &str) -> Result<(Slot, bool)> {
        Ok(match self.meaning(name)? {
            Meaning::Address(address) => (self.rows.constant(8, address), false),
            Meaning::Dynamic => (self.rows.dynamic_shared(), false),
            Meaning::Shared(bytes, align) => {
                let at = self.shared.next_multiple_of(align);
                self.shared = at + bytes;
                self.scopes.redefine(name, Meaning::Address(at as u64));
                (self.rows.constant(8, at as u64), false)
            }
            Meaning::Parameter(offset, _) | Meaning::KernelParameter(offset) => {
                (self.rows.constant(8, offset.into()), true)
            }
            Meaning::Register(..) => return self.fail(format!("{name} has no address")),
        })
    }

    /// The address in brackets.
    ///
    /// # Errors
    /// Not an address.
    pub fn address(&mut self, operand: &Operand) -> Result<Address> {
        let Operand::Address(base, offset) = operand else {
            return self.fail(format!("{operand:?} is not an address"));
        };
        let Some(name) = base else {
            return Ok(Address { base: self.rows.constant(8, *offset as u64), narrow: false, offset: 0 });
        };
        if let Meaning::Register(slot, ty) = self.meaning(name)? {
            return match ty.size() {
                4 => Ok(Address { base: slot, narrow: true, offset: *offset }),
                8 => Ok(Address { base: slot, narrow: false, offset: *offset }),
                _ => self.fail(format!("{name} is no address: it is {ty:?}")),
            };
        }
        let (base, _) = self.address_of(name)?;
        Ok(Address { base, narrow: false, offset: *offset })
    }

    /// Does the operand's base name a parameter of a device function or of a call (and not of the kernel)?
    #[must_use]
    pub fn is_function_parameter(&self, operand: &Operand) -> bool {
        matches!(operand, Operand::Address(Some(name), _)
            if matches!(self.scopes.find(name), Some(Meaning::Parameter(..))))
    }

    /// Is code for a kernel decoded just now (and not for a function it calls)?
    #[must_use]
    pub fn in_kernel(&self) -> bool {
        self.kernel
    }
}
