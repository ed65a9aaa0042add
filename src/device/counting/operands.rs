//! Bytes of operands, and the kernel that takes them.

use super::{Counting, Habits, View, Why};
use crate::device::cuda::choose::Target;
use crate::device::{DeviceError, InputTransform, OutputGradient, ReduceEpilogue, Storage};

impl Counting {
    /// Bytes of some elements of an operand, where a kernel does not look at all of them.
    pub(super) fn part(&self, view: View, len: usize) -> u64 {
        self.bytes(View { len, ..view })
    }

    /// Whether it counts as a GPU.
    pub(super) fn is_gpu(&self) -> bool {
        matches!(self.habits, Habits::Gpu(_))
    }

    /// Whether the weights have a narrow copy, which convolutions read.
    pub(super) fn has_narrow_weights(&self) -> bool {
        self.is_gpu() && self.habits.precision().bytes() < size_of::<f32>()
    }

    /// Bytes of the weights as convolutions read them.
    pub(super) fn narrow(&self, w: View) -> u64 {
        let storage = if self.is_gpu() { Storage::Activation } else { w.storage };
        self.bytes(View { storage, ..w })
    }

    /// Bytes of several operands.
    pub(super) fn all<const N: usize>(&self, views: [View; N]) -> u64 {
        views.map(|view| self.bytes(view)).iter().sum()
    }

    /// Bytes of an operand that may be absent.
    pub(super) fn optional(&self, view: Option<View>) -> u64 {
        view.map_or(0, |view| self.bytes(view))
    }

    /// Bytes of the scale and the shift that an input is owed: half of `norm [4, C]`.
    pub(super) fn owed(&self, transform: Option<InputTransform<View>>) -> u64 {
        transform.map_or(0, |InputTransform { norm, .. }| self.part(norm, norm.len / 2))
    }

    /// Bytes that a gradient is read from.
    pub(super) fn gradient(&self, dy: OutputGradient<View>) -> u64 {
        match dy {
            OutputGradient::Ready(dy) => self.bytes(dy),
            OutputGradient::Owed { dz, y, k } => self.all([dz, y, k]),
        }
    }

    /// Bytes that a data gradient's epilogue reads and writes: of `norm [4, C]` it reads scale, shift and mean.
    pub(super) fn epilogue(&self, epilogue: Option<ReduceEpilogue<View, View>>) -> [u64; 2] {
        let Some(ReduceEpilogue { sums, y, norm, .. }) = epilogue else { return [0, 0] };
        [self.bytes(y) + self.part(norm, norm.len / 4 * 3), self.bytes(sums)]
    }

    /// The kernel that a GPU chooses, and why; elsewhere there is one, of this name.
    pub(super) fn choose(
        &self,
        name: &'static str,
        choice: impl FnOnce(&Target) -> Result<(&'static str, Why), DeviceError>,
    ) -> Result<(&'static str, Option<Why>), DeviceError> {
        match &self.habits {
            Habits::Processor(_) => Ok((name, None)),
            Habits::Gpu(target) => choice(target).map(|(kernel, why)| (kernel, Some(why))),
        }
    }
}
