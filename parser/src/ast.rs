//! The syntax tree of a Dockerfile.
//!
//! ```text
//! Dockerfile ── directives, warnings, text
//!  └ Instruction ── keyword, comments, lines, span
//!     └ InstructionKind ── one struct per instruction
//!        └ Word, Heredoc ── raw text and where it stands
//! ```
//!
//! Invariants:
//! - Every [`Span`] is a valid byte range of [`Dockerfile::text`] that starts and ends at character
//!   boundaries. The range of a word that is broken by a line continuation covers the continuation
//!   too.
//! - Words are raw: quotes, escapes and variables in them are still to be processed by
//!   [`word`](crate::word). Elements of JSON forms are already JSON-decoded.
//! - [`Lines`] are one-based, inclusive, and count physical lines.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use miette::SourceSpan;

/// A byte range of [`Dockerfile::text`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset after the last byte.
    pub end: usize,
}

impl Span {
    /// Returns the span from `start` to `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }

    /// Returns the span as a range, for slicing.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// Returns the smallest span that covers both.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl From<Span> for SourceSpan {
    fn from(span: Span) -> Self {
        span.range().into()
    }
}

/// A range of physical lines, one-based and inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lines {
    /// First line.
    pub start: usize,
    /// Last line; never less than `start`.
    pub end: usize,
}

/// A piece of text and where it stands in the file.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Word {
    /// The text; what was done to it already is said where the word is used.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} @ {:?}", self.text, self.span)
    }
}

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// Parser directives from the top of the file.
    pub directives: Directives,
    /// All instructions in file order. The first that is not `ARG` is `FROM`, and there is at
    /// least one `FROM`.
    pub instructions: Vec<Instruction>,
    /// The text that spans refer to: the input without a byte order mark, with invalid UTF-8 in
    /// comments replaced by U+FFFD.
    pub text: String,
    /// What is dubious but no error, in file order.
    pub warnings: Vec<Warning>,
}

/// The parser directives of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// `# syntax=`: image reference of an external frontend, with its command line.
    pub syntax: Option<Directive>,
    /// `# escape=`: a backslash unless the file says otherwise.
    pub escape: Escape,
    /// `# check=`: options of the build checks.
    pub check: Option<Directive>,
}

/// One parser directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The whole value, trimmed.
    pub value: String,
    /// Where the value stands.
    pub span: Span,
    /// The one-based line it is on.
    pub line: usize,
}

impl Directive {
    /// Returns the value up to the first space, which is all that counts of `check`, and the image
    /// reference of `syntax`.
    pub fn first_word(&self) -> &str {
        self.value.split(' ').next().unwrap_or_default()
    }
}

/// The escape character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Escape {
    /// `\`, the default.
    #[default]
    Backslash,
    /// `` ` ``.
    Backtick,
}

impl Escape {
    /// Returns the character itself.
    pub fn char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }
}

/// Something dubious in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub kind: WarningKind,
    /// The line that it is reported for: for an empty continuation the last line of the
    /// instruction.
    pub line: usize,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of warnings that the parser gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarningKind {
    /// A blank line inside a continued instruction (`NoEmptyContinuation`).
    EmptyContinuation,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// The keyword as written, such as `From`.
    pub keyword: Word,
    /// The whole logical line, trimmed, with continuations joined, without heredoc bodies.
    pub text: String,
    /// From the keyword to the end of the instruction, heredoc bodies included.
    pub span: Span,
    /// First line to last consumed line, heredoc bodies included.
    pub lines: Lines,
    /// The comments before it, as far back as the previous instruction or empty comment.
    pub comments: Vec<Comment>,
    /// What it says.
    pub kind: InstructionKind,
}

/// A comment line before an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// The text after the first byte of the line, trimmed. An indented comment keeps its `#`.
    pub text: String,
    /// The whole line, without its line break.
    pub span: Span,
    /// The one-based line it is on.
    pub line: usize,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq)]
pub enum InstructionKind {
    /// `ADD`
    Add(AddInstruction),
    /// `ARG`
    Arg(Arg),
    /// `CMD`
    Cmd(Command),
    /// `COPY`
    Copy(CopyInstruction),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`
    Env(Pairs),
    /// `EXPOSE`: at least one word, in written order. They are to be sorted as text before they
    /// are expanded.
    Expose(Vec<Word>),
    /// `FROM`
    From(FromInstruction),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Pairs),
    /// `MAINTAINER`
    Maintainer(Word),
    /// `ONBUILD`
    Onbuild(Onbuild),
    /// `RUN`
    Run(Run),
    /// `SHELL`: at least one element.
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    Stopsignal(Word),
    /// `USER`
    User(Word),
    /// `VOLUME`: at least one word, none of them blank.
    Volume(Vec<Word>),
    /// `WORKDIR`
    Workdir(Word),
}

impl InstructionKind {
    /// Returns the keyword in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::From(_) => "FROM",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The JSON form: the arguments, decoded. May be empty.
    Exec(Vec<String>),
    /// The shell form.
    Shell(ShellCommand),
}

/// A command in shell form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellCommand {
    /// The text after the flags, trimmed, otherwise exactly as written. May be empty.
    pub text: String,
    /// Where it stands, without heredoc bodies.
    pub span: Span,
    /// Heredocs of the line in order of appearance; only `RUN` has any.
    pub heredocs: Vec<Heredoc>,
}

impl ShellCommand {
    /// Returns the heredoc if the command is exactly one heredoc word and nothing else.
    pub fn sole_heredoc(&self) -> Option<&Heredoc> {
        match self.heredocs.as_slice() {
            [heredoc] if crate::heredoc::is_heredoc_word(&self.text) => Some(heredoc),
            _ => None,
        }
    }
}

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes.
    pub name: String,
    /// The file descriptor before `<<`, if any.
    pub fd: Option<u32>,
    /// False if any part of the delimiter is quoted.
    pub expand: bool,
    /// True for `<<-`.
    pub chomp: bool,
    /// The body, byte for byte, without the terminating line. Tabs are not removed yet. It is
    /// shared, as all words of one name in a line stand for the same body.
    pub body: Arc<str>,
    /// Where the body stands.
    pub body_span: Span,
}

impl Heredoc {
    /// Returns the body, without the leading tabs of every line if the heredoc is a `<<-` one.
    pub fn content(&self) -> Cow<'_, str> {
        if !self.chomp {
            return Cow::Borrowed(&self.body);
        }
        let lines = self.body.split_inclusive('\n');
        Cow::Owned(lines.map(|line| line.trim_start_matches('\t')).collect())
    }
}

/// A boolean flag, such as `--link` or `--link=false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoolFlag {
    /// What it says.
    pub value: bool,
    /// Where the whole flag stands.
    pub span: Span,
}

/// `FROM [--platform=P] IMAGE [AS NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromInstruction {
    /// Value of `--platform`.
    pub platform: Option<Word>,
    /// Base image, stage or `scratch`.
    pub image: Word,
    /// The stage's own name.
    pub stage: Option<StageName>,
}

