//! What launches on the simulated GPU did, fetched from its driver.

use anyhow::Context;
use onesheet::device::cuda::kernels::Planned;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::c_char;

/// The driver's one function for it: lines of JSON.
type TakeCounters = unsafe extern "C" fn(*mut c_char, usize) -> usize;

/// What the simulated GPU counts, from [`start`](Self::start) on.
pub struct Counters {
    library: libloading::Library,
}

/// A line of the driver's: what one launch did.
#[derive(Deserialize)]
struct Line {
    kernel: String,
    sectors: u64,
    ideal_sectors: u64,
    touched_sectors: u64,
    wavefronts: u64,
    ideal_wavefronts: u64,
    tensor_flops: u64,
    seconds: BTreeMap<String, f64>,
}

/// What launches did, summed, beside what they were planned to do.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Launches.
    pub launches: usize,
    /// Bytes that the plan reads and writes.
    pub planned_bytes: u64,
    /// Multiplications and additions of the plan.
    pub flops: u64,
    /// Bytes that device memory had to move.
    pub dram_bytes: u64,
    /// Requests' sectors of 32 bytes, and how many their bytes need.
    sectors: [u64; 2],
    /// Wavefronts of shared memory that bank conflicts added.
    pub bank_conflicts: u64,
    /// Operations of tensor cores, padding included.
    pub tensor_flops: u64,
    /// Modelled microseconds by GPU.
    pub modelled_us: BTreeMap<String, f64>,
}

impl Counted {
    /// How much of the sectors that requests move they asked for, in percent.
    pub fn coalesced(&self) -> f64 {
        let [moved, wanted] = self.sectors;
        100.0 * wanted as f64 / moved.max(1) as f64
    }

    /// Adds what other launches did.
    pub fn merge(&mut self, other: &Counted) {
        self.launches += other.launches;
        self.planned_bytes += other.planned_bytes;
        self.flops += other.flops;
        self.dram_bytes += other.dram_bytes;
        self.sectors = [self.sectors[0] + other.sectors[0], self.sectors[1] + other.sectors[1]];
        self.bank_conflicts += other.bank_conflicts;
        self.tensor_flops += other.tensor_flops;
        for (gpu, us) in &other.modelled_us {
            *self.modelled_us.entry(gpu.clone()).or_default() += us;
        }
    }

    fn new(planned: &Planned, line: Line) -> Self {
        let work = planned.launch.work;
        Counted {
            launches: 1,
            planned_bytes: work.reads + work.writes,
            flops: work.flops,
            dram_bytes: 32 * line.touched_sectors,
            sectors: [line.sectors, line.ideal_sectors],
            bank_conflicts: line.wavefronts - line.ideal_wavefronts,
            tensor_flops: line.tensor_flops,
            modelled_us: line.seconds.into_iter().map(|(gpu, seconds)| (gpu, 1e6 * seconds)).collect(),
        }
    }
}

impl Counters {
    /// Starts counting. The simulated GPU must be open: then its library is the one that goes by the driver's name.
    pub fn start() -> anyhow::Result<Self> {
        // SAFETY: the library is loaded already; this takes another reference.
        let library = unsafe { libloading::Library::new("libcuda.so") }.context("the simulated GPU's library")?;
        let counters = Counters { library };
        counters.text()?;
        Ok(counters)
    }

    fn text(&self) -> anyhow::Result<String> {
        // SAFETY: gpusim declares it so.
        let take = unsafe { self.library.get::<TakeCounters>(b"gpusimTakeCounters") }
            .context("the library that goes by the name of libcuda.so is not the simulated GPU's")?;
        let mut text: Vec<u8> = Vec::new();
        loop {
            // SAFETY: the buffer is as long as it says.
            let length = unsafe { take(text.as_mut_ptr().cast(), text.len()) };
            if length < text.len() {
                text.truncate(length);
                return Ok(String::from_utf8(text)?);
            }
            text.resize(length + 1, 0u8);
        }
    }

    /// What the launches of a plan did, by kernel. They must be all since the last call.
    pub fn take(&self, plan: &[Planned]) -> anyhow::Result<BTreeMap<String, Counted>> {
        let text = self.text()?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Line>, _>>()?;
        let agree =
            lines.len() == plan.len() && lines.iter().zip(plan).all(|(line, planned)| line.kernel == planned.kernel);
        anyhow::ensure!(agree, "{} launches were planned and {} counted, or others", plan.len(), lines.len());
        let mut counted: BTreeMap<String, Counted> = BTreeMap::new();
        for (planned, line) in plan.iter().zip(lines) {
            counted.entry(line.kernel.clone()).or_default().merge(&Counted::new(planned, line));
        }
        Ok(counted)
    }

    /// Forgets what was counted so far.
    pub fn forget(&self) -> anyhow::Result<()> {
        self.text().map(drop)
    }
}
