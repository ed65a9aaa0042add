//! The device: which GPU it says it is.

use super::{Answer, Code, api, driver, give, report, state};
use crate::count::{Gpu, Resources};
use std::ffi::{c_char, c_int};

/// A version of the driver API: 12.8, which cudarc and NVRTC 12 expect.
const VERSION: c_int = 12_080;

/// What the simulated GPU claims to be.
pub(super) struct Device {
    pub gpu: &'static Gpu,
    pub name: String,
    /// What `ptxas` used for kernels, where somebody says so.
    pub resources: Resources,
    /// The newest version of PTX that it takes, where somebody says so.
    pub newest_ptx: Option<(u32, u32)>,
}

/// The version that `GPUSIM_PTX` names.
fn newest_ptx() -> Answer<Option<(u32, u32)>> {
    let Ok(version) = std::env::var("GPUSIM_PTX") else { return Ok(None) };
    let parts = version.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    if parts.is_none() {
        report::say(&format!("GPUSIM_PTX={version} is not a version such as 7.4"));
        return Err(Code::INVALID_VALUE);
    }
    Ok(parts)
}

/// The table that `GPUSIM_RESOURCES` names: the output of `ptxas -v`.
fn resources() -> Answer<Resources> {
    let Some(path) = std::env::var_os("GPUSIM_RESOURCES").filter(|path| !path.is_empty()) else {
        return Ok(Resources::default());
    };
    let name = path.display();
    let text = std::fs::read_to_string(&path).map_err(|error| {
        report::say(&format!("GPUSIM_RESOURCES={name}: {error}"));
        Code::FILE_NOT_FOUND
    })?;
    Resources::parse(&text).map_err(|error| {
        report::say(&format!("GPUSIM_RESOURCES={name}, {error}"));
        Code::INVALID_VALUE
    })
}

impl Device {
    /// The one that `GPUSIM_GPU` names: `A100` (the default), `RTX 4090`, `H100`, `B200`; or none.
    pub fn chosen() -> Answer<Self> {
        let name = std::env::var("GPUSIM_GPU").unwrap_or_else(|_| "A100".into());
        if name == "none" {
            return Err(Code::NO_DEVICE);
        }
        let Some(gpu) = Gpu::named(&name) else {
            let known: Vec<&str> = Gpu::ALL.iter().map(|gpu| gpu.name).collect();
            report::say(&format!("GPUSIM_GPU={name} is not one of {}", known.join(", ")));
            return Err(Code::NO_DEVICE);
        };
        let name = format!("gpusim {} (in software)", gpu.name);
        Ok(Self { gpu, name, resources: resources()?, newest_ptx: newest_ptx()? })
    }

    /// A device attribute by its number in the header; those of hardware that isn't there are 0.
    pub fn attribute(&self, attribute: u32) -> Answer<c_int> {
        let gpu = self.gpu;
        let value = match attribute {
            1..=3 => 1024,
            4 => 64,
            5 => c_int::MAX as u32,
            6 | 7 => 65_535,
            8 => 49_152,
            9 => 65_536,
            10 => 32,
            11 => c_int::MAX as u32,
            12 | 82 => gpu.registers,
            13 => gpu.clock_mhz * 1000,
            14 => 512,
            15 | 19 | 31 | 32 | 41 | 78 | 79 | 80 | 83 | 90 | 95 | 115 => 1,
            16 => gpu.multiprocessors,
            36 => gpu.memory_clock_mhz * 1000,
            37 => gpu.memory_bus_bits,
            38 => gpu.l2_bytes as u32,
            39 => gpu.threads,
            40 => 2,
            75 => gpu.capability.0,
            76 => gpu.capability.1,
            81 => gpu.shared_bytes,
            87 => gpu.single_to_double,
            97 => gpu.shared_bytes_per_block,
            106 => gpu.blocks,
            111 => 1024,
            120 => u32::from(gpu.capability.0 >= 9),
            0 | 151.. => return Err(Code::INVALID_VALUE),
            _ => 0,
        };
        Ok(value as c_int)
    }
}

fn only(ordinal: c_int) -> Answer {
    if ordinal == 0 { Ok(()) } else { Err(Code::INVALID_DEVICE) }
}

api! {
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        state::initialise()
    }

    fn cuDriverGetVersion(version: *mut c_int) {
        // SAFETY: the caller's promise.
        unsafe { give(version, VERSION) }
    }

    fn cuDeviceGetCount(count: *mut c_int) {
        drop(driver()?);
        // SAFETY: the caller's promise.
        unsafe { give(count, 1) }
    }

    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        drop(driver()?);
        only(ordinal)?;
        // SAFETY: the caller's promise.
        unsafe { give(device, 0) }
    }

    fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) {
        only(device)?;
        if name.is_null() || length <= 0 {
            return Err(Code::INVALID_VALUE);
        }
        let driver = driver()?;
        let bytes = driver.device.name.as_bytes();
        let kept = bytes.len().min(length as usize - 1);
        // SAFETY: the caller gave `length` bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), name.cast(), kept);
            name.add(kept).write(0);
        }
        Ok(())
    }

    fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) {
        drop(driver()?);
        only(device)?;
        // SAFETY: the caller's promise.
        unsafe { give(uuid, *b"gpusim software\0") }
    }

    fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) {
        drop(driver()?);
        only(device)?;
        // SAFETY: the caller's promise.
        unsafe { give(uuid, *b"gpusim software\0") }
    }

    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) {
        only(device)?;
        let total = driver()?.device.gpu.memory_bytes;
        // SAFETY: the caller's promise.
        unsafe { give(bytes, total) }
    }

    fn cuDeviceGetAttribute(value: *mut c_int, attribute: u32, device: c_int) {
        only(device)?;
        let found = driver()?.device.attribute(attribute)?;
        // SAFETY: the caller's promise.
        unsafe { give(value, found) }
    }

    fn cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, device: c_int) {
        only(device)?;
        let (first, second) = driver()?.device.gpu.capability;
        // SAFETY: the caller's promise.
        unsafe { give(major, first as c_int).and_then(|()| give(minor, second as c_int)) }
    }

    fn cuDeviceGetPCIBusId(name: *mut c_char, length: c_int, device: c_int) {
        drop(driver()?);
        only(device)?;
        let id = c"0000:00:00.0";
        if name.is_null() || (length as usize) < id.count_bytes() + 1 {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller gave `length` bytes.
        unsafe { std::ptr::copy_nonoverlapping(id.as_ptr(), name, id.count_bytes() + 1) };
        Ok(())
    }

    fn cuDeviceCanAccessPeer(can: *mut c_int, device: c_int, peer: c_int) {
        drop(driver()?);
        only(device)?;
        only(peer)?;
        // SAFETY: the caller's promise.
        unsafe { give(can, 0) }
    }
}
