//! `cp.async.bulk.tensor`: copies of boxes of tensors between device and shared memory, by a map of the tensor
//! ([`crate::tensor_map`]); their reductions and prefetches.
//!
//! In the checks a box is its rows, each a range of device memory: one request, or several where its bytes don't fit
//! one. Into shared memory a copy writes its whole box, zeros (or NaN) where that is outside of the tensor; out of it,
//! it reads and writes only what is inside. How hardware lays out rows narrower than their swizzle isn't documented;
//! copies of such are refused.

use super::access::{Mode, lanes};
use super::atomic::{Reduction, reduction};
use super::bulk_copy::{seen_until, signed};
use super::bulk_memory::PIECE;
use super::mbarrier::{offsets, place};
use super::memory::addresses;
use super::{Core, Done, Exec, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Stop};
use crate::check::BULK;
use crate::fault::Kind;
use crate::program::{Act, Address, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Operand, Space, Type};
use crate::tensor_map::{Element, RANK, Row, Shape, Swizzle, TensorMap};

type Result<T> = std::result::Result<T, DecodeError>;

/// To what a box in shared memory is aligned.
const BOX_ALIGN: u64 = 128;
/// To what a map is aligned.
pub(super) const MAP_ALIGN: u64 = 64;
/// Bytes of the widest row: 256 elements of eight.
const WIDEST: usize = 2048;

/// The reductions, by the number in an instruction's immediate less one; 0 stands for a copy.
const OPERATIONS: [&str; 8] = ["add", "min", "max", "inc", "dec", "and", "or", "xor"];

/// Places in [`Inst::wide`]: how the addresses of shared memory, map and barrier are given, and their offsets; what is
/// copied; the row of the blocks' mask, if there is one. Behind them are the rows of the coordinates, then of the
/// offsets of a filter.
const SHARED: usize = 0;
const MAP: usize = 2;
const BARRIER: usize = 4;
const DIMENSIONS: usize = 6;
const FILTER: usize = 7;
const MASK: usize = 8;
const HEAD: usize = 9;

/// Decodes the instruction with these words behind `cp.async.bulk` or `cp.reduce.async.bulk`, hints left out.
pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction, words: &[&str]) -> Result<Inst> {
    let (prefetches, words) = match words {
        ["prefetch", "tensor", words @ ..] => (true, words),
        ["tensor", words @ ..] => (false, words),
        _ => return d.unsupported(ins),
    };
    let dimensions = ["1d", "2d", "3d", "4d", "5d"];
    let Some((rank, rest)) =
        words.split_first().and_then(|(word, rest)| Some((1 + dimensions.iter().position(|d| d == word)?, rest)))
    else {
        return d.unsupported(ins);
    };
    let filter = rest.contains(&"im2col");
    let rest: Vec<&str> = rest.iter().copied().filter(|word| !matches!(*word, "tile" | "im2col")).collect();
    // A filter's box has a position of its own in each spatial dimension.
    let positions = if filter { rank.saturating_sub(2) } else { 0 };
    if filter && positions == 0 {
        return d.unsupported(ins);
    }
    let reduces = ins.has("reduce");
    let plan = |exec, shared, map, barrier| Plan { exec, shared, map, barrier, rank, positions, filter };
    match rest[..] {
        ["shared::cluster" | "shared::cta", "global", "mbarrier::complete_tx::bytes", ref more @ ..] if !reduces => {
            match *more {
                [] => plan(load, Some(0), 1, Some(2)).decode(d, ins, false),
                ["multicast::cluster"] => plan(load, Some(0), 1, Some(2)).decode(d, ins, true),
                _ => d.unsupported(ins),
            }
        }
        ["global", "shared::cta", "bulk_group"] if !filter => plan(store, Some(1), 0, None).decode(d, ins, false),
        ["global", "shared::cta", operation, "bulk_group"] if !filter && reduces => {
            match OPERATIONS.iter().position(|&name| name == operation) {
                Some(number) => Ok(plan(store, Some(1), 0, None).decode(d, ins, false)?.imm(number as i64 + 1)),
                None => d.unsupported(ins),
            }
        }
        ["L2", "global"] if prefetches => plan(prefetch, None, 0, None).decode(d, ins, false),
        _ => d.unsupported(ins),
    }
}

