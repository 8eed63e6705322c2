//! From a logical line to an instruction.
//!
//! Each submodule reads the arguments of some instructions. A reader that meets a mistake notes it
//! in the [`Context`] and goes on as far as that makes sense, so that one instruction can have
//! several mistakes.

mod command;
mod copy;
mod flags;
mod from;
mod healthcheck;
mod onbuild;
mod pairs;
mod run;

use llb::suggest;

use crate::ast::{Heredoc, InstructionKind, Lines, Span, Word};
use crate::error::{ParseError, ParseErrorKind};
use crate::json::{self, Json};
use crate::text::Logical;
use crate::tokens::{self, RawFlag};
use flags::{Flags, Known};

/// All instruction words, in lower case and sorted.
const KEYWORDS: [&str; 18] = [
    "add",
    "arg",
    "cmd",
    "copy",
    "entrypoint",
    "env",
    "expose",
    "from",
    "healthcheck",
    "label",
    "maintainer",
    "onbuild",
    "run",
    "shell",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// A logical line, split into its parts.
pub(crate) struct Statement<'a> {
    /// The keyword as written.
    pub(crate) keyword: &'a str,
    /// The keyword in lower case; none if it is unknown.
    pub(crate) known: Option<&'static str>,
    pub(crate) flags: Vec<RawFlag<'a>>,
    /// What follows the flags, trimmed.
    pub(crate) args: &'a str,
}

impl<'a> Statement<'a> {
    /// Splits a line.
    pub(crate) fn new(line: &'a str, escape: char) -> Self {
        let (keyword, rest) = tokens::split_first(line.trim());
        let known = KEYWORDS.into_iter().find(|it| it.eq_ignore_ascii_case(keyword));
        // An instruction cut off here keeps the place where its arguments would stand.
        let rest = rest.unwrap_or(&keyword[keyword.len()..]);
        let (flags, args) = tokens::flags(rest, escape);
        Self { keyword, known, flags, args }
    }

    /// Returns whether heredocs are looked for in the line; none if the keyword is unknown.
    pub(crate) fn can_have_heredocs(&self, escape: char) -> Option<bool> {
        match self.known? {
            "onbuild" => {
                let trigger = Statement::new(self.args, escape);
                Some(trigger.known != Some("onbuild") && trigger.is_heredoc_form())
            }
            _ => Some(self.is_heredoc_form()),
        }
    }

    fn is_heredoc_form(&self) -> bool {
        matches!(self.known, Some("run" | "copy" | "add")) && json::parse(self.args) == Json::No
    }
}

/// What the readers of arguments share.
pub(crate) struct Context<'a> {
    pub(crate) line: &'a Logical,
    pub(crate) escape: char,
    pub(crate) lines: Lines,
    pub(crate) errors: &'a mut Vec<ParseError>,
}

impl Context<'_> {
    /// Returns the part of the line as a word.
    fn word(&self, part: &str) -> Word {
        Word { text: part.to_owned(), span: self.line.span_of(part) }
    }

    fn words(&self, parts: Vec<&str>) -> Vec<Word> {
        parts.into_iter().map(|part| self.word(part)).collect()
    }

    /// Notes a mistake at the span.
    fn error(&mut self, kind: ParseErrorKind, span: Span) {
        self.errors.push(ParseError::new(kind, span, Some(self.lines)));
    }

    /// Notes a mistake at the part of the line; returns `None` for use as a result.
    fn refuse<T>(&mut self, kind: ParseErrorKind, part: &str) -> Option<T> {
        let span = self.line.span_of(part);
        self.error(kind, span);
        None
    }
}

/// Returns whether other instructions may mean something else without this one: if it is, or was meant as, one that
/// makes a stage or sets variables.
pub(crate) fn has_effect_on_others(keyword: &str) -> bool {
    let lower = keyword.to_lowercase();
    let meant = suggest::nearest_ignoring_case(&lower, KEYWORDS).unwrap_or(lower);
    matches!(meant.as_str(), "from" | "arg" | "env")
}

