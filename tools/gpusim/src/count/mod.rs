//! Counters: what a kernel did, instruction by instruction.

mod gpu;
mod registers;
mod summary;

pub use gpu::Gpu;
pub use registers::{Malformed, Registers, Resources, Source, Used};
pub use summary::{Floor, Summary};

/// Bytes of a sector.
const SECTOR: u64 = 32;

/// What one instruction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Times a warp executed it.
    pub warps: u64,
    /// Lanes that did, summed.
    pub lanes: u64,
    /// Memory requests: executions that touched device memory.
    pub requests: u64,
    /// Sectors of 32 bytes that those touched, summed over requests.
    pub sectors: u64,
    /// Sectors that the same bytes would take side by side.
    pub ideal_sectors: u64,
    /// Shared-memory wavefronts.
    pub wavefronts: u64,
    /// Wavefronts that the same bytes would need without bank conflicts.
    pub ideal_wavefronts: u64,
}

impl Site {
    /// Adds what the same or another instruction did elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.warps += other.warps;
        self.lanes += other.lanes;
        self.requests += other.requests;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
    }
}

/// What a worker has counted of a launch.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By instruction.
    pub sites: Vec<Site>,
    /// Sectors that the launch touched at all: one that it reads and then writes counts twice.
    pub touched_sectors: u64,
    /// Of these, the ones written.
    pub written_sectors: u64,
}

impl Tally {
    /// For a kernel of so many instructions.
    #[must_use]
    pub fn new(instructions: usize) -> Self {
        Self { sites: vec![Site::default(); instructions], touched_sectors: 0, written_sectors: 0 }
    }

    /// Notes that a warp executed instruction `at` with these lanes.
    #[inline]
    pub fn executed(&mut self, at: u32, mask: u32) {
        let site = &mut self.sites[at as usize];
        site.warps += 1;
        // Mostly all of them; and not every processor has an instruction that counts.
        site.lanes += if mask == u32::MAX { 32 } else { u64::from(mask.count_ones()) };
    }

    /// Notes a request to device memory, for so many bytes.
    #[inline]
    pub fn device(&mut self, at: u32, sectors: u64, bytes: u64) {
        let site = &mut self.sites[at as usize];
        site.requests += 1;
        site.sectors += sectors;
        site.ideal_sectors += bytes.div_ceil(SECTOR).min(sectors);
    }

    /// Notes that memory must move so many sectors.
    #[inline]
    pub fn touched(&mut self, sectors: u64, write: bool) {
        self.touched_sectors += sectors;
        self.written_sectors += if write { sectors } else { 0 };
    }

    /// Notes a request to shared memory.
    #[inline]
    pub fn shared(&mut self, at: u32, wavefronts: u32, ideal: u32) {
        let site = &mut self.sites[at as usize];
        site.wavefronts += u64::from(wavefronts);
        site.ideal_wavefronts += u64::from(ideal);
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.sites.iter_mut().zip(&other.sites) {
            mine.add(theirs);
        }
        self.touched_sectors += other.touched_sectors;
        self.written_sectors += other.written_sectors;
    }
}
