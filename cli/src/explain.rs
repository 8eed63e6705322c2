//! `--explain`: why each step ran, and which build made what was cached.
//!
//! As text on standard error behind the progress, as `bricklayer.explain` in the metadata file and, with
//! `--progress=rawjson`, among the lines of the build.

use std::path::Path;
use std::time::SystemTime;

use llb::Digest;
use llb::event::Explanation;
use llb::url::redacted;
use serde::Serialize;
use solver::BuildLabel;

use crate::args::BuildArgs;

/// Most tags that a label names.
const MOST_TAGS: usize = 3;

/// An explanation as programs read it.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    vertex: String,
    name: String,
    cached: bool,
    reason: &'static str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<Build>,
}

#[derive(Debug, Serialize)]
struct Build {
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    label: String,
}

impl Entry {
    pub(crate) fn of(explanation: &Explanation) -> Self {
        let build = explanation.build.as_ref().map(|build| Build {
            id: build.id.clone(),
            at: jiff::Timestamp::try_from(build.at).unwrap_or_default().to_string(),
            label: build.label.clone(),
        });
        Self {
            vertex: explanation.vertex.to_string(),
            name: explanation.name.clone(),
            cached: explanation.cached,
            reason: explanation.reason,
            text: explanation.text.clone(),
            build,
        }
    }
}

/// What this build is called in the notes of its steps. `dockerfile` is where its Dockerfile is.
pub(crate) fn label(args: &BuildArgs, dockerfile: Option<&Path>) -> BuildLabel {
    let real = |path: &str| match fs_err::canonicalize(path) {
        Ok(path) => path.to_string_lossy().into_owned(),
        Err(_) => path.to_owned(),
    };
    let context = args.context.as_deref().unwrap_or_default();
    let file = dockerfile.map(Path::to_string_lossy).or(args.file.as_deref().map(Into::into));
    let file = file.map(|file| real(&file)).unwrap_or_default();
    let platforms = args.platform.join(",");
    let label = match args.tags.as_slice() {
        [] if context == "-" => "from standard input".to_owned(),
        [] => format!("context {}", redacted(context)),
        tags => {
            let more = if tags.len() > MOST_TAGS { " …" } else { "" };
            let shown = tags.iter().take(MOST_TAGS).map(|tag| format!("-t {tag}"));
            shown.collect::<Vec<_>>().join(" ") + more
        }
    };
    let id = Digest::of(format!("{:?} {}", SystemTime::now(), std::process::id()).as_bytes());
    BuildLabel {
        id: id.hex()[..25].to_owned(),
        label,
        scope: [&redacted(&real(context)), file.as_str(), platforms.as_str()].join("\n"),
        explain: args.explain,
    }
}

/// The lines for the user.
pub(crate) fn text(explanations: &[Explanation]) -> String {
    let line = |it: &Explanation| {
        let outcome = if it.cached { "cached" } else { "ran" };
        let name = it.name.lines().next().unwrap_or_default();
        // Names of files may hold anything; what moves a cursor is shown as its code.
        let shown = |text: &str| -> String {
            let safe =
                |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
            text.chars().map(safe).collect()
        };
        format!(" - {outcome}: {} — {}\n", shown(name), shown(&it.text))
    };
    match explanations {
        [] => "Explanation: no step was needed.\n".to_owned(),
        some => "Explanation:\n".to_owned() + &some.iter().map(line).collect::<String>(),
    }
}
