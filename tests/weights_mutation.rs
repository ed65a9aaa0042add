//! Damaged weights files: thousands of random mutations of each format may be refused or read, but never panic, and never
//! take more memory than the file's size plus 64 MB.
//!
//! One test in a file of its own, since it measures the memory of its whole process.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use onesheet::network::IMAGENET_PIXELS;
use onesheet::network::import::{self, Wanted};
use onesheet::network::resnet50;
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use safetensors::tensor::{Dtype, TensorView};

/// The system's allocator with a tide mark.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` unchanged; the counters beside it touch no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's promises are the ones `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the ones `System` asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MUTATIONS: usize = 5000;
const HEADROOM: usize = 64 << 20;

/// The shapes of `weights_import/make_fixtures.py`.
fn expected() -> Vec<(String, Vec<usize>)> {
    let vectors =
        ["conv1_conv/bias", "conv1_bn/gamma", "conv1_bn/beta", "conv1_bn/moving_mean", "conv1_bn/moving_variance"];
    let kernel = ("conv1_conv/kernel".to_owned(), vec![4, 3, 2, 3]);
    [kernel].into_iter().chain(vectors.map(|name| (name.to_owned(), vec![4]))).collect()
}

fn safetensors_bytes(tensors: &[(&str, Vec<usize>)]) -> Vec<u8> {
    let zeros = vec![0; 4 * 72];
    let views = tensors.iter().map(|(name, shape)| {
        let size = 4 * shape.iter().product::<usize>();
        (*name, TensorView::new(Dtype::F32, shape.clone(), &zeros[..size]).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// Damages a file in one to three places, mostly near its start, where the structure of these formats is.
fn mutate(bytes: &mut Vec<u8>, random: &mut Xoshiro256PlusPlus) {
    for _ in 0..random.random_range(1..=3) {
        if bytes.len() < 16 {
            return;
        }
        let reach = if random.random_bool(0.5) { bytes.len().min(1024) } else { bytes.len() } - 8;
        let at = random.random_range(0..reach);
        match random.random_range(0..7) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            3 => {
                let extreme = [0, 1, u32::MAX as u64, 1 << 40, i64::MAX as u64, u64::MAX - 7, u64::MAX];
                bytes[at..at + 8].copy_from_slice(&extreme[random.random_range(0..extreme.len())].to_le_bytes());
            }
            4 => bytes.truncate(at + 8),
            5 => {
                let from = random.random_range(0..bytes.len() - 8);
                bytes.copy_within(from..from + 8, at);
            }
            _ => drop(bytes.drain(at..at + random.random_range(1..=8))),
        }
    }
}

#[test]
fn mutated_files_never_panic_and_stay_within_memory() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights_import");
    let expected = expected();
    let ours: Vec<_> = expected.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
    let theirs = ["bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"].map(|name| (name, vec![4]));
    let torch: Vec<_> = [("conv1.weight", vec![4, 3, 3, 2])].into_iter().chain(theirs).collect();
    let behind: Vec<_> = torch.iter().map(|(name, shape)| (format!("module.{name}"), shape.clone())).collect();
    // The mark by which a prefix is found.
    let mark = [("module.layer1.0.conv1.weight", vec![4, 4, 1, 1])];
    let behind: Vec<_> = behind.iter().map(|(name, shape)| (name.as_str(), shape.clone())).chain(mark).collect();
    let folder = tempfile::tempdir().unwrap();

    let with_a_block: Vec<_> =
        expected.iter().cloned().chain([("conv2_block1_1_conv/kernel".to_owned(), vec![4, 1, 1, 4])]).collect();
    for (seed, (format, original)) in [
        ("Keras Applications", fs::read(fixtures.join("applications.h5")).unwrap()),
        ("Keras 3", fs::read(fixtures.join("keras3.weights.h5")).unwrap()),
        ("HDF5's newer groups", fs::read(fixtures.join("nested.h5")).unwrap()),
        ("Onesheet", safetensors_bytes(&ours)),
        ("PyTorch", safetensors_bytes(&torch)),
        ("PyTorch behind a prefix", safetensors_bytes(&behind)),
        ("Keras 1", fs::read(fixtures.join("keras1.h5")).unwrap()),
    ]
    .into_iter()
    .enumerate()
    {
        let mut random = support::generator(seed as u64);
        let expected = if format == "PyTorch behind a prefix" { &with_a_block } else { &expected };
        let wanted = Wanted { network: resnet50::NETWORK, base: expected.clone(), head: Vec::new() };
        let (mut read, mut slowest, mut largest) = (0, Duration::ZERO, 0);
        for number in 0..MUTATIONS {
            let mut bytes = original.clone();
            mutate(&mut bytes, &mut random);
            let path = folder.path().join(number.to_string());
            fs::write(&path, &bytes).unwrap();

            let before = LIVE.load(Relaxed);
            PEAK.store(before, Relaxed);
            let start = Instant::now();
            let outcome = std::panic::catch_unwind(|| import::read(&path, &wanted, &IMAGENET_PIXELS.format).is_ok());
            slowest = slowest.max(start.elapsed());
            fs::remove_file(&path).unwrap();
            let taken = PEAK.load(Relaxed) - before;
            largest = largest.max(taken);
            assert!(taken <= bytes.len() + HEADROOM, "{format}, mutation {number}: {taken} bytes");
            read += usize::from(outcome.unwrap_or_else(|_| panic!("{format}, mutation {number} panics")));
        }
        println!("{format}: {read} of {MUTATIONS} still read, slowest {slowest:?}, at most {} KB", largest >> 10);
        assert!(slowest <= Duration::from_secs(10), "{format}: {slowest:?}");
    }
}
