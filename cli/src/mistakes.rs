//! Mistakes of a Dockerfile as failures: where they are, and what to do.

use std::ops::Range;
use std::sync::Arc;

use frontend::{FrontendError, ImageRequest, Options, Outcome, ResolvedImages};
use llb::{SourceInfo, SourceRange};
use parser::ParseError;
use solver::OpError;

use crate::commands::op_failure;
use crate::report::{Excerpt, Exit, Failure, Mark, chain};

/// A mistake that the text of the file shows.
pub(crate) fn parse_failure(error: &ParseError, info: &Arc<SourceInfo>) -> Failure {
    let mut failure = Failure::new(Exit::Build, format!("failed to solve: {}", error.message()));
    failure.hint.clone_from(&error.help);
    failure.sources.extend(error.lines.map(|lines| {
        let bytes = error.at.offset()..error.at.offset() + error.at.len();
        let mark = Some(Mark { bytes, label: error.label.to_owned() });
        Excerpt { range: range(info, lines.start, lines.end), mark }
    }));
    failure
}

/// Mistakes that show when the file is converted.
pub(crate) fn frontend_failure(errors: &[FrontendError], info: &Arc<SourceInfo>) -> Failure {
    Failure::several(errors.iter().map(|error| frontend_mistake(error, info)).collect())
}

fn frontend_mistake(error: &FrontendError, info: &Arc<SourceInfo>) -> Failure {
    let mut failure = Failure::new(Exit::Build, format!("failed to solve: {}", chain(error)));
    failure.hint.clone_from(&error.hint);
    let mut label = error.kind.label();
    if let Some(trigger) = &error.trigger {
        let at = trigger.at.map(|at| at.offset()..at.offset() + at.len());
        failure.sources.push(trigger_excerpt(&trigger.info, at, label));
        label = SETS_OFF;
    }
    if error.lines.start > 0 {
        let bytes = error.at.offset()..error.at.offset() + error.at.len();
        let range = range(info, error.lines.start, error.lines.end);
        failure.sources.push(Excerpt { range, mark: mark(bytes, label) });
    }
    failure
}

/// Mistakes of other kinds in a file that cannot be parsed, as far as its text and the options tell: nothing is
/// fetched to find them.
pub(crate) fn further_mistakes(
    text: &[u8],
    options: &Options,
    info: &Arc<SourceInfo>,
) -> Vec<Failure> {
    let Some(rest) = parser::parse_rest(text) else { return Vec::new() };
    let mut images = ResolvedImages::default();
    loop {
        match frontend::convert(&rest, options, &images) {
            Ok(Outcome::Done(_)) => return Vec::new(),
            Ok(Outcome::Needs(requests)) => {
                requests.iter().for_each(|request| images.insert_unknown(request));
            }
            Err(errors) => {
                return errors.iter().map(|error| frontend_mistake(error, info)).collect();
            }
        }
    }
}

/// What is said of a `FROM` whose base has a trigger that failed.
const SETS_OFF: &str = "sets off the trigger";

/// An image that cannot be resolved.
pub(crate) fn unresolved(
    error: &OpError,
    request: &ImageRequest,
    info: &Arc<SourceInfo>,
) -> Failure {
    let mut failure = op_failure(error);
    let mut label = "this image";
    if let Some(trigger) = &request.trigger {
        failure.sources.push(trigger_excerpt(trigger, None, label));
        label = SETS_OFF;
    }
    let bytes = request.at.offset()..request.at.offset() + request.at.len();
    let range = range(info, request.lines.start, request.lines.end);
    failure.sources.push(Excerpt { range, mark: mark(bytes, label) });
    if let Some(name) = &request.suggestion {
        failure.message.push_str(&format!(" (did you mean {name}?)"));
        failure.hint = Some(
            "a name that is no earlier stage or build context is taken for an image".to_owned(),
        );
    }
    failure
}

/// Marks a path or name where it is written, if it is found in these lines as a word of its own.
pub(crate) fn word_mark(range: &SourceRange, word: &str, label: &str) -> Option<Mark> {
    let written = word.trim_matches('/');
    let (first, text) = (range.start.max(1) - 1, range.info.text.as_str());
    let mut lines = text.split_inclusive('\n');
    let start: usize = lines.by_ref().take(first).map(str::len).sum();
    let length: usize = lines.take(range.end.saturating_sub(first)).map(str::len).sum();
    let is_edge = |c: char| c.is_whitespace() || "\"'[],=".contains(c);
    text[start..start + length].match_indices(written).find_map(|(at, _)| {
        let (at, end) = (start + at, start + at + written.len());
        let before = text[..at].trim_end_matches(['/', '.']);
        let after = text[end..].trim_start_matches('/');
        let is_word = before.chars().next_back().is_none_or(is_edge)
            && after.chars().next().is_none_or(is_edge);
        (is_word && !written.is_empty()).then(|| Mark { bytes: at..end, label: label.to_owned() })
    })
}

/// All of a trigger, with a part of it marked.
fn trigger_excerpt(trigger: &Arc<SourceInfo>, at: Option<Range<usize>>, label: &str) -> Excerpt {
    let end = trigger.text.lines().count().max(1);
    Excerpt { range: range(trigger, 1, end), mark: at.and_then(|at| mark(at, label)) }
}

fn range(info: &Arc<SourceInfo>, start: usize, end: usize) -> SourceRange {
    SourceRange { info: Arc::clone(info), start, end }
}

/// A mark, if there is something to mark and to say.
fn mark(bytes: Range<usize>, label: &str) -> Option<Mark> {
    (!bytes.is_empty() && !label.is_empty()).then(|| Mark { bytes, label: label.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the text that is marked, with what stands before it.
    #[track_caller]
    fn check(text: &str, lines: (usize, usize), path: &str, expect: Option<usize>) {
        let info = SourceInfo { filename: "Dockerfile".to_owned(), text: text.to_owned() };
        let found = word_mark(&range(&Arc::new(info), lines.0, lines.1), path, "label");
        assert_eq!(found.map(|mark| mark.bytes.start), expect, "{text:?}");
    }

    #[test]
    fn a_missing_path_is_marked_where_it_is_a_word() {
        check("COPY a b /c\n", (1, 1), "/b", Some(7));
        check("COPY ab b/ /c\n", (1, 1), "/b", Some(8));
        check("COPY [\"./b\", \"/c\"]\n", (1, 1), "/b", Some(9));
        check("FROM b\nCOPY a \\\n /b /c\n", (2, 3), "/b", Some(18));
        check("RUN --mount=source=x/b,target=/t true", (1, 1), "/x/b", Some(19));
    }

    #[test]
    fn a_path_that_is_not_written_is_not_marked() {
        check("COPY $X /c\n", (1, 1), "/b", None);
        check("COPY abc /c\n", (1, 1), "/b", None);
        check("COPY . /c\n", (1, 1), "/", None);
        check("COPY b /c\n", (7, 9), "/b", None);
    }
}
