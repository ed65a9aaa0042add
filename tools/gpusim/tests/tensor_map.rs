//! Copies of boxes of tensors and bulk reductions (tests/cuda/tensor_map.cu, compiled by NVRTC for sm_90a) against plain
//! Rust.

use gpusim::fault::Kind;
use gpusim::simulator::{Arguments, Error, Simulator};
use gpusim::tensor_map::{Element, Swizzle, TensorMap};
use half::{bf16, f16};

fn simulator() -> Simulator {
    Simulator::new(include_str!("ptx/tensor_map.ptx")).unwrap()
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

/// Brings boxes at each place by the kernel of the tensor's rank.
fn check_boxes(tensor: &Tensor, box_: &[u32], steps: &[u32], swizzle: Swizzle, places: &[&[i32]]) {
    let mut gpu = simulator();
    let address = gpu.upload(&tensor.data).unwrap();
    let map = tensor.map(address, box_, steps, swizzle, false);
    let zeros = vec![0; tensor.element.bytes() as usize];
    for place in places {
        let found = bring(&mut gpu, &format!("load_{}d", place.len()), &map, ints(place)).unwrap();
        let expected = expected(tensor, place, box_, steps, swizzle.span() as usize, &zeros);
        assert_eq!(found, expected, "{:?}, box {box_:?} at {place:?}, {swizzle:?}", tensor.element);
    }
}

#[test]
fn boxes_of_two_dimensions_in_every_swizzle() {
    for element in [Element::U8, Element::Bf16, Element::S32, Element::F64] {
        let tensor = Tensor::new(element, &[150, 37]);
        for swizzle in Swizzle::ALL {
            // A row fills its span; without a swizzle it may be wider.
            let span = if swizzle == Swizzle::None { 48 } else { swizzle.span() };
            let box_ = [span / element.bytes(), 19];
            let places: [&[i32]; 5] = [&[0, 0], &[5, 7], &[-3, -2], &[149, 30], &[-200, 4]];
            check_boxes(&tensor, &box_, &[1, 1], swizzle, &places);
        }
    }
}

#[test]
fn boxes_of_other_dimensions() {
    let line = Tensor::new(Element::F32, &[301]);
    check_boxes(&line, &[64], &[1], Swizzle::None, &[&[0], &[3], &[299], &[-63], &[301]]);
    let volume = Tensor::new(Element::F16, &[70, 9, 11]);
    check_boxes(&volume, &[32, 4, 5], &[1, 1, 1], Swizzle::Within64, &[&[0, 0, 0], &[33, 7, 8], &[50, -1, -4]]);
    let images = Tensor::new(Element::Bf16, &[64, 10, 7, 3]);
    let places: [&[i32]; 3] = [&[0, -1, -1, 0], &[0, 4, 4, 2], &[1, 9, -2, -1]];
    check_boxes(&images, &[64, 6, 4, 2], &[1, 1, 1, 1], Swizzle::Within128, &places);
    check_boxes(&images, &[16, 6, 4, 2], &[1, 2, 3, 1], Swizzle::Within32, &places);
    let five = Tensor::new(Element::U8, &[40, 5, 4, 3, 2]);
    check_boxes(&five, &[32, 2, 3, 2, 2], &[8, 1, 1, 1, 1], Swizzle::Within32, &[&[9, 1, 2, 0, 1], &[0, 0, -1, 2, 0]]);
}

#[test]
fn what_is_outside_can_be_nan() {
    let mut gpu = simulator();
    for element in [Element::F16, Element::F32, Element::F64] {
        let tensor = Tensor::new(element, &[20, 5]);
        let address = gpu.upload(&tensor.data).unwrap();
        let map = tensor.map(address, &[16, 4], &[1, 1], Swizzle::None, true);
        let found = bring(&mut gpu, "load_2d", &map, ints(&[10, 3])).unwrap();
        assert_eq!(found, expected(&tensor, &[10, 3], &[16, 4], &[1, 1], 16, element.nan()));
    }
    assert!(f16::from_le_bytes(Element::F16.nan().try_into().unwrap()).is_nan());
    assert!(f32::from_le_bytes(Element::F32.nan().try_into().unwrap()).is_nan());
    assert!(f64::from_le_bytes(Element::F64.nan().try_into().unwrap()).is_nan());
}

#[test]
fn singles_are_rounded_and_flushed_where_the_map_says_so() {
    // Too small to be normal, with few enough bits for tf32.
    let small = -f32::from_bits(1 << 19);
    let values = [1.0, 1.0 + f32::EPSILON, small, 3.000_732_4, 1.000_488_3, f32::INFINITY, f32::MAX, 0.1];
    let rounded = [1.0, 1.0, small, 3.0, 1.0, f32::INFINITY, f32::INFINITY, 0.099_975_586];
    let flushed = |mut values: [f32; 8]| {
        values[2] = -0.0;
        values.map(f32::to_bits)
    };
    let mut gpu = simulator();
    let address = gpu.upload(&values.map(f32::to_le_bytes).concat()).unwrap();
    for (element, expected) in [
        (Element::F32, values.map(f32::to_bits)),
        (Element::F32Ftz, flushed(values)),
        (Element::Tf32, rounded.map(f32::to_bits)),
        (Element::Tf32Ftz, flushed(rounded)),
    ] {
        let map = TensorMap::tiled(element, address, &[8], &[], &[8], &[1], Swizzle::None, false).unwrap();
        let found = bring(&mut gpu, "load_1d", &map, ints(&[0])).unwrap();
        assert_eq!(found, expected.map(u32::to_le_bytes).concat(), "{element:?}");
    }
}

/// A convolution's measures along one spatial dimension.
#[derive(Clone, Copy)]
struct Axis {
    input: usize,
    filter: usize,
    stride: usize,
    dilation: usize,
    padding: usize,
}

impl Axis {
    fn output(self) -> usize {
        (self.input + 2 * self.padding - (self.filter - 1) * self.dilation - 1) / self.stride + 1
    }

    /// The corners of the walk over the filter's first positions.
    fn corners(self) -> (i32, i32) {
        let reach = (self.filter - 1) * self.dilation;
        (-(self.padding as i32), self.padding as i32 - reach as i32)
    }
}

/// Brings the rows of a convolution's im2col matrix, 24 pixels a copy and 16 channels of 32, for each position of the
/// filter, multiplies them by weights and compares with the convolution by its definition. Axes are W, H, D.
fn check_filter(axes: &[Axis], images: usize) {
    const CHANNELS: usize = 32;
    let mut gpu = simulator();
    let mut extents = vec![CHANNELS as u64];
    extents.extend(axes.iter().map(|axis| axis.input as u64));
    extents.push(images as u64);
    let mut tensor = Tensor::new(Element::F32, &extents);
    // Small integers: every sum is exact.
    let values: Vec<f32> = (0..tensor.data.len() / 4).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
    tensor.data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let address = gpu.upload(&tensor.data).unwrap();
    let (lower, upper): (Vec<i32>, Vec<i32>) = axes.iter().map(|axis| axis.corners()).unzip();
    let mut steps = vec![1];
    steps.extend(axes.iter().map(|axis| axis.stride as u32));
    steps.push(1);
    let (extents, strides) = (&tensor.extents, &tensor.strides);
    let map = TensorMap::im2col(
        Element::F32,
        address,
        extents,
        strides,
        &lower,
        &upper,
        16,
        24,
        &steps,
        Swizzle::Within64,
        false,
    );
    let map = map.unwrap();
    let outputs: Vec<usize> = axes.iter().map(|axis| axis.output()).collect();
    let pixels = outputs.iter().product::<usize>() * images;
    let positions: usize = axes.iter().map(|axis| axis.filter).product();
    let weight = |position: usize, channel: usize| ((position * 5 + channel * 3) % 7) as f32 - 3.0;
    // A number's digits in mixed radix.
    let digits = |mut number: usize, radices: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
        radices.map(|radix| (number % radix, number /= radix).0).collect()
    };
    let place = |pixel: usize| {
        let mut all = digits(pixel, &mut outputs.iter().copied().chain([images]));
        let image = all.pop().unwrap();
        (all, image)
    };
    let mut found = vec![0.0f32; pixels.next_multiple_of(24)];
    for first in (0..pixels).step_by(24) {
        let (start, image) = place(first);
        for position in 0..positions {
            let filter = digits(position, &mut axes.iter().map(|axis| axis.filter));
            for channel in [0, 16] {
                let arguments = |arguments: Arguments| {
                    let starts = start.iter().zip(axes).map(|(x, axis)| (x * axis.stride) as i32 - axis.padding as i32);
                    let arguments = starts.fold(arguments.int(channel), Arguments::int).int(image as i32);
                    let offsets = filter.iter().zip(axes).map(|(s, axis)| (s * axis.dilation) as u16);
                    offsets.fold(arguments, |arguments, offset| arguments.with(offset.to_le_bytes()))
                };
                let name = format!("filter_{}d", axes.len() + 2);
                let bytes = bring(&mut gpu, &name, &map, arguments).unwrap();
                for pixel in 0..24 {
                    for c in 0..16 {
                        let at = swizzled((pixel * 16 + c) * 4, 64);
                        let value = f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
                        found[first + pixel] += value * weight(position, channel as usize + c);
                    }
                }
            }
        }
    }
    for (pixel, &found) in found[..pixels].iter().enumerate() {
        let (output, image) = place(pixel);
        let mut expected = 0.0;
        for position in 0..positions {
            let filter = digits(position, &mut axes.iter().map(|axis| axis.filter));
            let input = (0..axes.len()).map(|i| {
                let Axis { stride, dilation, padding, .. } = axes[i];
                (output[i] * stride + filter[i] * dilation) as i64 - padding as i64
            });
            let input: Vec<i64> = input.collect();
            for c in 0..CHANNELS {
                let mut coordinates = vec![c as i64];
                coordinates.extend(&input);
                coordinates.push(image as i64);
                if let Some(bytes) = tensor.at(&coordinates) {
                    expected += f32::from_le_bytes(bytes.try_into().unwrap()) * weight(position, c);
                }
            }
        }
        assert_eq!(found, expected, "output {output:?} of image {image}");
    }
}

