//! Entries of the metadata file beyond those of the exporters.
//!
//! - `buildx.build.provenance`, if provenance was asked for or `BUILDX_METADATA_PROVENANCE` is `min` or `max`: in the
//!   shape of SLSA v0.2, which readers of the file know.
//! - `buildx.build.warnings`, if `BUILDX_METADATA_WARNINGS` is set.

use exporters::Attestation;
use frontend::Warning;
use llb::{Platform, SourceInfo, base64};
use serde_json::{Value, json};

use crate::commands::dockerfile::definition_vertex;
use crate::provenance::{Provenance, v0_2};
use crate::report::{Exit, Failure};

/// What the environment asks the metadata file to say of how the image was made; `otherwise` is what the command line
/// asks for.
///
/// # Errors
/// When the variable has another value.
pub(crate) fn provenance(otherwise: Option<&Provenance>) -> Result<Option<Provenance>, Failure> {
    let asked = std::env::var("BUILDX_METADATA_PROVENANCE").unwrap_or_default();
    match asked.as_str() {
        "" => Ok(otherwise.map(Provenance::as_v1)),
        "max" | "min" => Ok(Some(Provenance::with_mode(asked == "max"))),
        "disabled" | "false" | "0" => Ok(None),
        other => Err(Failure::new(
            Exit::Usage,
            format!("invalid BUILDX_METADATA_PROVENANCE `{other}`: want min, max or disabled"),
        )),
    }
}

/// Entries of provenance, one for each platform.
pub(crate) fn provenance_entries(
    said: &[Attestation],
    platforms: &[Platform],
) -> Vec<(String, Value)> {
    let entry = |one: &Attestation| {
        let suffix = match platforms {
            [_] => String::new(),
            several => format!("/{}", several.get(one.platform)?),
        };
        Some((format!("buildx.build.provenance{suffix}"), v0_2(&one.predicate)))
    };
    said.iter().filter_map(entry).collect()
}

/// The entry of warnings; `None` if they were not asked for, or there are none.
pub(crate) fn warnings(warnings: &[Warning], info: &SourceInfo) -> Option<(String, Value)> {
    let asked = std::env::var("BUILDX_METADATA_WARNINGS").unwrap_or_default();
    if !matches!(asked.as_str(), "1" | "true") || warnings.is_empty() {
        return None;
    }
    let (_, vertex) = definition_vertex(info);
    let encoded = |text: &str| base64::encode(text.as_bytes());
    let entry = |Warning { rule, message, lines }: &Warning| {
        let end = lines.end.max(lines.start);
        json!({
            "vertex": vertex.to_string(),
            "level": 1,
            "short": encoded(&format!("{rule}: {message} (line {})", lines.start)),
            "detail": [encoded(rule.description())],
            "url": rule.url(),
            "sourceInfo": {
                "filename": info.filename,
                "data": encoded(&crate::guard::redact(&info.text)),
                "language": "Dockerfile",
            },
            "range": [{ "start": { "line": lines.start }, "end": { "line": end } }],
        })
    };
    Some(("buildx.build.warnings".to_owned(), warnings.iter().map(entry).collect()))
}
