//! `build prune`.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use cache::PruneOptions;

use crate::commands::options::size;
use crate::commands::{RootArg, store_failure};
use crate::progress::bytes;
use crate::report::{Exit, Failure, chain, print};

/// Free what no image and no running build needs
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build prune --force --filter until=24h")]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    root: RootArg,
    /// Also compressed copies of layers that images still use
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what was not used for so long: until=24h
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Keep the newest up to this size, such as 10gb
    #[arg(long, value_name = "SIZE", alias = "keep-storage")]
    max_used_space: Option<String>,
    /// Free until so much of the disk is free
    #[arg(long, value_name = "SIZE")]
    min_free_space: Option<String>,
    /// Never go below this size
    #[arg(long, value_name = "SIZE")]
    reserved_space: Option<String>,
}

/// Asks, frees, and says how much.
pub(crate) fn run(args: &PruneArgs) -> Result<Exit, Failure> {
    let space = |text: &Option<String>| -> Result<Option<u64>, Failure> {
        text.as_deref().map(|text| size(text).map(i64::unsigned_abs)).transpose()
    };
    let options = PruneOptions {
        all: args.all,
        until: until(&args.filter)?,
        max_used_space: space(&args.max_used_space)?,
        min_free_space: space(&args.min_free_space)?,
        reserved_space: space(&args.reserved_space)?,
    };
    let engine = args.root.engine()?;
    if !args.force && !confirmed()? {
        return Ok(Exit::Done);
    }
    let freed =
        engine.store().prune(&options).map_err(|error| store_failure(&error, chain(&error)))?;
    print(format_args!(
        "Removed {} results, {} layers, {} blobs, {} cache mounts.\nTotal: {}",
        freed.results,
        freed.layers,
        freed.blobs,
        freed.mounts,
        bytes(freed.bytes)
    ))?;
    Ok(Exit::Done)
}

fn until(filters: &[String]) -> Result<Option<Duration>, Failure> {
    let mut longest = None;
    for filter in filters {
        let text = filter.strip_prefix("until=").ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!("the filter `{filter}` is not supported yet: want until=DURATION"),
            )
        })?;
        let bad = || {
            Failure::new(
                Exit::Usage,
                format!("invalid duration `{text}`: want a number and s, m, h or d"),
            )
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &text[digits.len()..] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => return Err(bad()),
        };
        let number: u64 = digits.parse().map_err(|_| bad())?;
        longest = longest.max(number.checked_mul(factor).map(Duration::from_secs));
    }
    Ok(longest)
}

fn confirmed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "nobody is there to confirm")
            .hint("give --force to prune without asking"));
    }
    let prompt = "This removes all build cache that no image needs. Are you sure? [y/N] ";
    // A prompt that cannot be shown is answered blindly, which is the user's choice.
    let _ = std::io::stdout().write_all(prompt.as_bytes()).and_then(|()| std::io::stdout().flush());
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Exit::Machine, error.to_string()))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
