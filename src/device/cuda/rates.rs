//! How fast a GPU can be at most: its memory by what the driver says of it, its arithmetic by its architecture and clock.

use super::{Cuda, Precision};
use crate::device::{DeviceError, Rates};
use cudarc::driver::sys::CUdevice_attribute as Attribute;

/// Multiply-adds that a multiprocessor does in a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MultiplyAdds {
    /// On CUDA cores.
    f32: u32,
    /// On tensor cores, sums in `f32`.
    tf32: u32,
    /// Likewise.
    bf16: u32,
}

impl MultiplyAdds {
    /// Dense rates, from NVIDIA's whitepapers and data sheets: A100 (312 TFLOP/s in bf16 on 108 multiprocessors at 1.41 GHz),
    /// GA102 and A40, Ada and L40S, H100 (989 on 132 at 1.83), B200, RTX Blackwell. GeForce cards of 8.6, 8.9 and 12.0 sum
    /// in `f32` at half the rate of the professional ones with the same chips.
    fn of(capability: (i32, i32), geforce: bool) -> Option<Self> {
        let rates = |f32, bf16| Some(MultiplyAdds { f32, tf32: bf16 / 2, bf16 });
        match capability {
            (8, 0) => rates(64, 1024),
            (8, 6) | (8, 9) | (12, 0) => rates(128, if geforce { 256 } else { 512 }),
            (9, 0) => rates(128, 2048),
            (10, 0) => rates(128, 4096),
            _ => None,
        }
    }

    fn at(self, precision: Precision) -> u32 {
        match precision {
            Precision::F32 => self.f32,
            Precision::Tf32 => self.tf32,
            Precision::Bf16 => self.bf16,
        }
    }
}

/// The rates of a GPU at its highest clocks, in kHz, with a memory bus of so many bits.
fn rates(
    gpu: &str,
    capability: (i32, i32),
    precision: Precision,
    multiprocessors: u32,
    [clock, memory_clock, bus]: [i32; 3],
) -> Result<Rates, DeviceError> {
    let unknown = |reason: String| Err(DeviceError::Unavailable(reason));
    if gpu.starts_with("gpusim") {
        return unknown("the times are the simulation's own, not a GPU's".into());
    }
    let Some(multiply_adds) = MultiplyAdds::of(capability, gpu.contains("GeForce")) else {
        let (major, minor) = capability;
        return unknown(format!("the rates of sm_{major}{minor} are not known here"));
    };
    if clock <= 0 || memory_clock <= 0 || bus <= 0 {
        return unknown("the driver does not say how fast the device's clocks are".into());
    }
    let each = multiply_adds.at(precision);
    let [clock, memory_clock] = [clock, memory_clock].map(|khz| f64::from(khz) * 1e3);
    Ok(Rates {
        // Both edges of a clock carry a bit on each line of the bus.
        bytes: 2.0 * memory_clock * f64::from(bus) / 8.0,
        flops: 2.0 * f64::from(each) * f64::from(multiprocessors) * clock,
        source: format!(
            "memory at {:.0} MHz on {bus} bits; {multiprocessors} multiprocessors at {:.0} MHz, {each} multiply-adds a \
             clock each",
            memory_clock / 1e6,
            clock / 1e6
        ),
    })
}

impl Cuda {
    /// The rates of arithmetic in the device's precision, and of its memory.
    pub(super) fn best_rates(&self) -> Result<Rates, DeviceError> {
        let context = &self.inner.gpu.context;
        let failed = |error| self.driver_error("asking how fast the device is", error);
        let attribute = |attribute| context.attribute(attribute).map_err(failed);
        let clocks = [
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?,
        ];
        let (name, capability) = (context.name().map_err(failed)?, context.compute_capability().map_err(failed)?);
        rates(&name, capability, self.precision(), self.multiprocessors(), clocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiprocessors and clocks as the data sheets have them, and their TFLOP/s in bf16, tf32 and f32.
    #[test]
    fn rates_are_those_of_the_data_sheets() {
        let sheets = [
            ((8, 0), false, 108, 1.41, [312.0, 156.0, 19.5]),   // A100
            ((8, 6), true, 82, 1.695, [71.0, 35.6, 35.6]),      // GeForce RTX 3090
            ((8, 6), false, 84, 1.74, [149.7, 74.8, 37.4]),     // A40
            ((8, 9), true, 128, 2.52, [165.2, 82.6, 82.6]),     // GeForce RTX 4090
            ((8, 9), false, 142, 2.52, [362.0, 183.0, 91.6]),   // L40S
            ((9, 0), false, 132, 1.83, [989.4, 494.7, 61.8]),   // H100 SXM; 66.9 in f32, at its higher clock there
            ((12, 0), true, 170, 2.407, [209.5, 104.8, 104.8]), // GeForce RTX 5090
        ];
        for (capability, geforce, multiprocessors, ghz, sheet) in sheets {
            let each = MultiplyAdds::of(capability, geforce).unwrap();
            for (precision, sheet) in [Precision::Bf16, Precision::Tf32, Precision::F32].into_iter().zip(sheet) {
                let teraflops = 2e-3 * f64::from(each.at(precision)) * f64::from(multiprocessors) * ghz;
                assert!(
                    (teraflops / sheet - 1.0).abs() < 0.02,
                    "{capability:?} {precision:?}: {teraflops} for {sheet}"
                );
            }
        }
    }

    #[test]
    fn a_gpu_has_the_rates_of_its_clocks_or_a_reason() {
        // An A100 of 80 GB, and what its driver says.
        let a100 = [1_410_000, 1_593_000, 5120];
        let of = |name: &str, capability, clocks| rates(name, capability, Precision::Bf16, 108, clocks);
        let found = of("NVIDIA A100-SXM4-80GB", (8, 0), a100).unwrap();
        assert!((found.bytes / 2.039e12 - 1.0).abs() < 1e-3 && (found.flops / 312e12 - 1.0).abs() < 1e-3, "{found:?}");
        assert!(found.source.contains("1593 MHz on 5120 bits; 108 multiprocessors at 1410 MHz, 1024 "), "{found:?}");
        for (name, capability, clocks, word) in [
            ("gpusim A100 (in software)", (8, 0), a100, "simulation"),
            ("NVIDIA Orin", (8, 7), a100, "sm_87"),
            ("NVIDIA A100-SXM4-80GB", (8, 0), [1_410_000, 0, 5120], "driver"),
        ] {
            let reason = of(name, capability, clocks).unwrap_err().to_string();
            assert!(reason.contains(word), "{reason}");
        }
    }
}
