//! Boxes on their way out of shared memory, instead of what is there or added to it.

use super::{Tensor, fault, noise, send, simulator};
use gpusim::fault::Kind;
use gpusim::simulator::Arguments;
use gpusim::tensor_map::Element;
use half::{bf16, f16};

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
