//! What a network that answers allocates: everything on the first call, and on later ones no more than the answer and small lists.

use onesheet::device::cpu::Cpu;
use onesheet::device::{PixelFormat, Placement};
use onesheet::model::{Model, Posters};
use onesheet::network::{MINIATURES, ModelConfig};
use std::alloc::{GlobalAlloc, Layout, System};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes asked for so far.
static BYTES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_second_call_finds_all_memory_there() {
    const SIZE: usize = 96;
    const IMAGES: usize = 5;
    let format = PixelFormat { order: [0, 1, 2], scale: 1.0, shift: [0.0; 3] };
    let (pixels, placements) = (vec![100; IMAGES * SIZE * SIZE * 3], [Placement::default(); IMAGES]);
    // On one thread: how memory of the threads goes round depends on who does what.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        for network in MINIATURES {
            let config = ModelConfig { image_size: SIZE, ..ModelConfig::new(network, 7) };
            let model = Model::new(Rc::new(Cpu::new()), config, 1).unwrap();
            let allocated = || {
                let before = BYTES.load(Ordering::Relaxed);
                model.predict(Posters { pixels: &pixels, placements: &placements, format: &format }).unwrap();
                BYTES.load(Ordering::Relaxed) - before
            };
            let [first, held] = [allocated(), model.device().held_bytes()];
            let second = allocated();
            // The pixels are copied to where the device reads them.
            let most = pixels.len() + 64 * 1024;
            assert!(first > second && second <= most, "{network}: {first} bytes, then {second}, at most {most}");
            assert_eq!(model.device().held_bytes(), held, "{network}: bytes of the device's own memory");
        }
    });
}
