//! A device that computes nothing and counts everything: what each kernel must read, write and multiply, and how much memory is taken.
//!
//! A training step on it is the very step that trains elsewhere, so what a step costs is written down nowhere else: its launches,
//! their floors, what is kept for the backward pass and the memory that a run needs all come from here. Workspaces of
//! a real device's kernels, such as partial sums, are not counted.

mod adam;
mod batch_norm;
mod conv;
mod dense;
mod depthwise;
mod folded;
mod image;
mod loss;
mod operands;
mod pool;

use super::cuda::choose::{Choice, Target};
use super::{
    DeviceError, Elements, Measured, Memory, Pass, Placement, Precision, Profiler, Storage, Work, check_lengths,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// Counts as the device whose habits it has.
pub struct Counting {
    habits: Habits,
    profiler: Profiler,
    launches: RefCell<Vec<Counted>>,
    ledger: Rc<RefCell<Ledger>>,
}

/// What a device does in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habits {
    /// The processor's, in a precision: a gradient that a batch norm owes is formed while loading, and convolutions read the weights
    /// at full width.
    Processor(Precision),
    /// A GPU's: it has several kernels to choose from, and forms such a gradient ahead of a convolution's two backward passes.
    Gpu(Target),
}

impl Habits {
    /// What activations are stored in, and on a GPU what convolutions multiply.
    pub fn precision(&self) -> Precision {
        match self {
            Habits::Processor(precision) => *precision,
            Habits::Gpu(target) => target.precision,
        }
    }
}

/// A launch, and why it is this kernel's.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// Where it belongs and what it must do.
    pub launch: Measured,
    /// Where a device has several kernels for it.
    pub why: Option<Why>,
}

/// Why a kernel was chosen, and the others were not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Why {
    /// Why it was chosen.
    pub reason: &'static str,
    /// The others, or what several names begin with and a `*`; and why not.
    pub refused: Vec<(&'static str, String)>,
}

impl<K> From<&Choice<K>> for Why {
    fn from(choice: &Choice<K>) -> Self {
        let refused = choice.refused.iter().map(|(kernel, refusal)| (*kernel, refusal.to_string())).collect();
        Why { reason: choice.reason, refused }
    }
}

/// The memory that is taken.
#[derive(Debug, Default)]
struct Ledger {
    now: usize,
    most: usize,
    /// Bytes that are there now, by the layer and pass during which they were taken.
    taken: BTreeMap<(Rc<str>, Pass), usize>,
    /// Those of the forward passes when the loss was computed.
    kept: BTreeMap<Rc<str>, usize>,
}

/// Memory that was asked for.
pub struct Buffer {
    len: usize,
    storage: Storage,
    bytes: usize,
    place: (Rc<str>, Pass),
    ledger: Rc<RefCell<Ledger>>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut ledger = self.ledger.borrow_mut();
        ledger.now -= self.bytes;
        if let Some(taken) = ledger.taken.get_mut(&self.place) {
            *taken -= self.bytes;
        }
    }
}

/// So many elements of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct View {
    len: usize,
    storage: Storage,
}

impl Counting {
    /// A device with these habits.
    pub fn new(habits: Habits) -> Self {
        let profiler = Profiler::default();
        profiler.start();
        Counting { habits, profiler, launches: RefCell::default(), ledger: Rc::default() }
    }

    /// Pixels of so many bytes, for whoever has none to upload.
    pub fn pixels(&self, bytes: usize) -> Buffer {
        self.take(bytes, Storage::Full, bytes)
    }

    /// The most bytes that were taken at one time.
    pub fn most_bytes(&self) -> usize {
        self.ledger.borrow().most
    }

    /// Bytes that were taken when the loss was computed, by the layer during whose forward pass they were: what is kept for the
    /// backward pass.
    pub fn kept(&self) -> BTreeMap<Rc<str>, usize> {
        self.ledger.borrow().kept.clone()
    }

    fn take(&self, len: usize, storage: Storage, bytes: usize) -> Buffer {
        let mut ledger = self.ledger.borrow_mut();
        ledger.now += bytes;
        ledger.most = ledger.most.max(ledger.now);
        let place = match self.profiler.scope() {
            Some(scope) => (scope.layer, scope.pass),
            None => ("no layer".into(), Pass::Forward),
        };
        *ledger.taken.entry(place.clone()).or_default() += bytes;
        Buffer { len, storage, bytes, place, ledger: Rc::clone(&self.ledger) }
    }

    /// Bytes of an element, as it is stored.
    fn width(&self, storage: Storage) -> usize {
        match storage {
            Storage::Activation => self.habits.precision().bytes(),
            Storage::Weights | Storage::Full => 4,
        }
    }

