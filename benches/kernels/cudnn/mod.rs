//! cuDNN's plain convolutions, on the same numbers and by the same clock.
//!
//! Its figure for a pass is that of the fastest of the algorithms that its heuristics name first: floating-point atomics and
//! all, with whatever workspace they want. They are those of the convolution calls that cudarc binds; cuDNN's graph API,
//! which PyTorch calls, shows in the bench `step`. So our fused lines, a bias and a ReLU among them, stand beside a call that fuses nothing.

mod calls;

use super::convolutions::{Operands, Pass};
use super::report::{self, Report};
use super::time;
use anyhow::{Context, ensure};
use calls::{Algorithm, Convolution, Handle};
use cudarc::cudnn::result::{self, CudnnError};
use cudarc::cudnn::sys;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaSlice};
use onesheet::device::ConvShape;
use onesheet::device::cuda::Precision;
use rayon::prelude::*;
use std::rc::Rc;
use std::time::Instant;

/// The versions whose status codes cudarc's enumerations hold; any other's could be read as none of them.
const VERSIONS: std::ops::Range<usize> = 90_000..100_000;

/// Algorithms that are timed: the first of those that the heuristics name and that come to our answer.
const TIMED: usize = 3;

/// cuDNN on a stream of its own.
pub struct Peer {
    handle: Rc<Handle>,
    precision: Precision,
}

/// A layer's operands in memory of cuDNN's own, and room for a pass's result.
pub struct Memory {
    x: CudaSlice<u8>,
    w: CudaSlice<u8>,
    dy: CudaSlice<u8>,
    result: CudaSlice<u8>,
}

/// A layer, made ready for its passes.
pub struct Layer {
    peer: Rc<Peer>,
    convolution: Convolution,
    shape: ConvShape,
    /// Copies to take in turn.
    copies: Vec<Memory>,
}

/// cuDNN, if it is here; if not, says so. The simulated GPU has none.
pub fn open(report: &Report) -> Option<Rc<Peer>> {
    if report.is_simulated() {
        return None;
    }
    let peer = Peer::new(report.device().precision());
    match &peer {
        Ok(_) => eprintln!("beside cuDNN {}", result::get_version()),
        Err(error) => eprintln!("cuDNN NOT COMPARED: {error:#}"),
    }
    peer.ok().map(Rc::new)
}

/// The largest difference of an element, as a part of its own size and the root mean square of all. No number where either
/// has none, and where the lengths differ.
fn difference(ours: &[f32], theirs: impl IndexedParallelIterator<Item = f32> + Clone) -> f64 {
    if ours.len() != theirs.len() {
        return f64::NAN;
    }
    let square: f64 = theirs.clone().map(|theirs| f64::from(theirs) * f64::from(theirs)).sum();
    let size = (square / ours.len() as f64).sqrt();
    let part =
        |(&ours, theirs): (&f32, f32)| (f64::from(ours) - f64::from(theirs)).abs() / (f64::from(theirs).abs() + size);
    // `f64::max` would pass over what is no number.
    let larger = |most: f64, part: f64| if part <= most || most.is_nan() { most } else { part };
    ours.par_iter().zip(theirs).map(part).reduce(|| 0.0, larger)
}

fn failed(error: CudnnError) -> anyhow::Error {
    anyhow::anyhow!("{:?}", error.0)
}

impl Peer {
    fn new(precision: Precision) -> anyhow::Result<Self> {
        // SAFETY: asks only whether the library can be opened.
        let present = unsafe { sys::is_culib_present() };
        ensure!(present, "neither libcudnn.so nor libcudnn.so.9 was found; name its folder in LD_LIBRARY_PATH");
        let version = result::get_version();
        ensure!(VERSIONS.contains(&version), "the libcudnn found is version {version}, and 9 is wanted");
        let context = CudaContext::new(0)?;
        // SAFETY: everything here runs on one stream.
        unsafe { context.disable_event_tracking() };
        let handle = Handle::new(context.new_stream()?).map_err(failed).context("cuDNN does not start")?;
        Ok(Peer { handle: Rc::new(handle), precision })
    }

    /// What two right answers may differ by: as both round to bfloat16, by its last place, 1/128.
    fn tolerance(&self) -> f64 {
        match self.precision {
            Precision::Bf16 => 1.6e-2,
            Precision::Tf32 => 4e-3,
            Precision::F32 => 4e-4,
        }
    }

    /// Bytes of an element.
    fn width(&self) -> usize {
        match self.precision {
            Precision::Bf16 => 2,
            Precision::Tf32 | Precision::F32 => 4,
        }
    }

    fn upload(&self, values: &[f32]) -> anyhow::Result<CudaSlice<u8>> {
        let stream = &self.handle.stream;
        if self.precision == Precision::Bf16 {
            let narrow: Vec<half::bf16> = values.par_iter().map(|&value| half::bf16::from_f32(value)).collect();
            return Ok(stream.clone_htod(bytemuck::cast_slice::<_, u8>(&narrow))?);
        }
        Ok(stream.clone_htod(bytemuck::cast_slice::<_, u8>(values))?)
    }

