//! Converts `COPY` and `ADD` into file ops.

use llb::op::{
    CopyAction, FileAction, FileActionKind, FileInput, FileOp, MkfileAction, Owner, SourceOp,
    UserId,
};
use llb::url::redacted;
use llb::{Digest, Edge, Op, VertexMetadata};
use parser::{AddInstruction, CopyInstruction, InlineFile, Sources, Word};

use super::Converter;
use crate::chmod::Chmod;
use crate::error::{ErrorKind, FrontendError};
use crate::lint::Rule;
use crate::options::MainContext;
use crate::place::Place;
use crate::stage::{StageId, Step};
use crate::{expand, go_text, paths, remote};

/// `COPY` or `ADD` with its words expanded; flags that are empty then are left out.
struct Transfer {
    is_add: bool,
    from: Option<StageId>,
    chown: Option<Word>,
    chmod: Option<Word>,
    link: bool,
    parents: bool,
    unpack: Option<bool>,
    keep_git_dir: Option<bool>,
    checksum: Option<Word>,
    exclude: Vec<String>,
    sources: Vec<Word>,
    dest: String,
}

impl Transfer {
    /// History text: not all flags, and paths as they are written.
    fn history(&self, files: &[InlineFile]) -> String {
        let mut history = if self.is_add { "ADD" } else { "COPY" }.to_owned();
        history += if self.parents { " --parents" } else { "" };
        for (flag, value) in [("chown", &self.chown), ("chmod", &self.chmod)] {
            if let Some(value) = value {
                history = format!("{history} --{flag}={}", value.text);
            }
        }
        for source in &self.sources {
            history = history + " " + &redacted(&source.text);
        }
        for file in files {
            history = history + " <<" + &file.heredoc.name;
        }
        history + " " + &self.dest + " # buildkit"
    }
}

/// Something to copy from, and how.
struct Part {
    tree: Option<Edge>,
    action: CopyAction,
}

/// Owner that `--chown` or `USER` names; names are looked up in `input`.
pub(super) fn owner(text: &str, input: FileInput) -> Owner {
    let id = |part: &str| match part.parse::<i32>().ok().and_then(|id| u32::try_from(id).ok()) {
        Some(id) => UserId::Id(id),
        None if part == "root" => UserId::Id(0),
        None => UserId::Name { name: part.to_owned(), input },
    };
    let (user, group) =
        text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    Owner {
        user: (!user.is_empty()).then(|| id(user)),
        group: group.map(|group| if group.is_empty() { UserId::Id(0) } else { id(group) }),
    }
}

impl Converter<'_, '_> {
    /// Copies files from the context, a stage or an image.
    pub(super) fn copy(
        &mut self,
        step: &Step<'_>,
        copy: &CopyInstruction,
    ) -> Result<(), FrontendError> {
        let from = step.sources.first().copied().flatten();
        if let Some(id) = from
            && self.plan.is_later(id, self.id)
        {
            let (from, span) =
                copy.from.as_ref().map(|from| (from.text.clone(), from.span)).unwrap_or_default();
            let current = self.plan.stages[self.id].shown.clone();
            return Err(step.place.error_at(span, ErrorKind::CopyFromLaterStage { from, current }));
        }
        let transfer = Transfer {
            is_add: false,
            from,
            chown: self.expand_flag(step.place, copy.chown.as_ref())?,
            chmod: self.expand_flag(step.place, copy.chmod.as_ref())?,
            link: copy.link.is_some_and(|flag| flag.value),
            parents: copy.parents.is_some_and(|flag| flag.value),
            unpack: None,
            keep_git_dir: None,
            checksum: None,
            exclude: texts(&copy.exclude),
            sources: self.expand_sources(step, &copy.sources)?,
            dest: self.expand(step.place, &copy.sources.dest)?,
        };
        self.transfer(step, &transfer, &copy.sources.files)
    }

    /// Copies or unpacks files from the context or from elsewhere.
    pub(super) fn add(
        &mut self,
        step: &Step<'_>,
        add: &AddInstruction,
    ) -> Result<(), FrontendError> {
        let transfer = Transfer {
            is_add: true,
            from: None,
            chown: self.expand_flag(step.place, add.chown.as_ref())?,
            chmod: self.expand_flag(step.place, add.chmod.as_ref())?,
            link: add.link.is_some_and(|flag| flag.value),
            parents: false,
            unpack: add.unpack.map(|flag| flag.value),
            keep_git_dir: add.keep_git_dir.map(|flag| flag.value),
            checksum: self.expand_flag(step.place, add.checksum.as_ref())?,
            exclude: texts(&add.exclude),
            sources: self.expand_sources(step, &add.sources)?,
            dest: self.expand(step.place, &add.sources.dest)?,
        };
        self.transfer(step, &transfer, &add.sources.files)
    }

