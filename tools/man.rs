//! `onesheet man`: the command's manual pages, made from what `--help` prints.

use crate::console::print;
use anyhow::Context;
use clap::{Args as ClapArgs, Command};
use clap_mangen::Man;
use onesheet::files::{self, Disk, quoted, replace};
use std::io;
use std::path::PathBuf;

const EXAMPLES: &str = "Examples:
  onesheet man ~/.local/share/man/man1                         # then: man onesheet-train
  onesheet man pages && man -l pages/onesheet.1                # or wherever they are
  sudo onesheet man /usr/local/share/man/man1                  # for everybody";

/// Write manual pages, one for the command and one for each tool.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The folder that they go into; it is made if it is not there, and pages that are there are replaced
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Runs the tool for the `command` as clap knows it.
pub fn run(args: &Args, mut command: Command) -> anyhow::Result<()> {
    // Gives each tool its whole name, and the flags that all have.
    command.build();
    let folder = &args.folder;
    files::create_folder(&Disk, folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut written = 0;
    for of in std::iter::once(&command).chain(command.get_subcommands()).filter(|of| of.get_name() != "help") {
        let name = of.get_display_name().unwrap_or(of.get_name());
        replace(&Disk, &folder.join(format!("{name}.1")), &page(of.clone())?)?;
        written += 1;
    }
    let first = quoted(&folder.join("onesheet.1"));
    print(format_args!("{written} pages in {}; look at one with  man -l {first}\n", folder.display()))?;
    Ok(())
}

/// The page of a tool, its examples behind it.
fn page(tool: Command) -> io::Result<Vec<u8>> {
    let examples = tool.get_before_help().map(ToString::to_string).unwrap_or_default();
    let mut page = Vec::new();
    Man::new(tool.before_help("")).render(&mut page)?;
    // roff reads a backslash and a line that begins with a dot or a quote as its own.
    page.extend(b".SH EXAMPLES\n.nf\n");
    for line in examples.lines().skip(1) {
        page.extend(format!("\\&{}\n", line.trim().replace('\\', "\\\\").replace('-', "\\-")).bytes());
    }
    page.extend(b".fi\n");
    Ok(page)
}
