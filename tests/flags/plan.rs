//! The flags of `plan`. What a step costs is counted by the library, with settings that are typed here.

use crate::{Place, assert_all_are_typed};
use onesheet::device::Precision;
use onesheet::device::counting::Habits;
use onesheet::device::cuda::choose::Target;
use onesheet::network::{Architecture, ModelConfig, Trainable, resnet50, resnet50_v1_5};
use onesheet::ops::pool::Pooling;
use onesheet::plan::Plan;
use onesheet::plan::cost::{Costs, floor, total};
use onesheet::plan::gpus::GPUS;
use onesheet::training::dry_run;
use onesheet::training::recipe::Recipe;
use std::collections::BTreeSet;

/// What the flags behind `plan --json` ask, and what is then counted.
struct Question {
    words: &'static str,
    config: fn() -> ModelConfig,
    habits: Habits,
    batch: usize,
    without: &'static [&'static str],
    recompute: bool,
    gpu: &'static str,
}

const H100: Target = Target { capability: (9, 0), multiprocessors: 132, precision: Precision::Bf16 };

const fn asked(words: &'static str) -> Question {
    let config = || ModelConfig::new(resnet50::NETWORK, 7);
    Question { words, config, habits: Habits::Gpu(H100), batch: 128, without: &[], recompute: false, gpu: "h100" }
}

const QUESTIONS: [Question; 12] = [
    asked(""),
    Question { config: || ModelConfig::new(resnet50_v1_5::NETWORK, 7), ..asked("--network resnet50-v1.5") },
    Question {
        config: || ModelConfig { image_size: 64, ..ModelConfig::new(resnet50::NETWORK, 7) },
        ..asked("--image-size 64")
    },
    Question { batch: 3, ..asked("--batch 3") },
    Question { habits: Habits::Processor(Precision::F32), ..asked("--device cpu --precision f32") },
    Question { habits: Habits::Processor(Precision::Bf16), ..asked("--device cpu --precision bf16") },
    Question { habits: Habits::Gpu(Target { precision: Precision::Tf32, ..H100 }), ..asked("--precision tf32") },
    Question {
        config: || ModelConfig { trainable: Trainable::Last(40), ..ModelConfig::new(resnet50::NETWORK, 7) },
        ..asked("--trainable last:40")
    },
    Question {
        config: || ModelConfig { pooling: Pooling::Max, ..ModelConfig::new(resnet50::NETWORK, 7) },
        ..asked("--pooling max")
    },
    Question { recompute: true, ..asked("--recompute") },
    Question { without: &["debt", "junction"], ..asked("--without debt --without junction") },
    Question {
        habits: Habits::Gpu(Target { capability: (8, 9), multiprocessors: 128, ..H100 }),
        gpu: "rtx4090",
        ..asked("--gpu rtx4090")
    },
];

#[test]
fn plan_counts_what_its_flags_ask() {
    assert_all_are_typed("plan", QUESTIONS.iter().map(|question| question.words).chain(["plan --json"]));
    let place = Place::new();
    let mut answers = BTreeSet::new();
    for Question { words, config, habits, batch, without, recompute, gpu } in &QUESTIONS {
        let config = config();
        let kept = Plan::without(&Architecture::new(&config).unwrap(), config.momentum, without).unwrap();
        let costs = |plan| dry_run::costs_of(&config, *habits, *batch, plan, &Recipe::default()).unwrap();
        let kept_costs = costs(kept.clone());
        let costs = if *recompute { costs(kept.recomputing()) } else { kept_costs.clone() };
        let rates = GPUS.iter().find(|known| known.name == *gpu).unwrap().rates(habits.precision());
        let told = place.run_to(0, &format!("plan --json {words}"));
        let lines = told.objects();
        let of_kind = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
        let steps = of_kind("step");
        assert_eq!(steps.len(), costs.steps.len(), "{words}");
        for (line, step) in steps.iter().zip(&costs.steps) {
            let line = &line["step"];
            let flops = |pass: &str| line[pass]["flops"].as_u64().unwrap();
            assert_eq!(line["layers"].as_array().unwrap().len(), step.layers.len());
            assert_eq!(flops("forward") + flops("backward"), total(&step.launches).flops, "{words}: {line}");
            assert_eq!(line["kept_bytes"], step.kept, "{words}: {line}");
            let kernels: Vec<&str> =
                line["kernels"].as_array().unwrap().iter().map(|kernel| kernel["kernel"].as_str().unwrap()).collect();
            let expected: Vec<&str> = step.launches.iter().map(|counted| counted.launch.kernel).collect();
            assert_eq!(kernels, expected, "{words}: {line}");
        }
        assert_eq!(of_kind("plan")[0]["kept_bytes"], costs.kept(), "{words}");
        let all = &of_kind("total")[0]["total"];
        let expected = |costs: &Costs| (total(costs.launches()).bytes(), costs.launches().count(), costs.most_bytes);
        let found = (all["bytes"].as_u64().unwrap(), all["launches"].as_u64().unwrap(), all["memory_bytes"].as_u64());
        let (bytes, launches, memory) = expected(&costs);
        assert_eq!(found, (bytes, launches as u64, Some(memory as u64)), "{words}");
        let beside = of_kind("total")[1];
        assert_eq!(beside["total"]["without"] == "recompute", *recompute, "{words}");
        if *recompute {
            assert_eq!(beside["total"]["memory_bytes"], kept_costs.most_bytes, "{words}");
        }
        let us = all["floor_us"].as_f64().unwrap();
        assert!((us / 1e6 / floor(costs.launches(), &rates) - 1.0).abs() < 1e-9, "{words}: {us}");
        answers.insert(format!("{all}"));
    }
    assert_eq!(answers.len(), QUESTIONS.len(), "each question has an answer of its own");
}

#[test]
fn plan_prints_each_step_and_what_each_rule_saves() {
    let place = Place::new();
    let told = place.run_to(0, "plan");
    for line in
        ["conv1_pad .. conv1_relu", "conv5_block3_add .. conv5_block3_out", "genres", "kept for the backward pass"]
    {
        assert!(told.stdout.lines().any(|found| found.starts_with(line)), "{line}: {}", told.stdout);
    }
    for rule in ["-", "padding", "norm", "activation", "debt", "junction", "all"] {
        assert!(told.stdout.lines().any(|line| line.split_whitespace().next() == Some(rule)), "{rule}");
    }
    let eager = place.run_to(0, "plan --without all --json");
    assert_eq!(eager.objects().iter().filter(|line| line["kind"] == "step").count(), 176 + 3);
    for (words, reason) in [
        ("plan --without norms", "norm"),
        ("plan --gpu h1000", "rtx4090"),
        ("plan --network resnet", "resnet50-v1.5"),
        ("plan --batch 0", "batch"),
        ("plan --trainable last:999", "N up to 176, the layers of ResNet-50"),
        ("plan --device auto", "cuda"),
    ] {
        assert!(place.run_to(2, words).stderr.contains(reason), "{words}");
    }
    // Nothing is computed, so nothing is too large.
    place.run_to(0, "plan --device cpu --batch 65535 --image-size 1024");
    // A rule that finds nothing to take saves nothing.
    let mobilenet = place.run_to(0, "plan --network mobilenet").stdout;
    assert!(
        mobilenet.lines().any(|line| line.starts_with("junction ") && line.ends_with("nothing here")),
        "{mobilenet}"
    );
    let refused = place.run_to(2, "plan --device cpu --precision tf32");
    assert!(refused.stderr.contains("f32 or bf16"), "{refused:?}");
}
