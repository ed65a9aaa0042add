//! Memory for what is written once and read on every call, as folded filters are: in pages as large as the system has. 100 MB in small
//! pages are handed out one by one when they are first written, and the processor then looks up every 4 KB where the next are.

use crate::device::DeviceError;
use bytemuck::Pod;
use memmap2::MmapMut;
use std::cell::{Cell, Ref, RefCell};
use std::marker::PhantomData;
use std::rc::{Rc, Weak};

/// Bytes that are asked for at a time, unless one piece is longer. What of them nobody writes takes no memory.
const BYTES: usize = 64 << 20;

/// Where the next piece comes from, if anybody has one of it. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Slabs(Rc<RefCell<Weak<Slab>>>);

#[derive(Debug)]
struct Slab {
    memory: RefCell<MmapMut>,
    /// Lines that are taken.
    taken: Cell<usize>,
}

/// Some numbers in a slab, which goes back to the system with the last of them.
pub(super) struct Piece<T> {
    slab: Rc<Slab>,
    /// Where they begin, in lines, and how many they are.
    first: usize,
    len: usize,
    numbers: PhantomData<T>,
}

/// Bytes of a cache line: pieces begin with one, so that no two threads write to one.
const LINE: usize = 64;

impl Slabs {
    /// `len` numbers as `write` leaves them, which finds zeros; none of them has been touched.
    pub(super) fn piece<T: Pod>(&self, len: usize, write: impl FnOnce(&mut [T])) -> Result<Piece<T>, DeviceError> {
        let lines = (len * size_of::<T>()).div_ceil(LINE);
        let has_room = |slab: &Rc<Slab>| slab.taken.get() + lines <= slab.memory.borrow().len() / LINE;
        let current = self.0.borrow().upgrade().filter(has_room);
        let slab = match current {
            Some(slab) => slab,
            None => {
                let slab = Rc::new(Slab::new(BYTES.max(lines * LINE))?);
                self.0.replace(Rc::downgrade(&slab));
                slab
            }
        };
        let first = slab.taken.get();
        slab.taken.set(first + lines);
        write(&mut bytemuck::cast_slice_mut(&mut slab.memory.borrow_mut()[first * LINE..])[..len]);
        Ok(Piece { slab, first, len, numbers: PhantomData })
    }
}

impl Slab {
    fn new(bytes: usize) -> Result<Self, DeviceError> {
        let refused = |_| DeviceError::OutOfMemory { device: "CPU".into(), bytes };
        let memory = MmapMut::map_anon(bytes).map_err(refused)?;
        // Where there are no such pages, others do.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Slab { memory: RefCell::new(memory), taken: Cell::new(0) })
    }
}

impl<T: Pod> Piece<T> {
    /// The numbers.
    pub(super) fn numbers(&self) -> Ref<'_, [T]> {
        Ref::map(self.slab.memory.borrow(), |memory| &bytemuck::cast_slice(&memory[self.first * LINE..])[..self.len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_apart_and_one_that_is_too_long_has_its_own_slab() {
        let slabs = Slabs::default();
        let piece = |len: usize, value: f32| slabs.piece(len, |floats: &mut [f32]| floats.fill(value)).unwrap();
        let (first, second) = (piece(5, 1.0), piece(7, 2.0));
        let long = piece(BYTES / 4 + 1, 3.0);
        assert!(Rc::ptr_eq(&first.slab, &second.slab) && !Rc::ptr_eq(&first.slab, &long.slab));
        assert_eq!((&*first.numbers(), &*second.numbers()), (&[1.0; 5][..], &[2.0; 7][..]));
        assert!(long.numbers().len() == BYTES / 4 + 1 && long.numbers().iter().all(|&float| float == 3.0));
        let slab = Rc::downgrade(&first.slab);
        drop(first);
        assert_eq!(slab.strong_count(), 1);
        drop(second);
        assert_eq!(slab.strong_count(), 0);
    }
}
