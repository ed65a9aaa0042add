//! What a step is said to cost, against the roofline that the kernels were designed by and against what CUDA launches.

#[path = "support/cuda.rs"]
mod cuda;
#[path = "support/networks.rs"]
mod networks;

use networks::SUMS;
use onesheet::device::counting::Habits;
use onesheet::device::cpu::Cpu;
use onesheet::device::cuda::choose::Target;
use onesheet::device::{Measured, Memory, Pass, PixelFormat, Placement, Precision};
use onesheet::model::Model;
use onesheet::network::{Architecture, MINIATURES, ModelConfig, Network, mobilenet, resnet50, vgg16, xception};
use onesheet::plan::Plan;
use onesheet::plan::cost::{Costs, of_pass, total};
use onesheet::plan::fuse::RULES;
use onesheet::training::dry_run;
use onesheet::training::learner::Learner;
use onesheet::training::recipe::Recipe;
use std::collections::BTreeMap;
use std::rc::Rc;

const H100: Target = Target { capability: (9, 0), multiprocessors: 132, precision: Precision::Bf16 };

fn resnet_50() -> ModelConfig {
    ModelConfig::new(resnet50::NETWORK, 7)
}

/// The roofline model counts, for a step on 128 posters, 1,431,625,531,392 FLOPs of products; and of the design with statistics
/// and reductions in the epilogues, batch norm and ReLU in the load path, and Adam writing the narrow copy, 18,459,159,946 bytes. (With
/// a copy in a pass of its own, 18,665,438,274.)
#[test]
fn resnet_50s_totals_are_those_of_the_roofline() {
    let costs = dry_run::costs(&resnet_50(), Habits::Gpu(H100), 128, &[]).unwrap();
    let products = ["conv_forward", "conv_stem_forward", "conv_backward", "conv_stem_backward", "dense"];
    let is_product = |kernel: &str| products.iter().any(|name| kernel.starts_with(name));
    let flops: u64 = costs
        .launches()
        .map(|counted| &counted.launch)
        .filter(|launch| is_product(launch.kernel))
        .map(|launch| launch.work.flops)
        .sum();
    assert!((flops as f64 / 1_431_625_531_392.0 - 1.0).abs() < 1e-3, "{flops}");
    let bytes = total(costs.launches()).bytes() as f64;
    assert!((bytes / 18_459_159_946.0 - 1.0).abs() < 0.01, "{bytes}");
    // Eager, where a bias is added, and its gradient summed, while the output and its gradient are there anyway: 28,289,498,178 without
    // biases, 32,123,796,546 with passes for them.
    let eager = dry_run::costs(&resnet_50(), Habits::Gpu(H100), 128, &RULES.map(|rule| rule.name)).unwrap();
    let bytes = total(eager.launches()).bytes() as f64;
    assert!((28_289_498_178.0..32_123_796_546.0).contains(&bytes), "{bytes}");
}

#[test]
fn each_rule_saves_bytes_and_launches_and_costs_no_product() {
    for rule in RULES {
        // ResNet-50 has a batch norm behind each convolution.
        let config = if rule.name == "epilogue" { ModelConfig::new(vgg16::NETWORK, 7) } else { resnet_50() };
        let of = |without: &[&str]| dry_run::costs(&config, Habits::Gpu(H100), 8, without).unwrap();
        let (fused, without) = (of(&[]), of(&[rule.name]));
        // Without an epilogue the activation is left to the reader, which costs no launch: but bias gradients then read what arrives.
        let launches = [without.launches().count(), fused.launches().count()];
        assert!(launches[0] > launches[1] || rule.name == "epilogue", "{}", rule.name);
        assert!(total(without.launches()).bytes() > total(fused.launches()).bytes(), "{}", rule.name);
        assert!(without.most_bytes >= fused.most_bytes, "{}", rule.name);
        assert!(without.kept() >= fused.kept(), "{}", rule.name);
    }
}

/// The widths of a poster's values that the backward pass needs, summed up by hand from the published table of ResNet-50 at 150×150:
/// each convolution's output, the stem's pooled one, and each block's output; and of the narrow bf16, beside them the scales and shifts.
#[test]
fn what_is_kept_is_what_the_steps_leave() {
    let kept = |batch| dry_run::costs(&resnet_50(), Habits::Gpu(H100), batch, &[]).unwrap().kept();
    let a_poster = (kept(3) - kept(2)) as f64;
    assert!((a_poster / (2.0 * 7_772_019.0) - 1.0).abs() < 0.01, "{a_poster}");
}

