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
    use crate::network::{ModelConfig, Place, Trainable, resnet50};

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

    #[test]
    fn freezing_more_than_there_is_says_so() {
        let config = ModelConfig { trainable: Trainable::Last(177), ..ModelConfig::new(resnet50::NETWORK, 7) };
        let error = Architecture::new(&config).unwrap_err().to_string();
        assert!(error.contains("last:177") && error.contains("176"), "{error}");
    }
}
