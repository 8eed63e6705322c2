//! `build history`.

use cache::{Store, Variant};
use llb::image::{History, ImageConfig};
use serde_json::json;

use crate::commands::facts::{config, layer_size, shown_id, variant};
use crate::commands::listing::ago;
use crate::commands::rows::{Field, Format, Row};
use crate::commands::{RootArg, image_failure};
use crate::progress::bytes;
use crate::report::{Exit, Failure, print};

/// Show the steps that an image was made by, the last one first
#[derive(Debug, clap::Parser)]
#[command(
    after_help = "Example: build history --no-trunc --format '{{.Size}} {{.CreatedBy}}' app:1.0

Fields: .ID .CreatedSince .CreatedAt .CreatedBy .Size .Comment"
)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    root: RootArg,
    /// table, json (one object per line) or a template such as '{{.Size}} {{.CreatedBy}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show sizes and times for people, or as numbers
    #[arg(short = 'H', long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    human: bool,
    /// Show whole ids and steps
    #[arg(long)]
    no_trunc: bool,
    /// Platform to show, such as linux/arm64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Only print ids; that of a step that is no image is `<missing>`
    #[arg(short, long)]
    quiet: bool,
    /// Name, id or prefix of an id
    #[arg(value_name = "IMAGE")]
    image: String,
}

const FIELDS: &[Field] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

const TABLE: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const NUMBERS: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

/// Characters of a step that are shown.
const SHORT: usize = 45;

/// What stands for the id of a step that is no image.
const MISSING: &str = "<missing>";

/// Prints one line for each step.
pub(crate) fn run(args: &HistoryArgs) -> Result<Exit, Failure> {
    let table = if args.human { TABLE } else { NUMBERS };
    let format = Format::parse(args.format.as_deref(), table, FIELDS)?;
    let engine = args.root.engine()?;
    let store = engine.store();
    let name = &args.image;
    let image = store.images().get(name).map_err(|error| image_failure(&error, name))?;
    let variant = variant(&image, name, args.platform.as_deref())?;
    let (_, config) = config(store, variant, name)?;
    let mut rows = Vec::new();
    for (number, (entry, size)) in steps(store, variant, &config)?.into_iter().rev().enumerate() {
        let whole = if number == 0 { image.id.to_string() } else { MISSING.to_owned() };
        let id = match number {
            0 => shown_id(&image.id, args.no_trunc),
            _ => MISSING.to_owned(),
        };
        if args.quiet {
            print(format_args!("{id}"))?;
            continue;
        }
        rows.push(row(&entry, size, id, &whole, args));
    }
    if !args.quiet {
        format.print(&rows)?;
    }
    Ok(Exit::Done)
}

/// Each step with the bytes of its layer, the first one first. Layers that no step stands for are at the end.
fn steps(
    store: &Store,
    variant: &Variant,
    config: &ImageConfig,
) -> Result<Vec<(History, u64)>, Failure> {
    let mut layers = variant.layers.iter();
    let mut steps = Vec::new();
    for entry in config.history.clone().unwrap_or_default() {
        let layer = if entry.empty_layer { None } else { layers.next() };
        let size = layer.map_or(Ok(0), |id| layer_size(store, id))?;
        steps.push((entry, size));
    }
    for id in layers {
        steps.push((History::default(), layer_size(store, id)?));
    }
    Ok(steps)
}

fn row(entry: &History, size: u64, id: String, whole: &str, args: &HistoryArgs) -> Row {
    let created = entry.created.clone().unwrap_or_default();
    let since = created.parse::<jiff::Timestamp>().map(|time| ago(time.into()));
    // A step may have been written over several lines.
    let step = entry.created_by.split_whitespace().collect::<Vec<_>>().join(" ");
    let step = match step.char_indices().nth(SHORT) {
        Some(_) if !args.no_trunc => {
            let end = step.char_indices().nth(SHORT - 1).map_or(step.len(), |(end, _)| end);
            format!("{}…", &step[..end])
        }
        _ => step,
    };
    let shown_size = if args.human { bytes(size) } else { size.to_string() };
    Row {
        shown: json!({
            "ID": id, "CreatedSince": since.unwrap_or_else(|_| "N/A".to_owned()), "CreatedAt": created,
            "CreatedBy": step, "Size": shown_size, "Comment": entry.comment,
        }),
        json: json!({
            "ID": whole, "CreatedAt": entry.created, "CreatedBy": entry.created_by, "Size": size,
            "Comment": entry.comment, "EmptyLayer": entry.empty_layer,
        }),
    }
}
