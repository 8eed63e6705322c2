//! Why a text is not a Dockerfile.
//!
//! Messages are those of the reference, so that what users know and search for stays the same;
//! the label and the help are our own.

use miette::{Diagnostic, SourceSpan};
use thiserror::Error;

use crate::ast::{Lines, Span};
use crate::mount::MountError;
use crate::quote::Quoted;

/// All mistakes of a Dockerfile, in file order.
#[derive(Debug, Clone, PartialEq, Eq, Error, Diagnostic)]
#[error("{}", .errors.first().map(ParseError::message).unwrap_or_default())]
pub struct ParseErrors {
    /// The text that the spans refer to.
    #[source_code]
    pub text: String,
    /// The mistakes; at least one.
    #[related]
    pub errors: Vec<ParseError>,
}

/// One mistake in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Error, Diagnostic)]
#[error("{kind}")]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// Where exactly.
    #[label("{label}")]
    pub at: SourceSpan,
    /// What is wrong there, in a few words.
    pub label: &'static str,
    /// What to do about it.
    #[help]
    pub help: Option<String>,
    /// The lines to show; none for mistakes of the file as a whole.
    pub lines: Option<Lines>,
}

impl ParseError {
    /// Makes the error of this kind, with label and help.
    pub(crate) fn new(kind: ParseErrorKind, span: Span, lines: Option<Lines>) -> Self {
        let (label, help) = kind.explain();
        Self { at: span.into(), label, help: help.map(str::to_owned), lines, kind }
    }

    /// Returns whether the message is reported with the prefix `dockerfile parse error on line N`.
    ///
    /// Mistakes in lines and words have none, those in instructions have one.
    pub fn is_prefixed(&self) -> bool {
        use ParseErrorKind as K;
        !matches!(
            self.kind,
            K::Empty
                | K::NoInstructions
                | K::NoStages
                | K::LineTooLong
                | K::NotUtf8
                | K::DuplicateDirective(_)
                | K::InvalidEscape(_)
                | K::TwoArguments(_)
                | K::MissingEquals(_)
                | K::NotStrings
                | K::UnterminatedHeredoc
                | K::NoStage
                | K::TriggerCount
        )
    }

    /// Returns the message, with the prefix `dockerfile parse error on line N: ` if it has one.
    pub fn message(&self) -> String {
        match self.lines {
            Some(lines) if self.is_prefixed() => {
                format!("dockerfile parse error on line {}: {}", lines.start, self.kind)
            }
            _ => self.kind.to_string(),
        }
    }
}