/// What a sum's ways owe is paid by the sum, and a ReLU in front by who reads it. Left are the ReLU that a sum of two finished ways reads,
/// and going back those that a pool or such a sum has read, for they undo none.
#[test]
fn sums_and_relus_in_front_cost_no_passes_of_their_own() {
    let costs = dry_run::costs(&ModelConfig::new(SUMS, 7), Habits::Gpu(H100), 2, &[]).unwrap();
    let count = |kernel: &str| costs.launches().filter(|counted| counted.launch.kernel == kernel).count();
    assert_eq!(["residual_forward", "residual_forward_projected", "batch_norm_apply"].map(count), [2, 1, 1]);
    assert_eq!(["residual_backward_unmasked", "residual_backward_unmasked_projected"].map(count), [2, 1]);
    assert_eq!(["batch_norm_backward_reduce", "residual_backward"].map(count), [2, 0]);
}

#[test]
fn frozen_layers_cost_no_backward_pass() {
    let config = ModelConfig { trainable: "last:40".parse().unwrap(), ..resnet_50() };
    let costs = dry_run::costs(&config, Habits::Gpu(H100), 8, &[]).unwrap();
    let first = costs.steps.iter().find(|step| step.layers.contains(&"conv3_block1_1_conv".to_owned())).unwrap();
    assert_eq!((of_pass(&first.launches, Pass::Backward).count(), first.kept), (0, 0));
    let whole = dry_run::costs(&resnet_50(), Habits::Gpu(H100), 8, &[]).unwrap();
    assert!(costs.kept() * 3 < whole.kept() && costs.most_bytes < whole.most_bytes);
}

/// The counted launches are those of a step on CUDA, kernel by kernel, and so are the FLOPs. What CUDA's kernels move beside their
/// operands (partial sums) is all that the bytes differ by; that CUDA moves what it says is for other tests.
#[test]
fn the_launches_are_cudas() {
    compare_with_cuda(resnet50::NETWORK, 64, 1.03);
    compare_with_cuda(mobilenet::NETWORK, 64, 1.03);
    // Its convolutions have biases and ReLUs of their own.
    compare_with_cuda(vgg16::NETWORK, 32, 1.03);
    // Two convolutions are one of its layers.
    compare_with_cuda(xception::NETWORK, 32, 1.03);
    // Of three channels the partial sums are most of what moves.
    compare_with_cuda(SUMS, 32, 3.0);
}

/// CUDA moves at most so many times the bytes.
fn compare_with_cuda(network: Network, size: usize, most: f64) {
    const BATCH: usize = 2;
    let config = ModelConfig { image_size: size, ..ModelConfig::new(network, 7) };
    let device = Rc::new(cuda::device(Precision::Bf16));
    let mut learner = Learner::new(Rc::clone(&device), config.clone(), 1).unwrap();
    let pixels = vec![7; BATCH * size * size * 3];
    let pixels = device.upload_pixels(&pixels, &[Placement::default(); BATCH]).unwrap();
    let format = PixelFormat { order: [0, 1, 2], scale: 1.0, shift: [0.0; 3] };
    let (_, planned) = device.planned(|| {
        learner.submit(pixels, BATCH, &format, &[0; 7 * BATCH], &[1.0; 7], 1e-3).unwrap();
        learner.outcome().unwrap()
    });
    let costs = dry_run::costs(&config, Habits::Gpu(device.target()), BATCH, &[]).unwrap();
    // The driver sets and copies memory, which is no launch of ours; to another value than zero a small kernel sets it.
    let is_launch = |kernel: &str| !["fill", "fill_f32", "copy"].contains(&kernel);
    let planned: Vec<_> = planned.into_iter().filter(|planned| is_launch(planned.kernel)).collect();
    let counted: Vec<_> =
        costs.launches().map(|counted| &counted.launch).filter(|launch| is_launch(launch.kernel)).collect();
    let mut surplus: BTreeMap<&str, i64> = BTreeMap::new();
    planned.iter().for_each(|planned| *surplus.entry(planned.kernel).or_default() += 1);
    counted.iter().for_each(|launch| *surplus.entry(launch.kernel).or_default() -= 1);
    // Partial sums are added up, and a pool's winners found, in launches of their own.
    surplus.retain(|kernel, count| *count != 0 && !["conv_backward_weights_sum", "max_pool_winners"].contains(kernel));
    assert_eq!(surplus, BTreeMap::new(), "{network}");
    let operands = planned.iter().filter(|planned| planned.kernel != "conv_backward_weights_sum");
    let flops = |works: &mut dyn Iterator<Item = u64>| works.sum::<u64>();
    assert_eq!(
        flops(&mut operands.clone().map(|planned| planned.launch.work.flops)),
        flops(&mut counted.iter().map(|launch| launch.work.flops))
    );
    let theirs: u64 = planned.iter().map(|planned| planned.launch.work.bytes()).sum();
    let ours: u64 = counted.iter().map(|launch| launch.work.bytes()).sum();
    assert!((1.0..most).contains(&(theirs as f64 / ours as f64)), "{network}: {theirs} for {ours}");
}

