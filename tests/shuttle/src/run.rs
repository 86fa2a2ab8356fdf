//! The schedules: how many, of which scenario, from which seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, Runner};

use crate::scenarios::{SCENARIOS, Scenario};

const USAGE: &str = "shuttle [--schedules N] [--seed S] [--only SCENARIO] [--replay SCHEDULE]";

/// Preemptions at the right places that PCT looks for.
const PCT_DEPTH: usize = 3;

/// Commits go deep, and a task has no more stack than it is given.
const STACK_BYTES: usize = 256 << 10;

/// What was asked for.
struct Asked {
    schedules: usize,
    seed: u64,
    only: Option<String>,
    replay: Option<String>,
}

pub(crate) fn main() -> ExitCode {
    let asked = match asked() {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    // Shuttle has one thread, and its atomics are of no use on another.
    let alone = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .use_current_thread();
    alone.build_global().expect("nobody has used it yet");
    let chosen: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| asked.only.as_ref().is_none_or(|only| scenario.name == only))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        eprintln!("no such scenario; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    if let Some(schedule) = &asked.replay {
        for scenario in chosen {
            let scheduler = ReplayScheduler::new_from_encoded(schedule);
            Runner::new(scheduler, config()).run(scenario.run);
        }
        println!("the schedule passed");
        return ExitCode::SUCCESS;
    }
    let (mut done, mut wrong) = (0, 0);
    for (n, scenario) in chosen.iter().enumerate() {
        // What does not divide goes to the first.
        let share =
            asked.schedules / chosen.len() + usize::from(n < asked.schedules % chosen.len());
        let walks = share / 2;
        let began = Instant::now();
        let schedulers: [(usize, Box<dyn Scheduler + Send>); 2] = [
            (
                walks,
                Box::new(RandomScheduler::new_from_seed(asked.seed, walks)),
            ),
            (
                share - walks,
                Box::new(PctScheduler::new_from_seed(
                    asked.seed,
                    PCT_DEPTH,
                    share - walks,
                )),
            ),
        ];
        for (count, scheduler) in schedulers {
            if count == 0 {
                continue;
            }
            done += count;
            let runner = Runner::new(scheduler, config());
            if catch_unwind(AssertUnwindSafe(|| runner.run(scenario.run))).is_err() {
                wrong += 1;
                println!(
                    "{}: wrong; the schedule above can be run again with",
                    scenario.name
                );
                println!(
                    "cargo xtask shuttle --only {} --replay SCHEDULE",
                    scenario.name
                );
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        println!("{}: {share} schedules in {seconds:.1} s", scenario.name);
    }
    println!(
        "shuttle: {done} schedules of {} scenarios, {wrong} wrong",
        chosen.len()
    );
    if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.silence_warnings = true;
    config
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        schedules: 2_000,
        seed: 1,
        only: None,
        replay: None,
    };
    // The campaign's name, as in the harness's program: by it the last line goes on record.
    let mut words = std::env::args()
        .skip(1)
        .skip_while(|word| word == "shuttle");
    while let Some(word) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("{word} without a value"))?;
        let number = || value.parse().map_err(|_| format!("{value} is no number"));
        match word.as_str() {
            "--schedules" => asked.schedules = number()?,
            "--seed" => asked.seed = number()? as u64,
            "--only" => asked.only = Some(value),
            "--replay" => asked.replay = Some(value),
            _ => return Err(format!("{word} is not known")),
        }
    }
    Ok(asked)
}
