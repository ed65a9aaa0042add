//! Which kernel each convolution of ResNet-50 gets, and what is said of it. No GPU is asked.

use onesheet::device::cuda::Precision;
use onesheet::device::cuda::choose::conv::{
    Aligned, BackwardData, BackwardWeights, Forward, backward_data, backward_weights, forward,
};
use onesheet::device::cuda::choose::{Refusal, Target};
use onesheet::device::{Activation, ConvShape, Padding};
use onesheet::network::{Architecture, ModelConfig, Op, resnet50};

const A100: Target = Target { capability: (8, 0), multiprocessors: 108, precision: Precision::Bf16 };
const H100: Target = Target { capability: (9, 0), multiprocessors: 132, precision: Precision::Bf16 };

/// A layer, its tiles forward and in the data gradient, its tile in the weight gradient and into how many parts that is split.
type Row = (&'static str, &'static str, &'static str, &'static str, usize);

/// 128 posters of 150×150 on an A100, in bf16.
const PAPER_ON_A100: [Row; 20] = [
    ("conv2_block1_1_conv", "128x64", "128x64", "128x64", 107),
    ("conv2_block1_0_conv", "128x128", "128x64", "128x128", 54),
    ("conv2_block1_2_conv", "128x64", "128x64", "64x128", 43),
    ("conv2_block1_3_conv", "128x128", "128x64", "128x128", 54),
    ("conv2_block2_1_conv", "128x64", "128x128", "128x128", 54),
    ("conv3_block1_1_conv", "128x64", "128x128", "64x64", 27),
    ("conv3_block1_0_conv", "128x128", "128x128", "128x128", 27),
    ("conv3_block1_2_conv", "128x64", "128x64", "128x128", 24),
    ("conv3_block1_3_conv", "128x128", "128x64", "64x64", 20),
    ("conv3_block2_1_conv", "128x64", "128x128", "64x64", 20),
    ("conv4_block1_1_conv", "128x128", "128x128", "128x64", 13),
    ("conv4_block1_0_conv", "128x128", "128x128", "128x128", 6),
    ("conv4_block1_2_conv", "128x128", "128x128", "128x128", 6),
    ("conv4_block1_3_conv", "128x128", "128x128", "128x64", 6),
    ("conv4_block2_1_conv", "128x128", "128x128", "128x64", 6),
    ("conv5_block1_1_conv", "128x128", "128x128", "128x64", 3),
    ("conv5_block1_0_conv", "128x128", "128x128", "128x64", 1),
    ("conv5_block1_2_conv", "128x128", "128x128", "128x64", 1),
    ("conv5_block1_3_conv", "128x128", "128x128", "128x128", 3),
    ("conv5_block2_1_conv", "128x128", "128x128", "128x128", 3),
];

/// 32 of 256×256 on an H100.
const LARGE_ON_H100: [Row; 20] = [
    ("conv2_block1_1_conv", "128x64", "128x64", "128x64", 128),
    ("conv2_block1_0_conv", "128x128", "128x64", "128x128", 66),
    ("conv2_block1_2_conv", "128x64", "128x64", "64x128", 52),
    ("conv2_block1_3_conv", "128x128", "128x64", "128x128", 66),
    ("conv2_block2_1_conv", "128x64", "128x128", "128x128", 66),
    ("conv3_block1_1_conv", "128x128", "128x128", "64x64", 32),
    ("conv3_block1_0_conv", "128x128", "128x128", "128x64", 16),
    ("conv3_block1_2_conv", "128x128", "128x128", "128x64", 14),
    ("conv3_block1_3_conv", "128x128", "128x128", "64x64", 24),
    ("conv3_block2_1_conv", "128x128", "128x128", "64x64", 24),
    ("conv4_block1_1_conv", "128x128", "128x128", "128x64", 16),
    ("conv4_block1_0_conv", "128x128", "128x128", "128x64", 4),
    ("conv4_block1_2_conv", "128x128", "128x128", "128x128", 7),
    ("conv4_block1_3_conv", "128x128", "128x128", "128x64", 8),
    ("conv4_block2_1_conv", "128x128", "128x128", "128x64", 8),
    ("conv5_block1_1_conv", "128x64", "128x128", "128x64", 4),
    ("conv5_block1_0_conv", "128x128", "128x128", "128x64", 1),
    ("conv5_block1_2_conv", "128x64", "128x64", "128x64", 1),
    ("conv5_block1_3_conv", "128x128", "128x64", "128x64", 2),
    ("conv5_block2_1_conv", "128x64", "128x128", "128x64", 2),
];

