//! Bytes of operands, and the kernel that takes them.

use super::{Counting, Habits, View, Why};
use crate::device::cuda::choose::Target;
use crate::device::{DeviceError, InputTransform, OutputGradient, Storage};

impl Counting {
    /// Bytes of some elements of an operand, where a kernel does not look at all of them.
    pub(super) fn part(&self, view: View, len: usize) -> u64 {
        self.bytes(View { len, ..view })
    }

    /// Whether it counts as a GPU.
    pub(super) fn is_gpu(&self) -> bool {
        matches!(self.habits, Habits::Gpu(_))
    }

    /// Bytes of the weights as convolutions read them.
    pub(super) fn narrow(&self, w: View) -> u64 {
        let storage = if self.is_gpu() { Storage::Activation } else { w.storage };
        self.bytes(View { storage, ..w })
    }

    pub(super) fn optional(&self, view: Option<View>) -> u64 {
        view.map_or(0, |view| self.bytes(view))
    }

    /// Of `norm [4, C]` the scale and the shift.
    pub(super) fn owed(&self, transform: Option<InputTransform<View>>) -> u64 {
        transform.map_or(0, |InputTransform { norm, .. }| self.part(norm, norm.len / 2))
    }

    pub(super) fn gradient(&self, dy: OutputGradient<View>) -> u64 {
        match dy {
            OutputGradient::Ready(dy) => self.bytes(dy),
            OutputGradient::Owed { dz, y, k } => [dz, y, k].map(|view| self.bytes(view)).iter().sum(),
        }
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

    pub(super) fn all<const N: usize>(&self, views: [View; N]) -> u64 {
        views.map(|view| self.bytes(view)).iter().sum()
    }
}