    /// How far our answer is off theirs.
    fn difference(&self, ours: &[f32], theirs: &[u8]) -> f64 {
        match self.precision {
            Precision::Bf16 => {
                let number = |bytes: &[u8]| half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
                difference(ours, theirs.par_chunks_exact(2).map(number))
            }
            Precision::Tf32 | Precision::F32 => {
                let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                difference(ours, theirs.par_chunks_exact(4).map(number))
            }
        }
    }
}

impl Layer {
    /// Of so many groups of channels and filters. None where there is no cuDNN.
    pub fn new(report: &Report, shape: &ConvShape, groups: usize, operands: &Operands) -> anyhow::Result<Option<Self>> {
        let Some(peer) = report.cudnn() else { return Ok(None) };
        let (stream, width) = (&peer.handle.stream, peer.width());
        let (x, w, dy) = (peer.upload(&operands.x)?, peer.upload(&operands.w)?, peer.upload(&operands.dy)?);
        let copies = report.copies((x.len() + w.len() + dy.len()) as u64);
        // Of any pass.
        let result = width * shape.input_len().max(shape.output_len()).max(shape.weights_len());
        let first = Memory { x, w, dy, result: stream.alloc_zeros(result)? };
        let mut all = vec![first];
        while all.len() < copies {
            let again = |slice| stream.clone_dtod(slice);
            let (x, w, dy) = (again(&all[0].x)?, again(&all[0].w)?, again(&all[0].dy)?);
            all.push(Memory { x, w, dy, result: stream.alloc_zeros(result)? });
        }
        let convolution = Convolution::new(&peer.handle, shape, groups, peer.precision).map_err(failed)?;
        Ok(Some(Layer { peer, convolution, shape: *shape, copies: all }))
    }

    /// Holds our answer to those of cuDNN's first algorithms, and times each that agrees. Says of every other what it failed
    /// of, or by how much more the two answers differ than their precision explains.
    ///
    /// # Errors
    /// Where none agrees.
    pub fn compare(&mut self, pass: Pass, ours: &[f32]) -> anyhow::Result<report::Peer> {
        let choices = self.convolution.choices(pass).map_err(failed).context("asking its heuristics")?;
        let mut timed: Vec<report::Peer> = Vec::new();
        for algorithm in choices {
            match self.attempt(algorithm, ours) {
                Ok(peer) => timed.push(peer),
                Err(error) => eprintln!("{pass:?} of {:?}: {algorithm} LEFT OUT: {error:#}", self.shape),
            }
            if timed.len() == TIMED {
                break;
            }
        }
        let fastest = timed.into_iter().min_by(|one, other| one.ms.total_cmp(&other.ms));
        fastest.context("none of its algorithms comes to our answer")
    }

    fn attempt(&mut self, algorithm: Algorithm, ours: &[f32]) -> anyhow::Result<report::Peer> {
        let Layer { peer, convolution, copies, .. } = self;
        let stream = &peer.handle.stream;
        let bytes = convolution.workspace(algorithm).map_err(failed)?;
        let mut workspace = stream.alloc_zeros::<u8>(bytes.max(1))?;
        let mut launch = |memory: &mut Memory| {
            // SAFETY: the operands are as described, a result has room for any pass's, the workspace is as large as was
            // asked for, and the stream is waited for before this returns.
            unsafe { convolution.launch(algorithm, &mut workspace, memory) }.map_err(failed)
        };
        let off = {
            let first = &mut copies[0];
            stream.memset_zeros(&mut first.result)?;
            launch(first)?;
            let theirs = stream.clone_dtoh(&first.result.slice(..peer.width() * ours.len()))?;
            peer.difference(ours, &theirs)
        };
        let tolerance = peer.tolerance();
        ensure!(off <= tolerance, "our answer is off by {off:.1e}, tolerance {tolerance:e}");
        let timed = Self::time(peer, copies, &mut launch);
        stream.synchronize()?;
        Ok(report::Peer { ms: timed?, algorithm: algorithm.to_string(), off })
    }

    /// Milliseconds of a launch, as [`time::of`] takes them of ours.
    fn time(
        peer: &Peer,
        copies: &mut [Memory],
        mut launch: impl FnMut(&mut Memory) -> anyhow::Result<()>,
    ) -> anyhow::Result<f64> {
        let stream = &peer.handle.stream;
        stream.synchronize()?;
        let start = Instant::now();
        time::in_turn(copies, time::TRIED, &mut launch)?;
        stream.synchronize()?;
        let launches = time::launches(start.elapsed(), copies.len());
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)?;
        let launched = time::in_turn(copies, launches, &mut launch);
        let graph = stream.end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        // What cuDNN says comes before what the capture makes of it.
        launched?;
        let graph = graph?.context("it launched nothing")?;
        time::fastest(launches, || {
            graph.launch()?;
            Ok(stream.synchronize()?)
        })
    }
}