    fn expand_flag(
        &self,
        place: Place,
        flag: Option<&Word>,
    ) -> Result<Option<Word>, FrontendError> {
        let expanded = flag.map(|word| self.expand_word(place, word)).transpose()?;
        Ok(expanded.filter(|word| !word.text.is_empty()))
    }

    fn expand_sources(
        &mut self,
        step: &Step<'_>,
        sources: &Sources,
    ) -> Result<Vec<Word>, FrontendError> {
        let words: Vec<_> =
            sources.paths.iter().map(|word| self.expand_word(step.place, word)).collect();
        self.all(words)
    }

    fn expand_word(&self, place: Place, word: &Word) -> Result<Word, FrontendError> {
        Ok(Word { text: self.expand(place, word)?, span: word.span })
    }

    fn transfer(
        &mut self,
        step: &Step<'_>,
        transfer: &Transfer,
        files: &[InlineFile],
    ) -> Result<(), FrontendError> {
        let chmod = transfer.chmod.as_ref().map(|word| {
            let invalid = || ErrorKind::InvalidChmod { value: word.text.clone() };
            Chmod::parse(&word.text).ok_or_else(|| step.place.error_at(word.span, invalid()))
        });
        let chmod = chmod.transpose()?;
        check_checksum(step.place, transfer)?;
        let name = redacted(&self.step_name(step, "", &[])).into_owned();
        let template = self.copy_template(transfer, chmod.as_ref());
        let mut parts = Vec::new();
        for source in &transfer.sources {
            parts.push(self.source_part(step, transfer, &template, source, &name));
        }
        for file in files {
            parts.push(self.inline_part(step, &template, file));
        }
        let parts = self.all(parts)?;
        // The reference copies in the usual way when a mode is given too.
        let link = transfer.link && chmod.is_none();
        self.add_copies(step, transfer.chown.as_ref(), link, parts, name)?;
        self.history(transfer.history(files), true);
        Ok(())
    }

    /// What all copies of one instruction share.
    fn copy_template(&self, transfer: &Transfer, chmod: Option<&Chmod>) -> CopyAction {
        let (mode, mode_str) = match chmod {
            None => (-1, String::new()),
            Some(Chmod::Octal(mode)) => (*mode, String::new()),
            Some(Chmod::Symbolic(change)) => (-1, change.clone()),
        };
        CopyAction {
            src: String::new(),
            dest: paths::join_destination(&self.cwd(), &transfer.dest),
            owner: None,
            mode,
            mode_str,
            follow_symlink: false,
            dir_copy_contents: false,
            attempt_unpack: false,
            create_dest_path: true,
            allow_wildcard: false,
            allow_empty_wildcard: false,
            timestamp: -1,
            include_patterns: Vec::new(),
            exclude_patterns: transfer.exclude.clone(),
            always_replace_existing_dest_paths: false,
            required_paths: Vec::new(),
        }
    }

    /// The copy of one path or URL.
    fn source_part(
        &mut self,
        step: &Step<'_>,
        transfer: &Transfer,
        template: &CopyAction,
        source: &Word,
        name: &str,
    ) -> Result<Part, FrontendError> {
        let Word { text: source, span } = source;
        let refuse = |kind| Err(step.place.error_at(*span, kind));
        match remote::kind(source) {
            Some(kind) if !transfer.is_add => refuse(kind.refused_by_copy()),
            Some(remote::Kind::Git) => {
                let checksum = transfer.checksum.as_ref().map(|word| word.text.as_str());
                match remote::git::added(source, transfer.keep_git_dir, checksum) {
                    Ok(op) => Ok(self.git_part(step, template, op, name)),
                    Err(error) => refuse(error.into()),
                }
            }
            Some(remote::Kind::Http) => Ok(self.http_part(step, transfer, template, source, name)),
            None => self.file_part(step, transfer, template, source),
        }
    }

