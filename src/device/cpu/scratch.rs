//! Tile-sized working memory that a thread keeps from task to task.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static IDLE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A borrowed piece of the thread's working memory; it goes back when dropped. What it holds is unspecified.
pub(super) struct Scratch {
    memory: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// `len` floats.
    pub(super) fn new(len: usize) -> Self {
        let mut scratch = Scratch { memory: IDLE.with_borrow_mut(Vec::pop).unwrap_or_default(), len: 0 };
        scratch.resize(len);
        scratch
    }

    /// Changes the length, forgetting what was there.
    pub(super) fn resize(&mut self, len: usize) {
        if self.memory.len() < len {
            self.memory.resize(len, 0.0);
        }
        self.len = len;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        // A thread that is ending has no list left; its memory is simply freed.
        let _ = IDLE.try_with(|idle| idle.borrow_mut().push(memory));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}
