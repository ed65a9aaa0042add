//! Memory that outlives the buffers in it, so that a training step finds the addresses of the one before it.
//!
//! Memory fresh from the system is slow (each page is zeroed when it is first touched), so none is given back before the device is gone.
//! And a step wants other lengths at its beginning than at its end, so memory at rest is no list of lengths: it is a few large *chunks*, in
//! which each buffer takes the first gap that is long enough, and leaves one that grows together with its neighbours. What was never in
//! use is never touched, and takes no memory. So a step of a residual network takes what it has in use at the worst of times, and any
//! network's at most a fifth more: a gap between what is kept can be too short for a gradient.

use bytemuck::Pod;
use bytemuck::allocation::try_zeroed_slice_box;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;

/// A pool.
#[derive(Debug, Default)]
pub(super) struct Pool(RefCell<State>);

/// All lengths and offsets are in words.
#[derive(Debug, Default)]
struct State {
    chunks: Vec<Chunk>,
    in_use: usize,
    most_in_use: usize,
}

/// What memory is made of, also where narrower numbers lie in it.
type Word = f32;

/// Words of a cache line: no two buffers share one, and each begins with one, so that no vector is read from two.
const LINE: usize = 64 / size_of::<Word>();

/// The shortest chunk: 64 MiB, of which a small network touches what it needs.
const SHORTEST: usize = (64 << 20) / size_of::<Word>();

/// Memory from the system.
#[derive(Debug)]
struct Chunk {
    /// Made by a box of these words, and given back to it when dropped.
    memory: NonNull<[Word]>,
    /// The first word that is on the boundary of a cache line.
    first: usize,
    /// Where the gaps begin and end. No two touch.
    gaps: BTreeMap<usize, usize>,
    /// Behind the last word that was ever in use.
    reached: usize,
}

/// Numbers whose memory goes back to its pool when they are dropped.
#[derive(Debug)]
pub struct Pooled<T> {
    numbers: NonNull<T>,
    len: usize,
    /// Which chunk they lie in, and where.
    chunk: usize,
    words: Range<usize>,
    pool: Rc<Pool>,
    owned: PhantomData<T>,
}

impl Pool {
    /// Room for `len` numbers, with unspecified content; none if the machine has no more.
    pub(super) fn take<T: Pod>(self: &Rc<Self>, len: usize) -> Option<Pooled<T>> {
        const { assert!(align_of::<T>() <= align_of::<Word>()) };
        let words = len.checked_mul(size_of::<T>())?.div_ceil(size_of::<Word>()).checked_next_multiple_of(LINE)?;
        let State { chunks, in_use, most_in_use } = &mut *self.0.borrow_mut();
        let gap = chunks.iter_mut().enumerate().find_map(|(number, chunk)| Some((number, chunk.take(words)?)));
        let (number, words) = match gap {
            Some(gap) => gap,
            None => {
                // As much again as there is, so that there are few chunks.
                let held: usize = chunks.iter().map(Chunk::words).sum();
                let mut chunk = Chunk::new(words.max(held).max(SHORTEST)).or_else(|| Chunk::new(words))?;
                let words = chunk.take(words)?;
                chunks.push(chunk);
                (chunks.len() - 1, words)
            }
        };
        *in_use += words.len();
        *most_in_use = *most_in_use.max(in_use);
        // SAFETY: the words are within the chunk.
        let numbers = unsafe { chunks[number].memory.cast::<Word>().add(words.start) }.cast();
        Some(Pooled { numbers, len, chunk: number, words, pool: Rc::clone(self), owned: PhantomData })
    }

    /// Bytes that were in use at the worst of times.
    pub(super) fn most_in_use(&self) -> usize {
        self.0.borrow().most_in_use * size_of::<Word>()
    }

    /// Bytes of all words that were ever in use: the memory that the pool takes.
    pub(super) fn held(&self) -> usize {
        self.0.borrow().chunks.iter().map(|chunk| (chunk.reached - chunk.first) * size_of::<Word>()).sum()
    }
}

impl Chunk {
    /// So many words that nobody has touched.
    fn new(words: usize) -> Option<Self> {
        let memory: NonNull<[Word]> = Box::leak(try_zeroed_slice_box(words.checked_add(LINE)?).ok()?).into();
        let first = memory.cast::<Word>().align_offset(LINE * size_of::<Word>()).min(LINE);
        Some(Chunk { memory, first, gaps: BTreeMap::from([(first, first + words)]), reached: first })
    }

    /// How many words buffers can have.
    fn words(&self) -> usize {
        self.memory.len() - LINE
    }