    fn http_part(
        &mut self,
        step: &Step<'_>,
        transfer: &Transfer,
        template: &CopyAction,
        url: &str,
        name: &str,
    ) -> Part {
        let file = remote::http::file_name(url);
        let checksum = transfer.checksum.as_ref().map(|word| word.text.as_str());
        let op = remote::http::source(url, &file, checksum);
        let tree = Some(self.remote_source(step, op, name));
        let action = CopyAction {
            src: format!("/{file}"),
            attempt_unpack: transfer.unpack.unwrap_or(false),
            ..template.clone()
        };
        Part { tree, action }
    }

    /// The copy of the tree of a repository.
    fn git_part(
        &mut self,
        step: &Step<'_>,
        template: &CopyAction,
        op: SourceOp,
        name: &str,
    ) -> Part {
        let tree = Some(self.remote_source(step, op, name));
        let action = CopyAction { src: "/".to_owned(), ..template.clone() };
        Part { tree, action }
    }

    /// The vertex that brings what a step copies.
    fn remote_source(&mut self, step: &Step<'_>, op: SourceOp, name: &str) -> Edge {
        let metadata = VertexMetadata {
            name: name.to_owned(),
            sources: step.place.sources(&self.cx.info, &self.plan.triggers),
            ..VertexMetadata::default()
        };
        Edge { vertex: self.definition.add(Op::Source(op), Vec::new(), None, metadata), output: 0 }
    }

    /// The copy of a path of the context, a stage or an image.
    fn file_part(
        &mut self,
        step: &Step<'_>,
        transfer: &Transfer,
        template: &CopyAction,
        source: &str,
    ) -> Result<Part, FrontendError> {
        let (root, pattern) = match source.split_once("/./") {
            Some((root, pattern)) if transfer.parents => (root, Some(pattern)),
            None if transfer.parents => ("/", Some(source)),
            _ => (source, None),
        };
        let used = paths::clean(source);
        let tree = match transfer.from {
            Some(id) => self.stage_source(id, &used).and_then(|state| state.edge),
            None => {
                self.report_ignored(step, transfer, &used);
                self.report_wide(step, transfer, &used);
                self.context_source(step.place, &used)?
            }
        };
        let pattern =
            pattern.map(|pattern| paths::clean(pattern).trim_start_matches('/').to_owned());
        let required = pattern.clone().filter(|pattern| !paths::has_wildcard(pattern));
        let action = CopyAction {
            src: paths::clean(root),
            follow_symlink: true,
            dir_copy_contents: true,
            attempt_unpack: transfer.unpack.unwrap_or(transfer.is_add),
            allow_wildcard: true,
            allow_empty_wildcard: true,
            include_patterns: pattern.into_iter().collect(),
            required_paths: required.into_iter().collect(),
            ..template.clone()
        };
        Ok(Part { tree, action })
    }

    /// The copy of an inline file.
    fn inline_part(
        &mut self,
        step: &Step<'_>,
        template: &CopyAction,
        file: &InlineFile,
    ) -> Result<Part, FrontendError> {
        let mut content = file.heredoc.content().into_owned();
        if file.heredoc.expand {
            let expanded = expand::heredoc(&content, &self.state.env, self.cx.budget)
                .map_err(|error| step.place.error_at(file.span, error.into()))?;
            self.report_unset(step.place, &expanded.unset);
            content = expanded.text;
        }
        let src = paths::clean(&file.heredoc.name);
        let action = MkfileAction {
            path: src.clone(),
            mode: 0o644,
            data: content.into_bytes(),
            owner: None,
            timestamp: -1,
        };
        let tree = Some(self.inline_file(step.place, action));
        Ok(Part { tree, action: CopyAction { src, ..template.clone() } })
    }

