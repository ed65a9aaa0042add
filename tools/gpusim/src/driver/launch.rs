//! Launches.

use super::graph::Operation;
use super::state::Driver;
use super::{Answer, Code, Handle, api, ready, report};
use crate::exec::{Launch, Setup};
use crate::fault::Kind;
use std::ffi::{c_uint, c_void};

/// The error that hardware gives for a fault, or, where hardware says nothing, a failed launch.
fn code(kind: &Kind) -> Code {
    match kind {
        Kind::OutOfBounds { .. } | Kind::UseAfterFree { .. } => Code::ILLEGAL_ADDRESS,
        Kind::Misaligned { .. } => Code::MISALIGNED_ADDRESS,
        Kind::Assert(_) => Code::ASSERT,
        Kind::MemberMask { .. } | Kind::TensorMap { .. } => Code::ILLEGAL_INSTRUCTION,
        Kind::Unsupported(_) => Code::NOT_SUPPORTED,
        Kind::Uninitialised { .. }
        | Kind::Race { .. }
        | Kind::AsyncPending { .. }
        | Kind::DivergentBarrier { .. }
        | Kind::Deadlock(_)
        | Kind::Mbarrier { .. }
        | Kind::Trap => Code::LAUNCH_FAILED,
    }
}

impl Driver {
    /// Runs a kernel; a fault is said, and kept for the next call that looks.
    pub fn run_kernel(&mut self, context: Handle, function: Handle, setup: Setup, arguments: &[u8]) -> Answer {
        let function = self.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        let (kernel, registers) = (function.kernel.clone(), function.registers);
        self.launches += 1;
        let launch = Launch::new(&kernel, setup, arguments, self.arena, &self.allocations, self.launches);
        match launch.run() {
            Ok(tally) => super::report::counted(&launch, &tally, self.device.gpu, registers),
            Err(fault) => {
                let code = code(&fault.kind);
                report::say(&format!("{fault} ({})", code.name()));
                self.fail(context, code);
            }
        }
        Ok(())
    }

    /// Checks a launch's extents against the kernel and the device.
    fn check_launch(&self, function: Handle, setup: &Setup, cooperative: bool) -> Answer {
        let function = self.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        let (kernel, gpu) = (&function.kernel, self.device.gpu);
        let ([gx, gy, gz], [bx, by, bz]) = (setup.grid, setup.block);
        let threads = u64::from(bx) * u64::from(by) * u64::from(bz);
        let grid_fits = gx > 0 && gy > 0 && gz > 0 && gx <= i32::MAX as u32 && gy <= 65_535 && gz <= 65_535;
        let blocks = u64::from(gx) * u64::from(gy) * u64::from(gz);
        if !grid_fits || blocks > u64::from(u32::MAX) || threads == 0 || bx > 1024 || by > 1024 || bz > 64 {
            return Err(Code::INVALID_VALUE);
        }
        if threads > u64::from(function.max_threads(gpu)) {
            return Err(if threads > 1024 { Code::INVALID_VALUE } else { Code::LAUNCH_OUT_OF_RESOURCES });
        }
        if kernel.required_threads.is_some_and(|required| required != setup.block) {
            return Err(Code::INVALID_VALUE);
        }
        if setup.dynamic_shared > function.max_dynamic {
            return Err(Code::INVALID_VALUE);
        }
        if cooperative {
            let shared = kernel.shared_bytes as u32 + setup.dynamic_shared;
            let resident = gpu.resident_blocks(threads as u32, shared, function.registers.each);
            if blocks > u64::from(resident * gpu.multiprocessors) {
                return Err(Code::COOPERATIVE_LAUNCH_TOO_LARGE);
            }
        }
        Ok(())
    }

