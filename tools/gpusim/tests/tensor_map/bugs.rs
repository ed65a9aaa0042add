//! Copies that are wrong, each in its own way.

use super::{Tensor, bring, fault, ints, noise, send, simulator, singles};
use gpusim::fault::Kind;
use gpusim::tensor_map::{Element, Swizzle, TensorMap};

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
