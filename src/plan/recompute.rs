//! Which values a training step keeps if it may compute the others again.
//!
//! The forward pass is cut into segments. Of each but the last it keeps what later ones read, and nothing else; the backward pass runs a
//! segment again just before its own, from what earlier ones have left. So at the worst of times there are the values kept at all cuts so
//! far, those of one segment, and the gradients of one step. The cuts are where that is least (Chen et al. 2016, *Training deep nets with
//! sublinear memory cost*, whose segments are of one length): in a residual network mostly between blocks, whose one value is what a cut costs.

use super::{Filters, Step, Work};
use crate::network::Layer;
use std::ops::Range;

/// The segments, in order.
pub(super) fn segments(steps: &[Step], layers: &[Layer]) -> Vec<Range<usize>> {
    let sizes: Vec<usize> = steps.iter().map(|step| size(step, layers)).collect();
    let total = sizes.iter().sum::<usize>() * 4;
    let (mut too_little, mut enough) = (0, total);
    let mut found: Vec<Range<usize>> = std::iter::once(0..steps.len()).collect();
    while too_little + 1 < enough {
        let budget = too_little + (enough - too_little) / 2;
        match within(budget, steps, &sizes) {
            Some(segments) => (enough, found) = (budget, segments),
            None => too_little = budget,
        }
    }
    found
}

/// Elements of a poster's values that a step leaves in memory.
fn size(step: &Step, layers: &[Layer]) -> usize {
    let output: usize = layers[step.output()].output.iter().product();
    match step.work {
        // Nothing but a debt of the value in front.
        Work::Norm(_) | Work::Activation(_) if step.leaves_debt => 0,
        // The one convolution's output, and the other's.
        Work::Separable(conv) | Work::ConvNorm { conv: Filters::Separable(conv), .. } => {
            let channels = layers[step.inputs[0]].output.last().copied().unwrap_or(1);
            output + output / conv.pointwise.filters * channels
        }
        _ => output,
    }
}

/// Segments that take at most `budget` elements of a poster at any time; of those the ones that keep the least.
fn within(budget: usize, steps: &[Step], sizes: &[usize]) -> Option<Vec<Range<usize>>> {
    // Behind which step each step's value is read last.
    let place = |layer: usize| steps.iter().position(|step| step.output() == layer);
    let mut last_read = vec![0; steps.len()];
    for (at, step) in steps.iter().enumerate() {
        step.inputs.iter().filter_map(|&input| place(input)).for_each(|input| last_read[input] = at);
    }
    // For a cut in front of each step: the least that all cuts up to there keep, and the one before it.
    let mut best: Vec<Option<(usize, usize)>> = vec![None; steps.len() + 1];
    best[0] = Some((0, 0));
    for end in 1..=steps.len() {
        for start in 0..end {
            let Some((kept, _)) = best[start] else { continue };
            let segment = start..end;
            let values: usize = sizes[segment.clone()].iter().sum();
            // What arrives, what is formed of it, and what another way has left.
            let gradients = 3 * sizes[segment.clone()].iter().max().copied().unwrap_or(0);
            if kept + values + gradients > budget {
                continue;
            }
            let read_later = segment.filter(|&step| last_read[step] >= end);
            let kept = kept + read_later.map(|step| sizes[step]).sum::<usize>();
            if best[end].is_none_or(|(least, _)| kept < least) {
                best[end] = Some((kept, start));
            }
        }
    }
    let mut segments = Vec::new();
    let mut end = steps.len();
    while end > 0 {
        let (_, start) = best[end]?;
        segments.push(start..end);
        end = start;
    }
    segments.reverse();
    Some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Architecture, ModelConfig, Network, resnet50, xception};
    use crate::plan::Plan;

    /// What segments that end at the steps of `cuts` take at the worst of times, summed up value by value.
    fn takes(cuts: &[usize], steps: &[Step], sizes: &[usize]) -> usize {
        let mut most = 0;
        for pair in cuts.windows(2) {
            let inside = &sizes[pair[0]..pair[1]];
            // Each value from before that somebody reads behind the cut where it is kept.
            let kept = (0..pair[0]).filter(|&at| {
                let cut = cuts.iter().find(|&&cut| cut > at).unwrap();
                steps[*cut..].iter().any(|step| step.inputs.contains(&steps[at].output()))
            });
            let kept: usize = kept.map(|at| sizes[at]).sum();
            most = most.max(kept + inside.iter().sum::<usize>() + 3 * inside.iter().max().unwrap());
        }
        most
    }

    fn plan(network: Network) -> Plan {
        let config = ModelConfig { image_size: 64, ..ModelConfig::new(network, 7) };
        Plan::new(&Architecture::new(&config).unwrap(), 0.9).unwrap()
    }

    #[test]
    fn no_other_cuts_take_less() {
        for network in [resnet50::MINIATURE, xception::MINIATURE] {
            let Plan { layers, steps, .. } = plan(network);
            let sizes: Vec<usize> = steps.iter().map(|step| size(step, &layers)).collect();
            let found = segments(&steps, &layers);
            let ends: Vec<usize> = std::iter::once(0).chain(found.iter().map(|segment| segment.end)).collect();
            assert!(ends.len() > 2 && ends.ends_with(&[steps.len()]), "{ends:?}");
            // The last steps are small, and are left alone.
            let (first, end) = (12.min(steps.len() - 1), steps.len());
            let least = (0..1 << first).map(|chosen| {
                let cuts = (0..first).filter(|at| chosen >> at & 1 == 1).map(|at| at + 1);
                let cuts: Vec<usize> = std::iter::once(0).chain(cuts).chain([end]).collect();
                takes(&cuts, &steps, &sizes)
            });
            assert!(takes(&ends, &steps, &sizes) <= least.min().unwrap(), "{network}: {ends:?}");
        }
    }

    #[test]
    fn resnet_50_is_cut_between_its_blocks() {
        let plan = plan(resnet50::NETWORK).recomputing();
        let last = |segment: &Range<usize>| &plan.layers[plan.steps[segment.end - 1].output()].name;
        let names: Vec<&String> = plan.segments[..plan.segments.len() - 1].iter().map(last).collect();
        assert!(
            names.len() > 4 && names.iter().all(|name| name.ends_with("_out") || name.ends_with("pool")),
            "{names:?}"
        );
    }
}
