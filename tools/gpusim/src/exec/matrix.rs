//! Moves of the fragments that tensor-core products work on: `ldmatrix`, `stmatrix`, `movmatrix`.

use super::access::Mode;
use super::banks::wavefronts;
use super::memory::addresses;
use super::processor::{Body, best};
use super::{Core, Done, Exec};
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Type};

type Result<T> = std::result::Result<T, DecodeError>;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    if !ins.has("sync") || !ins.has("aligned") {
        return d.unsupported(ins);
    }
    match ins.opcode.as_str() {
        "mma" => super::product::decode(d, ins),
        "movmatrix" => {
            d.only(ins, &["sync", "aligned", "m8n8", "trans"])?;
            if !ins.has("m8n8") || !ins.has("trans") || !ins.has("b16") {
                return d.unsupported(ins);
            }
            let rows = super::arithmetic::rows(d, ins, Type::B32, 1)?;
            Ok(Inst::new(Class::Matrix, Act::Lanes(transpose), &rows))
        }
        _ => fragment_move(d, ins),
    }
}

/// All 32 lanes must execute a warp-wide instruction.
pub(super) fn whole_warp(core: &Core<'_>, mask: u32, name: &str) -> Done {
    if mask == u32::MAX {
        return Ok(());
    }
    let kind = crate::fault::Kind::MemberMask { name: name.to_owned(), named: u32::MAX, active: mask };
    Err(core.fault(mask.trailing_zeros(), kind))
}

fn fragment_move(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    d.only(ins, &["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta"])?;
    let store = ins.opcode == "stmatrix";
    let count = match () {
        () if ins.has("x1") => 1,
        () if ins.has("x2") => 2,
        () if ins.has("x4") => 4,
        () => return d.unsupported(ins),
    };
    let shared = ins.has("shared") || ins.has("shared::cta");
    if !ins.has("m8n8") || !ins.has("b16") || !shared {
        return d.unsupported(ins);
    }
    let (address, values) = if store { (0, 1) } else { (1, 0) };
    let address = d.address(d.operand(ins, address)?)?;
    let mut wide = vec![Slot::from(address.narrow), Slot::from(ins.has("trans"))];
    let elements = d.elements(d.operand(ins, values)?).to_vec();
    if elements.len() != count {
        return d.unsupported(ins);
    }
    for element in &elements {
        wide.push(if store { d.src(element, Type::B32)? } else { d.dst(element, Type::B32)? });
    }
    let exec: Exec = if store { best::<StoreFragments>() } else { best::<LoadFragments>() };
    Ok(Inst::new(Class::Matrix, Act::Lanes(exec), &[address.base]).imm(address.offset).wide(wide))
}

impl Core<'_> {
    /// Checks the eight rows of 16 bytes of each matrix, and gives their host addresses.
    ///
    /// # Safety
    /// The instruction has an address row in operand 0.
    #[inline(always)]
    unsafe fn fragment_rows(
        &mut self,
        inst: &Inst,
        mode: Mode,
        name: &str,
        mask: u32,
    ) -> std::result::Result<[u64; 32], super::Stop> {
        whole_warp(self, mask, name)?;
        let count = inst.wide.len() - 2;
        // SAFETY: the caller's promise.
        let mut at = unsafe { addresses(self, inst.a[0], inst.wide[0] != 0, inst.imm) };
        let rows = u32::MAX >> (32 - 8 * count);
        self.check_aligned(&at, rows, 16, mode)?;
        self.shared_granules(&at[..8 * count], mode)?;
        let (fronts, ideal) = wavefronts(&at, rows, 16);
        self.tally.shared(self.at, fronts, ideal);
        let base = self.common.shared.pointer() as u64;
        at.iter_mut().for_each(|address| *address = address.wrapping_add(base));
        Ok(at)
    }
}

/// Rows of 16 bytes into registers.
struct LoadFragments;

impl Body for LoadFragments {
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        // SAFETY: the decoder put an address row in operand 0 and rows of u32 behind.
        unsafe {
            let rows = core.fragment_rows(inst, Mode::Read, "ldmatrix", mask)?;
            let transposed = inst.wide[1] != 0;
            for (matrix, &slot) in inst.wide[2..].iter().enumerate() {
                let rows = &rows[8 * matrix..][..8];
                // SAFETY (of the reads): 16 bytes are at each row.
                if transposed {
                    let mut matrix = [[0u16; 8]; 8];
                    for (to, &row) in matrix.iter_mut().zip(rows) {
                        *to = (row as *const [u16; 8]).read_unaligned();
                    }
                    let values = std::array::from_fn(|lane: usize| {
                        let (g, t) = (lane / 4, lane % 4);
                        u32::from(matrix[2 * t][g]) | u32::from(matrix[2 * t + 1][g]) << 16
                    });
                    core.set_row(slot, values, mask);
                } else {
                    // Straight into the register: put together elsewhere, the next load would wait for these stores.
                    for (to, &row) in core.row_mut::<u32>(slot).chunks_exact_mut(4).zip(rows) {
                        to.copy_from_slice(&(row as *const [u32; 4]).read_unaligned());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Registers into rows of 16 bytes.
struct StoreFragments;

impl Body for StoreFragments {
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        // SAFETY: the decoder put an address row in operand 0 and rows of u32 behind; 16 bytes are at each row.
        unsafe {
            let rows = core.fragment_rows(inst, Mode::Write, "stmatrix", mask)?;
            let transposed = inst.wide[1] != 0;
            for (matrix, &slot) in inst.wide[2..].iter().enumerate() {
                let values = core.row::<u32>(slot);
                for (lane, value) in values.into_iter().enumerate() {
                    let (g, t) = (lane / 4, lane % 4);
                    let rows = &rows[matrix * 8..];
                    if transposed {
                        (rows[2 * t] as *mut u16).add(g).write_unaligned(value as u16);
                        (rows[2 * t + 1] as *mut u16).add(g).write_unaligned((value >> 16) as u16);
                    } else {
                        (rows[g] as *mut u32).add(t).write_unaligned(value);
                    }
                }
            }
        }
        Ok(())
    }
}

unsafe fn transpose(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    whole_warp(core, mask, "movmatrix")?;
    // SAFETY: the decoder made the operands rows of u32.
    unsafe {
        let values = core.row::<u32>(inst.a[1]);
        let element = |row: usize, column: usize| values[row * 4 + column / 2] >> (column % 2 * 16) & 0xffff;
        let out = std::array::from_fn(|lane| {
            let (g, t) = (lane / 4, lane % 4);
            element(2 * t, g) | element(2 * t + 1, g) << 16
        });
        core.set_row(inst.a[0], out, mask);
    }
    Ok(())
}
