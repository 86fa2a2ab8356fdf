//! `cargo xtask soak --puts N [--seed S]`.

use std::process::ExitCode;

use revtree_harness::soak::{judge, soak};

const USAGE: &str = "soak [--puts N] [--seed S]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut puts, mut seed) = (20_000_000, 1);
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--puts" || name == "--seed" => {
                let Ok(number) = value.parse::<u64>() else {
                    eprintln!("{USAGE}");
                    return ExitCode::FAILURE;
                };
                if name == "--puts" {
                    puts = number;
                } else {
                    seed = number;
                }
            }
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    let lived = tempfile::tempdir()
        .map_err(|error| error.to_string())
        .and_then(|folder| soak(folder.path(), puts, seed))
        .and_then(|summary| {
            println!("{summary}");
            judge(&summary)
        });
    match lived {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("soak: {why}");
            ExitCode::FAILURE
        }
    }
}
