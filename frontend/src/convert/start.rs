//! `FROM`: what a stage starts with.

use llb::op::SourceOp;
use llb::url::redacted;
use llb::{Definition, Edge, Op, Platform, VertexMetadata};

use super::{Done, StageState};
use crate::context::Context;
use crate::image;
use crate::lint::Rule;
use crate::outcome::{ImageLocation, ResolvedImage};
use crate::resolve::{self, ImageStart, Start};
use crate::scope::{LinePlaces, Variables};
use crate::stage::{Base, Plan, StageId};
use crate::step_name::StepNames;

/// The state of stage `id` before its first instruction.
pub(super) fn state(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    done: &Done,
    definition: &mut Definition,
    id: StageId,
    start: &Start<'_>,
    names: &mut StepNames,
) -> StageState {
    let platform = platform(cx, plan, done, id, start);
    let mut state = StageState {
        edge: None,
        image: image::empty(&platform),
        platform,
        env: Variables::default(),
        declared: Variables::default(),
        env_places: LinePlaces::default(),
        workdir_is_set: false,
        user: None,
        base_is_unknown: false,
        local: None,
        base_history_len: 0,
        base_layers: Vec::new(),
        base_image: None,
    };
    state.edge = edge(cx, plan, definition, id, start, names);
    match start {
        Start::Stage(base) => {
            if let Some(base) = done.get(*base).and_then(Option::as_ref) {
                state = base.clone();
                state.image.config.on_build.clear();
            }
        }
        Start::Scratch | Start::Source { .. } => {}
        Start::Unknown => state.base_is_unknown = true,
        Start::Local { source, .. } => state.local = Some(source.clone()),
        Start::Image(start) => set_image(&mut state, plan, id, start),
    }
    image::ensure_path(&mut state.image, &state.platform.os);
    for (name, value) in Variables::from_lines(&state.image.config.env).iter() {
        state.env.set(name, value);
    }
    state.env_places = LinePlaces::of(&state.image.config.env);
    state
}

/// Adds the source that stage `id` starts from, if it is one.
pub(super) fn edge(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    definition: &mut Definition,
    id: StageId,
    start: &Start<'_>,
    names: &mut StepNames,
) -> Option<Edge> {
    match start {
        Start::Stage(_) | Start::Scratch | Start::Unknown => None,
        Start::Local { context, source } => Some(local_source(cx, definition, source, context)),
        Start::Image(start) => image_edge(cx, plan, definition, id, start, names),
        Start::Source { context, url, source } => {
            let name = match source.identifier.starts_with("git://") {
                true => format!("[internal] load git source {}", redacted(url)),
                false => format!("[context {context}] {}", redacted(url)),
            };
            let sources = plan.stages[id].place.sources(&cx.info, &plan.triggers);
            let metadata = VertexMetadata { name, sources, ..VertexMetadata::default() };
            let vertex = definition.add(Op::Source(source.clone()), Vec::new(), None, metadata);
            Some(Edge { vertex, output: 0 })
        }
    }
}

/// Puts an image into an empty state.
fn set_image(state: &mut StageState, plan: &Plan<'_>, id: StageId, start: &ImageStart<'_>) {
    let image = start.image;
    state.image = image::on_top_of(&image.config);
    if plan.stages[id].has_triggers {
        state.image.config.on_build.clear();
    }
    state.base_history_len = image.config.history.as_ref().map_or(0, Vec::len);
    state.base_layers = resolve::layers(image);
    state.base_image = Some(format!("{}@{}", image.reference, image.digest));
}

/// Adds the vertex of an image; one without layers has none.
fn image_edge(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    definition: &mut Definition,
    id: StageId,
    start: &ImageStart<'_>,
    names: &mut StepNames,
) -> Option<Edge> {
    let stage = &plan.stages[id];
    let image = start.image;
    if start.context.is_none() {
        report_foreign_platform(cx, plan, id, image);
    }
    if resolve::layers(image).is_empty() {
        return None;
    }
    let metadata = VertexMetadata {
        name: image_name(start.context.as_deref(), image, names),
        sources: stage.place.sources(&cx.info, &plan.triggers),
        stage: stage.name.clone(),
        ..VertexMetadata::default()
    };
    let op = Op::Source(image_source(&start.location, image));
    let vertex = definition.add(op, Vec::new(), Some(start.platform.clone()), metadata);
    Some(Edge { vertex, output: 0 })
}

/// Platform of the steps of stage `id`: its base stage's, its image's, else the one asked for.
pub(super) fn platform(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    done: &Done,
    id: StageId,
    start: &Start<'_>,
) -> Platform {
    let inherited = match start {
        Start::Stage(base) => {
            done.get(*base).and_then(Option::as_ref).map(|base| base.platform.clone())
        }
        Start::Image(image) => Some(image.platform.clone()),
        Start::Scratch | Start::Local { .. } | Start::Source { .. } | Start::Unknown => None,
    };
    let asked = plan.stages[id].platform.as_ref().unwrap_or(&cx.target_platform);
    inherited.unwrap_or_else(|| asked.clone())
}

/// The vertex of a folder that is the context `context`.
fn local_source(
    cx: &Context<'_>,
    definition: &mut Definition,
    source: &str,
    context: &str,
) -> Edge {
    let name = format!("[context {context}] load from client");
    let metadata = VertexMetadata { name, ..VertexMetadata::default() };
    let op = Op::Source(cx.locals.source(source));
    Edge { vertex: definition.add(op, Vec::new(), None, metadata), output: 0 }
}

/// The source op of an image, pinned to its digest.
fn image_source(location: &ImageLocation, image: &ResolvedImage) -> SourceOp {
    match location {
        ImageLocation::Registry(_) => SourceOp {
            identifier: format!("docker-image://{}@{}", image.reference, image.digest),
            attrs: Default::default(),
        },
        ImageLocation::OciLayout { context, path, .. } => SourceOp {
            identifier: format!("oci-layout://{context}@{}", image.digest),
            attrs: [("oci.store".to_owned(), path.clone())].into(),
        },
    }
}

/// Step name of an image.
fn image_name(context: Option<&str>, image: &ResolvedImage, names: &mut StepNames) -> String {
    let pinned = format!("{}@{}", image.reference, image.digest);
    match context {
        Some(context) => format!("[context {context}] {pinned}"),
        None => names.next(&format!("FROM {pinned}"), false, None),
    }
}

/// Reports an image for another platform than the stage asks for.
fn report_foreign_platform(cx: &Context<'_>, plan: &Plan<'_>, id: StageId, image: &ResolvedImage) {
    let stage = &plan.stages[id];
    let expected = stage.platform.as_ref().unwrap_or(&cx.target_platform).normalized();
    let is_chosen = stage.platform.is_some() || cx.platform_is_chosen();
    if let Some(actual) = resolve::is_foreign(image, &expected, is_chosen) {
        cx.linter.enter(stage.comments);
        cx.linter.report(Rule::InvalidBaseImagePlatform, stage.place.lines, || {
            let name = match &stage.base {
                Base::Named(name) => name,
                _ => &image.reference,
            };
            format!(
                "Base image {name} was pulled with platform \"{actual}\", expected \"{expected}\" for current build"
            )
        });
    }
}
