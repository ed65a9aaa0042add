//! The layer table that `train --summary` prints.

use super::Architecture;
use std::fmt;

/// Displays an [`Architecture`] as Keras's `summary` does: a row a layer with its output and its parameters, then the
/// totals.
pub struct Summary<'a>(pub &'a Architecture);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary(architecture) = self;
        let name_width = architecture.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0);
        let kind_width = architecture.layers.iter().map(|layer| layer.kind().len()).max().unwrap_or(0);
        let mut row = |name: &str, kind: &str, output: &str, parameters: &str, note: &str| {
            let line = format!("{name:name_width$}  {kind:kind_width$}  {output:>16}  {parameters:>10}  {note}");
            writeln!(f, "{}", line.trim_end())
        };
        row("layer", "kind", "output", "parameters", "")?;
        for layer in &architecture.layers {
            let output = layer.output.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            let parameters = thousands(architecture.parameters_of(layer));
            let is_frozen = architecture.tensors_of(layer).iter().any(|tensor| architecture.is_frozen(tensor));
            row(&layer.name, layer.kind(), &output, &parameters, if is_frozen { "frozen" } else { "" })?;
        }
        let (total, trainable) = (architecture.total_parameters(), architecture.trainable_parameters());
        writeln!(f)?;
        writeln!(f, "parameters     {:>10}", thousands(total))?;
        writeln!(f, "trainable      {:>10}", thousands(trainable))?;
        write!(f, "not trainable  {:>10}", thousands(total - trainable))
    }
}

/// 25817991 as `25,817,991`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{ModelConfig, NamedTensor, Place, Trainable, resnet50, resnet50_v1_5};

    #[test]
    fn counts_are_the_papers() {
        let mut config = ModelConfig::new(resnet50::NETWORK, 7);
        let all = Architecture::new(&config).unwrap();
        assert_eq!((all.total_parameters(), all.trainable_parameters()), (25_817_991, 25_764_871));
        assert_eq!((all.base_layers, all.layers.len()), (176, 179));
        config.trainable = Trainable::Last(40);
        let last = Architecture::new(&config).unwrap();
        assert_eq!((last.total_parameters(), last.trainable_parameters()), (25_817_991, 18_062_087));
        let first = last.tensors.iter().find(|tensor| match tensor.place {
            Place::Weights(span) => span.range().start == last.trainable_from,
            Place::Averages(_) => false,
        });
        assert_eq!(first.unwrap().name, "conv4_block6_2_conv/kernel");
        let text = Summary(&last).to_string();
        assert!(text.contains("conv5_block3_out"), "{text}");
        assert!(
            text.ends_with("parameters     25,817,991\ntrainable      18,062,087\nnot trainable   7,755,904"),
            "{text}"
        );
    }

    /// torchvision counts 25,557,032 parameters in its `resnet50`, of which its classifier has 2,049,000.
    #[test]
    fn counts_of_v1_5_are_torchvisions() {
        let mut config = ModelConfig::new(resnet50_v1_5::NETWORK, 7);
        let all = Architecture::new(&config).unwrap();
        let (base, head) = all.base_and_head();
        let size = |tensors: &[NamedTensor]| tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
        let (base, head): (usize, usize) = (size(base), size(head));
        let averages = all.averages.len();
        assert_eq!((base - averages, averages, head), (25_557_032 - 2_049_000, 2 * 26_560, 2_230_279));
        assert_eq!((all.total_parameters(), all.trainable_parameters()), (25_791_431, 25_738_311));
        // Layer by layer it is Keras's list, so the same ones are frozen.
        assert_eq!((all.base_layers, all.layers.len()), (176, 179));
        config.trainable = Trainable::Last(40);
        let text = Summary(&Architecture::new(&config).unwrap()).to_string();
        let keras = ModelConfig { trainable: Trainable::Last(40), ..ModelConfig::new(resnet50::NETWORK, 7) };
        let keras = Summary(&Architecture::new(&keras).unwrap()).to_string();
        let frozen = |text: &str| {
            let rows = text.lines().filter(|line| line.ends_with("frozen"));
            rows.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(frozen(&text), frozen(&keras));
    }

    #[test]
    fn freezing_more_than_there_is_says_so() {
        let config = ModelConfig { trainable: Trainable::Last(177), ..ModelConfig::new(resnet50::NETWORK, 7) };
        let error = Architecture::new(&config).unwrap_err().to_string();
        assert_eq!(error, "last:177 asks for more layers than the base of ResNet-50 has: 176");
    }
}
