//! Flags against what the instruction knows.

use llb::suggest;

use crate::ast::{BoolFlag, Word};
use crate::error::ParseErrorKind;
use crate::tokens::RawFlag;

use super::Context;

/// What kind of value a flag has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// `--name`, `--name=true` or `--name=false`.
    Bool,
    /// `--name=value`, once.
    Text,
    /// `--name=value`, as often as one likes.
    List,
}

/// The flags of an instruction, sorted by name.
pub(super) type Known = [(&'static str, Type)];

/// The valid flags of a statement, in written order.
#[derive(Default)]
pub(super) struct Flags {
    texts: Vec<(&'static str, Word)>,
    bools: Vec<(&'static str, BoolFlag)>,
}

impl Flags {
    /// Sorts out the flags; notes all that are wrong.
    pub(super) fn check(cx: &mut Context<'_>, raw: &[RawFlag<'_>], known: &Known) -> Self {
        let mut flags = Self::default();
        let mut seen = Vec::new();
        for flag in raw {
            let (name, value) = match flag.text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag.text.as_str(), None),
            };
            let Some((name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let names = known.iter().map(|(name, _)| *name);
                let hint = suggest::question(suggest::nearest(name, names));
                let kind = ParseErrorKind::UnknownFlag { name: name.to_owned(), hint };
                cx.refuse::<()>(kind, flag.raw);
                continue;
            };
            if seen.contains(name) && *kind != Type::List {
                cx.refuse::<()>(ParseErrorKind::DuplicateFlag((*name).to_owned()), flag.raw);
                continue;
            }
            if !seen.contains(name) {
                seen.push(name);
            }
            let result = match kind {
                Type::Bool => flags.add_bool(cx, name, value, flag.raw),
                Type::Text | Type::List => flags.add_text(cx, name, value, flag.raw),
            };
            if let Err(kind) = result {
                cx.refuse::<()>(kind, flag.raw);
            }
        }
        flags
    }

    fn add_bool(
        &mut self,
        cx: &Context<'_>,
        name: &'static str,
        value: Option<&str>,
        raw: &str,
    ) -> Result<(), ParseErrorKind> {
        let value = match value.map(str::to_lowercase).as_deref() {
            None | Some("true") => true,
            Some("false") => false,
            Some("") => return Err(ParseErrorKind::MissingFlagValue(name.to_owned())),
            Some(_) => {
                let value = value.unwrap_or_default().to_owned();
                return Err(ParseErrorKind::NotBoolean { name: name.to_owned(), value });
            }
        };
        self.bools.push((name, BoolFlag { value, span: cx.line.span_of(raw) }));
        Ok(())
    }

    fn add_text(
        &mut self,
        cx: &Context<'_>,
        name: &'static str,
        value: Option<&str>,
        raw: &str,
    ) -> Result<(), ParseErrorKind> {
        let value = value.ok_or_else(|| ParseErrorKind::MissingFlagValue(name.to_owned()))?;
        let written = raw.split_once('=').map_or(raw, |(_, written)| written);
        let span = cx.line.span_of(written);
        self.texts.push((name, Word { text: value.to_owned(), span }));
        Ok(())
    }

    /// Takes the value of a flag.
    pub(super) fn text(&mut self, name: &str) -> Option<Word> {
        let at = self.texts.iter().position(|(it, _)| *it == name)?;
        Some(self.texts.remove(at).1)
    }

    /// Takes all values of a flag.
    pub(super) fn list(&mut self, name: &str) -> Vec<Word> {
        self.texts.extract_if(.., |(it, _)| *it == name).map(|(_, value)| value).collect()
    }

    /// Returns what a boolean flag says.
    pub(super) fn bool(&self, name: &str) -> Option<BoolFlag> {
        self.bools.iter().find(|(it, _)| *it == name).map(|(_, flag)| *flag)
    }
}
