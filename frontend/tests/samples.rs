//! Dockerfiles as files: each gives the definition, config and warnings, or the errors, that are recorded.
//!
//! All samples are converted here, those in `testdata/frontend` for their meaning, those in `testdata/parser` for
//! their syntax; the parser's tests read all of them. A last line `#: ARGS` in a sample is its command line.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use llb::op::{FileActionKind, FileInput, MountKind, Op, Owner, UserId};
use llb::{Edge, Vertex};

#[test]
fn every_sample_converts_as_recorded() {
    insta::glob!("../../testdata", "{parser,frontend}/*.Dockerfile", |path| {
        let text = fs_err::read(path).unwrap();
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(dump(&text));
        });
    });
}

/// A sample whose name begins with `broken-` or `error-` cannot be converted, and every other one can.
#[test]
fn names_say_which_samples_are_broken() {
    let (mut broken, mut fine) = (BTreeSet::new(), BTreeSet::new());
    insta::glob!("../../testdata", "{parser,frontend}/*.Dockerfile", |path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs_err::read(path).unwrap();
        let is_broken = support::convert(&text, &options_of(&text)).is_err();
        assert_eq!(name.starts_with("broken-") || name.starts_with("error-"), is_broken, "{name}");
        let is_new =
            if is_broken { broken.insert(name.clone()) } else { fine.insert(name.clone()) };
        assert!(is_new, "{name} is there twice");
    });
    assert!(broken.len() >= 60, "only {} are broken", broken.len());
    assert!(broken.len() + fine.len() >= 150, "only {} and {}", broken.len(), fine.len());
}

/// The options on the last line of a sample.
fn options_of(text: &[u8]) -> frontend::Options {
    let shown = String::from_utf8_lossy(text);
    let lines = shown.lines().filter_map(|line| line.strip_prefix("#: "));
    let args: Vec<String> = lines.flat_map(|line| line.split(' ').map(str::to_owned)).collect();
    support::options(&args, "/ctx")
}

fn dump(text: &[u8]) -> String {
    match support::convert(text, &options_of(text)) {
        Err(errors) => errors.join("\n"),
        Ok(Err(requests)) => requests
            .iter()
            .map(|request| {
                format!(
                    "needs {:?} for {}, line {}, similar: {:?}\n",
                    request.location, request.platform, request.lines.start, request.suggestion
                )
            })
            .collect(),
        Ok(Ok(build)) => dump_build(&build),
    }
}

fn dump_build(build: &frontend::Build) -> String {
    let mut out = String::new();
    let (masked, images) = ("IMAGES", support::images().display().to_string());
    for (index, vertex) in build.definition.vertices().iter().enumerate() {
        dump_vertex(&mut out, index, vertex);
    }
    for target in &build.targets {
        let result = target.result.map_or("empty".to_owned(), edge);
        let base =
            target.base_image.as_deref().map_or("none", |image| image.split('@').next().unwrap());
        writeln!(
            out,
            "\ntarget {} = {result}, base {base}: {} layers, {} history entries",
            target.platform,
            target.base_layers.len(),
            target.base_history_len
        )
        .unwrap();
        let json = serde_json::to_value(&target.config).unwrap();
        writeln!(out, "{} {}", json["os"], json["architecture"]).unwrap();
        for (key, value) in json["config"].as_object().unwrap() {
            writeln!(out, "  {key}: {value}").unwrap();
        }
        for entry in target.config.history.iter().flatten().skip(target.base_history_len) {
            let kind = if entry.empty_layer { "empty" } else { "layer" };
            writeln!(out, "  {kind}: {}", entry.created_by.replace('\n', "\\n")).unwrap();
        }
    }
    for warning in &build.warnings {
        writeln!(
            out,
            "warning {}: {} (line {})",
            warning.rule, warning.message, warning.lines.start
        )
        .unwrap();
    }
    out.replace(&images, masked)
}

fn edge(edge: Edge) -> String {
    if edge.output == 0 {
        format!("v{}", edge.vertex)
    } else {
        format!("v{}.{}", edge.vertex, edge.output)
    }
}

