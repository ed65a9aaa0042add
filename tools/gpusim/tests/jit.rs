//! What a program sees of the compiler when it loads PTX: logs, sizes and the time, through `cuModuleLoadDataEx`.

mod driver;

use cudarc::driver::CudaContext;
use cudarc::driver::sys::{self, CUjit_option, CUresult};
use std::ffi::{CString, c_void};
use std::ptr::null_mut;

const PTX: &str = include_str!("ptx/basics.ptx");

/// What a call of `cuModuleLoadDataEx` left.
struct Seen {
    outcome: CUresult,
    /// The buffers as they are behind the call, and the sizes it wrote.
    info: Vec<u8>,
    info_bytes: u32,
    error: Vec<u8>,
    error_bytes: u32,
    milliseconds: f32,
}

impl Seen {
    /// The log of errors as far as it was written.
    fn errors(&self) -> &str {
        std::str::from_utf8(&self.error[..self.error_bytes as usize]).unwrap()
    }

    fn infos(&self) -> &str {
        std::str::from_utf8(&self.info[..self.info_bytes as usize]).unwrap()
    }
}

/// Loads `text` with logs of so many bytes.
fn load(text: &str, room: usize, verbose: bool) -> Seen {
    driver::open(|| {});
    let context = CudaContext::new(0).unwrap();
    context.bind_to_thread().unwrap();
    let text = CString::new(text).unwrap();
    let (mut info, mut error) = (vec![0x7f; room], vec![0x7f; room]);
    let mut names = [
        CUjit_option::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
        CUjit_option::CU_JIT_INFO_LOG_BUFFER,
        CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        CUjit_option::CU_JIT_LOG_VERBOSE,
        CUjit_option::CU_JIT_WALL_TIME,
        CUjit_option::CU_JIT_OPTIMIZATION_LEVEL,
    ];
    let number = |value: usize| value as *mut c_void;
    let mut values = [
        number(room),
        info.as_mut_ptr().cast(),
        error.as_mut_ptr().cast(),
        number(room),
        number(verbose.into()),
        number(0),
        number(4),
    ];
    let mut module = null_mut();
    // SAFETY: the text ends with a zero; the values are of their options' types, and the buffers as long as they say.
    let outcome = unsafe {
        let count = names.len() as u32;
        let (names, values) = (names.as_mut_ptr(), values.as_mut_ptr());
        sys::cuModuleLoadDataEx(&raw mut module, text.as_ptr().cast(), count, names, values)
    };
    if outcome == CUresult::CUDA_SUCCESS {
        // SAFETY: the module was loaded, and nobody has a function of it.
        assert_eq!(unsafe { sys::cuModuleUnload(module) }, CUresult::CUDA_SUCCESS);
    }
    Seen {
        outcome,
        info,
        info_bytes: values[0] as usize as u32,
        error,
        error_bytes: values[3] as usize as u32,
        milliseconds: f32::from_bits(values[5] as usize as u32),
    }
}

#[test]
fn a_verbose_load_describes_every_kernel() {
    let seen = load(PTX, 1 << 16, true);
    assert_eq!(seen.outcome, CUresult::CUDA_SUCCESS);
    assert_eq!((seen.errors(), seen.error[0]), ("", 0));
    for kernel in ["add", "block_sum"] {
        assert!(
            seen.infos().contains(&format!("Compiling entry function '{kernel}' for 'sm_80'\n")),
            "{}",
            seen.infos()
        );
    }
    assert!(
        seen.infos().contains("0 bytes spill loads\nptxas info    : Used 32 registers, 0 bytes smem\n"),
        "{}",
        seen.infos()
    );
    assert_eq!(seen.info[seen.info_bytes as usize], 0);
    assert!(seen.milliseconds > 0.0 && seen.milliseconds < 1e6, "{} ms", seen.milliseconds);
    let quiet = load(PTX, 1 << 16, false);
    assert_eq!((quiet.outcome, quiet.infos(), quiet.info[0]), (CUresult::CUDA_SUCCESS, "", 0));
}

#[test]
fn a_failed_load_says_where_and_why() {
    let broken = PTX.replace("cvta.to.global.u64 \t%rd4, %rd2;", "cvta.to.global.u64 \t%rd4 %rd2;");
    let line = broken.lines().position(|line| line.contains("%rd4 %rd2")).unwrap() + 1;
    let seen = load(&broken, 1 << 16, true);
    assert_eq!((seen.outcome, seen.infos()), (CUresult::CUDA_ERROR_INVALID_PTX, ""));
    assert!(
        seen.errors().starts_with(&format!("ptxas application ptx input, line {line}; error   : ")),
        "{}",
        seen.errors()
    );
    assert!(seen.errors().ends_with("\nptxas fatal   : Ptx assembly aborted due to errors\n"), "{}", seen.errors());
    let newer = load(&PTX.replace(".target sm_80", ".target sm_90"), 1 << 16, true);
    assert_eq!(newer.outcome, CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert!(newer.errors().contains("line 10; fatal   : SM version specified by .target"), "{}", newer.errors());
}

#[test]
fn a_log_is_cut_to_its_buffer() {
    let whole = load("nonsense", 1 << 10, true);
    for room in [1, 20] {
        let cut = load("nonsense", room, true);
        assert_eq!((cut.error_bytes as usize, cut.error[room - 1]), (room - 1, 0));
        assert_eq!(cut.error[..room - 1], whole.error[..room - 1]);
    }
    // A buffer of no bytes isn't written to.
    assert_eq!(load("nonsense", 0, true).error_bytes, 0);
}
