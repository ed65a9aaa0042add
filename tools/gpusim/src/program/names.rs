//! Scopes of names, and where registers and variables are put.

use super::{Fill, Slot, Special};
use crate::ptx::ast::Type;
use std::collections::HashMap;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    /// A register.
    Register(Slot, Type),
    /// A variable's address, in its own space.
    Address(u64),
    /// A variable of dynamic shared memory.
    Dynamic,
    /// A parameter of a call or function: an offset in local memory, and its size.
    Parameter(u32, u32),
    /// A kernel's parameter: an offset in the parameter buffer.
    KernelParameter(u32),
    /// A shared variable of the module that the kernel hasn't used yet: size and alignment.
    Shared(usize, usize),
}

/// Names, innermost scope last.
#[derive(Default)]
pub(super) struct Scopes(Vec<HashMap<String, Meaning>>);

impl Scopes {
    pub fn open(&mut self) {
        self.0.push(HashMap::new());
    }

    pub fn close(&mut self) {
        self.0.pop();
    }

    pub fn declare(&mut self, name: &str, meaning: Meaning) {
        if let Some(scope) = self.0.last_mut() {
            scope.insert(name.to_owned(), meaning);
        }
    }

    /// Changes what `name` means where it was declared.
    pub fn redefine(&mut self, name: &str, meaning: Meaning) {
        if let Some(old) = self.0.iter_mut().rev().find_map(|scope| scope.get_mut(name)) {
            *old = meaning;
        }
    }

    pub fn find(&self, name: &str) -> Option<&Meaning> {
        self.0.iter().rev().find_map(|scope| scope.get(name))
    }

    /// The scopes within the outermost, set aside while another function is decoded.
    pub fn set_aside(&mut self) -> Vec<HashMap<String, Meaning>> {
        self.0.split_off(1)
    }

    pub fn restore(&mut self, inner: Vec<HashMap<String, Meaning>>) {
        self.0.truncate(1);
        self.0.extend(inner);
    }
}

/// The register file's plan: rows for registers, constants and special registers.
#[derive(Default)]
pub(super) struct Rows {
    pub bytes: usize,
    pub declared: u32,
    pub fills: Vec<(Slot, Fill)>,
    constants: HashMap<(u8, u64), Slot>,
    specials: HashMap<Special, Slot>,
    dynamic: Option<Slot>,
}

impl Rows {
    pub fn new() -> Self {
        // The first bytes stay free, so that no row is at 0.
        Self { bytes: 64, ..Self::default() }
    }

    fn take(&mut self, bytes: usize) -> Slot {
        let align = bytes.min(64);
        let at = self.bytes.next_multiple_of(align);
        self.bytes = at + bytes;
        at as Slot
    }

    /// A new row for a register of this type.
    pub fn register(&mut self, ty: Type) -> Slot {
        if ty == Type::Pred {
            return self.take(4);
        }
        // An 8-bit register lives in a 16-bit row.
        let size = ty.size().max(2);
        self.declared += size.div_ceil(4) as u32;
        self.take(size * 32)
    }

    pub fn constant(&mut self, size: usize, bits: u64) -> Slot {
        let size = size.max(2);
        let bits = if size < 8 { bits & ((1 << (size * 8)) - 1) } else { bits };
        if let Some(&slot) = self.constants.get(&(size as u8, bits)) {
            return slot;
        }
        let slot = self.take(size * 32);
        self.fills.push((slot, Fill::Bits { size: size as u8, bits }));
        self.constants.insert((size as u8, bits), slot);
        slot
    }

    /// A predicate that is always true or false.
    pub fn constant_predicate(&mut self, value: bool) -> Slot {
        let slot = self.take(4);
        // A mask is one word: a constant "row" of four bytes would fill 32 of them.
        self.fills.push((slot, Fill::Bits { size: 0, bits: if value { u32::MAX.into() } else { 0 } }));
        slot
    }

    pub fn special(&mut self, special: Special) -> Slot {
        if let Some(&slot) = self.specials.get(&special) {
            return slot;
        }
        let slot = self.take(128);
        self.fills.push((slot, Fill::Special(special)));
        self.specials.insert(special, slot);
        slot
    }

    /// The 64-bit address of dynamic shared memory.
    pub fn dynamic_shared(&mut self) -> Slot {
        if let Some(slot) = self.dynamic {
            return slot;
        }
        let slot = self.take(256);
        self.fills.push((slot, Fill::DynamicShared));
        self.dynamic = Some(slot);
        slot
    }
}

/// The special register of this name, if its value stays for a thread's life.
pub(super) fn special(name: &str) -> Option<Special> {
    let axis = |rest: &str| match rest {
        "x" => Some(0u8),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    let name = name.strip_prefix('%')?;
    if let Some((stem, rest)) = name.split_once('.') {
        let axis = axis(rest)?;
        return Some(match stem {
            "tid" => Special::Tid(axis),
            "ntid" => Special::Ntid(axis),
            "ctaid" => Special::Ctaid(axis),
            "nctaid" => Special::Nctaid(axis),
            // Every cluster is of one block.
            "clusterid" => Special::Ctaid(axis),
            "nclusterid" => Special::Nctaid(axis),
            "cluster_ctaid" => Special::Zero,
            "cluster_nctaid" => Special::One,
            _ => return None,
        });
    }
    Some(match name {
        "laneid" => Special::LaneId,
        "warpid" => Special::WarpId,
        "nwarpid" => Special::NwarpId,
        "lanemask_eq" => Special::LanemaskEq,
        "lanemask_le" => Special::LanemaskLe,
        "lanemask_lt" => Special::LanemaskLt,
        "lanemask_ge" => Special::LanemaskGe,
        "lanemask_gt" => Special::LanemaskGt,
        "smid" => Special::SmId,
        "nsmid" => Special::NsmId,
        "gridid" => Special::GridId,
        "dynamic_smem_size" => Special::DynamicSharedSize,
        "total_smem_size" => Special::TotalSharedSize,
        "cluster_ctarank" => Special::Zero,
        "cluster_nctarank" => Special::One,
        _ => return None,
    })
}
