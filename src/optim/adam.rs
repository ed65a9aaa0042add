//! Adam in Keras's form, over the arenas.

use crate::device::adam::{MARKS, RATES};
use crate::device::{AdamConstants, AdamStep, Device, DeviceError, Elements, Pass, Real, Restore, Storage};
use crate::network::{Architecture, Place};
use crate::parameters::{Arena, Layout, Parameters};
use crate::tensor::Tensor;

/// Both moments of every parameter, and the number of steps taken.
pub struct Adam<D: Device> {
    constants: AdamConstants,
    /// What a weight that decays loses of itself in a step, as a share of the learning rate; and which do.
    decay: Option<(f64, Tensor<D>)>,
    /// First moments, at the spans of the weights.
    pub m: Arena<D>,
    /// Second moments, at the spans of the weights.
    pub v: Arena<D>,
    /// Steps begun, which the bias corrections count. One that proved bad counts too: by the time it is known to be, the next
    /// has begun. It makes the first few steps behind it a little shorter, and later ones no different.
    pub t: u64,
}

impl<D: Device> Adam<D> {
    /// An optimiser with Keras's constants for arenas of `layout` that has taken no step.
    ///
    /// # Errors
    /// The device's.
    pub fn new(device: &D, layout: Layout) -> Result<Self, DeviceError> {
        Ok(Adam {
            constants: AdamConstants::default(),
            decay: None,
            m: Arena::zeros(device, layout, Storage::Full)?,
            v: Arena::zeros(device, layout, Storage::Full)?,
            t: 0,
        })
    }

    /// Has the kernels of a network decay in each step by `decay` times the learning rate, and neither biases nor what batch norms scale
    /// and shift by (He et al. 2019, *Bag of Tricks*, section 3.1).
    ///
    /// The decay is apart from the gradient and its moments: AdamW, of Loshchilov and Hutter 2019, as PyTorch has it.
    ///
    /// # Errors
    /// The device's.
    pub fn decaying(self, device: &D, decay: f64, architecture: &Architecture) -> Result<Self, DeviceError> {
        let from = architecture.trainable_from;
        let mut marks = vec![0u32; (architecture.weights.len() - from).div_ceil(MARKS)];
        for tensor in &architecture.tensors {
            // Kernels are the only ones of more than one extent.
            if let Place::Weights(span) = tensor.place
                && tensor.shape.len() > 1
                && !architecture.is_frozen(tensor)
            {
                span.range().map(|at| at - from).for_each(|at| marks[at / MARKS] |= 1 << (at % MARKS));
            }
        }
        let marks: Vec<D::Real> = marks.into_iter().map(|marks| D::Real::from_f64(f64::from(marks))).collect();
        Ok(Adam { decay: Some((decay, Tensor::from_host(device, [marks.len()], &marks)?)), ..self })
    }

    /// Has gradients whose Euclidean norm over all parameters is larger than `norm` scaled down to it (Pascanu et al. 2013).
    pub fn clipping(self, norm: f64) -> Self {
        Adam { constants: AdamConstants { clip_norm: norm, ..self.constants }, ..self }
    }

    /// Counts a step at learning rate `rate`, and returns the rates that [`step`](Self::step) is to find on the device: the corrected
    /// one, and the share of itself that a weight which decays loses.
    pub fn begin_step(&mut self, rate: f64) -> [f64; RATES] {
        self.t += 1;
        let decay = self.decay.as_ref().map_or(0.0, |(decay, _)| rate * decay);
        [self.constants.corrected_rate(rate, self.t), decay]
    }

    /// Moves the trainable weights against their gradients by the `rates [2]`; or, if one of the numbers of `outcome [3]`
    /// is not finite, moves nothing and puts the running averages back as they were before this step. So a model whose
    /// numbers are finite keeps them so, unless the rate itself is so large that a weight overflows.
    ///
    /// # Errors
    /// The device's.
    pub fn step<'a>(
        &'a mut self,
        device: &D,
        parameters: &'a mut Parameters<D>,
        outcome: D::View<'a>,
        rates: D::View<'a>,
    ) -> Result<(), DeviceError> {
        let decaying = self.decay.as_ref().map(|(_, marks)| marks.view());
        let Parameters { weights, gradients, averages, averages_before, trainable_from } = parameters;
        let from = *trainable_from;
        device.enter("adam", Pass::Update);
        let operands = AdamStep {
            w: weights.from_offset_mut(from),
            m: self.m.from_offset_mut(from),
            v: self.v.from_offset_mut(from),
            gradients: gradients.from_offset(from),
            decaying,
            outcome,
            rates,
        };
        device.adam(operands, &self.constants)?;
        device.enter("averages", Pass::Update);
        let restore = Restore { to: averages.from_offset_mut(0), from: averages_before.from_offset(0), outcome };
        // A network without batch norms has none.
        if restore.to.count() > 0 { device.restore(restore) } else { Ok(()) }
    }
}
