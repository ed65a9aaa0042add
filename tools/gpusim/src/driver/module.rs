//! Modules, their functions and variables.

use super::context::current;
use super::graph::Graph;
use super::jit::Refusal;
use super::memory::Kind;
use super::state::Driver;
use super::{Answer, Code, Handle, api, driver, give, jit, ready, report, text};
use crate::count::{Registers, Source};
use crate::program::{Kernel, Module};
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

/// A loaded module.
pub(super) struct Loaded {
    pub context: Handle,
    pub module: Module,
    /// Device addresses of its variables.
    variables: Vec<u64>,
}

/// A kernel that was asked for.
pub(super) struct Function {
    pub context: Handle,
    pub module: Handle,
    pub kernel: Arc<Kernel>,
    /// Its name, ended by a zero.
    pub name: std::ffi::CString,
    /// Dynamic shared memory that a launch may ask for.
    pub max_dynamic: u32,
    /// Registers a thread.
    pub registers: Registers,
    /// Bytes of local memory a thread.
    pub stack_bytes: u32,
}

impl Driver {
    pub fn load(&mut self, source: &str) -> Result<Handle, Refusal> {
        let context = current().ok_or(Code::INVALID_CONTEXT)?;
        let mut module = Module::parse(source).map_err(|error| {
            report::say(&error.to_string());
            Refusal::syntax(&error)
        })?;
        if let Some(newest) = self.device.newest_ptx.filter(|newest| module.version() > *newest) {
            let ((major, minor), (takes, until)) = (module.version(), newest);
            report::say(&format!("the module is PTX {major}.{minor}, and GPUSIM_PTX takes up to {takes}.{until}"));
            return Err(Refusal::version(source, module.version(), newest));
        }
        let capability = self.device.gpu.capability;
        let target = module.target();
        if target > capability.0 * 10 + capability.1 {
            report::say(&format!("the module is for sm_{target}, the device is sm_{}{}", capability.0, capability.1));
            return Err(Refusal::target(source));
        }
        let mut placed = Vec::new();
        for variable in module.variables().cloned().collect::<Vec<_>>() {
            let address = self.allocate(variable.bytes().max(1), Kind::Variable, &variable.name)?;
            module.place(&variable.name, address);
            placed.push((address, variable));
        }
        for (address, variable) in &placed {
            let image = module.image(variable);
            // SAFETY: the allocation has just this size.
            unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), *address as *mut u8, image.len()) };
            // Variables without an initial value are zero.
            self.arena.mark(*address, image.len() as u64, true);
        }
        let variables = placed.into_iter().map(|(address, _)| address).collect();
        let handle = self.handle();
        self.modules.insert(handle, Loaded { context, module, variables });
        Ok(handle)
    }

    /// Forgets a module, its functions and variables.
    pub fn unload(&mut self, module: Handle) -> Answer {
        let context = self.modules.get(&module).ok_or(Code::INVALID_HANDLE)?.context;
        // An error is said, and every later call gives it.
        let _ = self.run_context(context);
        let loaded = self.modules.remove(&module).ok_or(Code::INVALID_HANDLE)?;
        let launched = self.executables.values().flat_map(Graph::functions);
        if let Some(function) = launched.filter_map(|f| self.functions.get(&f)).find(|f| f.module == module) {
            let name = function.name.to_string_lossy();
            report::say(&format!("a module is unloaded, and an executable graph still launches its kernel `{name}`"));
        }
        self.functions.retain(|_, function| function.module != module);
        loaded.variables.into_iter().try_for_each(|address| self.give_back(address))
    }

    /// How many kernels a module has.
    pub fn kernels_of(&self, module: Handle) -> Answer<usize> {
        let loaded = self.modules.get(&module).ok_or(Code::INVALID_HANDLE)?;
        Ok(loaded.module.kernel_names().count())
    }

    pub fn function(&mut self, module: Handle, name: &str) -> Answer<Handle> {
        let known = self.functions.iter().find(|(_, f)| f.module == module && f.kernel.name == name);
        if let Some((&handle, _)) = known {
            return Ok(handle);
        }
        let loaded = self.modules.get_mut(&module).ok_or(Code::INVALID_HANDLE)?;
        let context = loaded.context;
        let kernel = loaded.module.kernel(name).map_err(|error| {
            report::say(&format!("kernel `{name}`: {error}"));
            Code::NOT_SUPPORTED
        })?;
        let kernel = kernel.ok_or(Code::NOT_FOUND)?;
        let capability = self.device.gpu.capability;
        let (registers, stack_bytes) = self.device.resources.used(&kernel, capability);
        if registers.source == Source::Declarations && !self.device.resources.is_empty() {
            let (major, minor) = capability;
            report::say(&format!(
                "kernel `{name}`: the table of resources doesn't have it for sm_{major}{minor}; its registers are those \
                 that PTX declares"
            ));
        }
        let name = std::ffi::CString::new(name).map_err(|_| Code::INVALID_VALUE)?;
        let max_dynamic = 49_152u32.saturating_sub(kernel.shared_bytes as u32);
        let handle = self.handle();
        self.functions.insert(handle, Function { context, module, kernel, name, max_dynamic, registers, stack_bytes });
        Ok(handle)
    }
}

