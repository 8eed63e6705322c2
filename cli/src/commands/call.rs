//! `--check` and `--call`: questions about a Dockerfile that build nothing.
//!
//! ```text
//! check    what do the build checks say?        asks for the configs of base images
//! outline  what does the target ask the user?   asks for the configs of base images
//! targets  which stages are there?              asks for nothing
//! subrequests.describe  which questions are there?
//! ```
//!
//! The state folder is opened when an image is asked for, and not before. An image that cannot be resolved is
//! an error, but what does not depend on it is answered all the same.

mod json;
mod text;

use std::collections::BTreeSet;
use std::sync::Arc;

use frontend::{Answer, Findings, ImageLocation, ImageRequest, Options, ResolvedImages, Warning};
use llb::{Event, EventSink, Reference, SourceInfo, SourceRange};
use parser::Dockerfile;
use sandbox::Cancel;
use solver::{Engine, EngineOptions, Job};

use super::dockerfile::{definition_vertex, resolve};
use super::op_failure;
use crate::inputs::Given;
use crate::mistakes::{frontend_failure, unresolved};
use crate::progress::Mode;
use crate::report::{Exit, Failure, chain, print, tell};

/// A question and how it is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    method: Method,
    is_json: bool,
    /// Exit successfully whatever the checks say.
    ignores_status: bool,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
    Describe,
}

impl Call {
    /// Reads `--check` and `--call`; `None` means: build.
    pub(crate) fn parse(check: bool, call: Option<&str>) -> Result<Option<Self>, Failure> {
        let usage = |message: String| Failure::new(Exit::Usage, message);
        let (mut name, mut is_json, mut ignores_status) = (None, false, false);
        for field in call.unwrap_or_default().split(',') {
            match field.split_once('=') {
                Some(("format", "json")) => is_json = true,
                Some(("format", "text")) => is_json = false,
                Some(("format", value)) => {
                    return Err(usage(format!(
                        "invalid format `{value}` in --call: want text or json"
                    )));
                }
                Some(("ignorestatus", value)) => {
                    let message =
                        || format!("invalid ignorestatus `{value}` in --call: want true or false");
                    ignores_status = frontend::parse_bool(value).ok_or_else(|| usage(message()))?;
                }
                Some(("type", value)) if name.is_none() => name = Some(value),
                None if name.is_none() => name = Some(field),
                _ => {
                    return Err(usage(format!(
                        "invalid field `{field}` in --call: want format= or ignorestatus="
                    )));
                }
            }
        }
        let method = match name.unwrap_or_default() {
            "" | "build" if check => Method::Check,
            "" | "build" => return Ok(None),
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            "subrequests.describe" => Method::Describe,
            name => {
                let known =
                    ["build", "check", "lint", "outline", "targets", "subrequests.describe"];
                let failure = usage(format!(
                    "unknown method `{name}` for --call: want build, check, outline, targets or subrequests.describe"
                ));
                return Err(failure.did_you_mean(llb::suggest::nearest(name, known)));
            }
        };
        Ok(Some(Self { method, is_json, ignores_status }))
    }

    /// Answers a question that is not about a Dockerfile.
    pub(crate) fn answer_at_once(self) -> Option<Result<Exit, Failure>> {
        (self.method == Method::Describe).then(|| self.show(text::describe, json::describe))
    }

    /// Answers when the Dockerfile cannot be parsed: for the checks this is a finding.
    pub(crate) fn answer_unparsed(
        self,
        failure: Failure,
        info: &Arc<SourceInfo>,
    ) -> Result<Exit, Failure> {
        match self.method {
            Method::Check => self.show_findings(&[], &failures(failure), info),
            _ => Err(failure),
        }
    }

    /// Answers a question about a Dockerfile.
    pub(crate) fn answer(
        self,
        dockerfile: &Dockerfile,
        options: &Options,
        images: &mut Images,
        info: &Arc<SourceInfo>,
    ) -> Result<Exit, Failure> {
        match self.method {
            Method::Check => self.check(dockerfile, options, images, info),
            Method::Outline => self.outline(dockerfile, options, images, info),
            Method::Targets => {
                let stages = frontend::stages(dockerfile);
                self.show(|| text::targets(&stages), || json::targets(&stages, info))
            }
            Method::Describe => self.show(text::describe, json::describe),
        }
    }

