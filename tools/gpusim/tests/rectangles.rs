//! Copies and fills of rows: exactly the bytes of the rectangle, and none beside them.

mod driver;

use cudarc::driver::sys::{self, CUDA_MEMCPY2D, CUmemorytype, CUresult};
use cudarc::driver::{CudaContext, CudaStream};
use std::sync::Arc;

const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
const SUCCESS: CUresult = CUresult::CUDA_SUCCESS;
const BYTES: usize = 640;

/// Device memory of [`BYTES`] bytes, each another than its neighbours.
struct Memory {
    stream: Arc<CudaStream>,
    address: u64,
}

fn pattern() -> Vec<u8> {
    (0..BYTES).map(|i| (i * 7 % 251) as u8).collect()
}

impl Memory {
    fn new(context: &Arc<CudaContext>) -> Memory {
        let mut address = 0;
        // SAFETY: the driver is there, and the range is that of the allocation.
        unsafe {
            assert_eq!(sys::cuMemAlloc_v2(&mut address, BYTES), SUCCESS);
            assert_eq!(sys::cuMemcpyHtoD_v2(address, pattern().as_ptr().cast(), BYTES), SUCCESS);
        }
        Memory { stream: context.new_stream().unwrap(), address }
    }

    fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        self.stream.synchronize().unwrap();
        // SAFETY: the buffer and the allocation are this long.
        unsafe { assert_eq!(sys::cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), self.address, BYTES), SUCCESS) };
        bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated, and nobody uses it any more.
        unsafe { sys::cuMemFree_v2(self.address) };
    }
}

fn context() -> Arc<CudaContext> {
    driver::open(|| {});
    let context = CudaContext::new(0).unwrap();
    context.bind_to_thread().unwrap();
    context
}

/// A fill of `height` rows of `width` elements of `size` bytes.
#[derive(Clone, Copy, Debug)]
struct Fill {
    at: usize,
    pitch: usize,
    size: usize,
    width: usize,
    height: usize,
}

const VALUE: u32 = 0xa1b2_c3d4;

impl Fill {
    /// On the stream, or at once.
    fn call(self, memory: &Memory, later: bool) -> CUresult {
        let Fill { at, pitch, size, width, height } = self;
        let (to, stream) = (memory.address.wrapping_add(at as u64), memory.stream.cu_stream());
        // SAFETY: the driver checks ranges.
        unsafe {
            match (size, later) {
                (1, false) => sys::cuMemsetD2D8_v2(to, pitch, VALUE as u8, width, height),
                (1, true) => sys::cuMemsetD2D8Async(to, pitch, VALUE as u8, width, height, stream),
                (2, false) => sys::cuMemsetD2D16_v2(to, pitch, VALUE as u16, width, height),
                (2, true) => sys::cuMemsetD2D16Async(to, pitch, VALUE as u16, width, height, stream),
                (_, false) => sys::cuMemsetD2D32_v2(to, pitch, VALUE, width, height),
                (_, true) => sys::cuMemsetD2D32Async(to, pitch, VALUE, width, height, stream),
            }
        }
    }
}

#[test]
fn a_fill_of_rows_writes_its_rectangle_and_nothing_else() {
    let context = context();
    for size in [1, 2, 4] {
        for (at, pitch, width, height) in [
            (0, 64, 16, 10),
            (64, 64, 16, 1),
            (4, 32, 5, 20),
            (8, 20, 5, 31),
            (0, 0, 7, 1),
            // Up to the very end.
            (BYTES - 3 * 64 - 4 * size, 64, 4, 4),
            (12, 64, 0, 5),
            (12, 64, 5, 0),
        ] {
            for later in [false, true] {
                let (memory, fill) = (Memory::new(&context), Fill { at, pitch, size, width, height });
                assert_eq!(fill.call(&memory, later), SUCCESS, "{fill:?}");
                let mut expected = pattern();
                for row in 0..height {
                    for i in 0..width * size {
                        expected[at + row * pitch + i] = VALUE.to_le_bytes()[i % size];
                    }
                }
                assert!(memory.read() == expected, "{fill:?}");
            }
        }
    }
}