/// ResNet-50's convolutions by name, with the padding of the layer in front.
fn convolutions(images: usize, size: usize) -> Vec<(String, ConvShape)> {
    let config = ModelConfig { image_size: size, ..ModelConfig::new(resnet50::NETWORK, 7) };
    let layers = Architecture::new(&config).unwrap().layers;
    let mut found = Vec::new();
    for layer in &layers {
        let Op::Conv { convolution: conv, .. } = layer.op else { continue };
        let input = &layers[layer.inputs[0]];
        let (extents, pad) = match input.op {
            Op::ZeroPad(pad) => (&layers[input.inputs[0]].output, pad),
            _ => (&input.output, conv.pad),
        };
        let [h, w, c] = extents[..] else { panic!("{extents:?}") };
        let shape = ConvShape::new([images, h, w, c], conv.filters, [conv.window; 2], conv.stride, pad).unwrap();
        found.push((layer.name.clone(), shape));
    }
    found
}

fn agrees(table: &[Row], target: Target, images: usize, size: usize) {
    let convolutions = convolutions(images, size);
    assert_eq!(convolutions.len(), 53);
    let mut seen = 0;
    for (name, shape) in &convolutions {
        // A block like the one before it has the same shapes.
        let like = |row: &&Row| convolutions.iter().any(|(other, its)| other == row.0 && its == shape);
        let Some(&(_, tile, data, weights, splits)) = table.iter().find(like) else {
            assert_eq!(name, "conv1_conv");
            continue;
        };
        seen += 1;
        for (owed, form, weights_form) in [
            (None, "", ""),
            (Some(Activation::Relu), "transformed_", ""),
            (Some(Activation::Relu6), "bounded_", "bounded_"),
            (Some(Activation::Linear), "bounded_", "bounded_"),
        ] {
            let kernel = forward(&target, shape, owed, Aligned::ALL).unwrap().kernel;
            assert_eq!(kernel.name(owed), format!("conv_forward_{form}{tile}"), "{name}");
            let kernel = backward_weights(&target, shape, owed, Aligned::ALL).kernel;
            assert_eq!(kernel.name(owed), format!("conv_backward_weights_{weights_form}{weights}"), "{name}");
            let BackwardWeights::Ampere(split) = kernel else { panic!("{name}'s weights") };
            assert_eq!(split.splits, splits, "{name}");
        }
        for epilogue in [false, shape.stride == 1] {
            let kernel = backward_data(&target, shape, epilogue, Aligned::ALL).unwrap().kernel;
            assert_eq!(kernel.name(), format!("conv_backward_data_{data}"), "{name}");
        }
    }
    assert_eq!(seen, 52);
}

#[test]
fn every_convolution_of_resnet_50_has_its_kernels() {
    agrees(&PAPER_ON_A100, A100, 128, 150);
    agrees(&LARGE_ON_H100, H100, 32, 256);
}

#[test]
fn three_channels_are_for_the_stems_kernels() {
    let stem = convolutions(128, 150)[0].1;
    for precision in [Precision::Bf16, Precision::Tf32] {
        let target = Target { precision, ..A100 };
        let choice = forward(&target, &stem, None, Aligned::ALL).unwrap();
        assert!(matches!(choice.kernel, Forward::Stem(_)), "{choice:?}");
        let multiple = target.lane();
        assert_eq!(choice.refused, [("conv_forward_*", Refusal::Channels { channels: 3, multiple })]);
        assert!(matches!(backward_weights(&target, &stem, None, Aligned::ALL).kernel, BackwardWeights::Stem(_)));
        // The image's own gradient, which nobody asks for.
        let data = backward_data(&target, &stem, false, Aligned::ALL).unwrap();
        assert!(matches!(data.kernel, BackwardData::CudaCore(_)), "{data:?}");
        assert_eq!(data.refused[0], ("conv_backward_data_*", Refusal::StridedFilter));
    }
}

