//! Where an instruction stands, for errors, warnings and vertices.

use std::sync::Arc;

use llb::{SourceInfo, SourceRange};
use miette::SourceSpan;
use parser::{Instruction, Span};

use crate::error::{ErrorKind, FrontendError};
use crate::outcome::LineRange;

/// Index of a trigger in [`Triggers`].
pub(crate) type TriggerId = usize;

/// Place of an instruction in the Dockerfile; a trigger stands where its `FROM` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Lines of the instruction.
    pub(crate) lines: LineRange,
    span: Span,
    /// The trigger whose own text spans inside the instruction refer to.
    trigger: Option<TriggerId>,
}

impl Place {
    /// Place of an instruction of the file.
    pub(crate) fn of(instruction: &Instruction) -> Self {
        let lines = LineRange { start: instruction.lines.start, end: instruction.lines.end };
        Self { lines, span: instruction.span, trigger: None }
    }

    /// Place of what stands nowhere in the file.
    pub(crate) fn at_start() -> Self {
        let lines = LineRange { start: 1, end: 1 };
        Self { lines, span: Span::default(), trigger: None }
    }

    /// Place of a trigger that this `FROM` sets off.
    pub(crate) fn for_trigger(self, trigger: TriggerId) -> Self {
        Self { trigger: Some(trigger), ..self }
    }

    /// Whether this is the place of a trigger.
    pub(crate) fn is_trigger(self) -> bool {
        self.trigger.is_some()
    }

    /// An error about the whole instruction.
    pub(crate) fn error(self, kind: ErrorKind) -> FrontendError {
        self.at(self.span, None, kind)
    }

    /// An error about a part of the instruction.
    pub(crate) fn error_at(self, span: Span, kind: ErrorKind) -> FrontendError {
        match self.trigger {
            None => self.at(span, None, kind),
            Some(_) => self.at(self.span, Some(span.into()), kind),
        }
    }

    fn at(self, span: Span, in_trigger: Option<SourceSpan>, kind: ErrorKind) -> FrontendError {
        let hint = kind.hint().map(str::to_owned);
        FrontendError {
            kind: Box::new(kind),
            at: span.into(),
            lines: self.lines,
            hint,
            trigger: None,
            in_trigger: self.trigger.map(|trigger| Box::new((trigger, in_trigger))),
        }
    }

    /// What to mark of a part of the instruction, and the trigger that it is a part of.
    pub(crate) fn mark(self, span: Span) -> (SourceSpan, Option<TriggerId>) {
        match self.trigger {
            None => (span.into(), None),
            trigger => (self.span.into(), trigger),
        }
    }

    /// Where a vertex comes from, innermost first: the trigger if it is one, and the lines of the file.
    pub(crate) fn sources(self, info: &Arc<SourceInfo>, triggers: &Triggers) -> Vec<SourceRange> {
        let trigger = self.trigger.map(|trigger| {
            let info = triggers.info(trigger);
            let end = info.text.lines().count().max(1);
            SourceRange { info, start: 1, end }
        });
        let (start, end) = (self.lines.start, self.lines.end);
        trigger.into_iter().chain([SourceRange { info: Arc::clone(info), start, end }]).collect()
    }
}

/// The triggers of bases, each as a source file of its own.
#[derive(Debug, Default)]
pub(crate) struct Triggers(Vec<Arc<SourceInfo>>);

impl Triggers {
    /// Adds a trigger; `base` says where it comes from, such as ``image `node` ``.
    pub(crate) fn add(&mut self, base: &str, text: &str) -> TriggerId {
        let filename = format!("ONBUILD trigger of {base}");
        self.0.push(Arc::new(SourceInfo { filename, text: text.to_owned() }));
        self.0.len() - 1
    }

    /// The trigger as a source file.
    pub(crate) fn info(&self, trigger: TriggerId) -> Arc<SourceInfo> {
        self.0.get(trigger).cloned().unwrap_or_else(|| {
            Arc::new(SourceInfo { filename: String::new(), text: String::new() })
        })
    }

    /// Gives an error the text of the trigger that it is about.
    pub(crate) fn explain(&self, mut error: FrontendError) -> FrontendError {
        if let Some((trigger, at)) = error.in_trigger.take().map(|it| *it) {
            error.trigger = Some(Box::new(InTrigger { info: self.info(trigger), at }));
        }
        error
    }
}

/// The place of a mistake in a trigger of a base image or stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InTrigger {
    /// The trigger; its file name says which image or stage it comes from.
    pub info: Arc<SourceInfo>,
    /// Bytes of the trigger to mark.
    pub at: Option<SourceSpan>,
}

impl FrontendError {
    /// An error about what the Dockerfile does not say: the command line, or the file as a whole.
    pub(crate) fn nowhere(kind: ErrorKind) -> Self {
        let lines = LineRange { start: 0, end: 0 };
        let hint = kind.hint().map(str::to_owned);
        let at = Span::default().into();
        Self { kind: Box::new(kind), at, lines, hint, trigger: None, in_trigger: None }
    }

    /// This error with advice.
    pub(crate) fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// This error with the advice to use a similar word, if there is one.
    pub(crate) fn with_suggestion(self, word: Option<&str>) -> Self {
        match word {
            Some(word) => self.with_hint(Some(format!("did you mean `{word}`?"))),
            None => self,
        }
    }
}