    /// The arguments as one buffer, from an array of pointers or from a packed buffer.
    ///
    /// # Safety
    /// As NVIDIA documents both forms.
    unsafe fn arguments(
        &self,
        function: Handle,
        pointers: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> Answer<Vec<u8>> {
        let kernel = &self.functions.get(&function).ok_or(Code::INVALID_HANDLE)?.kernel;
        let mut buffer = vec![0; kernel.parameter_bytes];
        if !pointers.is_null() {
            for (index, parameter) in kernel.parameters.iter().enumerate() {
                // SAFETY: the caller gave a pointer for every parameter, to as many bytes as it has.
                unsafe {
                    let from = *pointers.add(index);
                    if from.is_null() {
                        return Err(Code::INVALID_VALUE);
                    }
                    let to = &mut buffer[parameter.offset..][..parameter.bytes];
                    std::ptr::copy_nonoverlapping(from.cast(), to.as_mut_ptr(), parameter.bytes);
                }
            }
            return Ok(buffer);
        }
        if extra.is_null() {
            return if kernel.parameters.is_empty() { Ok(buffer) } else { Err(Code::INVALID_VALUE) };
        }
        let (mut packed, mut bytes, mut at) = (std::ptr::null::<u8>(), 0usize, extra);
        // SAFETY: the caller ends the list with CU_LAUNCH_PARAM_END; its keys are small numbers as pointers.
        unsafe {
            loop {
                match (*at) as usize {
                    0 => break,
                    1 => packed = (*at.add(1)).cast(),
                    2 => bytes = *(*at.add(1)).cast::<usize>(),
                    _ => return Err(Code::INVALID_VALUE),
                }
                at = at.add(2);
            }
            if packed.is_null() || bytes < buffer.len() {
                return Err(Code::INVALID_VALUE);
            }
            std::ptr::copy_nonoverlapping(packed, buffer.as_mut_ptr(), buffer.len());
        }
        Ok(buffer)
    }
}

/// What a launch asks for.
struct Request {
    function: Handle,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    stream: Handle,
    cooperative: bool,
}

/// # Safety
/// The arguments are as NVIDIA documents them.
unsafe fn launch(request: &Request, pointers: *mut *mut c_void, extra: *mut *mut c_void) -> Answer {
    let mut driver = ready()?;
    let setup = Setup {
        grid: request.grid,
        block: request.block,
        dynamic_shared: request.dynamic_shared,
        multiprocessors: driver.device.gpu.multiprocessors,
        sums: driver.modes.sums,
        order: driver.modes.order,
        masked_anywhere: driver.modes.masked_anywhere,
    };
    driver.check_launch(request.function, &setup, request.cooperative)?;
    // SAFETY: the caller's promise.
    let arguments = unsafe { driver.arguments(request.function, pointers, extra)? };
    driver.submit(request.stream, Operation::Launch { function: request.function, setup, arguments })
}

/// `CUlaunchConfig`.
#[repr(C)]
pub struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    stream: Handle,
    attributes: *const LaunchAttribute,
    count: c_uint,
}

/// `CUlaunchAttribute`.
#[repr(C, align(8))]
pub struct LaunchAttribute {
    id: c_uint,
    padding: c_uint,
    value: [u32; 16],
}

api! {
    fn cuLaunchKernel(
        function: Handle,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared: c_uint,
        stream: Handle,
        pointers: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let request = Request { function, grid, block, dynamic_shared: shared, stream, cooperative: false };
        // SAFETY: the caller's promise.
        unsafe { launch(&request, pointers, extra) }
    }

    fn cuLaunchCooperativeKernel(
        function: Handle,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared: c_uint,
        stream: Handle,
        pointers: *mut *mut c_void,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let request = Request { function, grid, block, dynamic_shared: shared, stream, cooperative: true };
        // SAFETY: the caller's promise.
        unsafe { launch(&request, pointers, std::ptr::null_mut()) }
    }

    fn cuLaunchKernelEx(
        config: *const LaunchConfig,
        function: Handle,
        pointers: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) {
        if config.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller's promise.
        let config = unsafe { &*config };
        let mut cooperative = false;
        for index in 0..config.count as usize {
            // SAFETY: the caller gave so many attributes.
            let attribute = unsafe { &*config.attributes.add(index) };
            match attribute.id {
                // Ignore; access policy, priority, memory domains, preferred carve-out: hints.
                0 | 1 | 8..=10 | 14 => {}
                2 => cooperative = attribute.value[0] != 0,
                4 if attribute.value[..3].iter().all(|&extent| extent <= 1) => {}
                // Programmatic dependence: launches run one after another.
                6 => {}
                other => {
                    report::say(&format!("the launch attribute {other} is not supported"));
                    return Err(Code::NOT_SUPPORTED);
                }
            }
        }
        let LaunchConfig { grid, block, shared, stream, .. } = *config;
        let request = Request { function, grid, block, dynamic_shared: shared, stream, cooperative };
        // SAFETY: the caller's promise.
        unsafe { launch(&request, pointers, extra) }
    }
}