/// Which operand is what.
struct Plan {
    exec: Exec,
    shared: Option<usize>,
    map: usize,
    barrier: Option<usize>,
    rank: usize,
    positions: usize,
    filter: bool,
}

impl Plan {
    fn decode(&self, d: &mut Decoder<'_>, ins: &Instruction, multicast: bool) -> Result<Inst> {
        let Operand::Tensor(parts) = d.operand(ins, self.map)? else {
            return d.unsupported(ins);
        };
        let [map, coordinates] = &parts[..] else {
            return d.unsupported(ins);
        };
        let map = d.address(map)?;
        let mut wide = vec![0; HEAD];
        let given = |address: &Address| [place(address, ins), address.offset as Slot];
        wide[MAP..MAP + 2].copy_from_slice(&[Slot::from(map.narrow), map.offset as Slot]);
        let mut rows = vec![map.base];
        for (operand, at) in [(self.shared, SHARED), (self.barrier, BARRIER)] {
            if let Some(operand) = operand {
                let address = d.address(d.operand(ins, operand)?)?;
                rows.push(address.base);
                wide[at..at + 2].copy_from_slice(&given(&address));
            }
        }
        wide[DIMENSIONS] = self.rank as Slot;
        wide[FILTER] = Slot::from(self.filter);
        // Behind the last of the addresses: the filter's position, then the blocks of a multicast, then a cache policy.
        let mut next = [self.shared, Some(self.map), self.barrier].iter().flatten().max().map_or(0, |last| last + 1);
        let mut vector = |d: &mut Decoder<'_>, operand: &Operand, count: usize, ty: Type| -> Result<()> {
            let elements = d.elements(operand).to_vec();
            if elements.len() != count {
                return d.fail(format!("`{}` with {} coordinates or offsets", ins.name(), elements.len()));
            }
            for element in &elements {
                let row = d.src(element, ty)?;
                wide.push(row);
            }
            Ok(())
        };
        vector(d, coordinates, self.rank, Type::S32)?;
        if self.filter {
            vector(d, d.operand(ins, next)?, self.positions, Type::U16)?;
            next += 1;
        }
        if multicast {
            wide[MASK] = d.src(d.operand(ins, next)?, Type::U16)?;
        }
        Ok(Inst::new(Class::Memory, Act::Lanes(self.exec), &rows).wide(wide))
    }
}

/// Where a lane's copy goes: a map, and a box.
struct LaneCopy {
    map: TensorMap,
    at: [i32; RANK],
    offsets: [u16; 3],
}

impl LaneCopy {
    fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.map.rows(self.at, self.offsets)
    }

    /// Where in shared memory the pieces of row `index` of a box at `start` are.
    fn pieces(&self, start: u64, index: u64) -> impl Iterator<Item = u64> {
        let (width, swizzle) = (u64::from(self.map.row_bytes()), self.map.swizzle);
        (0..width).step_by(PIECE).map(move |at| swizzle.place(start + index * width + at))
    }
}

