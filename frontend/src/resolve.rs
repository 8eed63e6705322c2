//! Finds the images that the reachable stages need.
//!
//! Triggers of base images can make further stages and images reachable, so this goes on until
//! nothing new turns up.

use llb::op::SourceOp;
use llb::{DiffId, Platform};

use crate::context::Context;
use crate::error::FrontendError;
use crate::from::undeclared;
use crate::lint::Rule;
use crate::named_context::{self, Located, NamePlace};
use crate::outcome::{ImageLocation, ImageRequest, ResolvedImage};
use crate::stage::{Base, Plan, Stage, StageId};
use crate::{go_text, image};

/// Names to suggest for an image that does not exist.
const COMMON_IMAGES: &[&str] =
    &["alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu"];

/// What a reachable stage starts from.
#[derive(Debug)]
pub(crate) enum Start<'a> {
    /// The result of another stage.
    Stage(StageId),
    /// Nothing.
    Scratch,
    /// An image of which nothing is known.
    Unknown,
    /// A folder.
    Local {
        /// Name of the context.
        context: String,
        /// Name of the local source.
        source: String,
    },
    /// A repository, or a file behind a URL.
    Source {
        /// Name of the context.
        context: String,
        /// URL as given.
        url: String,
        /// What brings it.
        source: SourceOp,
    },
    /// An image.
    Image(Box<ImageStart<'a>>),
}

/// An image that a stage starts from.
#[derive(Debug)]
pub(crate) struct ImageStart<'a> {
    /// Name of the context that it comes from, if it does.
    pub(crate) context: Option<String>,
    /// Where it is.
    pub(crate) location: ImageLocation,
    /// What is known of it.
    pub(crate) image: &'a ResolvedImage,
    /// Its platform, for the source vertex.
    pub(crate) platform: Platform,
}

/// Starts of the reachable stages by stage, or what has to be resolved first.
pub(crate) enum Resolution<'a> {
    /// Everything is known; `None` for stages that are not needed.
    Known(Vec<Option<Start<'a>>>),
    /// These images are not known.
    Needs(Vec<ImageRequest>),
}

/// Finds what every reachable stage of `plan` starts from, and adds the triggers of base images to it.
///
/// # Errors
/// All bases that cannot be used, and mistakes in triggers.
pub(crate) fn resolve<'a>(
    cx: &Context<'a>,
    plan: &mut Plan<'a>,
) -> Result<Resolution<'a>, Vec<FrontendError>> {
    loop {
        let reachable = plan.reachable(cx.options.all_stages);
        let mut starts = Vec::new();
        let (mut needs, mut errors) = (Vec::new(), Vec::new());
        for (id, is_reachable) in reachable.iter().enumerate() {
            let start = if *is_reachable { Some(start_of(cx, plan, id)) } else { None };
            match start.transpose() {
                Ok(Some(Found::Start(start))) => starts.push(Some(start)),
                Ok(Some(Found::Missing(request))) => {
                    needs.push(*request);
                    starts.push(None);
                }
                Ok(None) => starts.push(None),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        if !add_image_triggers(plan, &starts)? {
            return Ok(if needs.is_empty() {
                Resolution::Known(starts)
            } else {
                Resolution::Needs(needs)
            });
        }
    }
}

/// A start, or what is needed to know it.
enum Found<'a> {
    Start(Start<'a>),
    Missing(Box<ImageRequest>),
}

fn start_of<'a>(
    cx: &Context<'a>,
    plan: &Plan<'a>,
    id: StageId,
) -> Result<Found<'a>, FrontendError> {
    let stage = &plan.stages[id];
    let platform = stage.platform.as_ref().unwrap_or(&cx.target_platform);
    let at = NamePlace { place: stage.place, span: stage.name_span };
    let unset = &stage.unset;
    let located = match &stage.base {
        Base::Stage(base) => return Ok(Found::Start(Start::Stage(*base))),
        Base::Scratch => return Ok(Found::Start(Start::Scratch)),
        Base::Named(name) => {
            named_context::locate(cx, name, platform, at).map_err(|error| {
                // Stage names are lower-case, but FROM takes them as they are written.
                let lower = name.to_lowercase();
                let stage = plan.stage_names().find(|stage| **stage == lower);
                match undeclared(cx, unset) {
                    Some(hint) => error.with_hint(Some(hint)),
                    None => error.with_suggestion(stage),
                }
            })?
        }
        Base::Replaced { name, context } => {
            named_context::locate_context(name.clone(), context.clone(), at)?
        }
    };
    let (context, location) = match located {
        Located::Local { context, source } => {
            return Ok(Found::Start(Start::Local { context, source }));
        }
        Located::Source { context, url, source } => {
            return Ok(Found::Start(Start::Source { context, url, source }));
        }
        Located::Image { context, location } => (context, location),
    };
    if context.is_none() {
        report_latest(cx, stage);
    }
    if cx.images.is_unknown(&location, platform) {
        return Ok(Found::Start(Start::Unknown));
    }
    let any_platform = stage.platform.is_none() && !cx.platform_is_chosen();
    let Some(image) = cx.images.find(&location, platform) else {
        let written = match &stage.base {
            Base::Named(name) | Base::Replaced { name, .. } => name.clone(),
            _ => String::new(),
        };
        let known = plan.stage_names().chain(COMMON_IMAGES.iter().copied());
        let (mark, trigger) = stage.place.mark(stage.name_span);
        return Ok(Found::Missing(Box::new(ImageRequest {
            suggestion: llb::suggest::nearest(&written, known).map(str::to_owned),
            location,
            platform: platform.clone(),
            any_platform,
            mode: cx.options.resolve_mode,
            written,
            lines: stage.place.lines,
            at: mark,
            trigger: trigger.map(|trigger| plan.triggers.info(trigger)),
        })));
    };
    let platform = if any_platform { image.platform.clone() } else { platform.clone() };
    let image = ImageStart { context, location, image, platform };
    Ok(Found::Start(Start::Image(Box::new(image))))
}

