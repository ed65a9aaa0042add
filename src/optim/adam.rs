//! Adam in Keras's form, over the arenas.

use crate::device::adam::{MARKS, RATES};
use crate::device::{AdamConstants, AdamStep, Device, DeviceError, Elements, Pass, Real, Restore, Storage};
use crate::network::{Architecture, Place};
use crate::parameters::{Arena, Layout, Parameters};
use crate::tensor::Tensor;
use std::ops::Range;

/// The rates of a step on the device, [`RATES`] of each part of the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRates<T> {
    /// Those of the head; and of the base, unless that has rates of its own.
    pub head: T,
    /// Those of the base.
    pub base: T,
}

/// Those of no step.
pub const NO_RATES: StepRates<[f64; RATES]> = StepRates { head: [0.0; RATES], base: [0.0; RATES] };

/// What a part of the network has of its own in a step.
struct Part<D: Device> {
    /// Its weights.
    range: Range<usize>,
    /// The share of the learning rate that it learns at.
    share: f64,
    /// Which of its weights decay, if any do.
    decaying: Option<Tensor<D>>,
}

/// Both moments of every parameter, and the number of steps taken.
pub struct Adam<D: Device> {
    constants: AdamConstants,
    /// What a weight that decays loses of itself in a step, as a share of the learning rate.
    decay: f64,
    /// What is in front of the head, if it learns at a rate of its own; and the rest.
    parts: Vec<Part<D>>,
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
            decay: 0.0,
            parts: vec![Part { range: 0..layout.len(), share: 1.0, decaying: None }],
            m: Arena::zeros(device, layout, Storage::Full)?,
            v: Arena::zeros(device, layout, Storage::Full)?,
            t: 0,
        })
    }

    /// Has all that is in front of a network's head learn, and decay, at a `share` of the learning rate, as is usual where the base comes
    /// with weights and the head is new. Comes before [`decaying`](Self::decaying).
    ///
    /// # Panics
    /// If it comes behind.
    pub fn with_base_at(self, share: f64, architecture: &Architecture) -> Self {
        assert_eq!(self.decay, 0.0, "the parts of the network come before what decays in them");
        let head_from = architecture.head_from();
        let part = |range, share| Part { range, share, decaying: None };
        Adam { parts: vec![part(0..head_from, share), part(head_from..architecture.weights.len(), 1.0)], ..self }
    }

    /// Has the kernels of a network decay in each step by `decay` times the learning rate, and neither biases nor what batch norms scale
    /// and shift by (He et al. 2019, *Bag of Tricks*, section 3.1).
    ///
    /// The decay is apart from the gradient and its moments: AdamW, of Loshchilov and Hutter 2019, as PyTorch has it.
    ///
    /// # Errors
    /// The device's.
    pub fn decaying(mut self, device: &D, decay: f64, architecture: &Architecture) -> Result<Self, DeviceError> {
        for Part { range, decaying, .. } in &mut self.parts {
            let trained = range.start.max(architecture.trainable_from)..range.end;
            let mut marks = vec![0u32; trained.len().div_ceil(MARKS)];
            for tensor in &architecture.tensors {
                // Kernels are the only ones of more than one extent.
                if let Place::Weights(span) = tensor.place
                    && tensor.shape.len() > 1
                    && trained.contains(&span.range().start)
                {
                    let places = span.range().map(|at| at - trained.start);
                    places.for_each(|at| marks[at / MARKS] |= 1 << (at % MARKS));
                }
            }
            let marks: Vec<D::Real> = marks.into_iter().map(|marks| D::Real::from_f64(f64::from(marks))).collect();
            *decaying = Some(Tensor::from_host(device, [marks.len()], &marks)?);
        }
        self.decay = decay;
        Ok(self)
    }

    /// Has gradients whose Euclidean norm over all parameters is larger than `norm` scaled down to it (Pascanu et al. 2013).
    pub fn clipping(self, norm: f64) -> Self {
        Adam { constants: AdamConstants { clip_norm: norm, ..self.constants }, ..self }
    }

    /// Counts a step at learning rate `rate`, and returns the rates that [`step`](Self::step) is to find on the device: of each part the
    /// corrected one, and the share of itself that a weight which decays loses.
    pub fn begin_step(&mut self, rate: f64) -> StepRates<[f64; RATES]> {
        self.t += 1;
        let of = |part: &Part<D>| {
            let rate = part.share * rate;
            [self.constants.corrected_rate(rate, self.t), rate * self.decay]
        };
        let [head, base] = [self.parts.last(), self.parts.first()].map(|part| of(part.expect("there is at least one")));
        StepRates { head, base }
    }

    /// Moves the trainable weights against their gradients by the `rates`, `[2]` each; or, if one of the numbers of `outcome [3]`
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
        rates: StepRates<D::View<'a>>,
    ) -> Result<(), DeviceError> {
        let Parameters { weights, gradients, averages, averages_before, trainable_from } = parameters;
        device.enter("adam", Pass::Update);
        let head = self.parts.len() - 1;
        for (part, Part { range, decaying, .. }) in self.parts.iter().enumerate() {
            let range = range.start.max(*trainable_from)..range.end;
            // All of the base may be frozen.
            if range.is_empty() {
                continue;
            }
            let operands = AdamStep {
                w: weights.range_mut(range.clone()),
                m: self.m.range_mut(range.clone()),
                v: self.v.range_mut(range.clone()),
                gradients: gradients.range(range),
                decaying: decaying.as_ref().map(|marks| marks.view()),
                outcome,
                rates: if part == head { rates.head } else { rates.base },
            };
            device.adam(operands, &self.constants)?;
        }
        device.enter("averages", Pass::Update);
        let restore = Restore { to: averages.from_offset_mut(0), from: averages_before.from_offset(0), outcome };
        // A network without batch norms has none.
        if restore.to.count() > 0 { device.restore(restore) } else { Ok(()) }
    }
}