#[test]
fn a_fill_that_would_leave_its_allocation_is_refused() {
    let context = context();
    let memory = Memory::new(&context);
    for size in [1, 2, 4] {
        let fits = Fill { at: BYTES - 64 - 4 * size, pitch: 64, size, width: 4, height: 2 };
        for fill in [
            Fill { width: 5, ..fits },
            Fill { height: 3, ..fits },
            Fill { pitch: 68, ..fits },
            Fill { at: fits.at + 4, ..fits },
            Fill { at: 0usize.wrapping_sub(4), ..fits },
            // Products that do not fit into 64 bits.
            Fill { pitch: 1 << 63, height: 3, ..fits },
            Fill { height: usize::MAX, ..fits },
            Fill { at: 0, width: usize::MAX / size, ..fits },
        ] {
            assert_eq!(fill.call(&memory, false), INVALID, "{fill:?}");
        }
        let wraps = Fill { at: 0, width: (usize::MAX / size).wrapping_add(2), height: 1, ..fits };
        assert!(size == 1 || wraps.call(&memory, false) == INVALID, "{wraps:?} has one element in 64 bits");
        assert!(size == 1 || Fill { at: 1, ..fits }.call(&memory, false) == INVALID, "an address between elements");
        assert!(
            size == 1 || Fill { at: 0, pitch: 65, ..fits }.call(&memory, false) == INVALID,
            "rows between elements"
        );
    }
    assert!(memory.read() == pattern());
}

/// A copy of rows whose ends are in device memory, or in that of the host.
#[derive(Clone, Copy, Debug)]
struct Copy {
    from: [usize; 3],
    to: [usize; 3],
    width: usize,
    height: usize,
}

fn memory_type(device: bool) -> CUmemorytype {
    if device { CUmemorytype::CU_MEMORYTYPE_DEVICE } else { CUmemorytype::CU_MEMORYTYPE_HOST }
}

impl Copy {
    /// From `source` or these bytes to `target` or those. `[x, y, pitch]` say where.
    fn call(self, source: Result<&Memory, &[u8]>, target: Result<&Memory, &mut [u8]>, how: usize) -> CUresult {
        let stream = match (&source, &target) {
            (Ok(memory), _) | (_, Ok(memory)) => memory.stream.cu_stream(),
            _ => std::ptr::null_mut(),
        };
        let ([x, y, pitch], [to_x, to_y, to_pitch]) = (self.from, self.to);
        let nowhere: *mut std::ffi::c_void = std::ptr::null_mut();
        let copy = CUDA_MEMCPY2D {
            srcXInBytes: x,
            srcY: y,
            srcMemoryType: memory_type(source.is_ok()),
            srcHost: source.as_ref().map_or_else(|bytes| bytes.as_ptr().cast(), |_| nowhere.cast_const()),
            srcDevice: source.map_or(0, |memory| memory.address),
            srcArray: std::ptr::null_mut(),
            srcPitch: pitch,
            dstXInBytes: to_x,
            dstY: to_y,
            dstMemoryType: memory_type(target.is_ok()),
            dstDevice: target.as_ref().map_or(0, |memory| memory.address),
            dstHost: target.map_or_else(|bytes| bytes.as_mut_ptr().cast(), |_| nowhere),
            dstArray: std::ptr::null_mut(),
            dstPitch: to_pitch,
            WidthInBytes: self.width,
            Height: self.height,
        };
        // SAFETY: host ends hold the rectangle; the driver checks the others.
        unsafe {
            match how {
                0 => sys::cuMemcpy2D_v2(&copy),
                1 => sys::cuMemcpy2DUnaligned_v2(&copy),
                _ => sys::cuMemcpy2DAsync_v2(&copy, stream),
            }
        }
    }

    /// What `target` holds once the rectangle of `source` is in it.
    fn expected(self, source: &[u8], mut target: Vec<u8>) -> Vec<u8> {
        let at = |[x, y, pitch]: [usize; 3], row: usize| (y + row) * pitch + x;
        for row in 0..self.height {
            let (from, to) = (at(self.from, row), at(self.to, row));
            target[to..to + self.width].copy_from_slice(&source[from..from + self.width]);
        }
        target
    }
}