impl Core<'_> {
    /// The map at a generic address.
    pub(super) fn tensor_map(&mut self, address: u64, lane: usize) -> std::result::Result<TensorMap, Stop> {
        if !address.is_multiple_of(MAP_ALIGN) {
            let kind = Kind::Misaligned { address, bytes: MAP_ALIGN as u32, write: false };
            return Err(self.fault(lane as u32, kind));
        }
        if matches!(address >> 56 << 56, SHARED_WINDOW | LOCAL_WINDOW) {
            let what =
                "it is in shared or local memory; only parameters, constants and device memory can have it".into();
            return Err(self.fault(lane as u32, Kind::TensorMap { address, what }));
        }
        let mut at: [u64; 32] = std::array::from_fn(|i| address + 16 * i as u64);
        let mask = 0xff;
        self.locate(Space::Generic, &mut at, mask, 16, Mode::Read).map_err(|stop| self.of_lane(lane, stop))?;
        let mut words = [0; 16];
        for (i, pair) in words.chunks_exact_mut(2).enumerate() {
            // SAFETY: `locate` found 16 bytes readable for each of these lanes.
            pair.copy_from_slice(&unsafe { (at[i] as *const [u64; 2]).read_unaligned() });
        }
        let map = TensorMap::decode(&words);
        map.map_err(|broken| self.fault(lane as u32, Kind::TensorMap { address, what: broken.to_string() }))
    }

    /// A lane's copy.
    ///
    /// # Safety
    /// The instruction is one that [`Plan::decode`] made.
    unsafe fn tensor_box(&mut self, inst: &Inst, lane: usize) -> std::result::Result<LaneCopy, Stop> {
        let wide = &inst.wide;
        let (rank, filter) = (wide[DIMENSIONS] as usize, wide[FILTER] != 0);
        // SAFETY: the decoder put a row of addresses in operand 0.
        let address = unsafe { addresses(self, inst.a[0], wide[MAP] != 0, signed(wide[MAP + 1])) }[lane];
        let map = self.tensor_map(address, lane)?;
        let fits = map.rank == rank && filter == matches!(map.shape, Shape::Im2col { .. });
        if !fits {
            let kind = |filter| if filter { "a filter (im2col)" } else { "tiles" };
            let have = kind(matches!(map.shape, Shape::Im2col { .. }));
            let what = format!(
                "it has {} dimensions and is for {have}, the instruction has {rank} and is for {}",
                map.rank,
                kind(filter)
            );
            return Err(self.fault(lane as u32, Kind::TensorMap { address, what }));
        }
        if map.swizzle != Swizzle::None && map.row_bytes() != map.swizzle.span() {
            let what = format!(
                "a tensor copy with rows of {} bytes under a swizzle of {}: their layout isn't documented",
                map.row_bytes(),
                map.swizzle.span()
            );
            return Err(self.fault(lane as u32, Kind::Unsupported(what)));
        }
        let (coordinates, positions) = wide[HEAD..].split_at(rank);
        let (mut at, mut offsets) = ([0; RANK], [0; 3]);
        // SAFETY: the decoder put rows of i32 and of u16 here.
        unsafe {
            for (at, &row) in at.iter_mut().zip(coordinates) {
                *at = self.row::<i32>(row)[lane];
            }
            for (offset, &row) in offsets.iter_mut().zip(positions) {
                *offset = self.row::<u16>(row)[lane];
            }
        }
        Ok(LaneCopy { map, at, offsets })
    }

    fn check_box(&self, address: u64, write: bool, lane: usize) -> Done {
        if address.is_multiple_of(BOX_ALIGN) {
            return Ok(());
        }
        Err(self.fault(lane as u32, Kind::Misaligned { address, bytes: BOX_ALIGN as u32, write }))
    }
}

/// From device to shared memory.
unsafe fn load(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    // SAFETY: the decoder put rows of addresses in operands 1 and 2, and one of u16 behind a multicast's mask.
    let (to, barriers, blocks) = unsafe {
        let to = offsets(core, inst.a[1], wide[SHARED], signed(wide[SHARED + 1]));
        let barriers = offsets(core, inst.a[2], wide[BARRIER], signed(wide[BARRIER + 1]));
        (to, barriers, core.blocks(wide[MASK]))
    };
    for lane in lanes(mask) {
        // SAFETY: the instruction was decoded here.
        let what = unsafe { core.tensor_box(inst, lane)? };
        core.check_box(to[lane], true, lane)?;
        core.check_blocks(blocks[lane], lane)?;
        let clock = core.begin_bulk();
        let (map, mut data) = (&what.map, [0; WIDEST]);
        let data = &mut data[..map.row_bytes() as usize];
        for (index, row) in what.rows().enumerate() {
            if map.nan {
                let nan = map.element.nan();
                data.chunks_exact_mut(nan.len()).for_each(|element| element.copy_from_slice(nan));
            } else {
                data.fill(0);
            }
            if row.bytes > 0 {
                let inside = &mut data[row.skip as usize..][..row.bytes as usize];
                core.bulk_read(row.address, inside, lane)?;
                map.element.convert(inside);
            }
            for (place, piece) in what.pieces(to[lane], index as u64).zip(data.chunks_exact(PIECE)) {
                core.put_piece(place, piece, lane)?;
            }
        }
        core.count_bulk(map.bytes());
        core.complete_bytes(barriers[lane], map.bytes(), &seen_until(BULK, clock + 1), lane)?;
    }
    Ok(())
}