#[test]
fn a_filter_gathers_a_padded_strided_convolution() {
    let w = Axis { input: 11, filter: 3, stride: 2, dilation: 1, padding: 1 };
    let h = Axis { input: 8, filter: 2, stride: 3, dilation: 2, padding: 1 };
    check_filter(&[w, h], 3);
    check_filter(&[Axis { stride: 1, ..w }, Axis { stride: 1, padding: 0, ..h }], 2);
}

#[test]
fn a_filter_of_other_dimensions() {
    let w = Axis { input: 9, filter: 3, stride: 2, dilation: 1, padding: 1 };
    let h = Axis { input: 5, filter: 2, stride: 1, dilation: 1, padding: 0 };
    let d = Axis { input: 4, filter: 2, stride: 2, dilation: 1, padding: 1 };
    check_filter(&[w], 5);
    check_filter(&[w, h, d], 2);
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

/// The tensor after each element of the box that is inside became `f` of itself and the box's.
fn updated(
    tensor: &Tensor,
    box_: &[u32; 2],
    values: &[u8],
    at: [i32; 2],
    f: impl Fn(&[u8], &[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let mut data = tensor.data.clone();
    let size = tensor.element.bytes() as usize;
    for (index, value) in values.chunks_exact(size).enumerate() {
        let (x, y) = (index as i64 % i64::from(box_[0]), index as i64 / i64::from(box_[0]));
        if let Some(old) = tensor.at(&[i64::from(at[0]) + x, i64::from(at[1]) + y]) {
            let first = old.as_ptr() as usize - tensor.data.as_ptr() as usize;
            data[first..first + size].copy_from_slice(&f(old, value));
        }
    }
    data
}

#[test]
fn a_box_over_an_edge_is_cut_when_it_is_sent() {
    for (element, at, used) in [
        (Element::U32, [0, 0], 16),
        (Element::U32, [13, 8], 7),
        (Element::Bf16, [-5, -3], 16),
        (Element::F16, [-34, 0], 16),
    ] {
        let tensor = Tensor::new(element, &[20, 11]);
        let box_ = [64 / element.bytes(), 6];
        let values = noise(64 * 6 + 1).split_off(1);
        let found = send("store_2d", &tensor, &box_, &values, at, used).unwrap();
        assert_eq!(found, updated(&tensor, &box_, &values, at, |_, new| new.to_vec()), "{element:?} at {at:?}");
    }
    let tensor = Tensor::new(Element::U32, &[20, 11]);
    let values = noise(64 * 6);
    let kind = fault(send("store_2d", &tensor, &[16, 6], &values, [13, 8], 6));
    assert!(matches!(kind, Kind::Uninitialised { address: 24, bytes: 4, .. }), "{kind}");
}

#[test]
fn reductions_of_boxes() {
    let (box_, at) = ([16, 6], [9, -2]);
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let check = |name: &str, element: Element, f: &dyn Fn(u32, u32) -> u32| {
        let tensor = Tensor::new(element, &[20, 11]);
        let values = noise(64 * 6 + 2).split_off(2);
        let found = send(name, &tensor, &box_, &values, at, 16).unwrap();
        let expected = updated(&tensor, &box_, &values, at, |old, new| f(word(old), word(new)).to_le_bytes().into());
        assert_eq!(found, expected, "{name} of {element:?}");
    };
    check("reduce_add", Element::U32, &u32::wrapping_add);
    check("reduce_min", Element::U32, &u32::min);
    check("reduce_max", Element::S32, &|a, b| (a as i32).max(b as i32) as u32);
    check("reduce_inc", Element::U32, &|a, b| if a >= b { 0 } else { a + 1 });
    check("reduce_and", Element::S32, &|a, b| a & b);
    check("reduce_or", Element::U32, &|a, b| a | b);
    check("reduce_xor", Element::U32, &|a, b| a ^ b);
    // Floats: numbers that are exact.
    let tensor = |element: Element, data: Vec<u8>| Tensor { data, ..Tensor::new(element, &[32, 6]) };
    let numbers = |step: usize| (0..192).map(move |i| (i * step % 31) as f32 - 12.5);
    let singles = tensor(Element::F32, numbers(3).flat_map(f32::to_le_bytes).collect());
    let values: Vec<u8> = numbers(7).take(96).flat_map(f32::to_le_bytes).collect();
    let found = send("reduce_add", &singles, &box_, &values, at, 16).unwrap();
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    assert_eq!(found, updated(&singles, &box_, &values, at, |a, b| (float(a) + float(b)).to_le_bytes().into()));
    let halves = tensor(Element::Bf16, numbers(3).flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect());
    let values: Vec<u8> = numbers(7).flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect();
    let half = |bytes: &[u8]| bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32();
    type Op = fn(f32, f32) -> f32;
    for (name, f) in [("reduce_add", (|a, b| a + b) as Op), ("reduce_min", f32::min), ("reduce_max", f32::max)] {
        let found = send(name, &halves, &[32, 6], &values, [-7, 1], 16).unwrap();
        let result = |a: &[u8], b: &[u8]| bf16::from_f32(f(half(a), half(b))).to_le_bytes().into();
        assert_eq!(found, updated(&halves, &[32, 6], &values, [-7, 1], result), "{name}");
    }
    let kind = fault(send("reduce_inc", &singles, &box_, &[0; 384], at, 16));
    assert!(matches!(&kind, Kind::Unsupported(what) if what.contains("tensor.inc of elements of type F32")), "{kind}");
}

#[test]
fn bulk_reductions_of_three_blocks() {
    let run = |name: &str, old: &[u8], with: &[u8]| {
        let mut gpu = simulator();
        let (out, input) = (gpu.upload(old).unwrap(), gpu.upload(with).unwrap());
        let arguments = Arguments::new().pointer(out).pointer(input);
        gpu.launch(name, [3, 1, 1], [64, 1, 1], 0, &arguments).unwrap();
        gpu.read(out, 256)
    };
    macro_rules! check {
        ($name:literal, $ty:ty, $value:expr, $f:expr) => {{
            let value = $value;
            let count = 256 / size_of::<$ty>();
            let (old, with): (Vec<$ty>, Vec<$ty>) = (0..count).map(|i| (value(i * 7 % 31), value(i * 5 % 29))).unzip();
            let bytes = |values: &[$ty]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
            let expected: Vec<$ty> =
                old.iter().zip(&with).map(|(&a, &b)| (0..3).fold(a, |sum: $ty, _| $f(sum, b))).collect();
            assert_eq!(run($name, &bytes(&old), &bytes(&with)), bytes(&expected), $name);
        }};
    }
    check!("bulk_add_f32", f32, |i| i as f32 - 9.25, |a, b| a + b);
    check!("bulk_add_f64", f64, |i| i as f64 - 9.25, |a, b| a + b);
    check!("bulk_add_u32", u32, |i| (i as u32) << 28, u32::wrapping_add);
    check!("bulk_add_bf16", bf16, |i| bf16::from_f32(i as f32 - 9.0), |a: bf16, b: bf16| bf16::from_f32(
        a.to_f32() + b.to_f32()
    ));
    check!("bulk_max_f16", f16, |i| f16::from_f32(i as f32 - 9.5), |a: f16, b: f16| if a > b { a } else { b });
    check!("bulk_min_s64", i64, |i| (i as i64 - 12) << 40, i64::min);
    check!("bulk_xor_b64", u64, |i| (i as u64) << 59, |a: u64, b: u64| a ^ b);
    let numbers: Vec<u8> = (0..64u32).flat_map(u32::to_le_bytes).collect();
    let doubled: Vec<u8> = (0..64u32).flat_map(|i| (2 * i).to_le_bytes()).collect();
    let mut gpu = simulator();
    let (out, input) = (gpu.allocate(256).unwrap(), gpu.upload(&numbers).unwrap());
    gpu.launch("within_cluster", [1, 1, 1], [64, 1, 1], 0, &Arguments::new().pointer(out).pointer(input)).unwrap();
    assert_eq!(gpu.read(out, 256), doubled);
}

/// 64×8 singles, and a map of boxes of 32×4 of them.
fn singles(gpu: &mut Simulator) -> (Tensor, u64, TensorMap) {
    let tensor = Tensor::new(Element::F32, &[64, 8]);
    let address = gpu.upload(&tensor.data).unwrap();
    let map = tensor.map(address, &[32, 4], &[1, 1], Swizzle::Within128, false);
    (tensor, address, map)
}

#[test]
fn a_map_can_be_in_device_memory() {
    let mut gpu = simulator();
    let (tensor, address, map) = singles(&mut gpu);
    let words: Vec<u8> = map.encode().iter().flat_map(|word| word.to_le_bytes()).collect();
    let place = gpu.upload(&words).unwrap();
    let out = gpu.allocate(512).unwrap();
    let mut run = |place: u64, x: i32| {
        let arguments = Arguments::new().pointer(out).pointer(place).pointer(address).int(512).int(x).int(2);
        gpu.launch("load_through_pointer", [1, 1, 1], [32, 1, 1], 512, &arguments).map(|_| gpu.read(out, 512))
    };
    assert_eq!(run(place, 32).unwrap(), expected(&tensor, &[32, 2], &[32, 4], &[1, 1], 128, &[0; 4]));
    // No map there.
    let kind = fault(run(address, 0));
    assert!(matches!(&kind, Kind::TensorMap { what, .. } if what.contains("none")), "{kind}");
    let kind = fault(run(place + 16, 0));
    assert!(matches!(kind, Kind::Misaligned { bytes: 64, .. }), "{kind}");
    gpu.free(place);
    let arguments = Arguments::new().pointer(out).pointer(place).pointer(address).int(512).int(0).int(0);
    let kind = fault(gpu.launch("load_through_pointer", [1, 1, 1], [32, 1, 1], 512, &arguments));
    assert!(matches!(kind, Kind::UseAfterFree { write: false, .. }), "{kind}");
}

#[test]
fn a_multicast_to_its_own_block_is_a_copy() {
    let mut gpu = simulator();
    let (tensor, _, map) = singles(&mut gpu);
    let blocks = |mask: u16| move |arguments: Arguments| arguments.int(32).int(0).with(mask.to_le_bytes());
    let found = bring(&mut gpu, "load_multicast", &map, blocks(1)).unwrap();
    assert_eq!(found, expected(&tensor, &[32, 0], &[32, 4], &[1, 1], 128, &[0; 4]));
    // Of bytes, too: four rows side by side.
    let (address, out) = (map.address(), gpu.allocate(1024).unwrap());
    let arguments = |mask: u16| Arguments::new().pointer(out).pointer(address).with(mask.to_le_bytes());
    gpu.launch("bulk_multicast", [1, 1, 1], [64, 1, 1], 0, &arguments(1)).unwrap();
    assert_eq!(gpu.read(out, 1024), tensor.data[..1024]);
    let kind = fault(gpu.launch("bulk_multicast", [1, 1, 1], [64, 1, 1], 0, &arguments(2)));
    assert!(matches!(&kind, Kind::Unsupported(what) if what.contains("0b10")), "{kind}");
    let kind = fault(bring(&mut gpu, "load_multicast", &map, blocks(3)));
    assert!(matches!(&kind, Kind::Unsupported(what) if what.contains("0b11")), "{kind}");
}

#[test]
fn the_sectors_of_a_box_are_counted() {
    let mut gpu = simulator();
    let (_, _, map) = singles(&mut gpu);
    let out = gpu.allocate(512).unwrap();
    // Half of the box is outside; the other half is four rows of 64 bytes. The result is written: 16 sectors more.
    let arguments = ints(&[512, 48, 0])(Arguments::new().pointer(out).tensor_map(&map));
    let tally = gpu.launch("load_2d", [1, 1, 1], [32, 1, 1], 512, &arguments).unwrap();
    assert_eq!(tally.touched_sectors, 4 * 2 + 16);
    let copy = tally.sites.iter().find(|site| site.requests == 4).unwrap();
    assert_eq!((copy.sectors, copy.wavefronts), (8, 4));
}

#[test]
fn a_box_that_is_not_aligned_is_found() {
    let mut gpu = simulator();
    let (_, _, map) = singles(&mut gpu);
    let kind = fault(bring(&mut gpu, "load_unaligned", &map, ints(&[0, 0])));
    assert!(matches!(kind, Kind::Misaligned { address: 1040, bytes: 128, write: true }), "{kind:?}");
}

#[test]
fn a_box_read_before_its_wait_is_a_race() {
    let mut gpu = simulator();
    let (_, _, map) = singles(&mut gpu);
    let kind = fault(bring(&mut gpu, "load_early", &map, ints(&[0, 0])));
    assert!(matches!(kind, Kind::Race { other, .. } if other.write && other.thread.is_none()), "{kind}");
}

#[test]
fn a_box_used_again_before_its_wait_is_a_race() {
    let tensor = Tensor::new(Element::U32, &[16, 8]);
    let kind = fault(send("store_late", &tensor, &[16, 8], &noise(512), [0, 0], 16));
    assert!(matches!(kind, Kind::Race { other, .. } if !other.write && other.thread.is_none()), "{kind}");
}

#[test]
fn memory_freed_behind_a_map_is_found() {
    let mut gpu = simulator();
    let (_, address, map) = singles(&mut gpu);
    gpu.free(address);
    let kind = fault(bring(&mut gpu, "load_2d", &map, ints(&[0, 0])));
    assert!(matches!(kind, Kind::UseAfterFree { write: false, .. }), "{kind}");
}

#[test]
fn a_tensor_larger_than_its_allocation_is_found() {
    let mut gpu = simulator();
    let address = gpu.upload(&[0; 1024]).unwrap();
    let map = TensorMap::tiled(Element::F32, address, &[64, 5], &[256], &[32, 4], &[1, 1], Swizzle::None, false);
    let map = map.unwrap();
    assert!(bring(&mut gpu, "load_2d", &map, ints(&[0, 0])).is_ok());
    let kind = fault(bring(&mut gpu, "load_2d", &map, ints(&[32, 3])));
    assert!(matches!(kind, Kind::OutOfBounds { address: at, .. } if at == address + 1024 + 128), "{kind}");
}

#[test]
fn a_map_of_another_kind_is_found() {
    let mut gpu = simulator();
    let (_, _, map) = singles(&mut gpu);
    let kind = fault(bring(&mut gpu, "load_3d", &map, ints(&[0, 0, 0])));
    assert!(matches!(&kind, Kind::TensorMap { what, .. } if what.contains("2 dimensions")), "{kind}");
    let narrow = Tensor::new(Element::F32, &[64, 8]);
    let address = gpu.upload(&narrow.data).unwrap();
    let narrow = narrow.map(address, &[8, 4], &[1, 1], Swizzle::Within128, false);
    let kind = fault(bring(&mut gpu, "load_2d", &narrow, ints(&[0, 0])));
    assert!(matches!(&kind, Kind::Unsupported(what) if what.contains("rows of 32 bytes")), "{kind}");
}

#[test]
fn a_product_through_tensor_maps() {
    // Nothing is a multiple of its tile; rows are padded to 16 bytes.
    let (m, n, k) = (100usize, 44, 280);
    let mut gpu = simulator();
    let matrix = |rows: usize, step: usize| {
        let mut tensor = Tensor::new(Element::Bf16, &[k as u64, rows as u64]);
        let values: Vec<f32> = (0..rows * k).map(|i| (i * step % 13) as f32 - 6.0).collect();
        tensor.data = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        (tensor, values)
    };
    let ((a, a_values), (b, b_values)) = (matrix(m, 7), matrix(n, 5));
    let (da, db) = (gpu.upload(&a.data).unwrap(), gpu.upload(&b.data).unwrap());
    let d = Tensor::new(Element::F32, &[n as u64, m as u64]);
    let out = gpu.allocate(d.data.len()).unwrap();
    let arguments = Arguments::new()
        .tensor_map(&d.map(out, &[32, 64], &[1, 1], Swizzle::None, false))
        .tensor_map(&a.map(da, &[64, 64], &[1, 1], Swizzle::Within128, false))
        .tensor_map(&b.map(db, &[64, 32], &[1, 1], Swizzle::Within128, false))
        .int(k as i32);
    gpu.launch("gemm", [2, 2, 1], [160, 1, 1], 0, &arguments).unwrap();
    let found = gpu.read(out, d.data.len());
    for row in 0..m {
        for column in 0..n {
            let at = row * d.strides[0] as usize + column * 4;
            let found = f32::from_le_bytes(found[at..at + 4].try_into().unwrap());
            let expected: f32 = (0..k).map(|i| a_values[row * k + i] * b_values[column * k + i]).sum();
            assert_eq!(found, expected, "row {row}, column {column}");
        }
    }
}