/// Reports an image whose tag says nothing about its version.
fn report_latest(cx: &Context<'_>, stage: &Stage<'_>) {
    let Base::Named(name) = &stage.base else { return };
    let Ok(reference) = llb::Reference::parse_as_is(name) else { return };
    let what = match reference.tag() {
        None => "has no tag",
        Some("latest") => "has the tag latest",
        Some(_) => return,
    };
    if reference.digest().is_some() || stage.place.is_trigger() {
        return;
    }
    cx.linter.enter(stage.comments);
    cx.linter.report(Rule::LatestImageTag, stage.place.lines, || {
        format!("Image {} {what}: which version it is changes over time", go_text::quote(name))
    });
}

/// Adds the triggers of base images to the stages on top of them; says whether there were any.
fn add_image_triggers(
    plan: &mut Plan<'_>,
    starts: &[Option<Start<'_>>],
) -> Result<bool, Vec<FrontendError>> {
    let mut added = false;
    let mut errors = Vec::new();
    for (id, start) in starts.iter().enumerate() {
        let stage = &plan.stages[id];
        let (Some(Start::Image(start)), Base::Named(name), false) =
            (start, &stage.base, stage.has_triggers)
        else {
            continue;
        };
        let image = start.image;
        let base = format!("image `{name}`");
        if image.config.config.on_build.is_empty() {
            continue;
        }
        added = true;
        match plan.add_triggers(id, &image.config.config.on_build, &base) {
            found if found.is_empty() => errors.extend(plan.find_sources(id)),
            found => errors.extend(found),
        }
        if plan.budget.is_used_up() {
            break;
        }
    }
    if errors.is_empty() && added {
        errors.extend(plan.check_circles().err());
    }
    if errors.is_empty() { Ok(added) } else { Err(errors) }
}

/// Layers of an image; an image without layers whose history has none either is an empty tree.
pub(crate) fn layers(image: &ResolvedImage) -> Vec<DiffId> {
    image.config.rootfs.diff_ids.clone().unwrap_or_default()
}

/// The platform of an image that is for another system or architecture than `expected`.
///
/// Unless the platform was asked for, one that the same machine runs too will do.
pub(crate) fn is_foreign(
    image: &ResolvedImage,
    expected: &Platform,
    is_chosen: bool,
) -> Option<Platform> {
    let actual = image::platform_of(&image.config).normalized();
    let differs = actual.os != expected.os || actual.architecture != expected.architecture;
    let runs_too = !is_chosen
        && actual.os == expected.os
        && matches!(
            (expected.architecture.as_str(), actual.architecture.as_str()),
            ("amd64", "386") | ("arm64", "arm")
        );
    (differs && !runs_too && !actual.architecture.is_empty()).then_some(actual)
}
