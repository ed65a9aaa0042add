//! `onesheet completions`: what a shell needs to complete the command's words.

use crate::console::print_bytes;
use clap::{Args as ClapArgs, Command};
use clap_complete::{Shell, generate};

const EXAMPLES: &str = "Examples:
  onesheet completions bash > ~/.local/share/bash-completion/completions/onesheet
  onesheet completions zsh > ~/.zfunc/_onesheet                # a folder in $fpath
  onesheet completions fish > ~/.config/fish/completions/onesheet.fish";

/// Print a script with which a shell completes the command's tools, flags and values.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the tool for the `command` as clap knows it.
pub fn run(args: &Args, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "onesheet", &mut script);
    print_bytes(&script)?;
    Ok(())
}
