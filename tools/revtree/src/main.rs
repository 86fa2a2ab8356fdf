//! The `revtree` tool: looks into a store file, and does the few things that need no program of one's
//! own. Each command is a file in `commands`; what it prints goes through `output`, keys through `keys`.
//!
//! Exit status: 0 done, 1 refused or damaged (the reason is on stderr), 2 wrong usage.

mod commands;
mod failure;
mod keys;
mod output;
mod progress;
mod store;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Command;
use crate::keys::KeyFormat;
use crate::output::Output;

/// Looks into a revtree store and changes it.
#[derive(Parser)]
#[command(name = "revtree", version, about, max_term_width = 100)]
struct Arguments {
    /// Print JSON: an object on each line, keys and values in base64, integers as numbers.
    #[arg(long, global = true)]
    json: bool,
    /// How every key on the command line is written.
    #[arg(long, global = true, value_enum, default_value_t = KeyFormat::Text, value_name = "FORMAT")]
    key_format: KeyFormat,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut output = Output::new(arguments.json);
    let result = arguments.command.run(arguments.key_format, &mut output);
    let result = result.and_then(|()| output.finish());
    match result {
        Ok(()) if output.told_damage() => ExitCode::from(1),
        Err(failure) if failure.is_broken_pipe() && output.told_damage() => ExitCode::from(1),
        // The reader of our output has seen enough: `| head`.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // What was printed before the failure is still right.
            let _ = output.finish();
            output::reason(&failure);
            ExitCode::from(failure.status())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// Goal: the definition of the command line has no contradiction.
    #[test]
    fn arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
