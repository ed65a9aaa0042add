//! The batches of one step on several devices at once.
//!
//! With `--gpus G --accumulate A` a step adds up the gradients of A batches, as it does on one GPU, and each GPU computes A/G of them:
//! `g = Σ_d Σ_b g_db`, the first device's own last. The first device alone has an optimiser, a moving average and checkpoints. Every
//! other has a thread and a model of its own, a [replica](Replicas): at the beginning of a step it is told the weights, then it gets its
//! batches, and at the end its sum goes back and is added to those of the first, in the order of the devices. So nothing of a run but the
//! order of the sum depends on how many there are, and the same number gives the same bits.
//!
//! Batch norm's statistics are those of each batch, as with `--accumulate` (and as with PyTorch's `DistributedDataParallel`); the running
//! averages are moved by the first device's batches.
//!
//! Everything goes through the memory of the host: for P parameters 4·P bytes down and up for the weights, and down and up again for the
//! gradients, a replica and step. That is 410 MB for ResNet-50, some 16 ms at the 25 GB/s of PCIe 4, so several batches a step and GPU hide
//! it and a single one does not.

use super::learner::{Seat, Told};
use crate::data::loader::Batch;
use crate::device::{Device, DeviceError, Pass, PixelFormat, Real, Storage};
use crate::model::Model;
use crate::network::ModelConfig;
use crate::optim::NO_RATES;
use crate::parameters::Parameters;
use crate::tensor::Tensor;
use std::panic;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

/// Opens a further device, in the thread that is going to use it.
pub type Opener<D> = Box<dyn FnOnce() -> Result<D, DeviceError> + Send>;

/// What a replica is made from.
#[derive(Clone, Debug)]
pub struct Replicated {
    /// The network.
    pub config: ModelConfig,
    /// Whether a step keeps fewer values and computes the others again.
    pub recompute: bool,
}

/// The further devices of a learner.
pub struct Replicas<D: Device> {
    workers: Vec<Worker<D::Real>>,
    /// Where a sum of gradients arrives before it is added.
    arriving: Tensor<D>,
    /// Where its loss does: `[1]`.
    loss: Tensor<D>,
    /// Whether a step is under way there.
    is_under_way: bool,
}

/// A replica's thread, as the first device's sees it.
struct Worker<R> {
    /// `None` only while dropping: a closed channel ends the thread.
    jobs: Option<Sender<Job<R>>>,
    answers: Receiver<Result<Sum<R>, DeviceError>>,
    thread: Option<JoinHandle<()>>,
}

/// What a replica is told.
enum Job<R> {
    /// A step begins.
    Begin(Arc<State<R>>),
    /// One of its batches.
    Add(Box<Handed>),
    /// The step ends, and its sum is asked for.
    End,
}

/// What a step begins from.
struct State<R> {
    weights: Vec<R>,
    averages: Vec<R>,
}

/// A batch on its way to a replica.
struct Handed {
    batch: Batch,
    format: PixelFormat,
    class_weights: Vec<f32>,
}

/// What came of a replica's batches.
struct Sum<R> {
    gradients: Vec<R>,
    loss: R,
}

