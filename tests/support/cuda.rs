//! The CUDA device that tests run on: the simulated GPU, or with `ONESHEET_TEST_DEVICE=cuda` a real one.

#![allow(dead_code, reason = "each test file takes what it needs")]

use onesheet::device::cuda::gpu::Gpu;
use onesheet::device::cuda::{Cuda, Precision, simulated};
use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

/// Whether it is a real one.
pub fn is_real() -> bool {
    match std::env::var("ONESHEET_TEST_DEVICE").as_deref() {
        Ok("cuda") => true,
        Err(_) | Ok("sim") => false,
        Ok(other) => panic!("ONESHEET_TEST_DEVICE is {other}; it may be cuda or sim"),
    }
}

/// The GPU, opened once: all tests of an executable share its context and the kernels compiled for it.
pub fn gpu() -> &'static Arc<Gpu> {
    static OPENED: OnceLock<Arc<Gpu>> = OnceLock::new();
    OPENED.get_or_init(|| {
        if !is_real() {
            simulated::open().unwrap();
        }
        let gpu = Gpu::open().unwrap();
        eprintln!("these tests run on {}, driver for CUDA {}", gpu.name(), gpu.driver());
        Arc::new(gpu)
    })
}

/// A device in a precision: on a real GPU the thread's one, with the memory that earlier cases left it. On the simulated one a
/// new one each time, since it tells who reads memory that nobody wrote only while the memory is new.
pub fn device(precision: Precision) -> Cuda {
    thread_local! {
        static OPENED: RefCell<Vec<Cuda>> = const { RefCell::new(Vec::new()) };
    }
    let new = || Cuda::on(gpu(), precision, &mut |_| {}).unwrap();
    if !is_real() {
        return new();
    }
    OPENED.with_borrow_mut(|opened| match opened.iter().find(|device| device.precision() == precision) {
        Some(device) => device.clone(),
        None => {
            opened.push(new());
            opened[opened.len() - 1].clone()
        }
    })
}