/// The type that a reduction of these elements has in PTX.
fn reduced(operation: &str, element: Element) -> Option<Type> {
    Some(match (operation, element) {
        ("and" | "or" | "xor", Element::U32 | Element::S32) => Type::B32,
        ("and" | "or" | "xor", Element::U64 | Element::S64) => Type::B64,
        (_, Element::U32) => Type::U32,
        (_, Element::S32) => Type::S32,
        (_, Element::U64) => Type::U64,
        (_, Element::S64) => Type::S64,
        (_, Element::F16) => Type::F16,
        (_, Element::Bf16) => Type::Bf16,
        (_, Element::F32 | Element::F32Ftz) => Type::F32,
        (_, Element::F64) => Type::F64,
        (_, Element::U8 | Element::U16 | Element::Tf32 | Element::Tf32Ftz) => return None,
    })
}

/// From shared to device memory, instead of what is there or added to it.
unsafe fn store(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder put a row of addresses in operand 1.
    let from = unsafe { offsets(core, inst.a[1], inst.wide[SHARED], signed(inst.wide[SHARED + 1])) };
    for lane in lanes(mask) {
        // SAFETY: the instruction was decoded here.
        let what = unsafe { core.tensor_box(inst, lane)? };
        core.check_box(from[lane], false, lane)?;
        let element = what.map.element;
        let operation = match inst.imm {
            0 => None,
            number => {
                let name = OPERATIONS[number as usize - 1];
                let Some(number) = reduced(name, element).and_then(|ty| reduction(name, ty)) else {
                    let what = format!("cp.reduce.async.bulk.tensor.{name} of elements of type {element:?}");
                    return Err(core.fault(lane as u32, Kind::Unsupported(what)));
                };
                Some(Reduction::numbered(number))
            }
        };
        let clock = core.begin_bulk();
        let mut data = [0; WIDEST];
        for (index, row) in what.rows().enumerate().filter(|(_, row)| row.bytes > 0) {
            let (start, end) = (row.skip as usize, (row.skip + row.bytes) as usize);
            for (place, at) in what.pieces(from[lane], index as u64).zip((0..).step_by(PIECE)) {
                let (first, last) = (start.max(at), end.min(at + PIECE));
                if first < last {
                    core.get_part(place + (first - at) as u64, &mut data[first..last], lane)?;
                }
            }
            match operation {
                None => core.bulk_write(row.address, &data[start..end], lane)?,
                Some(operation) => core.bulk_reduce(row.address, &data[start..end], operation, lane)?,
            }
        }
        core.count_bulk(what.map.bytes());
        core.warp.bulk.note(clock + 1);
    }
    Ok(())
}

/// Looks at what would be fetched; there is no cache to fetch it to.
unsafe fn prefetch(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    for lane in lanes(mask) {
        // SAFETY: the instruction was decoded here.
        let what = unsafe { core.tensor_box(inst, lane)? };
        for row in what.rows().filter(|row| row.bytes > 0) {
            core.check_allocated(row.address, row.bytes, lane)?;
        }
    }
    Ok(())
}

/// `prefetch.tensormap`: looks at the map.
pub(super) fn decode_map_prefetch(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    d.only(ins, &["tensormap", "const", "param"])?;
    let address = d.address(d.operand(ins, 0)?)?;
    // Behind `.param` or `.const` stands an address of that space.
    let window = if ins.has("param") { PARAM_WINDOW } else { 0 };
    let inst = Inst::new(Class::Memory, Act::Lanes(look_at_map), &[address.base]);
    Ok(inst.imm(address.offset + window as i64).wide(vec![Slot::from(address.narrow)]))
}

unsafe fn look_at_map(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder put a row of addresses in operand 0.
    let at = unsafe { addresses(core, inst.a[0], inst.wide[0] != 0, inst.imm) };
    lanes(mask).try_for_each(|lane| core.tensor_map(at[lane], lane).map(|_| ()))
}