/// The kinds of mistakes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// A file of zero bytes.
    #[error("the Dockerfile cannot be empty")]
    Empty,
    /// Only comments and blank lines.
    #[error("file with no instructions")]
    NoInstructions,
    /// No `FROM`.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// A physical line over the limit.
    #[error("dockerfile line greater than max allowed size of {}", crate::text::MAX_LINE)]
    LineTooLong,
    /// Bytes that are no text, outside of comments.
    #[error("invalid UTF-8 in an instruction")]
    NotUtf8,
    /// A parser directive twice.
    #[error("only one {0} parser directive can be used")]
    DuplicateDirective(&'static str),
    /// An escape directive with another character.
    #[error("invalid escape token '{0}' does not match ` or \\")]
    InvalidEscape(String),
    /// `ENV` or `LABEL` with a name and no value.
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    /// A word without `=` after one that has it.
    #[error(
        "Syntax error - can't find = in {}. Must be of the form: name=value",
        Quoted(.0)
    )]
    MissingEquals(String),
    /// A JSON array with other elements.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    /// A heredoc that runs to the end of the file.
    #[error("unterminated heredoc")]
    UnterminatedHeredoc,
    /// An instruction before the first `FROM`.
    #[error("no build stage in current context")]
    NoStage,
    /// A word that is no instruction.
    #[error("unknown instruction: {word}{hint}")]
    UnknownInstruction {
        /// The word as written.
        word: String,
        /// ` (did you mean ...?)` or nothing.
        hint: String,
    },
    /// A flag that the instruction does not have.
    #[error("unknown flag: --{name}{hint}")]
    UnknownFlag {
        /// Its name.
        name: String,
        /// ` (did you mean ...?)` or nothing.
        hint: String,
    },
    /// A flag twice.
    #[error("duplicate flag specified: --{0}")]
    DuplicateFlag(String),
    /// A flag without its value.
    #[error("missing a value on flag: --{0}")]
    MissingFlagValue(String),
    /// A flag that is not `true` or `false`.
    #[error("expecting boolean value for flag --{name}, not: {value}")]
    NotBoolean {
        /// Name of the flag.
        name: String,
        /// Its value.
        value: String,
    },
    /// No argument at all.
    #[error("{0} requires at least one argument")]
    AtLeastOneArgument(&'static str),
    /// No argument, where there has to be one.
    #[error("{0} requires exactly one argument")]
    ExactlyOneArgument(&'static str),
    /// Only one argument, or none.
    #[error(
        "{0} requires at least two arguments, but only one was provided. \
         Destination could not be determined"
    )]
    NoDestination(&'static str),
    /// An empty name.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// A heredoc where none can be.
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    /// A stage name with other characters.
    #[error(
        "invalid name for build stage: {}, name can't start with a number or contain symbols",
        Quoted(.0)
    )]
    StageName(String),
    /// `FROM` with another number of words.
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    /// `SHELL` in another form.
    #[error("SHELL requires the arguments to be in JSON form")]
    ShellNotJson,
    /// `HEALTHCHECK NONE` with something after it.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    /// `HEALTHCHECK CMD` with nothing after it.
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthcheckCommand,
    /// `HEALTHCHECK` of an unknown type.
    #[error("Unknown type {} in HEALTHCHECK (try CMD)", Quoted(.0))]
    HealthcheckType(String),
    /// A value that is no duration; the text says why.
    #[error("time: {0}")]
    Duration(String),
    /// A duration that is too short.
    #[error("Interval {} cannot be less than 1ms", Quoted(.0))]
    Interval(&'static str),
    /// A value that is no number.
    #[error("invalid value for --retries: {}", Quoted(.0))]
    Retries(String),
    /// A number below zero.
    #[error("--retries cannot be negative ({0})")]
    NegativeRetries(i32),
    /// `ONBUILD ONBUILD`
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnbuildChain,
    /// An instruction that cannot be a trigger.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnbuildTrigger(String),
    /// A trigger of a base image that is not one instruction.
    #[error("onbuild trigger should be a single expression")]
    TriggerCount,
    /// `VOLUME` with a blank word.
    #[error("VOLUME specified can not be an empty string")]
    BlankVolume,
    /// An unknown `--network`.
    #[error("invalid network mode {}", Quoted(.0))]
    NetworkMode(String),
    /// An unknown `--security`.
    #[error("security {} is not valid", Quoted(.0))]
    SecurityMode(String),
    /// A `--mount` that is wrong whatever its variables hold.
    #[error(transparent)]
    Mount(MountError),
}

