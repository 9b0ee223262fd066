//! The command line.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

pub struct Args {
    /// How long the load runs.
    pub length: Duration,
    /// Requests a second.
    pub rate: u32,
    /// Of the faults and of the load.
    pub seed: u64,
    pub instances: usize,
}

pub const HELP: &str = "\
A service of several processes, its callers, and what goes wrong in a long night: instances killed, slowed, paused.

usage: soak [--minutes N] [--rate N] [--seed N] [--instances N]

  --minutes N     length of the load, 0.1 to 1440 (default 10)
  --rate N        requests a second, 20 to 20000 (default 2000)
  --seed N        seed of the faults and of the load (default 1)
  --instances N   instances of the service, 3 to 9 (default 6); at most a third of them is sick at once
";

impl Args {
    /// From the command line; `Err` says what is wrong with it.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self { length: Duration::from_secs(600), rate: 2000, seed: 1, instances: 6 };
        while let Some(flag) = words.next() {
            match flag.as_str() {
                "--minutes" => args.length = Duration::from_secs_f64(60.0 * number(&flag, words.next(), 0.1..=1440.0)?),
                "--rate" => args.rate = number(&flag, words.next(), 20..=20_000)?,
                "--seed" => args.seed = number(&flag, words.next(), 0..=u64::MAX)?,
                "--instances" => args.instances = number(&flag, words.next(), 3..=9)?,
                "--help" | "-h" => return Err(HELP.to_owned()),
                other => return Err(format!("{other:?} is no option\n\n{HELP}")),
            }
        }
        Ok(args)
    }

    /// How many instances are sick at once, at most.
    pub fn most_sick(&self) -> usize {
        self.instances / 3
    }

    /// How many requests there will be.
    pub fn requests(&self) -> u64 {
        (self.length.as_secs_f64() * f64::from(self.rate)) as u64
    }
}

fn number<N>(flag: &str, value: Option<String>, range: RangeInclusive<N>) -> Result<N, String>
where
    N: FromStr + PartialOrd + Display,
{
    let value = value.ok_or_else(|| format!("{flag} needs a number"))?;
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("{flag} is {value:?}: must be a number from {} to {}", range.start(), range.end())),
    }
}