#[test]
fn all_of_f32_is_for_cuda_cores() {
    let target = Target { precision: Precision::F32, ..A100 };
    for (name, shape) in convolutions(128, 150) {
        let choice = forward(&target, &shape, None, Aligned::ALL).unwrap();
        assert_eq!(choice.refused[0], ("conv_forward_*", Refusal::NotForF32));
        assert_eq!(choice.refused[1], ("conv_stem_forward", Refusal::NotForF32));
        let vector = if name == "conv1_conv" { "128x64_scalar" } else { "128x64_vector" };
        assert_eq!(choice.kernel.name(None), format!("conv_ffma_forward_{vector}"), "{name}");
    }
}

/// One thing at a time that the tensor cores refuse, in words.
#[test]
fn a_refusal_says_what_it_is() {
    let shape = |c, k, window: usize, stride| ConvShape::new([2, 20, 20, c], k, [window; 2], stride, 0).unwrap();
    let plain = shape(64, 64, 1, 1);
    let odd = Aligned { tensors: false, ..Aligned::ALL };
    let bare = Aligned { narrow: None, ..Aligned::ALL };
    for (shape, aligned, word) in [
        (shape(60, 64, 1, 1), Aligned::ALL, "60 channels are no multiple of 8"),
        (shape(64, 60, 1, 1), Aligned::ALL, "60 filters are no multiple of 8"),
        (shape(64, 64, 16, 1), Aligned::ALL, "filters of 16×16 taps, of which at most 15×15 fit"),
        (plain, odd, "an operand does not begin at a multiple of 16 bytes"),
        (plain, bare, "the weights have no copy in bf16"),
    ] {
        let choice = forward(&A100, &shape, None, aligned).unwrap();
        assert!(matches!(choice.kernel, Forward::CudaCore(_)), "{choice:?}");
        assert_eq!(choice.refused[0].1.to_string(), word);
    }
    let sees_padding = ConvShape::new([1, 8, 8, 64], 64, [1, 1], 2, Padding { before: 0, after: 1 }).unwrap();
    for (shape, epilogue, word) in [
        (sees_padding, false, "with a stride it is not for outputs that see only padding"),
        (shape(64, 64, 3, 2), false, "with a stride it takes filters of 1×1 without padding only"),
        (shape(64, 64, 1, 2), true, "with a stride it has no epilogue"),
    ] {
        let choice = backward_data(&A100, &shape, epilogue, Aligned::ALL).unwrap();
        assert!(matches!(choice.kernel, BackwardData::CudaCore(_)), "{choice:?}");
        assert_eq!(choice.refused[0].1.to_string(), word);
    }
    // Of the tiles each that was not taken has its price.
    let choice = forward(&A100, &plain, None, Aligned::ALL).unwrap();
    let names: Vec<_> = choice.refused.iter().map(|(name, refusal)| format!("{name}: {refusal}")).collect();
    assert_eq!(
        names,
        [
            "conv_forward_128x128: slower: 268 % of the chosen one's time by the estimate",
            "conv_forward_128x64: slower: 151 % of the chosen one's time by the estimate"
        ]
    );
    // The norm, the bias and the copy in bf16 are nothing to those who don't read them so.
    let unread = Aligned { bias: false, weights: false, ..Aligned::ALL };
    assert!(matches!(forward(&A100, &plain, Some(Activation::Relu), unread).unwrap().kernel, Forward::Ampere(_)));
    let unread = Aligned { norm: false, narrow: None, ..Aligned::ALL };
    assert!(matches!(
        backward_weights(&A100, &plain, Some(Activation::Relu), unread).kernel,
        BackwardWeights::Ampere(_)
    ));
}
