//! The same bits with one, two and four threads.

use super::Case;
use super::conv::{Conv, FUSED, Fusions, PLAIN};
use onesheet::device::ConvShape;
use onesheet::device::cpu::Cpu;

/// All outputs of a case as bits, computed by that many threads.
fn bits(case: &(impl Case + Sync), threads: usize) -> Vec<u64> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let outputs = case.run(&Cpu::new());
        outputs.into_iter().flat_map(|output| output.values).map(f64::to_bits).collect()
    })
}

#[test]
fn convolutions_repeat() {
    let conv = |input, k, filter, stride, pad| ConvShape::new(input, k, [filter, filter], stride, pad).unwrap();
    let shapes = [
        conv([4, 19, 17, 64], 70, 1, 1, 0),
        conv([3, 20, 21, 48], 64, 3, 1, 1),
        conv([5, 11, 13, 40], 33, 1, 2, 0),
        conv([2, 5, 5, 256], 300, 3, 1, 1),
        conv([2, 41, 40, 3], 64, 7, 2, 3),
    ];
    for shape in shapes {
        for fusions in [PLAIN, FUSED, Fusions { ends: true, ..PLAIN }] {
            let case = Conv { shape, fusions, seed: 5 };
            let alone = bits(&case, 1);
            assert!(alone == bits(&case, 2) && alone == bits(&case, 4), "{case:?}");
        }
    }
}
