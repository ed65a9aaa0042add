//! What a launch did, for people and programs, and the time it would take on a GPU.

use super::{Gpu, Registers, Site, Source, Tally};
use crate::exec::Launch;
use crate::program::Class;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A lower bound of a launch's time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Floor {
    /// What it is bound by.
    pub by: &'static str,
    /// Seconds.
    pub seconds: f64,
}

/// What a launch did.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The kernel.
    pub kernel: String,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads a block in x, y, z.
    pub block: [u32; 3],
    /// Instructions that warps executed, by class.
    pub warp_instructions: BTreeMap<Class, u64>,
    /// The share of lanes that were active in them.
    pub active_lanes: f64,
    /// Requests to device memory.
    pub requests: u64,
    /// Sectors of 32 bytes that they touched, summed over requests.
    pub sectors: u64,
    /// Sectors that the same bytes would take side by side.
    pub ideal_sectors: u64,
    /// Sectors that the launch touched at all, one that it reads and then writes twice: what memory must move at least.
    pub touched_sectors: u64,
    /// Of these, the ones written.
    pub written_sectors: u64,
    /// Wavefronts of shared memory.
    pub wavefronts: u64,
    /// Wavefronts that it would take without bank conflicts.
    pub ideal_wavefronts: u64,
    /// Floating-point operations of tensor cores.
    pub tensor_flops: u64,
    /// Bytes of shared memory a block.
    pub shared_bytes: usize,
    /// Registers a thread.
    pub registers: Registers,
    /// Blocks that are on a multiprocessor at once.
    pub resident_blocks: u32,
    /// The share of a multiprocessor's threads that these have.
    pub occupancy: f64,
    /// The GPU of the modelled time.
    pub gpu: &'static str,
    /// The floors, largest first.
    pub floors: Vec<Floor>,
    /// The modelled time on each GPU that is known, for this very grid.
    pub seconds: BTreeMap<&'static str, f64>,
}

impl Summary {
    /// Of a launch that ran, with so many registers a thread, modelled on `gpu`.
    #[must_use]
    pub fn new(launch: &Launch<'_>, tally: &Tally, gpu: &Gpu, registers: Registers) -> Self {
        let code = &launch.kernel.code;
        let mut warp_instructions = BTreeMap::new();
        let (mut tensor_flops, mut tensor_cost) = (0, 0);
        let mut total = Site::default();
        for (inst, site) in code.iter().zip(&tally.sites).filter(|(_, site)| site.warps > 0) {
            *warp_instructions.entry(inst.class).or_default() += site.warps;
            tensor_flops += site.warps * u64::from(inst.flops);
            tensor_cost += site.warps * u64::from(inst.tensor_cost);
            total.add(site);
        }
        let resident_blocks = gpu.resident_blocks(launch.threads(), launch.shared_bytes() as u32, registers.each);
        let mut summary = Self {
            kernel: launch.kernel.name.clone(),
            grid: launch.setup.grid,
            block: launch.setup.block,
            warp_instructions,
            active_lanes: total.lanes as f64 / (total.warps * 32).max(1) as f64,
            requests: total.requests,
            sectors: total.sectors,
            ideal_sectors: total.ideal_sectors,
            touched_sectors: tally.touched_sectors,
            written_sectors: tally.written_sectors,
            wavefronts: total.wavefronts,
            ideal_wavefronts: total.ideal_wavefronts,
            tensor_flops,
            shared_bytes: launch.shared_bytes(),
            registers,
            resident_blocks,
            occupancy: f64::from(resident_blocks * launch.warps() * 32) / f64::from(gpu.threads),
            gpu: gpu.name,
            floors: Vec::new(),
            seconds: BTreeMap::new(),
        };
        let largest = |floors: &[Floor]| floors.first().map_or(0.0, |floor| floor.seconds);
        summary.seconds = Gpu::ALL.iter().map(|gpu| (gpu.name, largest(&summary.floors(gpu, tensor_cost)))).collect();
        summary.floors = summary.floors(gpu, tensor_cost);
        summary
    }

