//! The command line.

use std::time::Duration;

pub struct Args {
    /// Requests a second.
    pub rate: u32,
    /// How long the whole drill takes.
    pub length: Duration,
    pub seed: u64,
    /// One JSON object on standard output, and nothing else there.
    pub json: bool,
}

pub const HELP: &str = "\
A small shop on loopback, and the drill that teams know.

usage: shop [--rate N] [--seconds N] [--seed N] [--json]

  --rate N      requests a second, 300 to 5000 (default 500); with fewer, a display that was slow is
                hardly called again before a phase is over, and cannot show that it recovers
  --seconds N   length of the drill, 15 to 600 (default 30)
  --seed N      seed of the load and of the jitter (default 1)
  --json        print one JSON object on standard output, and nothing else
";

impl Args {
    /// From the command line; `Err` says what is wrong with it.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self { rate: 500, length: Duration::from_secs(30), seed: 1, json: false };
        while let Some(word) = words.next() {
            let mut number = |low: u64, high: u64| {
                let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
                match value.parse() {
                    Ok(number) if (low..=high).contains(&number) => Ok(number),
                    _ => Err(format!("{word} is {value:?}: must be a number from {low} to {high}")),
                }
            };
            match word.as_str() {
                "--rate" => args.rate = number(300, 5000)? as u32,
                "--seconds" => args.length = Duration::from_secs(number(15, 600)?),
                "--seed" => args.seed = number(0, u64::MAX)?,
                "--json" => args.json = true,
                "--help" | "-h" => return Err(HELP.to_owned()),
                other => return Err(format!("{other:?} is no option\n\n{HELP}")),
            }
        }
        Ok(args)
    }
}
