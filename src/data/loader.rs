//! Batches, assembled ahead of time on a thread.
//!
//! A [`Loader`] walks one epoch. Which images a batch holds, and how each is placed, follows from (seed, epoch, step) alone, so
//! training resumes at any step with the batches it would have seen, and timing changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};
use std::{io, panic};

use super::augmentation::Augmentation;
use super::distortion::Distortion;
use super::tensor_file::{TensorFile, TensorFileError};
use crate::device::Placement;
use crate::random::permutation;
use rayon::prelude::*;

/// Batches that wait while the device works on another. Two hide the disk's hiccups; more only take memory.
const AHEAD: usize = 2;

/// B images and what is known about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Which images of the file, `[B]`.
    pub indices: Vec<u32>,
    /// Their pixels, `[B, H, W, 3]`.
    pub pixels: Vec<u8>,
    /// Their labels, `[B, C]`, 0 or 1.
    pub labels: Vec<u8>,
    /// How each is mirrored and moved, `[B]`.
    pub placements: Vec<Placement>,
}

/// Why an epoch cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// Batches of no images.
    #[error("a batch of 0 images; choose 1 or more")]
    EmptyBatch,
    /// Not one full batch to train on.
    #[error(
        "a batch of {batch} is larger than the training set of {images} images; choose {images} or less with --batch"
    )]
    BatchTooLarge {
        /// Images a batch.
        batch: usize,
        /// Images to choose from.
        images: usize,
    },
    /// Nothing to train on or to evaluate.
    #[error("no images to load; check the splits of the tensor file")]
    NoImages,
    /// The tensor file was cut or damaged.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// The system gave no thread.
    #[error("cannot start the thread that loads batches")]
    Thread(#[source] io::Error),
}

/// One epoch of batches, an iterator. Hand each batch back with [`recycle`](Self::recycle) when done, and none is allocated twice.
///
/// The first error ends the iteration. Dropping the loader stops its thread within one image.
#[derive(Debug)]
pub struct Loader {
    /// `None` only while dropping: a closed channel wakes a thread that waits for room.
    batches: Option<Receiver<Result<Batch, LoaderError>>>,
    spare: Sender<Batch>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    remaining: usize,
}

impl Loader {
    /// The training batches of `epoch` from step `first_step` on: `indices` shuffled by seed and epoch, in full batches of `batch`
    /// images. The rest that fills none is left out, other images in each epoch. From the last step on there are no batches.
    ///
    /// # Errors
    /// [`LoaderError`]; in particular if the file has been cut since it was opened.
    ///
    /// # Panics
    /// On the first batch that has an index the file lacks.
    pub fn train(
        file: Arc<TensorFile>,
        indices: Arc<[u32]>,
        batch: usize,
        seed: u64,
        epoch: u32,
        first_step: usize,
        augmentation: Augmentation,
        distortion: Distortion,
    ) -> Result<Loader, LoaderError> {
        if indices.is_empty() {
            return Err(LoaderError::NoImages);
        }
        if batch > indices.len() {
            return Err(LoaderError::BatchTooLarge { batch, images: indices.len() });
        }
        let mut order = permutation(seed, epoch, indices.len() as u32);
        for place in &mut order {
            *place = indices[*place as usize];
        }
        let full = order.len().checked_div(batch).unwrap_or(0) * batch;
        order.truncate(full);
        order.drain(..first_step.saturating_mul(batch).min(full));
        Loader::start(Feed { file, order, batch, seed, epoch, augmentation, distortion })
    }

    /// `indices` in their order and as they are, in batches of `batch` images, the last as short as it comes out.
    ///
    /// # Errors
    /// As for [`train`](Self::train), though any batch size above 0 will do.
    ///
    /// # Panics
    /// On the first batch that has an index the file lacks.
    pub fn in_order(file: Arc<TensorFile>, indices: Arc<[u32]>, batch: usize) -> Result<Loader, LoaderError> {
        if indices.is_empty() {
            return Err(LoaderError::NoImages);
        }
        let order = indices.to_vec();
        let (augmentation, distortion) = (Augmentation::None, Distortion::default());
        Loader::start(Feed { file, order, batch, seed: 0, epoch: 0, augmentation, distortion })
    }