fn dump_vertex(out: &mut String, index: usize, vertex: &Vertex) {
    let inputs: Vec<String> = vertex.inputs.iter().map(|input| edge(*input)).collect();
    let platform =
        vertex.platform.as_ref().map_or(String::new(), |platform| format!(" for {platform}"));
    let flags = if vertex.metadata.ignore_cache { " ignore-cache" } else { "" };
    let lines: Vec<String> = vertex
        .metadata
        .sources
        .iter()
        .map(|range| format!(" line {}-{}", range.start, range.end))
        .collect();
    let name = vertex.metadata.name.replace('\n', "\\n");
    writeln!(out, "v{index} {name:?}{platform}{flags}{}", lines.concat()).unwrap();
    let input = |number: &FileInput| match number {
        FileInput::Scratch => "scratch".to_owned(),
        FileInput::Input(number) => inputs[*number].clone(),
        FileInput::Action(number) => format!("action {number}"),
    };
    match &vertex.op {
        Op::Source(source) => {
            writeln!(out, "  source {} {:?}", source.identifier, source.attrs).unwrap()
        }
        Op::Merge | Op::Diff { .. } => writeln!(out, "  merge {}", inputs.join(" ")).unwrap(),
        Op::Exec(exec) => dump_exec(out, exec, &inputs),
        Op::File(file) => {
            for action in &file.actions {
                let from = input(&action.input);
                let to = if action.output.is_some() { " -> output" } else { "" };
                writeln!(
                    out,
                    "  on {from}: {}{to}",
                    file_action(&action.kind, &input(&action.secondary_input))
                )
                .unwrap();
            }
        }
    }
}

fn dump_exec(out: &mut String, exec: &llb::op::ExecOp, inputs: &[String]) {
    let meta = &exec.meta;
    writeln!(out, "  exec {:?}\n  env {:?}", meta.args, meta.env).unwrap();
    writeln!(
        out,
        "  cwd {:?} user {:?} network {:?} security {:?}",
        meta.cwd, meta.user, exec.network, exec.security
    )
    .unwrap();
    if let Some(proxy) = &meta.proxy_env {
        writeln!(out, "  {proxy:?}").unwrap();
    }
    for secret in &exec.secret_env {
        writeln!(out, "  {secret:?}").unwrap();
    }
    for device in &exec.cdi_devices {
        writeln!(out, "  {device:?}").unwrap();
    }
    for mount in &exec.mounts {
        let source = mount.input.map_or("empty".to_owned(), |input| inputs[input].clone());
        let kind = match &mount.kind {
            MountKind::Bind => "bind".to_owned(),
            kind => format!("{kind:?}"),
        };
        let access = if mount.readonly { "ro" } else { "rw" };
        let output = if mount.output.is_some() { " -> output" } else { "" };
        writeln!(out, "  mount {} {access} {kind} {source}:{}{output}", mount.dest, mount.selector)
            .unwrap();
    }
}

fn file_action(kind: &FileActionKind, secondary: &str) -> String {
    match kind {
        FileActionKind::Copy(copy) => {
            let mut text = format!("copy {secondary}:{} to {}", copy.src, copy.dest);
            let flags = [
                (copy.follow_symlink, "follow"),
                (copy.dir_copy_contents, "contents"),
                (copy.attempt_unpack, "unpack"),
                (copy.allow_wildcard, "wildcard"),
            ];
            for (_, flag) in flags.iter().filter(|(is_set, _)| *is_set) {
                text = text + " " + flag;
            }
            if copy.mode != -1 {
                text += &format!(" mode {:o}", copy.mode);
            }
            for (name, value) in [
                ("mode", format!("{:?}", copy.mode_str)),
                ("include", format!("{:?}", copy.include_patterns)),
                ("exclude", format!("{:?}", copy.exclude_patterns)),
                ("required", format!("{:?}", copy.required_paths)),
            ] {
                if !["[]", "\"\""].contains(&value.as_str()) {
                    text = format!("{text} {name} {value}");
                }
            }
            text + &owner(copy.owner.as_ref())
        }
        FileActionKind::Mkfile(file) => {
            let data = String::from_utf8_lossy(&file.data);
            format!("mkfile {} {:o} {data:?}{}", file.path, file.mode, owner(file.owner.as_ref()))
        }
        FileActionKind::Mkdir(dir) => {
            format!(
                "mkdir {} {:o} at {}{}",
                dir.path,
                dir.mode,
                dir.timestamp,
                owner(dir.owner.as_ref())
            )
        }
        other => format!("{other:?}"),
    }
}

fn owner(owner: Option<&Owner>) -> String {
    let part = |id: &Option<UserId>| match id {
        None => "default".to_owned(),
        Some(UserId::Id(id)) => id.to_string(),
        Some(UserId::Name { name, input }) => format!("{name:?} of {input:?}"),
    };
    owner.map_or(String::new(), |owner| {
        format!(" owner {} group {}", part(&owner.user), part(&owner.group))
    })
}