/// Writes where a module's variable is, and its size; either place may be null.
///
/// # Safety
/// The pointers are as NVIDIA documents them.
pub(super) unsafe fn give_global(address: *mut u64, bytes: *mut usize, module: Handle, name: *const c_char) -> Answer {
    // SAFETY: the caller's promise.
    let name = unsafe { text(name)? };
    let driver = ready()?;
    let loaded = driver.modules.get(&module).ok_or(Code::INVALID_HANDLE)?;
    let global = loaded.module.global(name).ok_or(Code::NOT_FOUND)?;
    // SAFETY: the caller's promise.
    unsafe {
        if !address.is_null() {
            address.write(global.address);
        }
        if !bytes.is_null() {
            bytes.write(global.bytes);
        }
    }
    Ok(())
}

/// PTX text from the caller; machine code is refused.
pub(super) fn source<'a>(image: *const c_void) -> Answer<&'a str> {
    if image.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller's promise: an image has at least four bytes, or ends before with a zero.
    let head = unsafe { std::ffi::CStr::from_ptr(image.cast()) };
    let bytes = head.to_bytes();
    if bytes.starts_with(b"\x7fELF") || bytes.starts_with(&[0x50, 0xed, 0x55, 0xba]) {
        report::say("the module is machine code (cubin or fatbin); only PTX text can be loaded");
        return Err(Code::NO_BINARY_FOR_GPU);
    }
    head.to_str().map_err(|_| Code::INVALID_IMAGE)
}

api! {
    fn cuModuleLoadData(module: *mut Handle, image: *const c_void) {
        let handle = ready()?.load(source(image)?)?;
        // SAFETY: the caller's promise.
        unsafe { give(module, handle) }
    }

    fn cuModuleLoadDataEx(
        module: *mut Handle,
        image: *const c_void,
        count: u32,
        options: *mut u32,
        values: *mut *mut c_void,
    ) {
        // SAFETY: the caller's promise.
        unsafe { give(module, jit::load(image, count, options, values)?) }
    }

    fn cuModuleLoad(module: *mut Handle, path: *const c_char) {
        // SAFETY: the caller's promise.
        let path = unsafe { text(path)? };
        let ptx = std::fs::read_to_string(path).map_err(|error| {
            report::say(&format!("{path}: {error}"));
            Code::FILE_NOT_FOUND
        })?;
        let handle = ready()?.load(&ptx)?;
        // SAFETY: the caller's promise.
        unsafe { give(module, handle) }
    }

    fn cuModuleUnload(module: Handle) {
        driver()?.unload(module)
    }

    fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) {
        // SAFETY: the caller's promise.
        let name = unsafe { text(name)? };
        let handle = ready()?.function(module, name)?;
        // SAFETY: the caller's promise.
        unsafe { give(function, handle) }
    }

    fn cuModuleGetFunctionCount(count: *mut u32, module: Handle) {
        // SAFETY: the caller's promise.
        unsafe { give(count, ready()?.kernels_of(module)? as u32) }
    }

    fn cuModuleEnumerateFunctions(functions: *mut Handle, count: u32, module: Handle) {
        let mut driver = ready()?;
        let loaded = driver.modules.get(&module).ok_or(Code::INVALID_HANDLE)?;
        let names: Vec<String> = loaded.module.kernel_names().take(count as usize).map(str::to_owned).collect();
        for (index, name) in names.iter().enumerate() {
            let handle = driver.function(module, name)?;
            // SAFETY: the caller gave room for `count`.
            unsafe { functions.add(index).write(handle) };
        }
        Ok(())
    }

    fn cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: Handle, name: *const c_char) {
        // SAFETY: the caller's promise.
        unsafe { give_global(address, bytes, module, name) }
    }

    fn cuModuleGetLoadingMode(mode: *mut c_int) {
        drop(driver()?);
        // Lazy: a kernel is decoded when it is first asked for.
        // SAFETY: the caller's promise.
        unsafe { give(mode, 2) }
    }
}
