//! Copies of boxes of tensors and bulk reductions (tests/cuda/tensor_map.cu, compiled by NVRTC for sm_90a) against plain
//! Rust.

mod boxes;
mod bugs;
mod filters;
mod stores;

use gpusim::fault::Kind;
use gpusim::simulator::{Arguments, Error, Simulator};
use gpusim::tensor_map::{Element, Swizzle, TensorMap};

fn simulator() -> Simulator {
    Simulator::new(include_str!("../ptx/tensor_map.ptx")).unwrap()
}

/// The fault of a launch that is wrong.
fn fault<T>(outcome: Result<T, Error>) -> Kind {
    match outcome {
        Err(Error::Fault(fault)) => fault.kind,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nothing was found"),
    }
}

/// Bytes that differ from their neighbours.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A dense tensor whose rows are padded to 16 bytes.
struct Tensor {
    element: Element,
    extents: Vec<u64>,
    strides: Vec<u64>,
    data: Vec<u8>,
}

impl Tensor {
    fn new(element: Element, extents: &[u64]) -> Self {
        let mut strides = vec![(extents[0] * u64::from(element.bytes())).next_multiple_of(16)];
        for &extent in &extents[1..] {
            strides.push(strides[strides.len() - 1] * extent);
        }
        let data = noise(strides.pop().unwrap() as usize);
        Self { element, extents: extents.to_vec(), strides, data }
    }

    /// The bytes of an element; none outside.
    fn at(&self, coordinates: &[i64]) -> Option<&[u8]> {
        let inside = coordinates.iter().zip(&self.extents).all(|(&at, &extent)| (0..extent as i64).contains(&at));
        let size = u64::from(self.element.bytes());
        let strides = std::iter::once(&size).chain(&self.strides);
        let first: i64 = coordinates.iter().zip(strides).map(|(at, &stride)| at * stride as i64).sum();
        inside.then(|| &self.data[first as usize..][..size as usize])
    }

    fn map(&self, address: u64, box_: &[u32], steps: &[u32], swizzle: Swizzle, nan: bool) -> TensorMap {
        let Self { element, extents, strides, .. } = self;
        TensorMap::tiled(*element, address, extents, strides, box_, steps, swizzle, nan).unwrap()
    }
}

/// Where the byte at `offset` of a box goes: 16-byte pieces of a span are exchanged by the number of their 128 bytes.
fn swizzled(offset: usize, span: usize) -> usize {
    let (pieces, piece, row) = (span / 16, offset / 16, offset / 128);
    piece / pieces * span + ((piece % pieces) ^ (row % pieces)) * 16 + offset % 16
}

/// Puts elements, in the order of a box, where a swizzle has them.
fn laid_out<'a>(elements: impl Iterator<Item = &'a [u8]>, span: usize) -> Vec<u8> {
    let plain: Vec<u8> = elements.flatten().copied().collect();
    let mut out = vec![0; plain.len()];
    plain.iter().enumerate().for_each(|(offset, &byte)| out[swizzled(offset, span)] = byte);
    out
}

/// What a copy brings of the box at `at`: its elements, or `fill`.
fn expected(tensor: &Tensor, at: &[i32], box_: &[u32], steps: &[u32], span: usize, fill: &[u8]) -> Vec<u8> {
    // There is no step along the innermost dimension, whatever the map says.
    let steps: Vec<u32> = (0..at.len()).map(|i| if i == 0 { 1 } else { steps[i] }).collect();
    let counts: Vec<u32> = box_.iter().zip(&steps).map(|(extent, step)| extent.div_ceil(*step)).collect();
    let element = |mut index: u32| {
        let coordinates: Vec<i64> = (0..at.len())
            .map(|i| {
                let here = index % counts[i];
                index /= counts[i];
                i64::from(at[i]) + i64::from(here * steps[i])
            })
            .collect();
        tensor.at(&coordinates).unwrap_or(fill)
    };
    laid_out((0..counts.iter().product()).map(element), span)
}

/// Runs a kernel that brings a box and writes it out.
fn bring(
    gpu: &mut Simulator,
    name: &str,
    map: &TensorMap,
    numbers: impl Fn(Arguments) -> Arguments,
) -> Result<Vec<u8>, Error> {
    let bytes = map.bytes();
    let out = gpu.allocate(bytes as usize)?;
    let arguments = numbers(Arguments::new().pointer(out).tensor_map(map).int(bytes as i32));
    gpu.launch(name, [1, 1, 1], [64, 1, 1], bytes + 128, &arguments)?;
    let found = gpu.read(out, bytes as usize);
    gpu.free(out);
    Ok(found)
}

fn ints<'a>(numbers: &'a [i32]) -> impl Fn(Arguments) -> Arguments + 'a {
    move |arguments| numbers.iter().fold(arguments, |arguments, &number| arguments.int(number))
}

/// Sends a box of words to a tensor at `at` by a kernel, and gives the tensor. Where the box is over the right edge, only
/// `used` words of each row were ever written to shared memory.
fn send(
    name: &str,
    tensor: &Tensor,
    box_: &[u32; 2],
    values: &[u8],
    at: [i32; 2],
    used: u32,
) -> Result<Vec<u8>, Error> {
    let mut gpu = simulator();
    let address = gpu.upload(&tensor.data)?;
    let map = tensor.map(address, box_, &[1, 1], Swizzle::None, false);
    let input = gpu.upload(values)?;
    let width = box_[0] * tensor.element.bytes() / 4;
    let numbers = [map.bytes() as i32, at[0], at[1], width as i32, used as i32];
    let arguments = ints(&numbers)(Arguments::new().pointer(input).tensor_map(&map));
    gpu.launch(name, [1, 1, 1], [64, 1, 1], map.bytes().max(256), &arguments)?;
    Ok(gpu.read(address, tensor.data.len()))
}

/// 64×8 singles, and a map of boxes of 32×4 of them.
fn singles(gpu: &mut Simulator) -> (Tensor, u64, TensorMap) {
    let tensor = Tensor::new(Element::F32, &[64, 8]);
    let address = gpu.upload(&tensor.data).unwrap();
    let map = tensor.map(address, &[32, 4], &[1, 1], Swizzle::Within128, false);
    (tensor, address, map)
}