    fn start(feed: Feed) -> Result<Loader, LoaderError> {
        if feed.batch == 0 {
            return Err(LoaderError::EmptyBatch);
        }
        // What was sound in the last epoch need not be so in this one.
        feed.file.check_unchanged()?;
        feed.file.forget_checks();
        let remaining = feed.order.len().div_ceil(feed.batch);
        let (sender, batches) = mpsc::sync_channel(AHEAD);
        let (spare, spares) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("loader".into())
            .spawn(move || feed.run(&sender, &spares, &stopped))
            .map_err(LoaderError::Thread)?;
        Ok(Loader { batches: Some(batches), spare, stop, thread: Some(thread), remaining })
    }

    /// Gives the buffers of a batch back for another.
    pub fn recycle(&self, batch: Batch) {
        // At the end of the epoch nobody takes it any more, and it is freed.
        let _ = self.spare.send(batch);
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, LoaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Ok(item) = self.batches.as_ref()?.recv() else {
            // The thread is done; a panic in it must not pass for the end of an epoch.
            if let Some(Err(payload)) = self.thread.take().map(JoinHandle::join) {
                panic::resume_unwind(payload);
            }
            return None;
        };
        self.remaining = if item.is_ok() { self.remaining - 1 } else { 0 };
        Some(item)
    }

    /// The batches left, one error aside.
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Loader {}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was about a batch that nobody wants any more.
            let _ = thread.join();
        }
    }
}

/// What the thread works from.
struct Feed {
    file: Arc<TensorFile>,
    order: Vec<u32>,
    batch: usize,
    seed: u64,
    epoch: u32,
    augmentation: Augmentation,
    distortion: Distortion,
}

impl Feed {
    fn run(&self, batches: &SyncSender<Result<Batch, LoaderError>>, spares: &Receiver<Batch>, stop: &AtomicBool) {
        for indices in self.order.chunks(self.batch) {
            let mut batch = spares.try_recv().unwrap_or_default();
            let filled = match self.fill(&mut batch, indices, stop) {
                Ok(true) => Ok(batch),
                Ok(false) => return,
                Err(error) => Err(error.into()),
            };
            let last = filled.is_err();
            // Refused when the loader was dropped.
            if batches.send(filled).is_err() || last {
                return;
            }
        }
    }

    /// Replaces the contents of `batch` by the images `indices`; false if told to stop before the last.
    fn fill(&self, batch: &mut Batch, indices: &[u32], stop: &AtomicBool) -> Result<bool, TensorFileError> {
        let Batch { indices: kept, pixels, labels, placements } = batch;
        kept.clear();
        kept.extend_from_slice(indices);
        pixels.clear();
        pixels.reserve_exact(indices.len() * self.file.image_bytes());
        labels.clear();
        placements.clear();
        self.file.check_unchanged()?;
        for &index in indices {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            pixels.extend_from_slice(&self.file.image_checked(index as usize)?);
            labels.extend_from_slice(self.file.labels(index as usize));
            placements.push(self.augmentation.place(self.seed, self.epoch, index, self.file.size()));
        }
        if !self.distortion.is_none() {
            let posters = pixels.par_chunks_exact_mut(self.file.image_bytes()).zip(indices);
            // Where rayon has but one thread, it is the one that waits for this batch: then nothing is handed over to it.
            let together = if rayon::current_num_threads() == 1 { indices.len() } else { 1 };
            posters.with_min_len(together).for_each(|(pixels, &index)| {
                self.distortion.apply(pixels, self.file.size(), self.seed, self.epoch, index);
            });
        }
        Ok(true)
    }
}