impl ParseErrorKind {
    /// Returns the label and the help.
    fn explain(&self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Empty => ("nothing here", Some("start with `FROM <image>`")),
            Self::NoInstructions => ("nothing but comments", Some("start with `FROM <image>`")),
            Self::NoStages => ("no FROM up to here", Some("add `FROM <image>`")),
            Self::LineTooLong => ("this line", Some("break the line with continuations")),
            Self::NotUtf8 => ("bytes that are not UTF-8", Some("save the file as UTF-8")),
            Self::DuplicateDirective(_) => ("the second one", Some("remove one of the two")),
            Self::InvalidEscape(_) => ("neither of the two", Some("use `\\` or a backtick")),
            Self::TwoArguments(_) => ("no value", Some("write `name=value`")),
            Self::MissingEquals(_) => {
                ("no `=` here", Some("put a value with blanks in quotes: name=\"a b\""))
            }
            Self::NotStrings => {
                ("not only strings", Some("put every element of the array in double quotes"))
            }
            Self::UnterminatedHeredoc => (
                "never closed",
                Some("the closing line must be the name alone, without blanks around it"),
            ),
            Self::NoStage => ("before the first FROM", Some("only ARG can stand before FROM")),
            Self::UnknownInstruction { hint, .. } => {
                let continued = "a line that goes on in the next one ends with `\\`; \
                                 lines of a script belong in a heredoc";
                ("not an instruction", Some(continued).filter(|_| hint.is_empty()))
            }
            Self::UnknownFlag { hint, .. } => {
                let place = "flags stand between the instruction and its arguments; \
                             one of a command stands behind the command";
                ("not a flag of this instruction", Some(place).filter(|_| hint.is_empty()))
            }
            Self::DuplicateFlag(_) => ("the second one", Some("remove one of the two")),
            Self::MissingFlagValue(_) => ("no value", Some("write `--flag=value`, without blanks")),
            Self::NotBoolean { .. } => ("not a boolean", Some("use `true` or `false`")),
            Self::AtLeastOneArgument(name) | Self::ExactlyOneArgument(name) => {
                ("no argument", usage(name))
            }
            Self::NoDestination(_) => ("no destination", Some("add where to copy to")),
            Self::BlankName(name) => ("no name before `=`", usage(name)),
            Self::HeredocDestination(_) => {
                ("a heredoc", Some("put the heredoc before the destination"))
            }
            Self::StageName(_) => (
                "not a stage name",
                Some("start with a letter, go on with letters, digits, `-`, `_` and `.`"),
            ),
            Self::FromArguments => {
                ("too few or too many words", Some("write `FROM image` or `FROM image AS name`"))
            }
            Self::ShellNotJson => ("not JSON", Some("write `SHELL [\"/bin/sh\", \"-c\"]`")),
            Self::HealthcheckNone => ("not allowed here", Some("write `HEALTHCHECK NONE` alone")),
            Self::HealthcheckCommand => ("no command", usage("HEALTHCHECK")),
            Self::HealthcheckType(_) => ("neither CMD nor NONE", usage("HEALTHCHECK")),
            Self::Duration(_) => ("not a duration", Some("write a number and a unit: `1m30s`")),
            Self::Interval(_) => ("too short", Some("use 0 to inherit the base image's value")),
            Self::Retries(_) => ("not a number", Some("write a whole number, such as 3")),
            Self::NegativeRetries(_) => ("below zero", Some("use 0 for the default")),
            Self::OnbuildChain => (
                "not allowed here",
                Some("a trigger runs in the build that uses this image, and in no later one"),
            ),
            Self::OnbuildTrigger(_) => ("not allowed here", Some("use another instruction")),
            Self::TriggerCount => ("not one instruction", Some("give each its own ONBUILD")),
            Self::BlankVolume => ("empty", Some("name a path, or leave the empty word out")),
            Self::NetworkMode(_) => ("unknown", Some("use `default`, `none` or `host`")),
            Self::SecurityMode(_) => ("unknown", Some("use `sandbox` or `insecure`")),
            Self::Mount(error) => ("in this mount", error.hint()),
        }
    }
}

/// How an instruction is written.
fn usage(name: &str) -> Option<&'static str> {
    Some(match name {
        "ADD" => "write `ADD source... destination`",
        "ARG" => "write `ARG name` or `ARG name=default`",
        "ENV" => "write `ENV name=value`",
        "EXPOSE" => "write `EXPOSE 8080` or `EXPOSE 53/udp`",
        "HEALTHCHECK" => "write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`",
        "LABEL" => "write `LABEL name=value`",
        "MAINTAINER" => "write `MAINTAINER name`",
        "ONBUILD" => "write the instruction behind it: `ONBUILD RUN command`",
        "SHELL" => "write `SHELL [\"/bin/sh\", \"-c\"]`",
        "STOPSIGNAL" => "write `STOPSIGNAL SIGTERM`",
        "USER" => "write `USER name` or `USER uid:gid`",
        "VOLUME" => "write `VOLUME /path`",
        "WORKDIR" => "write `WORKDIR /path`",
        _ => return None,
    })
}