    /// Adds the vertex that makes all copies of an instruction, as one layer.
    fn add_copies(
        &mut self,
        step: &Step<'_>,
        chown: Option<&Word>,
        link: bool,
        parts: Vec<Part>,
        name: String,
    ) -> Result<(), FrontendError> {
        let base = if link { None } else { self.state.edge };
        let mut inputs: Vec<Edge> = base.into_iter().collect();
        let base_input = if base.is_some() { FileInput::Input(0) } else { FileInput::Scratch };
        let owner = chown.map(|word| owner(&word.text, base_input));
        if let Some(word) = chown.filter(|_| link && owner.as_ref().is_some_and(has_name)) {
            let kind = ErrorKind::NamedOwnerWithLink { owner: word.text.clone() };
            let hint = Some("use a numeric id".to_owned());
            return Err(step.place.error_at(word.span, kind).with_hint(hint));
        }
        let actions = actions(parts, base_input, owner.as_ref(), &mut inputs);
        if !link {
            self.state.note_result(self.cx);
        }
        let metadata = self.metadata(step, name, self.ignore_cache);
        let vertex =
            self.definition.add(Op::File(FileOp { actions }), inputs, None, metadata.clone());
        let copied = Edge { vertex, output: 0 };
        self.state.edge = Some(match self.state.edge {
            Some(below) if link => {
                self.state.note_result(self.cx);
                let metadata = VertexMetadata { ignore_cache: false, ..metadata };
                Edge {
                    vertex: self.definition.add(Op::Merge, vec![below, copied], None, metadata),
                    output: 0,
                }
            }
            _ => copied,
        });
        Ok(())
    }

    /// Reports a source that the ignore file leaves out, unless the file re-includes anything.
    fn report_ignored(&self, step: &Step<'_>, transfer: &Transfer, path: &str) {
        if !self.cx.linter.is_on(Rule::CopyIgnoredFile) {
            return;
        }
        let Some(ignored) = self.cx.ignored() else { return };
        let path = match path.trim_start_matches('/') {
            "" => ".",
            path => path,
        };
        if ignored.matches_or_parent(std::path::Path::new(path)) {
            let verb = if transfer.is_add { "Add" } else { "Copy" };
            self.cx.linter.report(Rule::CopyIgnoredFile, step.place.lines, || {
                let path = go_text::quote(path);
                format!("Attempting to {verb} file {path} that is excluded by .dockerignore")
            });
        }
    }

    /// Reports that everything of the context is taken when nothing is kept out of it.
    fn report_wide(&self, step: &Step<'_>, transfer: &Transfer, path: &str) {
        let is_wide = matches!(path, "/" | "/*" | "/**");
        let is_limited =
            !self.cx.options.ignore_patterns.is_empty() || !transfer.exclude.is_empty();
        // Only folders have ignore files.
        let is_folder = self.cx.options.context == MainContext::Local;
        if !is_wide || is_limited || !is_folder || step.place.is_trigger() {
            return;
        }
        let instruction = if transfer.is_add { "ADD" } else { "COPY" };
        self.cx.linter.report(Rule::WideCopyWithoutIgnoreFile, step.place.lines, || {
            format!(
                "{instruction} takes the whole context, and no .dockerignore keeps anything out of it"
            )
        });
    }
}

/// One action after the other on the tree `base`; what they copy from joins `inputs`.
fn actions(
    parts: Vec<Part>,
    base: FileInput,
    owner: Option<&Owner>,
    inputs: &mut Vec<Edge>,
) -> Vec<FileAction> {
    let last = parts.len().saturating_sub(1);
    let mut actions = Vec::new();
    for (index, Part { tree, mut action }) in parts.into_iter().enumerate() {
        let secondary_input = tree.map_or(FileInput::Scratch, |tree| {
            let known = inputs.iter().position(|input| *input == tree);
            FileInput::Input(known.unwrap_or_else(|| {
                inputs.push(tree);
                inputs.len() - 1
            }))
        });
        action.owner = owner.cloned();
        actions.push(FileAction {
            input: if index == 0 { base } else { FileInput::Action(index - 1) },
            secondary_input,
            output: (index == last).then_some(0),
            kind: FileActionKind::Copy(Box::new(action)),
        });
    }
    actions
}

fn has_name(owner: &Owner) -> bool {
    [&owner.user, &owner.group].into_iter().flatten().any(|id| matches!(id, UserId::Name { .. }))
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.text.clone()).collect()
}

/// Checks that a checksum is one and belongs to a single remote source.
fn check_checksum(place: Place, transfer: &Transfer) -> Result<(), FrontendError> {
    let Some(Word { text: checksum, span }) = &transfer.checksum else { return Ok(()) };
    let refuse = |kind| Err(place.error_at(*span, kind));
    let [source] = transfer.sources.as_slice() else {
        return refuse(ErrorKind::ChecksumForSeveral);
    };
    match remote::kind(&source.text) {
        None => refuse(ErrorKind::ChecksumForLocal),
        Some(remote::Kind::Http) if checksum.parse::<Digest>().is_err() => {
            refuse(ErrorKind::InvalidChecksum { value: checksum.clone() })
        }
        Some(_) => Ok(()),
    }
}
