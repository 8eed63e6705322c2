//! `build inspect`.

use crate::commands::{RootArg, image_failure};
use crate::report::{Exit, Failure, print};

/// Show what is known of images, as JSON
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build inspect app:1.0")]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    root: RootArg,
    /// Names, ids or prefixes of ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Prints an array with one object for each image.
pub(crate) fn run(args: &InspectArgs) -> Result<Exit, Failure> {
    let engine = args.root.engine()?;
    let images = engine.store().images();
    let mut shown = Vec::new();
    for name in &args.images {
        let image = images.get(name).map_err(|error| image_failure(&error, name))?;
        let mut variants = Vec::new();
        for variant in &image.variants {
            let config = images.config(variant).map_err(|error| image_failure(&error, name))?;
            let config: serde_json::Value = serde_json::from_slice(&config).map_err(|error| {
                Failure::new(Exit::Machine, format!("the config of `{name}` is damaged: {error}"))
            })?;
            variants.push(serde_json::json!({
                "Platform": variant.platform,
                "ConfigDigest": variant.config.to_string(),
                "Config": config,
            }));
        }
        let created = jiff::Timestamp::try_from(image.created)
            .map(|time| time.to_string())
            .unwrap_or_default();
        shown.push(serde_json::json!({
            "Id": image.id.to_string(), "RepoTags": image.names, "Created": created, "Variants": variants,
        }));
    }
    let text = serde_json::to_string_pretty(&shown).unwrap_or_default();
    print(format_args!("{text}"))?;
    Ok(Exit::Done)
}