/// A network ready to train on the processor, and what a step of it is said to cost.
fn on_the_processor(
    network: Network,
    [size, batch]: [usize; 2],
    precision: Precision,
    recompute: bool,
) -> (Rc<Cpu>, Learner<Cpu>, Costs) {
    let config = ModelConfig { image_size: size, ..ModelConfig::new(network, 7) };
    let device = Rc::new(Cpu::storing(precision));
    let mut model = Model::new(Rc::clone(&device), config.clone(), 1).unwrap();
    if recompute {
        model.set_plan(model.plan().clone().recomputing());
    }
    let costs = dry_run::costs_of(&config, device.habits(), batch, model.plan().clone(), &Recipe::default()).unwrap();
    (device, Learner::by(&Recipe::default(), model).unwrap(), costs)
}

fn submit(device: &Cpu, learner: &mut Learner<Cpu>, [size, batch]: [usize; 2]) {
    let pixels = vec![7; batch * size * size * 3];
    let pixels = device.upload_pixels(&pixels, &vec![Placement::default(); batch]).unwrap();
    let format = PixelFormat { order: [0, 1, 2], scale: 1.0, shift: [0.0; 3] };
    learner.submit(pixels, batch, &format, &vec![0; 7 * batch], &[1.0; 7], 1e-3).unwrap();
}

/// What buffers have in use on the processor in two steps, workspaces and all, with the posters' pixels. The memory in which they lie is a
/// fifth more at most.
#[test]
fn the_memory_is_the_processors() {
    const EXTENTS: [usize; 2] = [64, 16];
    let pixels = EXTENTS[1] * EXTENTS[0] * EXTENTS[0] * 3;
    let mut off = Vec::new();
    for network in MINIATURES.into_iter().chain([SUMS]) {
        for (precision, recompute) in [(Precision::F32, false), (Precision::F32, true), (Precision::Bf16, false)] {
            let (device, mut learner, costs) = on_the_processor(network, EXTENTS, precision, recompute);
            (0..2).for_each(|_| submit(&device, &mut learner, EXTENTS));
            let by = |bytes: usize| (bytes + pixels) as f64 / costs.most_bytes as f64 - 1.0;
            off.push((by(device.most_bytes()), by(device.held_bytes()), network.name, precision.name(), recompute));
        }
    }
    assert!(off.iter().all(|(in_use, held, ..)| in_use.abs() < 0.05 && *held < 0.2), "{off:?}");
}

/// Half of what is kept by ResNet-50 or more, for less than a forward pass's work; and less than all by each network.
#[test]
fn computing_again_takes_less_memory_for_less_than_a_forward_pass() {
    for network in [resnet50::NETWORK, mobilenet::NETWORK, vgg16::NETWORK, xception::NETWORK] {
        let config = ModelConfig::new(network, 7);
        let plan = Plan::new(&Architecture::new(&config).unwrap(), 0.99).unwrap();
        let of = |plan| {
            dry_run::costs_of(&config, Habits::Processor(Precision::F32), 128, plan, &Recipe::default()).unwrap()
        };
        let (kept, again) = (of(plan.clone()), of(plan.recomputing()));
        assert!(again.most_bytes < kept.most_bytes && again.kept() < kept.kept(), "{network}");
        let flops = |costs: &Costs| total(costs.launches()).flops;
        let forward = total(of_pass(kept.launches(), Pass::Forward)).flops;
        let more = flops(&again) - flops(&kept);
        assert!((1..forward).contains(&more), "{network}: {more} of {forward}");
        assert!(network != resnet50::NETWORK || 2 * again.most_bytes < kept.most_bytes, "{}", again.most_bytes);
    }
}

/// On the processor, where every kernel counts what it reads and writes itself: in either width, all of it.
#[test]
fn the_launches_are_the_processors() {
    const EXTENTS: [usize; 2] = [33, 3];
    for (network, precision) in [resnet50::NETWORK, mobilenet::NETWORK, vgg16::MINIATURE, xception::MINIATURE, SUMS]
        .into_iter()
        .flat_map(|network| [(network, Precision::F32), (network, Precision::Bf16)])
    {
        // In one of the two with values that are computed again.
        let recompute = precision == Precision::Bf16;
        let (device, mut learner, costs) = on_the_processor(network, EXTENTS, precision, recompute);
        device.profiler().unwrap().start();
        submit(&device, &mut learner, EXTENTS);
        device.profiler().unwrap().stop();
        let measured = device.measured().unwrap();
        let sums = |launches: &mut dyn Iterator<Item = &Measured>| {
            let mut sums: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
            for Measured { kernel, work, .. } in launches {
                let sum = sums.entry(kernel).or_default();
                *sum = [sum[0] + 1, sum[1] + work.reads, sum[2] + work.writes, sum[3] + work.flops];
            }
            sums
        };
        let (found, counted) = (sums(&mut measured.iter()), sums(&mut costs.launches().map(|counted| &counted.launch)));
        assert_eq!(found, counted, "{network} in {}", precision.name());
    }
}