    fn check(
        self,
        dockerfile: &Dockerfile,
        options: &Options,
        images: &mut Images,
        info: &Arc<SourceInfo>,
    ) -> Result<Exit, Failure> {
        let Findings { warnings, errors } = loop {
            match frontend::check(dockerfile, options, &images.known) {
                Answer::Needs(requests) => images.resolve(&requests, info),
                Answer::Known(findings) => break findings,
            }
        };
        let mut all = Vec::new();
        if !errors.is_empty() {
            all.extend(failures(frontend_failure(&errors, info)));
        }
        all.append(&mut images.failures);
        self.show_findings(&warnings, &all, info)
    }

    /// Shows what the checks have found; failures are shown behind it, on standard error.
    fn show_findings(
        self,
        warnings: &[Warning],
        failures: &[Failure],
        info: &Arc<SourceInfo>,
    ) -> Result<Exit, Failure> {
        if self.is_json {
            print(format_args!("{}", json::findings(warnings, failures, info)))?;
        } else if !warnings.is_empty() || failures.is_empty() {
            print(format_args!("{}", text::findings(warnings, info)))?;
        }
        if !failures.is_empty() {
            if !self.is_json && !warnings.is_empty() {
                print(format_args!(""))?;
            }
            tell(format_args!("{}", text::failures(failures).trim_end()));
        }
        Ok(match failures {
            _ if self.ignores_status => Exit::Done,
            [] if warnings.is_empty() => Exit::Done,
            [first, ..] if warnings.is_empty() => first.exit,
            _ => Exit::Build,
        })
    }

    fn outline(
        self,
        dockerfile: &Dockerfile,
        options: &Options,
        images: &mut Images,
        info: &Arc<SourceInfo>,
    ) -> Result<Exit, Failure> {
        let outline = loop {
            match frontend::outline(dockerfile, options, &images.known)
                .map_err(|errors| frontend_failure(&errors, info))?
            {
                Answer::Needs(requests) => images.resolve(&requests, info),
                Answer::Known(outline) => break outline,
            }
        };
        for failure in &images.failures {
            tell(format_args!(
                "WARNING: {}; triggers and variables of this image are left out",
                text::message(failure)
            ));
        }
        self.show(|| text::outline(&outline), || json::outline(&outline, info))
    }

    fn show(
        self,
        as_text: impl FnOnce() -> String,
        as_json: impl FnOnce() -> String,
    ) -> Result<Exit, Failure> {
        let answer = if self.is_json { as_json() } else { as_text() };
        print(format_args!("{}", answer.strip_suffix('\n').unwrap_or(&answer)))?;
        Ok(Exit::Done)
    }
}

/// A failure and those shown before it, in order.
fn failures(mut failure: Failure) -> Vec<Failure> {
    let mut all: Vec<Failure> =
        std::mem::take(&mut failure.before).into_iter().flat_map(failures).collect();
    all.push(failure);
    all
}

/// Gets images for questions; what it cannot get stays unknown.
pub(crate) struct Images {
    root: Option<EngineOptions>,
    given: Arc<Given>,
    job: Option<Result<Job, String>>,
    known: ResolvedImages,
    /// Why images could not be resolved, each image once.
    failures: Vec<Failure>,
    /// Registries that cannot be reached.
    unreachable: BTreeSet<String>,
}

impl Images {
    /// Opens nothing yet.
    pub(crate) fn new(root: EngineOptions, given: Arc<Given>) -> Self {
        Self {
            root: Some(root),
            given,
            job: None,
            known: ResolvedImages::default(),
            failures: Vec::new(),
            unreachable: BTreeSet::new(),
        }
    }

    fn resolve(&mut self, requests: &[ImageRequest], info: &Arc<SourceInfo>) {
        for request in requests {
            match self.resolve_one(request, info) {
                Ok(image) => self.known.insert(request, image),
                Err(failure) => {
                    self.known.insert_unknown(request);
                    // The same for several platforms is told once.
                    let is_new = failure
                        .filter(|new| self.failures.iter().all(|old| old.message != new.message));
                    self.failures.extend(is_new);
                }
            }
        }
    }

