//! The CUDA device that tests run on: the simulated GPU, or with `ONESHEET_TEST_DEVICE=cuda` a real one.

#![allow(dead_code, reason = "each test file takes what it needs")]

use onesheet::device::Memory;
use onesheet::device::cuda::{Cuda, Precision, simulated};
use std::sync::Once;

/// Whether it is a real one.
pub fn is_real() -> bool {
    match std::env::var("ONESHEET_TEST_DEVICE").as_deref() {
        Ok("cuda") => true,
        Err(_) | Ok("sim") => false,
        Ok(other) => panic!("ONESHEET_TEST_DEVICE is {other}; it may be cuda or sim"),
    }
}

/// Opens the device, and says once on which one these tests run.
pub fn device(precision: Precision) -> Cuda {
    if !is_real() {
        simulated::open().unwrap();
    }
    let device = Cuda::new(precision).unwrap();
    static SAID: Once = Once::new();
    SAID.call_once(|| eprintln!("these tests run on {}", device.name()));
    device
}