    /// So many words of the first gap that is long enough.
    fn take(&mut self, words: usize) -> Option<Range<usize>> {
        let (&start, &end) = self.gaps.iter().find(|(start, end)| *end - *start >= words)?;
        self.gaps.remove(&start);
        let taken = start..start + words;
        if taken.end < end {
            self.gaps.insert(taken.end, end);
        }
        self.reached = self.reached.max(taken.end);
        Some(taken)
    }

    /// Makes a gap of words that [`take`](Self::take) gave.
    fn give_back(&mut self, Range { mut start, mut end }: Range<usize>) {
        if let Some(behind) = self.gaps.remove(&end) {
            end = behind;
        }
        if let Some((&before, &its_end)) = self.gaps.range(..start).next_back()
            && its_end == start
        {
            start = before;
        }
        if start < end {
            self.gaps.insert(start, end);
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: a box was leaked to make it, and as every buffer holds on to the pool, none is left that could use it.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        let mut state = self.pool.0.borrow_mut();
        state.in_use -= self.words.len();
        state.chunks[self.chunk].give_back(self.words.clone());
    }
}

impl<T: Pod> Deref for Pooled<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the words are initialised, any of them make a `T`, they lie on its alignment, and until this is dropped no other buffer
        // has them. The chunk stays where it is as long as the pool, which this holds on to.
        unsafe { std::slice::from_raw_parts(self.numbers.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and this is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.numbers.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    fn take(pool: &Rc<Pool>, len: usize) -> Pooled<f32> {
        pool.take(len).unwrap()
    }

    fn gaps(pool: &Rc<Pool>) -> Vec<usize> {
        pool.0.borrow().chunks[0].gaps.iter().map(|(start, end)| end - start).collect()
    }

    #[test]
    fn gaps_grow_together_and_are_taken_again() {
        let pool = Rc::new(Pool::default());
        let [first, second, third, fourth] = [16, 32, 48, 64].map(|len| take(&pool, len));
        let addresses = [&first, &second, &third, &fourth].map(|numbers| numbers.as_ptr());
        drop((second, fourth));
        assert_eq!(gaps(&pool), [32, SHORTEST - 96]);
        drop(third);
        assert_eq!(gaps(&pool), [SHORTEST - 16]);
        let whole = take(&pool, 80);
        assert_eq!(whole.as_ptr(), addresses[1]);
        drop(first);
        // Too short for this one.
        let last = take(&pool, 17);
        assert_eq!((last.as_ptr(), gaps(&pool)), (addresses[3], vec![16, SHORTEST - 128]));
        drop((whole, last));
        assert_eq!(gaps(&pool), [SHORTEST]);
        assert_eq!([pool.held(), pool.most_in_use()], [4 * (16 + 32 + 48 + 64); 2]);
        assert_eq!(pool.0.borrow().in_use, 0);
    }

    #[test]
    fn what_no_gap_holds_takes_a_chunk_as_long_as_all_before() {
        let pool = Rc::new(Pool::default());
        let held = [SHORTEST, 1, 3 * SHORTEST, 2 * SHORTEST].map(|len| take(&pool, len));
        let chunks = pool.0.borrow().chunks.iter().map(Chunk::words).collect::<Vec<_>>();
        assert_eq!(chunks, [SHORTEST, SHORTEST, 3 * SHORTEST, 5 * SHORTEST]);
        assert_eq!(pool.held(), 4 * (6 * SHORTEST + LINE));
        assert!(pool.take::<f32>(usize::MAX / 8).is_none() && pool.take::<f32>(usize::MAX).is_none());
        drop(held);
        let whole = |chunk: &Chunk| BTreeMap::from([(chunk.first, chunk.first + chunk.words())]);
        assert!(pool.0.borrow().chunks.iter().all(|chunk| chunk.gaps == whole(chunk)));
    }

    #[test]
    fn buffers_do_not_overlap_and_keep_what_is_written() {
        let pool = Rc::new(Pool::default());
        let mut held: Vec<(Pooled<f32>, Pooled<bf16>, f32)> = Vec::new();
        for round in 0..200_usize {
            let len = round * 7919 % 301;
            let (mut full, mut narrow) = (take(&pool, len), pool.take::<bf16>(len).unwrap());
            assert_eq!((full.len(), narrow.len()), (len, len));
            assert_eq!([full.as_ptr().addr() % 64, narrow.as_ptr().addr() % 64], [0, 0]);
            full.fill(round as f32);
            narrow.fill(bf16::from_f32(round as f32));
            held.push((full, narrow, round as f32));
            if round % 3 > 0 {
                held.swap_remove(round * 31 % held.len());
            }
            for (full, narrow, round) in &held {
                assert!(full.iter().all(|x| x == round) && narrow.iter().all(|x| x.to_f32() == *round));
            }
        }
    }
}
