//! Filters: the rows of a convolution's im2col matrix.

use super::{Tensor, bring, ints, simulator, swizzled};
use gpusim::simulator::Arguments;
use gpusim::tensor_map::{Element, Swizzle, TensorMap};

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

/// The pixels that a walk over two images of 4×4 finds, counted from 1; 0 outside. The numbers expected are those that
/// Triton's tutorial of this instruction checks on hardware.
#[test]
fn a_filter_walks_as_hardware_does() {
    let mut gpu = simulator();
    let pixels: Vec<u8> = (1..=32).flat_map(|pixel| [pixel as f32; 16]).flat_map(f32::to_le_bytes).collect();
    let address = gpu.upload(&pixels).unwrap();
    let mut walk = |corner: i32, [h, w]: [i32; 2], offset: u16| {
        let (extents, strides) = ([16, 4, 4, 2], [64, 256, 1024]);
        let (corners, steps, swizzle) = ([corner; 2], [1; 4], Swizzle::Within64);
        let map = TensorMap::im2col(
            Element::F32,
            address,
            &extents,
            &strides,
            &corners,
            &corners,
            16,
            16,
            &steps,
            swizzle,
            false,
        );
        let arguments = |arguments| {
            let arguments = ints(&[0, w, h, 0])(arguments);
            arguments.with(offset.to_le_bytes()).with(offset.to_le_bytes())
        };
        let found = bring(&mut gpu, "filter_4d", &map.unwrap(), arguments).unwrap();
        found.chunks_exact(64).map(|row| f32::from_le_bytes(row[..4].try_into().unwrap()) as u32).collect::<Vec<u32>>()
    };
    assert_eq!(walk(0, [0, 0], 0), (1..=16).collect::<Vec<u32>>());
    assert_eq!(walk(-1, [-1, -1], 0), [0, 0, 0, 0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11]);
    assert_eq!(walk(-1, [-1, -1], 1), (1..=16).collect::<Vec<u32>>());
    assert_eq!(walk(0, [1, 3], 0), (8..=23).collect::<Vec<u32>>());
    assert_eq!(walk(-1, [1, 2], 0), [7, 0, 9, 10, 11, 0, 0, 0, 0, 0, 17, 18, 19, 0, 21, 22]);
}
