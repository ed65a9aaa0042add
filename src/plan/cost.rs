//! What a training step costs: the launches of each step of a plan, and what they must read, write and multiply.

use super::Plan;
use crate::device::counting::Counted;
use crate::device::{Pass, Rates, Work};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a training step costs, by the steps of its plan.
#[derive(Clone, Debug)]
pub struct Costs {
    /// Of each step, in order.
    pub steps: Vec<StepCost>,
    /// Launches that belong to no layer: the loss, gradients set to zero and their norm, the running averages, Adam.
    pub beside: Vec<Counted>,
    /// The most memory that is taken at one time: weights, moments and all.
    pub most_bytes: usize,
}

/// What one step costs.
#[derive(Clone, Debug)]
pub struct StepCost {
    /// The layers that it covers, by Keras's names.
    pub layers: Vec<String>,
    /// Its launches in both passes.
    pub launches: Vec<Counted>,
    /// Bytes that its forward pass leaves for the backward pass.
    pub kept: usize,
}

impl Costs {
    /// Sorts the `launches` of a training step by the plan's steps. `kept` are the bytes that were taken at the end of the forward
    /// pass, by layer.
    pub fn new(plan: &Plan, launches: Vec<Counted>, kept: &BTreeMap<Rc<str>, usize>, most_bytes: usize) -> Self {
        let names =
            plan.steps().iter().map(|step| step.layers.iter().map(|&at| plan.layers()[at].name.clone()).collect());
        let mut steps: Vec<StepCost> = names.map(|layers| StepCost { layers, launches: Vec::new(), kept: 0 }).collect();
        let mut beside = Vec::new();
        for launch in launches {
            let of = |step: &&mut StepCost| step.layers.iter().any(|layer| **layer == *launch.launch.scope.layer);
            match steps.iter_mut().find(of) {
                Some(step) => step.launches.push(launch),
                None => beside.push(launch),
            }
        }
        for step in &mut steps {
            step.kept = step.layers.iter().filter_map(|layer| kept.get(&**layer)).sum();
        }
        Costs { steps, beside, most_bytes }
    }

    /// All launches.
    pub fn launches(&self) -> impl Iterator<Item = &Counted> {
        self.steps.iter().flat_map(|step| &step.launches).chain(&self.beside)
    }

    /// Bytes that all steps leave for the backward pass.
    pub fn kept(&self) -> usize {
        self.steps.iter().map(|step| step.kept).sum()
    }
}

/// What some launches must do together.
pub fn total<'a>(launches: impl IntoIterator<Item = &'a Counted>) -> Work {
    launches.into_iter().fold(Work::default(), |sum, counted| {
        let work = counted.launch.work;
        Work { reads: sum.reads + work.reads, writes: sum.writes + work.writes, flops: sum.flops + work.flops }
    })
}

/// Seconds that some launches take at least, one after the other, each with its operands from memory.
pub fn floor<'a>(launches: impl IntoIterator<Item = &'a Counted>, rates: &Rates) -> f64 {
    launches.into_iter().fold(0.0, |sum, counted| sum + rates.floor(&counted.launch.work))
}

/// Those of one pass.
pub fn of_pass<'a>(launches: impl IntoIterator<Item = &'a Counted>, pass: Pass) -> impl Iterator<Item = &'a Counted> {
    launches.into_iter().filter(move |counted| counted.launch.scope.pass == pass)
}
