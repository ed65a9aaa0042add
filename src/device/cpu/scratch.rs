//! Tile-sized working memory that a thread keeps from task to task.

use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

thread_local! {
    static IDLE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A cache line: memory begins with one, so that no vector is read from two.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A borrowed piece of the thread's working memory, as numbers no wider than `f32`; it goes back when dropped. What it holds is unspecified.
pub(super) struct Scratch<T = f32> {
    memory: Vec<Line>,
    len: usize,
    numbers: PhantomData<T>,
}

impl Scratch {
    /// `len` floats.
    pub(super) fn new(len: usize) -> Self {
        Scratch::of(len)
    }
}

impl<T> Scratch<T> {
    /// `len` numbers.
    pub(super) fn of(len: usize) -> Self {
        let memory = IDLE.with_borrow_mut(Vec::pop).unwrap_or_default();
        let mut scratch = Scratch { memory, len: 0, numbers: PhantomData };
        scratch.resize(len);
        scratch
    }

    /// Changes the length, forgetting what was there.
    pub(super) fn resize(&mut self, len: usize) {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        if self.memory.len() < lines {
            self.memory.resize(lines, Line::zeroed());
        }
        self.len = len;
    }
}

impl<T> Drop for Scratch<T> {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        // A thread that is ending has no list left; its memory is simply freed.
        let _ = IDLE.try_with(|idle| idle.borrow_mut().push(memory));
    }
}

impl<T: Pod> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &cast_slice(&self.memory)[..self.len]
    }
}

impl<T: Pod> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut cast_slice_mut(&mut self.memory)[..self.len]
    }
}