    /// Resolves an image; the error is `None` when it has been told before.
    fn resolve_one(
        &mut self,
        request: &ImageRequest,
        info: &Arc<SourceInfo>,
    ) -> Result<frontend::ResolvedImage, Option<Failure>> {
        let host = match &request.location {
            ImageLocation::Registry(name) => {
                Reference::parse(name).ok().map(|reference| reference.host().to_owned())
            }
            ImageLocation::OciLayout { .. } => None,
        };
        if host.as_ref().is_some_and(|host| self.unreachable.contains(host)) {
            return Err(None);
        }
        let job = self.job()?;
        resolve(job, request, &()).map_err(|error| {
            if is_unreachable(&error) {
                self.unreachable.extend(host);
            }
            Some(unresolved(&error, request, info))
        })
    }

    fn job(&mut self) -> Result<&Job, Option<Failure>> {
        if let Some(root) = self.root.take() {
            let job = open(root, Arc::clone(&self.given));
            let failure = job.as_ref().err().map(|failure| failure.message.clone());
            let told = job.as_ref().err().is_some();
            self.job = Some(job.map_err(|failure| failure.message));
            if told {
                return Err(failure.map(|message| Failure::new(Exit::Machine, message)));
            }
        }
        match &self.job {
            Some(Ok(job)) => Ok(job),
            _ => Err(None),
        }
    }
}

fn open(root: EngineOptions, given: Arc<Given>) -> Result<Job, Failure> {
    let engine = Engine::open(root).map_err(|error| op_failure(&error))?;
    let cancel = Cancel::new().map_err(|error| Failure::new(Exit::Machine, chain(&error)))?;
    Ok(engine.job(given, Arc::new(()), cancel))
}

fn is_unreachable(error: &solver::OpError) -> bool {
    matches!(
        error,
        solver::OpError::Registry { source, .. } if matches!(source.decisive(), registry::Error::Unreachable { .. })
    )
}

/// Shows what the checks have found in a build; `debug` shows everything that is known of it.
pub(crate) fn report_warnings(
    warnings: &[Warning],
    mode: Mode,
    debug: bool,
    info: &Arc<SourceInfo>,
) {
    if !warnings.is_empty() && !matches!(mode, Mode::Quiet | Mode::RawJson) {
        tell(format_args!("\n{}", text::summary(warnings, debug, info).trim_end()));
    }
}

/// Tells of warnings as events, for displays that are read by programs.
pub(crate) fn send_warnings(events: &dyn EventSink, warnings: &[Warning], info: &Arc<SourceInfo>) {
    let (_, vertex) = definition_vertex(info);
    for Warning { rule, message, lines } in warnings {
        events.send(Event::Warning {
            vertex,
            short: format!("{rule}: {message} (line {})", lines.start),
            detail: vec![rule.description().to_owned()],
            url: rule.url().to_owned(),
            range: vec![SourceRange {
                info: Arc::clone(info),
                start: lines.start,
                end: lines.end.max(lines.start),
            }],
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(call: &str, expect: &str) {
        let found = match Call::parse(false, Some(call)) {
            Ok(Some(call)) => format!("{:?} {} {}", call.method, call.is_json, call.ignores_status),
            Ok(None) => "build".to_owned(),
            Err(failure) => failure.message,
        };
        assert_eq!(found, expect, "{call}");
    }

    #[test]
    fn calls_are_read() {
        check("check", "Check false false");
        check("lint,format=json,ignorestatus=1", "Check true true");
        check("format=json,outline", "Outline true false");
        check("targets,format=text,ignorestatus=false", "Targets false false");
        check("type=subrequests.describe", "Describe false false");
        check("build", "build");
        check("", "build");
        check("check,outline", "invalid field `outline` in --call: want format= or ignorestatus=");
        check("check,x=y", "invalid field `x=y` in --call: want format= or ignorestatus=");
        check("check,format=yaml", "invalid format `yaml` in --call: want text or json");
        check(
            "check,ignorestatus=maybe",
            "invalid ignorestatus `maybe` in --call: want true or false",
        );
        check(
            "shell",
            "unknown method `shell` for --call: want build, check, outline, targets or subrequests.describe",
        );
        assert_eq!(Call::parse(true, None).unwrap().unwrap().method, Method::Check);
        assert_eq!(Call::parse(true, Some("targets")).unwrap().unwrap().method, Method::Targets);
        assert_eq!(Call::parse(false, None).unwrap(), None);
    }
}