/// Reads the instruction of a statement. `None` if there were mistakes, which are noted.
pub(crate) fn parse(
    cx: &mut Context<'_>,
    statement: Statement<'_>,
    heredocs: Vec<Heredoc>,
) -> Option<InstructionKind> {
    let Statement { keyword, known, flags, args } = statement;
    let before = cx.errors.len();
    let site = Site { keyword, args };
    let kind = match known {
        Some("add") => copy::add(cx, &flags, site, &heredocs),
        // These two ignore flags, whatever they are.
        Some("arg") => pairs::arg(cx, site),
        Some("stopsignal") => single(cx, site, "STOPSIGNAL").map(InstructionKind::Stopsignal),
        Some("copy") => copy::copy(cx, &flags, site, &heredocs),
        Some("from") => from::parse(cx, &flags, site),
        Some("healthcheck") => healthcheck::parse(cx, &flags, site),
        Some("onbuild") => {
            no_flags(cx, &flags);
            onbuild::parse(cx, site, &heredocs)
        }
        Some("run") => run::parse(cx, &flags, site, heredocs),
        Some(known) => {
            no_flags(cx, &flags);
            without_flags(cx, known, site)
        }
        None => {
            let hint = suggest::question(suggest::nearest_ignoring_case(keyword, KEYWORDS));
            let kind = ParseErrorKind::UnknownInstruction { word: keyword.to_owned(), hint };
            cx.refuse(kind, keyword)
        }
    };
    kind.filter(|_| cx.errors.len() == before)
}

/// Keyword and arguments of an instruction, as parts of the line.
#[derive(Clone, Copy)]
struct Site<'a> {
    keyword: &'a str,
    args: &'a str,
}

impl<'a> Site<'a> {
    /// Returns what to point at: the arguments, or the keyword if there are none.
    fn part(&self) -> &'a str {
        if self.args.is_empty() { self.keyword } else { self.args }
    }
}

fn no_flags(cx: &mut Context<'_>, flags: &[RawFlag<'_>]) {
    const NONE: &Known = &[];
    Flags::check(cx, flags, NONE);
}

/// Reads the instructions that have no flags.
fn without_flags(cx: &mut Context<'_>, known: &str, site: Site<'_>) -> Option<InstructionKind> {
    use InstructionKind as Kind;
    match known {
        "cmd" => command::parse(cx, site.args, Vec::new()).map(Kind::Cmd),
        "entrypoint" => command::parse(cx, site.args, Vec::new()).map(Kind::Entrypoint),
        "env" => pairs::parse(cx, site, "ENV").map(Kind::Env),
        "expose" => expose(cx, site).map(Kind::Expose),
        "label" => pairs::parse(cx, site, "LABEL").map(Kind::Label),
        "maintainer" => single(cx, site, "MAINTAINER").map(Kind::Maintainer),
        "shell" => command::shell(cx, site).map(Kind::Shell),
        "user" => single(cx, site, "USER").map(Kind::User),
        "volume" => volume(cx, site).map(Kind::Volume),
        "workdir" => single(cx, site, "WORKDIR").map(Kind::Workdir),
        // All keywords are named here or in `parse`.
        _ => None,
    }
}

/// Reads the one argument of an instruction: all of the text.
fn single(cx: &mut Context<'_>, site: Site<'_>, name: &'static str) -> Option<Word> {
    if site.args.is_empty() {
        return cx.refuse(ParseErrorKind::ExactlyOneArgument(name), site.keyword);
    }
    Some(cx.word(site.args))
}

fn expose(cx: &mut Context<'_>, site: Site<'_>) -> Option<Vec<Word>> {
    let ports = tokens::plain_words(site.args);
    if ports.is_empty() {
        return cx.refuse(ParseErrorKind::AtLeastOneArgument("EXPOSE"), site.keyword);
    }
    Some(cx.words(ports))
}

fn volume(cx: &mut Context<'_>, site: Site<'_>) -> Option<Vec<Word>> {
    let volumes = list(cx, site.args)?;
    if volumes.is_empty() {
        return cx.refuse(ParseErrorKind::AtLeastOneArgument("VOLUME"), site.part());
    }
    for volume in volumes.iter().filter(|it| it.text.trim().is_empty()) {
        cx.error(ParseErrorKind::BlankVolume, volume.span);
    }
    Some(volumes)
}

/// Reads a list in JSON form, or split at blanks.
fn list(cx: &mut Context<'_>, args: &str) -> Option<Vec<Word>> {
    match json::parse(args) {
        Json::No => Some(cx.words(tokens::plain_words(args))),
        Json::NotStrings => cx.refuse(ParseErrorKind::NotStrings, args),
        Json::Strings(strings) => {
            let word = |(text, raw)| Word { text, span: cx.line.span_of(raw) };
            Some(strings.into_iter().map(word).collect())
        }
    }
}
