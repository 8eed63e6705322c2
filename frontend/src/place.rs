//! Where an instruction stands, for errors, warnings and vertices.

use std::sync::Arc;

use llb::{SourceInfo, SourceRange};
use parser::{Instruction, Span};

use crate::error::{ErrorKind, FrontendError};
use crate::outcome::LineRange;

/// Place of an instruction in the Dockerfile; a trigger stands where its `FROM` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Lines of the instruction.
    pub(crate) lines: LineRange,
    span: Span,
    /// Whether spans inside the instruction are those of a trigger's own text.
    is_trigger: bool,
}

impl Place {
    /// Place of an instruction of the file.
    pub(crate) fn of(instruction: &Instruction) -> Self {
        let lines = LineRange { start: instruction.lines.start, end: instruction.lines.end };
        Self { lines, span: instruction.span, is_trigger: false }
    }

    /// Place of what stands nowhere in the file.
    pub(crate) fn at_start() -> Self {
        let lines = LineRange { start: 1, end: 1 };
        Self { lines, span: Span::default(), is_trigger: false }
    }

    /// Place of the triggers that this `FROM` sets off.
    pub(crate) fn for_triggers(self) -> Self {
        Self { is_trigger: true, ..self }
    }

    /// Whether this is the place of a trigger.
    pub(crate) fn is_trigger(self) -> bool {
        self.is_trigger
    }

    /// An error about the whole instruction.
    pub(crate) fn error(self, kind: ErrorKind) -> FrontendError {
        FrontendError { kind: Box::new(kind), at: self.span.into(), lines: self.lines, hint: None }
    }

    /// An error about a part of the instruction.
    pub(crate) fn error_at(self, span: Span, kind: ErrorKind) -> FrontendError {
        let at = if self.is_trigger { self.span } else { span };
        FrontendError { kind: Box::new(kind), at: at.into(), lines: self.lines, hint: None }
    }

    /// The lines, for a vertex.
    pub(crate) fn source(self, info: &Arc<SourceInfo>) -> SourceRange {
        SourceRange { info: info.clone(), start: self.lines.start, end: self.lines.end }
    }
}

impl FrontendError {
    /// An error about the file as a whole.
    pub(crate) fn at_start(kind: ErrorKind) -> Self {
        let lines = LineRange { start: 1, end: 1 };
        Self { kind: Box::new(kind), at: Span::default().into(), lines, hint: None }
    }

    /// This error with advice.
    pub(crate) fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// This error with the advice to use a similar word, if there is one.
    pub(crate) fn with_suggestion(self, word: Option<&str>) -> Self {
        self.with_hint(word.map(|word| format!("did you mean `{word}`?")))
    }
}