#[test]
fn a_copy_of_rows_moves_its_rectangle_and_nothing_else() {
    let context = context();
    let other: Vec<u8> = (0..BYTES).map(|i| 255 - (i * 3 % 241) as u8).collect();
    for copy in [
        Copy { from: [0, 0, 64], to: [0, 0, 64], width: 64, height: 10 },
        Copy { from: [3, 2, 64], to: [5, 1, 40], width: 17, height: 7 },
        Copy { from: [0, 1, 20], to: [12, 0, 77], width: 20, height: 8 },
        Copy { from: [0, 0, 0], to: [9, 0, 0], width: 100, height: 1 },
        Copy { from: [14, 7, 64], to: [29, 6, 64], width: 35, height: 3 },
        // Up to the very end of both.
        Copy { from: [56, 6, 64], to: [72, 4, 80], width: 8, height: 4 },
        Copy { from: [3, 2, 64], to: [5, 1, 40], width: 0, height: 7 },
        Copy { from: [3, 2, 64], to: [5, 1, 40], width: 7, height: 0 },
    ] {
        for how in 0..3 {
            // SAFETY: the range is that of the allocation.
            let fill = |memory: &Memory| unsafe {
                assert_eq!(sys::cuMemcpyHtoD_v2(memory.address, other.as_ptr().cast(), BYTES), SUCCESS);
            };
            let (source, target) = (Memory::new(&context), Memory::new(&context));
            fill(&target);
            assert_eq!(copy.call(Ok(&source), Ok(&target), how), SUCCESS, "{copy:?}");
            source.stream.synchronize().unwrap();
            assert!(target.read() == copy.expected(&pattern(), other.clone()), "within the device: {copy:?}");
            assert!(source.read() == pattern(), "{copy:?}");

            fill(&target);
            assert_eq!(copy.call(Err(&pattern()), Ok(&target), how), SUCCESS, "{copy:?}");
            assert!(target.read() == copy.expected(&pattern(), other.clone()), "to the device: {copy:?}");

            let mut host = other.clone();
            assert_eq!(copy.call(Ok(&source), Err(&mut host), how), SUCCESS, "{copy:?}");
            source.stream.synchronize().unwrap();
            assert!(host == copy.expected(&pattern(), other.clone()), "from the device: {copy:?}");
        }
    }
}

#[test]
fn a_copy_that_would_leave_its_allocation_is_refused() {
    let context = context();
    let (source, target) = (Memory::new(&context), Memory::new(&context));
    let fits = Copy { from: [8, 6, 64], to: [8, 6, 64], width: 56, height: 4 };
    let beyond = |end: [usize; 3]| [Copy { from: end, ..fits }, Copy { to: end, ..fits }];
    for [from, to] in [
        beyond([8, 7, 64]),
        beyond([8, 6, 65]),
        beyond([8, 6, 1 << 63]),
        beyond([8, 1 << 63, 64]),
        beyond([usize::MAX - 60, 6, usize::MAX]),
        // Rows that reach into the next.
        beyond([9, 0, 64]),
        beyond([0, 0, 55]),
    ] {
        for copy in
            [from, to, Copy { height: 5, ..from }, Copy { width: 57, ..to }, Copy { height: usize::MAX, ..fits }]
        {
            assert_eq!(copy.call(Ok(&source), Ok(&target), 0), INVALID, "{copy:?}");
        }
    }
    // Twice 2⁶³ is 0 in 64 bits.
    for copy in beyond([8, 0, 1 << 63]).map(|copy| Copy { height: 3, ..copy }) {
        assert_eq!(copy.call(Ok(&source), Ok(&target), 0), INVALID, "{copy:?}");
    }
    assert!(source.read() == pattern() && target.read() == pattern());
}

#[test]
fn plain_fills_and_copies_stay_in_their_ranges() {
    let context = context();
    let memory = Memory::new(&context);
    let address = memory.address;
    let mut expected = pattern();
    // SAFETY: the driver checks ranges.
    unsafe {
        assert_eq!(sys::cuMemsetD8_v2(address + 1, VALUE as u8, 3), SUCCESS);
        assert_eq!(sys::cuMemsetD16_v2(address + 10, VALUE as u16, 3), SUCCESS);
        assert_eq!(sys::cuMemsetD32_v2(address + 20, VALUE, 3), SUCCESS);
        assert_eq!(sys::cuMemcpyDtoD_v2(address + 101, address + 203, 7), SUCCESS);
        assert_eq!(sys::cuMemsetD8_v2(address + BYTES as u64 - 1, VALUE as u8, 2), INVALID);
        assert_eq!(sys::cuMemsetD16_v2(address + BYTES as u64 - 2, VALUE as u16, 2), INVALID);
        assert_eq!(sys::cuMemsetD32_v2(address + BYTES as u64 - 4, VALUE, 2), INVALID);
        assert_eq!(sys::cuMemsetD16_v2(address + 41, VALUE as u16, 1), INVALID);
        assert_eq!(sys::cuMemsetD32_v2(address + 42, VALUE, 1), INVALID);
        assert_eq!(sys::cuMemcpyDtoD_v2(address + BYTES as u64 - 6, address, 7), INVALID);
        assert_eq!(sys::cuMemcpyDtoD_v2(address, address + BYTES as u64 - 6, 7), INVALID);
    }
    let [a, b, c, d] = VALUE.to_le_bytes();
    expected[1..4].fill(a);
    expected[10..16].copy_from_slice(&[a, b, a, b, a, b]);
    expected[20..32].copy_from_slice(&[a, b, c, d, a, b, c, d, a, b, c, d]);
    expected.copy_within(203..210, 101);
    assert!(memory.read() == expected);
}
