//! `build prune`.

use std::io::{IsTerminal, Write};

use cache::PruneOptions;
use solver::{Engine, EngineOptions};

use crate::commands::du::filter;
use crate::commands::listing::Format;
use crate::commands::tidy::{self, space};
use crate::commands::{RootArg, op_failure, store_failure};
use crate::progress::bytes;
use crate::report::{Exit, Failure, chain, print};

/// Free what no named image and no running build needs
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
    /// Only some: until=24h, id=, type=, description~=, parents=, inuse, shared, private, mutable, immutable
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Keep the newest up to this size, such as 10gb or 50%
    #[arg(long, value_name = "SIZE", alias = "keep-storage")]
    max_used_space: Option<String>,
    /// Free until so much of the disk is free
    #[arg(long, value_name = "SIZE")]
    min_free_space: Option<String>,
    /// Never go below this size
    #[arg(long, value_name = "SIZE")]
    reserved_space: Option<String>,
    /// table, pretty, json (one object per line) or a template such as '{{.ID}} {{.Size}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Everything that is known of what goes, as --format=pretty
    #[arg(long)]
    verbose: bool,
    /// Keep the limits of the store, as after a build.
    #[arg(long, hide = true)]
    automatic: bool,
}

/// Asks, frees, and says how much.
pub(crate) fn run(args: &PruneArgs) -> Result<Exit, Failure> {
    let format = Format::parse(args.format.as_deref(), args.verbose)?;
    let filter = filter(&args.filter)?;
    let engine_options = args.root.options()?;
    let root = engine_options.root.clone();
    let options = PruneOptions {
        all: args.all,
        filter,
        max_used_space: space(args.max_used_space.as_deref(), &root)?,
        min_free_space: space(args.min_free_space.as_deref(), &root)?,
        reserved_space: space(args.reserved_space.as_deref(), &root)?,
    };
    if args.automatic {
        return tidy::run(&open(engine_options)?);
    }
    let engine = open(engine_options)?;
    if !args.force && !confirmed()? {
        return Ok(Exit::Done);
    }
    let freed =
        engine.store().prune(&options).map_err(|error| store_failure(&error, chain(&error)))?;
    match format {
        Format::Table if freed.entries.is_empty() => {}
        _ => format.print(&freed.entries)?,
    }
    if matches!(format, Format::Table | Format::Pretty) {
        print(format_args!(
            "Removed {} results, {} images without a name, {} layers, {} blobs, {} cache mounts.\nTotal: {}",
            freed.results,
            freed.images,
            freed.layers,
            freed.blobs,
            freed.mounts,
            bytes(freed.bytes)
        ))?;
    }
    Ok(Exit::Done)
}

fn open(options: EngineOptions) -> Result<Engine, Failure> {
    Engine::open(options).map_err(|error| op_failure(&error))
}

fn confirmed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "cannot ask for confirmation: standard input is not a terminal",
        )
        .hint("give --force to prune without asking"));
    }
    let prompt = "This removes all build cache that no image needs, and images without a name. Are you sure? [y/N] ";
    // A prompt that cannot be shown is answered blindly, which is the user's choice.
    let _ = std::io::stdout().write_all(prompt.as_bytes()).and_then(|()| std::io::stdout().flush());
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Exit::Machine, error.to_string()))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
