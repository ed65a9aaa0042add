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

impl Cuda {
    /// The device's rates, of arithmetic in its precision.
    pub(super) fn data_sheet(&self) -> Result<Rates, DeviceError> {
        let failed = |error| self.driver_error("asking for the device's clocks", error);
        let attribute = |attribute| self.inner.gpu.context.attribute(attribute).map_err(failed);
        let name = self.inner.gpu.context.name().map_err(failed)?;
        if name.starts_with("gpusim") {
            let reason = "times are the simulation's own, not a GPU's, so there are no floors to hold them to";
            return Err(DeviceError::Unavailable(reason.into()));
        }
        let capability = self.inner.gpu.context.compute_capability().map_err(failed)?;
        let Some(multiply_adds) = MultiplyAdds::of(capability, name.contains("GeForce")) else {
            let (major, minor) = capability;
            return Err(DeviceError::Unavailable(format!("the rates of sm_{major}{minor} are not known here")));
        };
        let [clock, memory_clock, bus] = [
            Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE,
            Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE,
            Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH,
        ]
        .map(attribute);
        let (clock, memory_clock, bus) = (f64::from(clock?) * 1e3, f64::from(memory_clock?) * 1e3, f64::from(bus?));
        let (multiprocessors, each) = (self.multiprocessors(), multiply_adds.at(self.precision()));
        Ok(Rates {
            // Both edges of a clock carry a bit on each line of the bus.
            bytes: 2.0 * memory_clock * bus / 8.0,
            flops: 2.0 * f64::from(each) * f64::from(multiprocessors) * clock,
            source: format!(
                "data sheet: memory at {:.0} MHz on {bus} bits; {multiprocessors} multiprocessors at {:.0} MHz, {each} \
                 multiply-adds a clock each",
                memory_clock / 1e6,
                clock / 1e6
            ),
        })
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
        assert_eq!(MultiplyAdds::of((7, 5), false), None);
    }
}