/// `AS NAME`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageName {
    /// `AS` as written.
    pub keyword: Word,
    /// The name as written.
    pub written: Word,
    /// The name in lower case, which is the one to use.
    pub name: String,
}

/// `ARG NAME[=DEFAULT]...`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// At least one.
    pub args: Vec<ArgItem>,
}

/// One variable of an `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgItem {
    /// Its name, raw, not empty.
    pub name: Word,
    /// Its default value, raw.
    pub default: Option<Word>,
}

/// The pairs of `ENV` or `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    /// At least one.
    pub pairs: Vec<Pair>,
    /// True for the form without `=`, `ENV NAME VALUE`, which has one pair.
    pub legacy: bool,
}

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name, raw, not empty.
    pub name: Word,
    /// The value, raw.
    pub value: Word,
}

/// `RUN [FLAGS] COMMAND`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Values of `--mount`, in written order.
    pub mounts: Vec<MountFlag>,
    /// Value of `--network`.
    pub network: Option<Network>,
    /// Value of `--security`.
    pub security: Option<Security>,
    /// Values of `--device`, raw, in written order.
    pub devices: Vec<Word>,
    /// What to run.
    pub command: Command,
}

/// One `--mount` of a `RUN`. Its other options are read by [`mount::parse`](crate::mount::parse).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    /// The raw value.
    pub value: Word,
    /// The stage, context or image that it reads from; never expanded.
    pub from: Option<String>,
}

/// `--network`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// As the whole build.
    Default,
    /// No network.
    None,
    /// The network of the builder.
    Host,
}

/// `--security`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Confined.
    Sandbox,
    /// With all privileges of the builder.
    Insecure,
}

/// Sources and destination of `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Paths (or URLs for `ADD`), raw, in written order.
    pub paths: Vec<Word>,
    /// Inline files, which come after all paths; `paths` and `files` are not both empty.
    pub files: Vec<InlineFile>,
    /// The destination, raw.
    pub dest: Word,
}

/// A heredoc that is a source of `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Where the heredoc word stands.
    pub span: Span,
    /// The heredoc. Its delimiter is the name of the file, its [`content`](Heredoc::content) that of
    /// the file; if it is to be expanded, [`word::expand_heredoc`](crate::word::expand_heredoc) does.
    pub heredoc: Heredoc,
}

/// `COPY [FLAGS] SOURCE... DEST`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyInstruction {
    /// Value of `--from`, raw; variables in it are not supported.
    pub from: Option<Word>,
    /// Value of `--chown`.
    pub chown: Option<Word>,
    /// Value of `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`
    pub link: Option<BoolFlag>,
    /// `--parents`
    pub parents: Option<BoolFlag>,
    /// Values of `--exclude`, in written order.
    pub exclude: Vec<Word>,
    /// What to copy and where to.
    pub sources: Sources,
}

/// `ADD [FLAGS] SOURCE... DEST`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddInstruction {
    /// Value of `--chown`.
    pub chown: Option<Word>,
    /// Value of `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`
    pub link: Option<BoolFlag>,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<BoolFlag>,
    /// Value of `--checksum`.
    pub checksum: Option<Word>,
    /// `--unpack`
    pub unpack: Option<BoolFlag>,
    /// Values of `--exclude`, in written order.
    pub exclude: Vec<Word>,
    /// What to add and where to.
    pub sources: Sources,
}

/// `HEALTHCHECK`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`
    None,
    /// `HEALTHCHECK [FLAGS] CMD COMMAND`
    Cmd(HealthcheckCommand),
}

/// A health check that runs a command. Zero durations and retries mean "as inherited".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthcheckCommand {
    /// Value of `--interval`; like all others zero or at least 1 ms.
    pub interval: Duration,
    /// Value of `--timeout`.
    pub timeout: Duration,
    /// Value of `--start-period`.
    pub start_period: Duration,
    /// Value of `--start-interval`.
    pub start_interval: Duration,
    /// Value of `--retries`.
    pub retries: u32,
    /// What to run; never empty.
    pub command: Command,
}

/// `ONBUILD INSTRUCTION`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// What is stored in the image: the line without the `ONBUILD` word, followed by a line break,
    /// body and name for each heredoc. [`parse_trigger`](crate::parse_trigger) reads it.
    pub trigger: String,
    /// Where the trigger stands, heredoc bodies included.
    pub span: Span,
}
