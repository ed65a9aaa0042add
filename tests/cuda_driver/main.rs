//! What becomes of a driver that is not what the kernels need: a sentence and an exit code, never a panic.

#[path = "../support/cuda.rs"]
mod cuda;
#[path = "../support/not_checked.rs"]
mod not_checked;

use not_checked::not_checked;
use onesheet::device::cpu::Cpu;
use onesheet::device::cuda::driver::SYMBOLS;
use onesheet::device::cuda::modules::{Module, Resources};
use onesheet::device::cuda::{Cuda, Precision};
use onesheet::device::{Memory, PixelFormat, Placement};
use onesheet::network::{ModelConfig, resnet50};
use onesheet::training::learner::Learner;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::OnceLock;
use tempfile::TempDir;

/// Compiles a library that has these functions of [`SYMBOLS`], those in `stub.rs` as they are there, the others failing.
fn library(folder: &Path, functions: &[&str]) {
    let written = include_str!("stub.rs");
    let mut source = String::new();
    // Each function begins with its attribute; what comes before the first is common to all.
    let mut parts = written.split("#[unsafe(no_mangle)]\n");
    source += parts.next().unwrap();
    let parts: Vec<&str> = parts.collect();
    for function in functions {
        let named = format!(" fn {function}(");
        match parts.iter().find(|part| part.contains(&named)) {
            Some(part) => source += &format!("#[unsafe(no_mangle)]\n{part}"),
            None => {
                source += &format!("#[unsafe(no_mangle)]\npub extern \"C\" fn {function}() -> c_int {{\n    999\n}}\n")
            }
        }
    }
    let path = folder.join("stub.rs");
    fs::write(&path, source).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let made = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "--cap-lints", "allow", "-o"])
        .args([&folder.join("libcuda.so"), &path])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A folder with the whole stub, compiled once.
fn whole() -> &'static Path {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let folder = MADE.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        library(folder.path(), &SYMBOLS);
        folder
    });
    folder.path()
}

/// `onesheet doctor` with the driver in `folder`.
fn doctor(folder: &Path, device: &str, settings: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_onesheet"))
        .args(["doctor", "--device", device])
        .env("LD_LIBRARY_PATH", folder)
        .envs(settings.iter().copied())
        .output()
        .unwrap()
}

