//! The `onesheet` command.

mod prepare;

use std::process::ExitCode;

use clap::Parser;
use onesheet::data::prepare::PrepareError;

#[derive(Parser)]
#[command(version, about)]
enum Command {
    Prepare(prepare::Args),
}

fn main() -> ExitCode {
    let Command::Prepare(args) = Command::parse();
    match prepare::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<PrepareError>() {
                Some(PrepareError::Folder { .. } | PrepareError::Write(_)) | None => {
                    ExitCode::from(1)
                }
                Some(_) => ExitCode::from(3),
            }
        }
    }
}
