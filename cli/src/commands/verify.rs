//! `--verify`: builds again without the cache, and tells what came out different.

use std::fmt::Write as _;

use exporters::{Difference, ImageResult, Kind, Stop};
use frontend::Build;
use solver::Job;

use crate::commands::export::{Outputs, export_failure};
use crate::commands::solve_failure;
use crate::report::{Exit, Failure, tell};

/// Most paths that are shown.
const MOST: usize = 100;

/// Builds once more, exports nothing, and compares with `first`.
///
/// # Errors
/// When something differs, and when the build fails this time.
pub(crate) fn again(
    job: &Job,
    build: &Build,
    outputs: &Outputs,
    first: &ImageResult,
    stop: &Stop,
    when_built: impl FnOnce(),
) -> Result<(), Failure> {
    let edges: Vec<_> = build.targets.iter().filter_map(|target| target.result).collect();
    let latest = latest(outputs, first);
    let compared = job.solve_then(&build.definition, &edges, |trees| {
        let second = outputs.result(&super::build::results(build, trees));
        exporters::differences(first, &second, latest, stop).map_err(|error| export_failure(&error))
    });
    when_built();
    let found = compared.map_err(|error| solve_failure(&error))??;
    let of_build = first.platforms.iter().find_map(|platform| platform.source_date_epoch);
    let is_timeless = |output: &exporters::Output| {
        !matches!(output.kind, Kind::Local | Kind::Tar | Kind::CacheOnly)
            && output.image.source_date_epoch.or(of_build).is_none()
    };
    let without_time = outputs.all().iter().any(is_timeless);
    if found.is_empty() && !without_time {
        tell(format_args!("verified: a second build gave the same"));
        return Ok(());
    }
    if !found.is_empty() {
        tell(format_args!("\n{}", text(&found).trim_end()));
    }
    let failure = |message: String| Failure::new(Exit::Build, message);
    let hint = "set the time with --source-date-epoch=git or a number, and cut back those of new files with -o type=…,rewrite-timestamp=true";
    Err(match found.iter().filter(|one| !one.is_time()).count() {
        0 if found.is_empty() => {
            failure("a second build differs: the time of the image is that of the build".to_owned())
                .hint(hint)
        }
        0 => failure(format!("a second build differs in the times of {}", paths(found.len())))
            .hint(hint),
        _ => failure(format!("a second build differs in {}", paths(found.len()))),
    })
}

/// The time that is cut back to in everything that is written, if it is.
fn latest(outputs: &Outputs, result: &ImageResult) -> Option<i64> {
    let epoch = result.platforms.iter().find_map(|platform| platform.source_date_epoch);
    let cuts = |output: &exporters::Output| match output.kind {
        Kind::Local | Kind::Tar | Kind::CacheOnly => true,
        _ => output.image.rewrite_timestamp,
    };
    let of = |output: &exporters::Output| output.image.source_date_epoch.or(epoch);
    outputs.all().iter().all(cuts).then(|| outputs.all().iter().find_map(of)).flatten()
}

fn paths(count: usize) -> String {
    format!("{count} {}", if count == 1 { "path" } else { "paths" })
}

/// The differences below the steps that made them.
fn text(found: &[Difference]) -> String {
    let mut text = String::new();
    let mut last = None;
    for one in found.iter().take(MOST) {
        let step = (&one.platform, &one.step);
        if last != Some(step) {
            let platform =
                one.platform.as_ref().map(|name| format!("[{name}] ")).unwrap_or_default();
            let _ = writeln!(text, "{platform}{}", one.step);
            last = Some(step);
        }
        let path = if one.path.is_empty() { "config" } else { &one.path };
        let _ = writeln!(text, "  {path}: {}", one.what.join(", "));
    }
    if found.len() > MOST {
        let _ = writeln!(text, "  and {} more", found.len() - MOST);
    }
    text
}