impl<D: Device> Replicas<D> {
    /// Opens a replica on each device; `parameters` are the first device's.
    ///
    /// # Errors
    /// Those of opening the devices, the first that there is.
    pub fn open(
        device: &D,
        parameters: &Parameters<D>,
        of: &Replicated,
        openers: Vec<Opener<D>>,
    ) -> Result<Self, DeviceError> {
        let workers: Vec<Worker<D::Real>> = openers.into_iter().map(|open| Worker::start(open, of.clone())).collect();
        // Each says whether it is there.
        workers.iter().try_for_each(|worker| worker.answer().map(drop))?;
        let len = parameters.trained().len();
        Ok(Replicas {
            workers,
            arriving: Tensor::new(device, [len], Storage::Full)?,
            loss: Tensor::new(device, [1], Storage::Full)?,
            is_under_way: false,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// Begins a step from `parameters`, unless one is under way. Waits for the step before.
    ///
    /// # Errors
    /// The first device's.
    pub fn begin(&mut self, device: &D, parameters: &Parameters<D>) -> Result<(), DeviceError> {
        if self.is_under_way {
            return Ok(());
        }
        let weights = device.download(parameters.weights.from_offset(0))?;
        let averages = device.download(parameters.averages.from_offset(0))?;
        let state = Arc::new(State { weights, averages });
        self.workers.iter().for_each(|worker| worker.tell(Job::Begin(Arc::clone(&state))));
        self.is_under_way = true;
        Ok(())
    }

    /// Hands each replica a batch.
    pub fn hand_out(&self, batches: Vec<Batch>, format: &PixelFormat, class_weights: &[f32]) {
        for (worker, batch) in self.workers.iter().zip(batches) {
            let handed = Handed { batch, format: *format, class_weights: class_weights.to_vec() };
            worker.tell(Job::Add(Box::new(handed)));
        }
    }

    /// Ends the step: adds the sums of all replicas to the gradients of `parameters` and to `loss [1]`.
    ///
    /// # Errors
    /// That of the first replica that has one, and the first device's.
    pub fn add_to(
        &mut self,
        device: &D,
        parameters: &mut Parameters<D>,
        loss: &mut Tensor<D>,
    ) -> Result<(), DeviceError> {
        let sums: Vec<_> = self.end().into_iter().collect::<Result<_, _>>()?;
        device.enter("gradients", Pass::Backward);
        for Sum { gradients, loss: part } in sums {
            device.upload(self.arriving.view_mut(), &gradients)?;
            device.add(parameters.gradients.range_mut(parameters.trained()), self.arriving.view())?;
            device.upload(self.loss.view_mut(), &[part])?;
            device.add(loss.view_mut(), self.loss.view())?;
        }
        Ok(())
    }

    /// Leaves the step under way, if one is.
    pub fn leave(&mut self) {
        if self.is_under_way {
            // What a replica says of a step that nobody wants any more is of no use, an error as well.
            drop(self.end());
        }
    }

    /// Ends the step on every replica, and waits for all.
    fn end(&mut self) -> Vec<Result<Sum<D::Real>, DeviceError>> {
        self.is_under_way = false;
        self.workers.iter().for_each(|worker| worker.tell(Job::End));
        self.workers.iter().map(Worker::answer).collect()
    }
}

impl<R: Real> Worker<R> {
    fn start<D: Device<Real = R>>(open: Opener<D>, of: Replicated) -> Self {
        let (jobs, told) = mpsc::channel();
        let (say, answers) = mpsc::channel();
        let thread = thread::spawn(move || work(open, &of, &told, &say));
        Worker { jobs: Some(jobs), answers, thread: Some(thread) }
    }

    fn tell(&self, job: Job<R>) {
        // One that has gone is met where its answer is waited for.
        let _ = self.jobs.as_ref().expect("it is not being dropped").send(job);
    }

    fn answer(&self) -> Result<Sum<R>, DeviceError> {
        let gone = || DeviceError::Unavailable("the thread of a further device has ended".into());
        self.answers.recv().unwrap_or_else(|_| Err(gone()))
    }
}

impl<R> Drop for Worker<R> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(Err(panicked)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            panic::resume_unwind(panicked);
        }
    }
}

/// What a replica's thread does.
fn work<D: Device>(
    open: Opener<D>,
    of: &Replicated,
    jobs: &Receiver<Job<D::Real>>,
    answers: &Sender<Result<Sum<D::Real>, DeviceError>>,
) {
    let mut replica = match open().and_then(|device| Replica::new(Rc::new(device), of)) {
        Ok(replica) => replica,
        Err(error) => {
            let _ = answers.send(Err(error));
            return;
        }
    };
    let is_there = Sum { gradients: Vec::new(), loss: D::Real::default() };
    let mut so_far = Ok(());
    if answers.send(Ok(is_there)).is_err() {
        return;
    }
    for job in jobs {
        match job {
            Job::Begin(state) => so_far = replica.begin(&state),
            Job::Add(handed) => so_far = so_far.and_then(|()| replica.add(&handed)),
            Job::End => {
                let sum = std::mem::replace(&mut so_far, Ok(())).and_then(|()| replica.sum());
                // The first device has gone, and the channel of jobs with it.
                let _ = answers.send(sum);
            }
        }
    }
}

/// A model on a further device, which adds up gradients and takes no step.
struct Replica<D: Device> {
    model: Model<D>,
    seat: Seat<D>,
    /// `[1]`.
    loss: Tensor<D>,
}

impl<D: Device> Replica<D> {
    fn new(device: Rc<D>, of: &Replicated) -> Result<Self, DeviceError> {
        let loss = Tensor::new(&*device, [1], Storage::Full)?;
        let mut model = Model::zeros(device, of.config.clone())?;
        if of.recompute {
            let plan = model.plan().clone().recomputing();
            model.set_plan(plan);
        }
        Ok(Replica { model, seat: Seat::new(), loss })
    }

    fn begin(&mut self, State { weights, averages }: &State<D::Real>) -> Result<(), DeviceError> {
        let device = Rc::clone(self.model.device());
        let parameters = self.model.parameters_mut();
        device.upload(parameters.weights.from_offset_mut(0), weights)?;
        device.upload(parameters.averages.from_offset_mut(0), averages)?;
        self.model.begin_gradients()?;
        device.fill(self.loss.view_mut(), D::Real::default())
    }

    fn add(&mut self, Handed { batch, format, class_weights }: &Handed) -> Result<(), DeviceError> {
        let device = Rc::clone(self.model.device());
        let pixels = device.upload_pixels(&batch.pixels, &batch.placements)?;
        let told = Told { format, labels: &batch.labels, class_weights, rates: NO_RATES, towards: 0.0 };
        let (seated, plan) = self.seat.put(&device, pixels, batch.placements.len(), told)?;
        let (model, loss) = (&mut self.model, &mut self.loss);
        device.repeat(plan, || {
            model.add_gradients(seated)?;
            seated.add_loss_to(&device, loss)
        })
    }

    fn sum(&self) -> Result<Sum<D::Real>, DeviceError> {
        let (device, parameters) = (self.model.device(), self.model.parameters());
        let gradients = device.download(parameters.gradients.range(parameters.trained()))?;
        Ok(Sum { gradients, loss: device.download(self.loss.view())?[0] })
    }
}
