//! Training in bfloat16, where single gradients say little.
//!
//! From weights of no meaning and three posters, a third to a half of a deep network's gradient is noise: what is rounded to eight bits
//! decides differently at ReLUs, and each batch norm over few pixels passes that on, larger. It is so whoever computes: of these very
//! weights and posters PyTorch's autocast to bfloat16 has a gradient of ResNet-50 v1.5 that makes an angle with its own in float32 whose
//! cosine is 0.80 in the worst tensor and 0.89 in the mean. Yet the noise hardly changes how long a tensor's gradient is, and whole tensors
//! have enough elements for the angle to be steady. So the lengths are compared with the other engine's, and the angles with what the
//! same kernels give in float32, which `the_processor_trains_as_keras_does` and its like hold to the other engine's values.

use super::rows::Rows;
use super::subject::Subject;
use super::support::assert_close;
use super::values::initial;
use onesheet::device::Device;
use onesheet::network::Place;
use onesheet::optim::Adam;
use std::collections::BTreeMap;
use std::rc::Rc;

/// How far training in bfloat16 may be from the other engine in float64.
pub struct Narrow {
    /// Losses of three steps, relatively.
    pub loss: f64,
    /// Norms of each tensor's gradient in the first step, and of what three steps change it by, relatively.
    pub norm: f64,
    /// The least cosine of a tensor's gradient with that in float32.
    pub cosine: f64,
    /// The least mean of these cosines over all tensors of a kind: kernels, biases, gammas, betas.
    pub mean_cosine: f64,
    /// What a step adds to the running averages: the root mean square of the errors of a tensor's samples, in that of the samples.
    pub moving: f64,
    /// The mean over all tensors of the cosine of what three steps change a tensor by, as far as it was sampled.
    pub change_cosine: f64,
}

fn cosine(x: &[f64], y: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
}

impl<D: Device> Subject<D> {
    /// Three steps: losses, the first one's gradients and running averages, and what becomes of the weights. `full` is the same network on
    /// the device in float32.
    pub fn check_narrow_training(&mut self, full: &mut Subject<D>, narrow: &Narrow) {
        let device = Rc::clone(self.model.device());
        let mut adam = Adam::new(&*device, self.model.architecture().weights).unwrap();
        let mut losses = Vec::new();
        let trained = self.golden.facts.trained.clone();
        for step in 0..3 {
            let mut batch = self.gradients_without_biases(step);
            if step == 0 {
                full.gradients_without_biases(step);
                self.check_narrow_gradients(full, narrow);
                self.check_averages(narrow.moving);
            }
            batch.set_rates(&device, adam.begin_step(self.golden.facts.learning_rate)).unwrap();
            adam.step(&device, self.model.parameters_mut(), batch.outcome_view(), batch.rates()).unwrap();
            losses.push(batch.loss(&device).unwrap());
        }
        let expected = &self.golden.values["training.losses"];
        let off: Vec<_> = losses.iter().zip(expected).map(|(f, e)| format!("{:.1e}", f / e - 1.0)).collect();
        println!("losses are off by {}", off.join(", "));
        assert_close("losses", &losses, expected, 0.0, narrow.loss);
        let rows = self.compare_tensors("change", &trained, |name| self.change(name));
        rows.check_norms("change", narrow.norm);
        check_mean_direction(&rows, narrow.change_cosine);
    }

    /// The gradients of the first step, which both have just computed.
    pub fn check_narrow_gradients(&self, full: &Subject<D>, narrow: &Narrow) {
        let names = &self.golden.facts.trained;
        let rows = self.compare_tensors("gradient", names, |name| self.gradient(name));
        rows.check_norms("gradient", narrow.norm);
        self.check_directions(full, names, [narrow.cosine, narrow.mean_cosine]);
    }

    /// Changes a gradient as a wrong kernel would.
    pub fn spoil(&mut self, name: &str, spoil: impl Fn(&mut [D::Real])) {
        let Place::Weights(span) = self.tensor(name).1.place else { panic!("{name} has no gradient") };
        let device = Rc::clone(self.model.device());
        let gradients = &mut self.model.parameters_mut().gradients;
        let mut gradient = device.download(gradients.view(span)).unwrap();
        spoil(&mut gradient);
        device.upload(gradients.view_mut(span), &gradient).unwrap();
    }

    /// The cosine of each whole gradient with that in float32, and its mean over the tensors of a kind.
    fn check_directions(&self, full: &Subject<D>, names: &[String], [least, least_mean]: [f64; 2]) {
        let mut kinds = BTreeMap::<&str, Vec<f64>>::new();
        let mut worst = (f64::INFINITY, "none");
        for name in names {
            let cosine = cosine(&self.gradient(name), &full.gradient(name));
            assert!(
                cosine >= least,
                "gradient of {name}: its cosine with that in float32 is {cosine:.3}, allowed {least}"
            );
            if cosine < worst.0 {
                worst = (cosine, name);
            }
            kinds.entry(name.split_once('/').unwrap().1).or_default().push(cosine);
        }
        println!("gradient: the least cosine is {:.3}, of {}", worst.0, worst.1);
        for (kind, cosines) in kinds {
            let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
            println!("gradient: the mean cosine of each {kind} is {mean:.3}");
            assert!(mean >= least_mean, "gradient: the mean cosine of each {kind} is {mean:.3}, allowed {least_mean}");
        }
    }

    /// What the first step added to each running average, in its own size: a hundredth of the batch's statistics.
    fn check_averages(&self, most: f64) {
        let key = "moving";
        let mut rows = self.compare_tensors(key, &self.golden.facts.moving, |name| self.change(name));
        for (name, samples) in rows.names.iter().zip(&mut rows.samples) {
            let (number, tensor) = self.tensor(name);
            let before = initial(number, name, &tensor.shape);
            for ((_, expected), at) in samples.iter_mut().zip(self.positions(name)) {
                *expected -= f64::from(before[at]);
            }
        }
        let size = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let mut worst = (0.0, "none");
        for (name, samples) in rows.names.iter().zip(&rows.samples) {
            let error = size(&mut samples.iter().map(|(f, e)| f - e)) / size(&mut samples.iter().map(|(_, e)| *e));
            assert!(error <= most, "moving: what was added to {name} is off by {error:.1e}, allowed {most:e}");
            if error > worst.0 {
                worst = (error, name);
            }
        }
        println!("moving: what was added is off by {:.1e} at worst, in {}", worst.0, worst.1);
    }
}

/// The mean of the cosines of all tensors' samples.
fn check_mean_direction(rows: &Rows, least: f64) {
    let cosines = rows.samples.iter().map(|samples| {
        let (found, expected): (Vec<_>, Vec<_>) = samples.iter().copied().unzip();
        cosine(&found, &expected)
    });
    let mean = cosines.sum::<f64>() / rows.samples.len() as f64;
    println!("change: the mean cosine is {mean:.2}");
    assert!(mean >= least, "change: the mean cosine is {mean:.3}, allowed {least}");
}