/// Whether both ways to ask for a GPU end as they should, with these words.
fn refused(folder: &Path, settings: &[(&str, &str)], words: &[&str]) {
    let asked = doctor(folder, "cuda", settings);
    let told = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(5), "{settings:?}: {told}");
    let auto = doctor(folder, "auto", settings);
    let row = String::from_utf8_lossy(&auto.stdout).into_owned();
    // With `auto`, only a driver that seemed right until it compiled is an error.
    let late = words.iter().any(|word| word.contains("ptxas"));
    assert_eq!(auto.status.code(), Some(if late { 5 } else { 0 }), "{settings:?}: {row}");
    assert!(late || told.starts_with("error: --device cuda: "), "{settings:?}: {told}");
    for word in words {
        assert!(told.contains(word), "{settings:?}: {told}");
        assert!(late || row.contains(word), "{settings:?}: {row}");
    }
    for text in [&told, &row] {
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn a_library_without_any_function_is_no_driver() {
    let folder = TempDir::new().unwrap();
    library(folder.path(), &[]);
    refused(folder.path(), &[], &["lacks cuCtxGetCurrent and", "520"]);
}

#[test]
fn one_missing_function_is_named() {
    let folder = TempDir::new().unwrap();
    let others: Vec<&str> = SYMBOLS.into_iter().filter(|&name| name != "cuModuleLoadDataEx").collect();
    library(folder.path(), &others);
    refused(folder.path(), &[], &["lacks cuModuleLoadDataEx;", "520"]);
}

#[test]
fn an_old_driver_is_refused_with_both_versions() {
    refused(whole(), &[("STUB_VERSION", "11040")], &["for CUDA 11.4", "520"]);
}

#[test]
fn no_device_is_a_sentence() {
    refused(whole(), &[("STUB_INIT", "100")], &["no CUDA-capable device is detected"]);
    refused(whole(), &[("STUB_INIT", "34")], &["CUDA driver is a stub library"]);
    refused(whole(), &[("STUB_COUNT", "0")], &["lists none"]);
}

#[test]
fn an_old_gpu_is_refused_with_its_capability() {
    refused(whole(), &[("STUB_MAJOR", "7"), ("STUB_MINOR", "5")], &["Stub has compute capability 7.5", "8.0"]);
}

#[test]
fn a_refused_kernel_shows_the_compilers_words() {
    let words = ["a PTX JIT compilation failed", "ptxas application ptx input, line 7; fatal   : Unsupported .target"];
    refused(whole(), &[], &words);
}

#[test]
fn without_a_library_there_is_no_driver() {
    let (empty, settings) = (TempDir::new().unwrap(), []);
    if doctor(empty.path(), "cuda", &settings).status.success() {
        not_checked("what happens without an NVIDIA driver, because this machine has one");
        return;
    }
    refused(empty.path(), &settings, &["libcuda.so was not found"]);
}

#[test]
fn a_simulated_gpu_that_is_not_there_is_named_as_what_was_asked_for() {
    let asked = doctor(whole(), "sim", &[("ONESHEET_GPUSIM", "/nowhere/libgpusim.so")]);
    let [row, told] = [asked.stdout, asked.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(asked.status.code(), Some(5), "{told}");
    let expected =
        "error: --device sim: the simulated GPU's library is not there (tried /nowhere/libgpusim.so); build it";
    assert!(told.starts_with(expected), "{told}");
    assert!(row.contains(&format!("\nprocessor  {}\n", Cpu::fastest().name())), "{row}");
    assert!(row.contains("\ncheck      ") && !row.contains("GPU"), "{row}");
}

/// On the simulated GPU, whose library is beside the tool: a row a kernel, with what the driver made of it.
#[test]
fn doctor_knows_every_kernel() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("kernels.csv");
    let run = Command::new(env!("CARGO_BIN_EXE_onesheet"))
        .args(["doctor", "--device", "sim", "--kernels"])
        .arg(&path)
        .env("CUDA_CACHE_PATH", "/some/cache")
        .output()
        .unwrap();
    let [told, narrated] = [run.stdout, run.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(run.status.success(), "{narrated}");
    type Row = (String, f64, String, u32, u32, u32, u32, u32);
    let rows: Vec<Row> = csv::Reader::from_path(&path).unwrap().deserialize().map(Result::unwrap).collect();

    let gpu = cuda::gpu();
    let gibibytes = gpu.memory().unwrap() as f64 / 1_073_741_824.0;
    let mut table = vec![
        format!("GPU        {}, {} multiprocessors, {gibibytes:.1} GiB", gpu.name(), gpu.multiprocessors()),
        format!("driver     for CUDA {}; the kernels need 11.8 (driver 520) or newer", gpu.driver()),
        "JIT cache  /some/cache".to_owned(),
    ];
    let told: Vec<&str> = told.lines().skip_while(|line| !line.starts_with("GPU ")).collect();
    let (told, checks): (Vec<&str>, Vec<&str>) = told.into_iter().partition(|line| !line.starts_with("check "));
    assert!(
        checks.len() == 3 && checks.iter().all(|line| line.contains(" gradients as in float64 but for ")),
        "{checks:?}"
    );
    let (mut told, spills): (Vec<&str>, Vec<&str>) = told.into_iter().partition(|line| !line.starts_with("spills "));
    assert_eq!(spills, ["spills     none: no kernel has local memory"]);
    told[0] = told[0]
        .split_once(" GiB, ")
        .map(|(row, free)| {
            assert!(free.ends_with(" GiB free"), "{free}");
            &told[0][..row.len() + " GiB".len()]
        })
        .unwrap();
    for (precision, line) in Precision::ALL.into_iter().zip(&told[table.len()..]) {
        let files = Module::ALL.map(|module| gpu.module(module, precision).unwrap().name);
        let of_it: Vec<&Row> = rows.iter().filter(|row| files.contains(&&*row.0)).collect();
        let longest = of_it.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        let begin = format!("{:<10} {} kernels, ready after ", precision.name(), of_it.len());
        let (seconds, file) = line.strip_prefix(&begin).and_then(|rest| rest.split_once(" s (")).unwrap();
        // Rounded there to hundredths and to thousandths in the table; of two files that took as long either may be named.
        assert!((seconds.parse::<f64>().unwrap() - longest.1).abs() <= 0.0056, "{line}: {longest:?}");
        let named = of_it.iter().find(|row| Some(&*row.0) == file.strip_suffix(')')).unwrap();
        assert!(named.1 >= longest.1 - 0.0011, "{line}: {longest:?}");
        table.push(line.to_string());
    }
    assert_eq!((told, table.len()), (table.iter().map(String::as_str).collect(), 6));

    let files: BTreeSet<&str> = rows.iter().map(|row| &*row.0).collect();
    let [begun, done] = narrated.lines().collect::<Vec<_>>()[..] else { panic!("{narrated}") };
    assert_eq!(begun, format!("compiling the kernels for {}", gpu.name()));
    assert!(done.starts_with(&format!("{} files of kernels compiled in ", files.len())), "{done}");
    assert!(!done.contains("keep"), "the simulated driver keeps nothing: {done}");
    let mut expected: BTreeMap<(&str, &str), [u32; 5]> = BTreeMap::new();
    for precision in Precision::ALL {
        for module in Module::ALL {
            let file = cuda::gpu().module(module, precision).unwrap();
            expected.extend(file.kernels().map(|(kernel, found)| {
                let Resources { threads, registers, local_bytes, shared_bytes, resident_blocks } = found;
                ((file.name, kernel), [threads, registers, local_bytes, shared_bytes, resident_blocks])
            }));
        }
    }
    let found: BTreeMap<(&str, &str), [u32; 5]> =
        rows.iter().map(|row| ((&*row.0, &*row.2), [row.3, row.4, row.5, row.6, row.7])).collect();
    assert_eq!(found, expected);
}

/// All that a training run calls, in a process whose loader says so.
#[test]
#[ignore = "a part of the next one"]
fn a_run() {
    let genres = 7;
    let config =
        ModelConfig { network: resnet50::MINIATURE, image_size: 21, ..ModelConfig::new(resnet50::NETWORK, genres) };
    assert!(cuda::gpu().memory().unwrap() >= cuda::gpu().free_memory().unwrap());
    let device = Rc::new(Cuda::new(Precision::F32).unwrap());
    let mut learner = Learner::new(Rc::clone(&device), config, 5).unwrap();
    let format = PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [0.0; 3] };
    for step in 0..4 {
        // The last one's launches are timed.
        let profiler = device.profiler().unwrap();
        if step == 3 {
            profiler.start();
        }
        let pixels = device.upload_pixels(&[9; 3 * 21 * 21 * 3], &[Placement::default(); 3]).unwrap();
        learner.submit(pixels, 3, &format, &[1; 21], &[1.0; 7], 1e-5).unwrap();
        while learner.has_outcome() {
            learner.outcome().unwrap();
        }
    }
    assert!(!device.measured().unwrap().is_empty());
    assert!(device.allocate(1 << 44, onesheet::device::Storage::Full).is_err());
}

/// cudarc panics when a function is missing, so none may be called that was not asked for first.
#[test]
fn every_function_that_is_called_was_asked_for() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("loader");
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_run", "--ignored"])
        .env("LD_DEBUG", "symbols")
        .env("LD_DEBUG_OUTPUT", &log)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    // The loader puts the process's number behind the name, and a line a library that it looks a name up in.
    let logs: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut lookups: BTreeMap<String, usize> = BTreeMap::new();
    for line in
        logs.iter().flat_map(|log| fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
    {
        let name =
            line.split_once("symbol=cu").and_then(|(_, rest)| rest.split(';').next()).map(|name| format!("cu{name}"));
        if let Some(name) = name.filter(|name| name.chars().nth(2).is_some_and(char::is_uppercase)) {
            *lookups.entry(name).or_default() += 1;
        }
    }
    assert!(lookups.len() > 20, "the loader tells too little: {lookups:?}");
    let unasked: Vec<&String> = lookups.keys().filter(|name| !SYMBOLS.contains(&name.as_str())).collect();
    assert!(unasked.is_empty(), "called, and missing in SYMBOLS: {unasked:?}");
    // The check looks each up once.
    let idle: Vec<&&str> = SYMBOLS.iter().filter(|name| lookups.get(**name).is_none_or(|&count| count < 2)).collect();
    assert!(idle.is_empty(), "in SYMBOLS, and never called: {idle:?}");
}
