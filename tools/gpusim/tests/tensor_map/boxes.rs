//! Boxes of tensors on their way into shared memory.

use super::{Tensor, bring, expected, fault, ints, simulator, singles};
use gpusim::fault::Kind;
use gpusim::simulator::Arguments;
use gpusim::tensor_map::{Element, Swizzle, TensorMap};
use half::{bf16, f16};

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