    /// Lower bounds, each as if it were the only one.
    fn floors(&self, gpu: &Gpu, tensor_cost: u64) -> Vec<Floor> {
        // As many multiprocessors as there are blocks, at most.
        let blocks: u64 = self.grid.iter().map(|&n| u64::from(n)).product();
        let busy = blocks.min(gpu.multiprocessors.into()) as f64;
        let share = busy / f64::from(gpu.multiprocessors);
        let cycles = busy * f64::from(gpu.clock_mhz) * 1e6;
        let of = |class: Class| self.warp_instructions.get(&class).copied().unwrap_or(0) as f64;
        let lanes = |class: Class, lanes: f64| of(class) * 32.0 / lanes / cycles;
        let single = f64::from(gpu.single_lanes);
        let all: u64 = self.warp_instructions.values().sum();
        let mut floors = vec![
            Floor { by: "device memory", seconds: self.touched_sectors as f64 * 32.0 / gpu.bandwidth },
            // The second-level cache gives a multiprocessor 64 bytes a cycle.
            Floor { by: "L2 cache", seconds: self.sectors as f64 * 32.0 / 64.0 / cycles },
            Floor { by: "shared memory", seconds: self.wavefronts as f64 / cycles },
            Floor { by: "issue", seconds: all as f64 / 4.0 / cycles },
            Floor { by: "single precision", seconds: lanes(Class::Float, single) },
            Floor { by: "double precision", seconds: lanes(Class::Double, single / f64::from(gpu.single_to_double)) },
            Floor { by: "integers", seconds: lanes(Class::Integer, 64.0) },
            Floor { by: "special functions", seconds: lanes(Class::Special, 16.0) },
            Floor { by: "tensor cores", seconds: tensor_cost as f64 / (gpu.tensor_half * share) },
        ];
        floors.retain(|floor| floor.seconds > 0.0);
        floors.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        floors
    }

    /// The modelled time in seconds: the largest of the floors.
    #[must_use]
    pub fn modelled_seconds(&self) -> f64 {
        self.floors.first().map_or(0.0, |floor| floor.seconds)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([gx, gy, gz], [bx, by, bz]) = (self.grid, self.block);
        writeln!(f, "kernel `{}` <<<({gx},{gy},{gz}), ({bx},{by},{bz})>>>", self.kernel)?;
        for (class, count) in &self.warp_instructions {
            writeln!(f, "  {:<28}{count:>14} warp instructions", format!("{class:?}").to_lowercase())?;
        }
        writeln!(f, "  {:<28}{:>13.1} %", "active lanes", self.active_lanes * 100.0)?;
        let per = self.sectors as f64 / self.requests.max(1) as f64;
        let side_by_side = 100.0 * self.ideal_sectors as f64 / self.sectors.max(1) as f64;
        writeln!(
            f,
            "  {:<28}{:>14} ({per:.2} a request, {side_by_side:.0} % coalesced)",
            "sectors requested", self.sectors
        )?;
        let (touched, written) = (self.touched_sectors, self.written_sectors);
        writeln!(f, "  {:<28}{touched:>14} ({written} written)", "sectors touched at all")?;
        let conflicts = self.wavefronts - self.ideal_wavefronts;
        writeln!(f, "  {:<28}{:>14} ({conflicts} by bank conflicts)", "shared-memory wavefronts", self.wavefronts)?;
        writeln!(f, "  {:<28}{:>14}", "tensor FLOP", self.tensor_flops)?;
        let source = match self.registers.source {
            Source::Ptxas => "as ptxas gives them",
            Source::Declarations => "as PTX declares them: an upper bound",
        };
        writeln!(f, "  {:<28}{:>14} ({source})", "registers a thread", self.registers.each)?;
        let resident = self.resident_blocks;
        writeln!(f, "  {:<28}{:>13.1} % ({resident} blocks a multiprocessor)", "occupancy", self.occupancy * 100.0)?;
        for floor in &self.floors {
            writeln!(
                f,
                "  {:<28}{:>11.3} us modelled on {}",
                format!("floor: {}", floor.by),
                floor.seconds * 1e6,
                self.gpu
            )?;
        }
        Ok(())
    }
}