    /// Bytes of a view.
    fn bytes(&self, view: View) -> u64 {
        (view.len * self.width(view.storage)) as u64
    }

    /// The launches counted since the last call, in their order.
    pub fn counted(&self) -> Vec<Counted> {
        self.launches.take()
    }

    /// Counts a launch of the only kernel for it.
    fn launch(&self, kernel: &'static str, reads: u64, writes: u64, flops: u64) {
        self.launch_chosen((kernel, None), reads, writes, flops);
    }

    fn launch_chosen(&self, (kernel, why): (&'static str, Option<Why>), reads: u64, writes: u64, flops: u64) {
        if let Some(scope) = self.profiler.scope() {
            let work = Work { reads, writes, flops };
            self.launches.borrow_mut().push(Counted { launch: Measured { scope, kernel, work, seconds: 0.0 }, why });
        }
    }
}

impl Elements for View {
    fn count(&self) -> usize {
        self.len
    }
}

impl Memory for Counting {
    type Real = f32;
    type Buffer = Buffer;
    type View<'a> = View;
    type ViewMut<'a> = View;
    type Arriving = usize;
    type Pixels = Buffer;
    type Plan = ();

    fn name(&self) -> String {
        format!("counting ({})", self.habits.precision().name())
    }

    fn allocate(&self, len: usize, storage: Storage) -> Result<Buffer, DeviceError> {
        let copied = storage == Storage::Weights && self.has_narrow_weights();
        let copy = if copied { self.habits.precision().bytes() } else { 0 };
        Ok(self.take(len, storage, len * (self.width(storage) + copy)))
    }

    fn view(buffer: &Buffer, range: Range<usize>) -> View {
        assert!(range.end <= buffer.len, "ranges come from layouts");
        View { len: range.len(), storage: buffer.storage }
    }

    fn view_mut(buffer: &mut Buffer, range: Range<usize>) -> View {
        Counting::view(buffer, range)
    }

    fn split_mut<'a>(View { len, storage }: View, at: usize) -> (View, View)
    where
        Self: 'a,
    {
        (View { len: at, storage }, View { len: len - at, storage })
    }

    fn upload(&self, to: View, from: &[f32]) -> Result<(), DeviceError> {
        check_lengths("upload", &[("from", from.len(), to.len)])
    }

    fn download(&self, from: View) -> Result<Vec<f32>, DeviceError> {
        Ok(vec![0.0; from.len])
    }

    fn fetch(&self, from: View) -> Result<usize, DeviceError> {
        Ok(from.len)
    }

    fn is_here(&self, _: &usize) -> bool {
        true
    }

    fn receive(&self, len: usize) -> Result<Vec<f32>, DeviceError> {
        Ok(vec![0.0; len])
    }

    fn upload_pixels(&self, pixels: &[u8], _: &[Placement]) -> Result<Buffer, DeviceError> {
        Ok(self.pixels(pixels.len()))
    }

    fn copy_pixels(&self, _: &mut Buffer, _: Buffer) -> Result<(), DeviceError> {
        Ok(())
    }

    fn repeat<E: From<DeviceError>>(&self, (): &mut (), work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        work()
    }

    fn fill(&self, to: View, _: f32) -> Result<(), DeviceError> {
        self.launch("fill", 0, self.bytes(to), 0);
        Ok(())
    }

    fn copy(&self, to: View, from: View) -> Result<(), DeviceError> {
        check_lengths("copy", &[("from", from.len, to.len)])?;
        self.launch("copy", self.bytes(from), self.bytes(to), 0);
        Ok(())
    }

    fn add(&self, to: View, from: View) -> Result<(), DeviceError> {
        check_lengths("add", &[("from", from.len, to.len)])?;
        let kernel = match (self.is_gpu(), self.width(to.storage)) {
            (false, _) => "add",
            (true, 2) => "add_bf16",
            (true, _) => "add_f32",
        };
        self.launch(kernel, self.bytes(to) + self.bytes(from), self.bytes(to), 0);
        Ok(())
    }

    fn habits(&self) -> Habits {
        self.habits
    }

    fn profiler(&self) -> Option<&Profiler> {
        Some(&self.profiler)
    }

    fn enter(&self, layer: &str, pass: Pass) {
        self.profiler.enter(layer, pass);
        if layer == "loss" {
            let mut ledger = self.ledger.borrow_mut();
            let forward = ledger.taken.iter().filter(|((_, pass), bytes)| *pass == Pass::Forward && **bytes > 0);
            ledger.kept = forward.map(|((layer, _), bytes)| (Rc::clone(layer), *bytes)).collect();
        }
    }

    fn measured(&self) -> Result<Vec<Measured>, DeviceError> {
        Ok(self.counted().into_iter().map(|counted| counted.launch).collect())
    }
}
