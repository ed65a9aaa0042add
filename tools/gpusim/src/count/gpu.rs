//! GPUs that a time can be modelled for, and that the driver can claim to be: figures of the vendor's data sheets.

/// A GPU's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Its name.
    pub name: &'static str,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Boost clock.
    pub clock_mhz: u32,
    /// Memory clock, as the driver reports it.
    pub memory_clock_mhz: u32,
    /// Width of the memory bus.
    pub memory_bus_bits: u32,
    /// Memory.
    pub memory_bytes: usize,
    /// Second-level cache.
    pub l2_bytes: usize,
    /// Shared memory of a multiprocessor.
    pub shared_bytes: u32,
    /// Shared memory that one block can have.
    pub shared_bytes_per_block: u32,
    /// Resident threads of a multiprocessor.
    pub threads: u32,
    /// Resident blocks of a multiprocessor.
    pub blocks: u32,
    /// 32-bit registers of a multiprocessor.
    pub registers: u32,
    /// Single-precision throughput over double's.
    pub single_to_double: u32,
    /// Memory bandwidth in bytes a second.
    pub bandwidth: f64,
    /// Single-precision lanes of a multiprocessor.
    pub single_lanes: u32,
    /// Dense tensor throughput for 16-bit floats, in FLOP a second.
    pub tensor_half: f64,
}

impl Gpu {
    /// All that are known.
    pub const ALL: &'static [Self] = &[
        Self {
            name: "A100",
            capability: (8, 0),
            multiprocessors: 108,
            clock_mhz: 1410,
            memory_clock_mhz: 1593,
            memory_bus_bits: 5120,
            memory_bytes: 80 << 30,
            l2_bytes: 40 << 20,
            shared_bytes: 167_936,
            shared_bytes_per_block: 166_912,
            threads: 2048,
            blocks: 32,
            registers: 65_536,
            single_to_double: 2,
            bandwidth: 2.04e12,
            single_lanes: 64,
            tensor_half: 312e12,
        },
        Self {
            name: "RTX 4090",
            capability: (8, 9),
            multiprocessors: 128,
            clock_mhz: 2520,
            memory_clock_mhz: 10_501,
            memory_bus_bits: 384,
            memory_bytes: 24 << 30,
            l2_bytes: 72 << 20,
            shared_bytes: 102_400,
            shared_bytes_per_block: 101_376,
            threads: 1536,
            blocks: 24,
            registers: 65_536,
            single_to_double: 64,
            bandwidth: 1.01e12,
            single_lanes: 128,
            tensor_half: 165e12,
        },
        Self {
            name: "H100",
            capability: (9, 0),
            multiprocessors: 132,
            clock_mhz: 1830,
            memory_clock_mhz: 2619,
            memory_bus_bits: 5120,
            memory_bytes: 80 << 30,
            l2_bytes: 50 << 20,
            shared_bytes: 233_472,
            shared_bytes_per_block: 232_448,
            threads: 2048,
            blocks: 32,
            registers: 65_536,
            single_to_double: 2,
            bandwidth: 3.35e12,
            single_lanes: 128,
            tensor_half: 989e12,
        },
        Self {
            name: "B200",
            capability: (10, 0),
            multiprocessors: 148,
            clock_mhz: 1965,
            memory_clock_mhz: 3996,
            memory_bus_bits: 8192,
            memory_bytes: 180 << 30,
            l2_bytes: 126 << 20,
            shared_bytes: 233_472,
            shared_bytes_per_block: 232_448,
            threads: 2048,
            blocks: 32,
            registers: 65_536,
            single_to_double: 2,
            bandwidth: 8.0e12,
            single_lanes: 128,
            tensor_half: 2250e12,
        },
    ];

    /// The GPU of this name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|gpu| gpu.name.eq_ignore_ascii_case(name))
    }

    /// Warps of threads with so many registers that a multiprocessor has registers for; they come in units of 256.
    #[must_use]
    pub fn resident_warps(&self, registers: u32) -> u32 {
        self.registers / (registers.max(1) * 32).next_multiple_of(256)
    }

    /// Blocks of `threads` threads with so many bytes of shared memory and registers a thread that fit on a
    /// multiprocessor.
    #[must_use]
    pub fn resident_blocks(&self, threads: u32, shared: u32, registers: u32) -> u32 {
        let warps = threads.div_ceil(32).max(1);
        let by_threads = self.threads / (warps * 32);
        let by_registers = self.resident_warps(registers) / warps;
        // A block reserves 1 KiB of shared memory.
        let by_shared = self.shared_bytes / (shared + 1024);
        by_threads.min(by_registers).min(by_shared).min(self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occupancy_is_the_scarcest_resource() {
        let a100 = Gpu::named("a100").unwrap();
        assert_eq!(a100.resident_blocks(256, 0, 32), 8);
        assert_eq!(a100.resident_blocks(256, 0, 128), 2);
        assert_eq!(a100.resident_blocks(128, 80 << 10, 32), 2);
        assert_eq!(a100.resident_blocks(32, 0, 16), 32);
        assert_eq!(a100.resident_warps(255) * 32, 256);
    }
}
