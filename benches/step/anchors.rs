//! What to hold a step's time against: how fast this GPU copies, and how fast our kernels multiply where nothing hinders them.

use onesheet::device::cuda::Cuda;
use onesheet::device::{Activation, ConvForward, ConvKernels, ConvShape, DeviceError, Memory, Storage};
use onesheet::tensor::Tensor;

/// Bytes of the copied buffer for each image of the batch: of 128 images, a GiB, of which no cache holds much.
const COPIED: usize = 8 << 20;
/// Rows and columns of both factors for each image of the batch: of 128 images, 8192.
const SIDE: usize = 64;
/// Launches between two looks at the clock, so that the host's part does not show.
pub const LAUNCHES: usize = 8;

/// Something that this GPU does as fast as it can.
pub struct Anchor<'a> {
    /// Its name.
    pub name: String,
    /// Bytes that one run reads and writes.
    pub bytes: usize,
    /// Multiplications and additions of one run.
    pub flops: usize,
    /// Runs it [`LAUNCHES`] times, and waits.
    pub run: Box<dyn FnMut() -> Result<(), DeviceError> + 'a>,
}

/// Those of a batch.
///
/// # Errors
/// The device's.
pub fn all(device: &Cuda, batch: usize) -> Result<[Anchor<'_>; 2], DeviceError> {
    Ok([copy(device, COPIED * batch)?, product(device, batch)?])
}

/// Numbers from all over −1..1: how much power a product takes depends on them.
fn numbers(device: &Cuda, len: usize, storage: Storage) -> Result<Tensor<Cuda>, DeviceError> {
    let number = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as i8 as f32 / 128.0;
    let mut tensor = Tensor::new(device, [len], storage)?;
    device.upload(tensor.view_mut(), &(0..len).map(number).collect::<Vec<_>>())?;
    Ok(tensor)
}

/// The driver's copy from device memory to device memory.
fn copy(device: &Cuda, bytes: usize) -> Result<Anchor<'_>, DeviceError> {
    let mut from = Tensor::new(device, [bytes / size_of::<f32>()], Storage::Full)?;
    device.fill(from.view_mut(), 1.0)?;
    let mut to = Tensor::new(device, [bytes / size_of::<f32>()], Storage::Full)?;
    let run = move || {
        (0..LAUNCHES).try_for_each(|_| device.copy(to.view_mut(), from.view()))?;
        wait(device)
    };
    Ok(Anchor { name: format!("copy of {} MiB", bytes >> 20), bytes: 2 * bytes, flops: 0, run: Box::new(run) })
}

/// A product of two large square matrices, which is a 1×1 convolution.
fn product(device: &Cuda, batch: usize) -> Result<Anchor<'_>, DeviceError> {
    let side = SIDE * batch;
    let shape = ConvShape::new([batch, 8, 8, side], side, [1, 1], 1, 0)?;
    let x = numbers(device, shape.input_len(), Storage::Activation)?;
    let w = numbers(device, shape.weights_len(), Storage::Weights)?;
    let mut y = Tensor::new(device, [shape.output_len()], Storage::Activation)?;
    let run = move || {
        (0..LAUNCHES).try_for_each(|_| {
            let (x, w) = (x.view(), w.view());
            let operands = ConvForward {
                y: y.view_mut(),
                stats: None,
                x,
                transform: None,
                w,
                bias: None,
                activation: Activation::Linear,
            };
            device.conv_forward(operands, &shape)
        })?;
        wait(device)
    };
    let flops = 2 * side * side * side;
    Ok(Anchor { name: format!("product {side}x{side}x{side}"), bytes: 0, flops, run: Box::new(run) })
}

/// Until all that was launched is done.
fn wait(device: &Cuda) -> Result<(), DeviceError> {
    let mut mark = device.allocate(1, Storage::Full)?;
    device.fill(Cuda::view_mut(&mut mark, 0..1), 1.0)?;
    device.download(Cuda::view(&mark, 0..1)).map(drop)
}
