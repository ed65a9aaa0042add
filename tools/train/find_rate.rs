//! `train --find-lr`: a table of learning rates and losses, and the rate to begin with.

use super::{Args, Run, batch, begun};
use crate::console::{Console, print, program};
use crate::device::Opened;
use crate::exit::Usage;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::Device;
use onesheet::network::import::Weights;
use onesheet::training::config::RunConfig;
use onesheet::training::trainer;
use onesheet::training::trainer::find_rate::{Tried, suggested};
use serde_json::json;
use std::rc::Rc;
use std::sync::Arc;

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

/// Tries rates on a run that is forgotten afterwards: nothing is written.
pub fn run(args: &Args, console: Console) -> anyhow::Result<()> {
    let Some(data) = &args.data else {
        return Err(
            Usage(format!("--find-lr tries rates on posters: {} train --find-lr --data FILE", program())).into()
        );
    };
    let file = TensorFile::open_for(data, args.io.unwrap_or_default())?;
    let mut config = args.config(Some(&file))?;
    trainer::check(&config, &file)?;
    let (weights, device) = Run::means(&config, Some(&file), console)?;
    batch::settle(args.batch, &mut config, file.genres().len(), &device, console)?;
    let file = Arc::new(file);
    match device {
        Opened::Cpu(device, _) => table(Rc::new(device), config, file, weights, console, args),
        Opened::Cuda(device) => table(Rc::new(device), config, file, weights, console, args),
    }
}

fn table<D: Device>(
    device: Rc<D>,
    config: RunConfig,
    file: Arc<TensorFile>,
    weights: Option<Weights>,
    console: Console,
    args: &Args,
) -> anyhow::Result<()> {
    let trainer = begun(device, config, file, weights, console)?;
    if !args.json {
        print("learning rate        loss    smoothed\n")?;
    }
    let mut printed = Ok(());
    let tried = trainer.find_rate(|tried| {
        if printed.is_ok() {
            printed = print(line(tried, args.json));
        }
    })?;
    printed?;
    let suggestion = suggested(&tried);
    if args.json {
        print(format_args!("{}\n", json!({ "schema": SCHEMA, "kind": "suggestion", "learning_rate": suggestion })))?;
    } else {
        print(format_args!("\n{}\n", advice(suggestion)))?;
    }
    Ok(())
}

fn line(tried: &Tried, json: bool) -> String {
    match json {
        true => format!("{}\n", json!({ "schema": SCHEMA, "kind": "rate", "row": tried })),
        false => format!("{:>13.2e}  {:>10.4}  {:>10.4}\n", tried.rate, tried.loss, tried.smoothed),
    }
}

/// What to type next: what was typed, for another network or batch may want another rate.
fn advice(suggestion: Option<f64>) -> String {
    match suggestion {
        Some(rate) => format!(
            "the loss was least at ten times a learning rate of {rate:.1e}; begin with that: the same command with\n  \
             --lr {rate:.1e} in the place of --find-lr"
        ),
        None => "the loss fell at none of these rates, so none is suggested".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_row_or_an_object() {
        let tried = Tried { rate: 1.25e-4, loss: 0.71234, smoothed: 0.70001 };
        assert_eq!(line(&tried, false), "      1.25e-4      0.7123      0.7000\n");
        let row = r#""row":{"loss":0.71234,"rate":0.000125,"smoothed":0.70001}"#;
        assert_eq!(line(&tried, true), format!("{{\"kind\":\"rate\",{row},\"schema\":1}}\n"));
        assert!(advice(Some(3.16e-4)).ends_with("the same command with\n  --lr 3.2e-4 in the place of --find-lr"));
        assert!(advice(None).contains("none is suggested"));
    }
}
