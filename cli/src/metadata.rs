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
use crate::provenance::Provenance;
use crate::report::{Exit, Failure};

/// What the environment asks the metadata file to say of how the image was made; `otherwise` is what the command line
/// asks for.
///
/// # Errors
/// When the variable has another value.
pub(crate) fn provenance(otherwise: Option<&Provenance>) -> Result<Option<Provenance>, Failure> {
    let asked = std::env::var("BUILDX_METADATA_PROVENANCE").unwrap_or_default();
    match asked.as_str() {
        "" => Ok(otherwise.cloned()),
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
        Some((format!("buildx.build.provenance{suffix}"), older(&one.predicate)))
    };
    said.iter().filter_map(entry).collect()
}

/// A predicate of SLSA v1 in the shape of v0.2.
fn older(predicate: &Value) -> Value {
    let build = &predicate["buildDefinition"];
    let external = &build["externalParameters"];
    let metadata = &predicate["runDetails"]["metadata"];
    let mut config_source = external["configSource"].clone();
    if let Value::Object(source) = &mut config_source
        && let Some(path) = source.remove("path")
    {
        source.insert("entryPoint".to_owned(), path);
    }
    let mut older = json!({
        "builder": predicate["runDetails"]["builder"],
        "buildType": "https://mobyproject.org/buildkit@v1",
        "materials": build["resolvedDependencies"],
        "invocation": {
            "configSource": config_source,
            "parameters": external["request"],
            "environment": { "platform": build["internalParameters"]["builderPlatform"] },
        },
        "metadata": {
            "buildInvocationID": metadata["invocationId"],
            "buildStartedOn": metadata["startedOn"],
            "buildFinishedOn": metadata["finishedOn"],
            "completeness": {
                "parameters": metadata["buildkit_completeness"]["request"],
                "environment": true,
                "materials": metadata["buildkit_completeness"]["resolvedDependencies"],
            },
            "reproducible": metadata["buildkit_reproducible"],
            "https://mobyproject.org/buildkit@v1#hermetic": metadata["buildkit_hermetic"],
        },
    });
    if let Some(config) = build["internalParameters"].get("buildConfig") {
        older["buildConfig"] = config.clone();
        older["metadata"]["https://mobyproject.org/buildkit@v1#metadata"] =
            metadata["buildkit_metadata"].clone();
    }
    older
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
