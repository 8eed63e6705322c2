//! `build du`.

use cache::{Entry, Filter};

use crate::commands::listing::Format;
use crate::commands::{RootArg, store_failure};
use crate::report::{Exit, Failure, chain};

/// Show what the builder's state takes on the disk
///
/// The sizes are real blocks and add up to what `du` says of the folder.
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build du --filter type=exec.cachemount")]
pub(crate) struct DuArgs {
    #[command(flatten)]
    root: RootArg,
    /// Only some: id=, type=, description~=, parents=, until=24h, inuse, shared, private, mutable, immutable
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// table, pretty, json (one object per line) or a template such as '{{.ID}} {{.Size}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Everything that is known of each, as --format=pretty
    #[arg(long)]
    verbose: bool,
}

/// Prints one line for each entry, and the sums.
pub(crate) fn run(args: &DuArgs) -> Result<Exit, Failure> {
    let format = Format::parse(args.format.as_deref(), args.verbose)?;
    let filter = filter(&args.filter)?;
    let engine = args.root.engine()?;
    let entries = engine.store().entries().map_err(|error| store_failure(&error, chain(&error)))?;
    let young = filter.until.map(|age| std::time::SystemTime::now() - age);
    let shown: Vec<Entry> = entries
        .into_iter()
        .filter(|entry| filter.accepts(entry) && (young.is_none() || entry.used < young))
        .collect();
    format.print(&shown)?;
    format.print_sums(&shown)?;
    Ok(Exit::Done)
}

/// Reads `--filter`.
pub(crate) fn filter(texts: &[String]) -> Result<Filter, Failure> {
    Filter::parse(texts).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}
