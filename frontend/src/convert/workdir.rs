//! Converts `WORKDIR`: the config, and a file op that makes the folder.

use llb::op::{FileAction, FileActionKind, FileInput, FileOp, MkdirAction};
use llb::{Edge, Op};
use parser::Word;

use super::Converter;
use super::copy::owner;
use crate::error::FrontendError;
use crate::go_text;
use crate::lint::Rule;
use crate::paths;
use crate::stage::Step;

impl Converter<'_, '_> {
    /// Sets and makes the working directory.
    pub(super) fn workdir(&mut self, step: &Step<'_>, word: &Word) -> Result<(), FrontendError> {
        let path = self.expand(step.place, word)?;
        if !self.state.workdir_is_set && !path.starts_with('/') {
            self.cx.linter.report(Rule::WorkdirRelativePath, step.place.lines, || {
                format!(
                    "Relative workdir {} can have unexpected results if the base image changes",
                    go_text::quote(&path)
                )
            });
        }
        self.state.workdir_is_set = true;
        // An absolute path is kept as it is written, a relative one is cleaned.
        let path = if path.starts_with('/') { path } else { paths::join(&self.cwd(), &path) };
        self.state.image.config.working_dir.clone_from(&path);
        let makes_layer = path != "/";
        if makes_layer {
            self.make_directory(step, &path);
        }
        self.history(format!("WORKDIR {path}"), makes_layer);
        Ok(())
    }

    fn make_directory(&mut self, step: &Step<'_>, path: &str) {
        self.state.note_result(self.cx);
        let inputs: Vec<Edge> = self.state.edge.into_iter().collect();
        let input = if inputs.is_empty() { FileInput::Scratch } else { FileInput::Input(0) };
        let user = self.state.image.config.user.clone();
        let epoch = self.cx.epoch;
        let action = MkdirAction {
            path: paths::clean(path),
            mode: 0o755,
            make_parents: true,
            owner: (!user.is_empty()).then(|| owner(&user, input)),
            timestamp: epoch.map_or(-1, |seconds| seconds.saturating_mul(1_000_000_000)),
        };
        let op = FileOp {
            actions: vec![FileAction {
                input,
                secondary_input: FileInput::Scratch,
                output: Some(0),
                kind: FileActionKind::Mkdir(action),
            }],
        };
        let name = self.step_name(step, "", &[]);
        let metadata = self.metadata(step, name, false);
        let vertex = self.definition.add(Op::File(op), inputs, None, metadata);
        self.state.edge = Some(Edge { vertex, output: 0 });
    }

    /// Name of a step: its text with variables replaced, `hidden` ones by stars, and `suffix`.
    pub(super) fn step_name(&mut self, step: &Step<'_>, suffix: &str, hidden: &[String]) -> String {
        let escape = self.cx.escape();
        let (text, env) = (&step.instruction.text, &self.state.env);
        let shown = crate::expand::for_display(text, escape, env, hidden, self.cx.budget);
        self.names.next(&format!("{shown}{suffix}"), step.place.is_trigger(), Some(&self.state.env))
    }
}
