//! From a tree back to text.
//!
//! The text is made of what the tree says, not of how it was written: one line for an instruction,
//! flags in one order, one style of quotes. The one exception is a line in which quotes or `${` in a
//! flag decide which heredocs there are; such a line is printed as it was written.
//!
//! Invariant: for every tree that [`parse`](crate::parse) returns, parsing the printed text gives the
//! same tree [without layout](Dockerfile::without_layout).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ast::{
    AddInstruction, ArgItem, BoolFlag, Command, Comment, CopyInstruction, Directive, Dockerfile,
    Escape, FromInstruction, Healthcheck, HealthcheckCommand, Heredoc, InlineFile, Instruction,
    InstructionKind, Network, Pairs, Run, Security, ShellCommand, Sources, StageName, Word,
};
use crate::heredoc::{self, Head};
use crate::instruction::Statement;
use crate::json::{self, Json};
use crate::text::MAX_LINE;
use crate::tokens;

/// Longest part of a line to which a continuation mark can be added.
const MAX_PIECE: usize = MAX_LINE - 2;

/// Prints a tree as the text of a Dockerfile, for which [`parse`](crate::parse) gives the same tree
/// but for its [layout](Dockerfile::without_layout).
///
/// The tree has to be one that came from a text: there is none for a stage name with blanks, say.
pub fn print(file: &Dockerfile) -> String {
    let escape = file.directives.escape;
    let mut out = String::new();
    let directives = &file.directives;
    if let Some(Directive { value, .. }) = &directives.syntax {
        out.push_str(&comment_line(&format!("syntax={value}")));
    }
    if escape == Escape::Backtick {
        out.push_str("# escape=`\n");
    }
    if let Some(Directive { value, .. }) = &directives.check {
        out.push_str(&comment_line(&format!("check={value}")));
    }
    let has_comments = file.instructions.first().is_some_and(|first| !first.comments.is_empty());
    if !out.is_empty() || has_comments {
        // What follows is not to be taken for a directive.
        out.push('\n');
    }
    let printer = Printer { escape: escape.char() };
    for instruction in &file.instructions {
        for Comment { text, .. } in &instruction.comments {
            out.push_str(&comment_line(text));
        }
        printer.instruction(&mut out, instruction);
    }
    out
}

/// Returns a line with a comment. The blank is left out where the line would be too long.
fn comment_line(text: &str) -> String {
    let blank = if text.len() + 2 > MAX_LINE { "" } else { " " };
    format!("#{blank}{text}\n")
}

/// What to do with `$` in flags. It means nothing there, but does where heredocs are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dollar {
    Plain,
    Quoted,
}

/// A printed instruction.
struct Printed<'a> {
    /// Its logical line.
    line: String,
    /// The heredocs of the line and their bodies.
    heredocs: Vec<(Head, &'a str)>,
}

struct Printer {
    escape: char,
}

impl Printer {
    fn instruction(&self, out: &mut String, it: &Instruction) {
        if let InstructionKind::Onbuild(onbuild) = &it.kind {
            let trigger = onbuild.trigger.as_str();
            let (line, bodies) = trigger.split_at(trigger.find('\n').unwrap_or(trigger.len()));
            self.line(out, &join(&it.keyword.text, "", line));
            out.push_str(bodies.strip_prefix('\n').unwrap_or(bodies));
            out.push_str(if bodies.is_empty() { "" } else { "\n" });
            return;
        }
        let plain = self.printed(it, Dollar::Plain);
        let printed = Some(plain).filter(|it| self.has_its_heredocs(it)).or_else(|| {
            Some(self.printed(it, Dollar::Quoted)).filter(|it| self.has_its_heredocs(it))
        });
        let printed = printed.unwrap_or_else(|| self.as_written(it));
        self.line(out, &printed.line);
        for (Head { name, .. }, body) in printed.heredocs {
            out.extend([body, &name, "\n"]);
        }
    }

    /// Returns the instruction as the tree says it.
    fn printed<'a>(&self, it: &'a Instruction, dollar: Dollar) -> Printed<'a> {
        use InstructionKind as Kind;
        let keyword = &it.keyword.text;
        let flags = Flags { escape: self.escape, dollar, text: String::new() };
        let plain = |flags: &str, args: &str| Printed {
            line: join(keyword, flags, args),
            heredocs: Vec::new(),
        };
        match &it.kind {
            Kind::Add(it) => self.sources(keyword, &add_flags(flags, it), &it.sources),
            Kind::Arg(it) => plain("", &self.quoted_words(it.args.iter().map(arg))),
            Kind::Cmd(it) | Kind::Entrypoint(it) => plain("", &command(it)),
            Kind::Copy(it) => self.sources(keyword, &copy_flags(flags, it), &it.sources),
            Kind::Env(it) | Kind::Label(it) => plain("", &self.pairs(it)),
            Kind::Expose(it) => plain("", &spaced(it)),
            Kind::From(it) => plain(&flags.text("platform", &it.platform).text, &from(it)),
            Kind::Healthcheck(Healthcheck::None) => plain("", "NONE"),
            Kind::Healthcheck(Healthcheck::Cmd(it)) => {
                plain(&healthcheck_flags(flags, it), &format!("CMD {}", command(&it.command)))
            }
            Kind::Shell(it) => plain("", &json_form(it.iter().map(String::as_str))),
            Kind::Maintainer(it) | Kind::Stopsignal(it) | Kind::User(it) | Kind::Workdir(it) => {
                plain("", &it.text)
            }
            Kind::Onbuild(it) => plain("", &it.trigger),
            Kind::Run(it) => Printed {
                heredocs: heredocs_of(&it.command).iter().map(with_head).collect(),
                ..plain(&run_flags(flags, it), &command(&it.command))
            },
            Kind::Volume(it) => plain("", &list(it)),
        }
    }

    /// Returns the instruction as it was written.
    fn as_written<'a>(&self, it: &'a Instruction) -> Printed<'a> {
        let line = it.text.clone();
        let heads = self.heads(&line);
        let heredocs = match &it.kind {
            InstructionKind::Copy(copy) => with_bodies(heads, &copy.sources.files),
            InstructionKind::Add(add) => with_bodies(heads, &add.sources.files),
            InstructionKind::Run(run) => heredocs_of(&run.command).iter().map(with_head).collect(),
            _ => Vec::new(),
        };
        Printed { line, heredocs }
    }

    /// Returns the sources and the destination of `COPY` or `ADD`, paths before files. Words that
    /// would be read in another way are in JSON form.
    fn sources<'a>(&self, keyword: &str, flags: &str, it: &'a Sources) -> Printed<'a> {
        let files = it.files.iter().map(|file| heredoc_word(&file.heredoc));
        let words: Vec<String> =
            it.paths.iter().map(|word| word.text.clone()).chain(files).collect();
        let line = join(keyword, flags, &format!("{} {}", words.join(" "), it.dest.text));
        let heads = it.files.iter().map(|file| with_head(&file.heredoc).0).collect();
        let heredocs = with_bodies(heads, &it.files);
        let paths = || it.paths.iter().chain([&it.dest]);
        let is_plain = || {
            is_plain_list(&paths().map(|word| word.text.as_str()).collect::<Vec<_>>())
                && paths().all(|word| !heredoc::is_heredoc_word(&word.text))
                && self.heads(&line).is_empty()
        };
        if !it.files.is_empty() || is_plain() {
            return Printed { line, heredocs };
        }
        let json = json_form(paths().map(|word| word.text.as_str()));
        Printed { line: join(keyword, flags, &json), heredocs }
    }

    fn pairs(&self, it: &Pairs) -> String {
        match it.pairs.as_slice() {
            [pair] if it.legacy => {
                // Only one blank would be escaped, and so be part of the name.
                let blanks = if pair.name.text.ends_with(self.escape) { "  " } else { " " };
                format!("{}{blanks}{}", pair.name.text, pair.value.text)
            }
            pairs => self
                .quoted_words(pairs.iter().map(|it| format!("{}={}", it.name.text, it.value.text))),
        }
    }

    /// Joins the words of `ARG`, `ENV` or `LABEL`.
    fn quoted_words(&self, words: impl Iterator<Item = String>) -> String {
        let mut text = words.collect::<Vec<_>>().join(" ");
        if text.ends_with(char::is_whitespace) {
            // An escaped or quoted blank would be trimmed; an escape of nothing is dropped.
            text.push(self.escape);
        }
        text
    }

    /// Returns whether the parser will find these heredocs in the line.
    fn has_its_heredocs(&self, printed: &Printed<'_>) -> bool {
        self.heads(&printed.line).iter().eq(printed.heredocs.iter().map(|(head, _)| head))
    }

    /// Returns the heredocs that the parser finds in a logical line.
    fn heads(&self, line: &str) -> Vec<Head> {
        let may_have = Statement::new(line, self.escape).can_have_heredocs(self.escape);
        if may_have == Some(true) { heredoc::find_words(line) } else { Vec::new() }
    }

    /// Adds a logical line, broken where it is longer than a physical one can be.
    fn line(&self, out: &mut String, line: &str) {
        let mut rest = line;
        while rest.len() > MAX_PIECE {
            let Some(cut) = self.cut(rest) else { break };
            let (piece, after) = rest.split_at(cut);
            out.push_str(piece);
            out.extend([self.escape, '\n']);
            rest = after;
        }
        out.push_str(rest);
        if rest.ends_with(self.escape) {
            // An escape before this blank, which is trimmed, continues no line.
            out.push('\x0b');
        }
        out.push('\n');
    }

    /// Returns the last place where a long line can be broken: not behind an escape, and not where
    /// what follows is blank or would be a comment.
    fn cut(&self, line: &str) -> Option<usize> {
        let mut cut = line.floor_char_boundary(MAX_PIECE);
        let (piece, after) = line.split_at(cut);
        let mut next = after.chars().find(|c| !c.is_whitespace());
        for (at, c) in piece.char_indices().rev() {
            if c != self.escape && !matches!(next, None | Some('#')) {
                return Some(cut);
            }
            next = if c.is_whitespace() { next } else { Some(c) };
            cut = at;
        }
        None
    }
}

/// Joins keyword, flags and arguments. Arguments that look like flags are kept from being them.
fn join(keyword: &str, flags: &str, args: &str) -> String {
    let end_of_flags = if args.starts_with("--") { " --" } else { "" };
    let blank = if args.is_empty() { "" } else { " " };
    format!("{keyword}{flags}{end_of_flags}{blank}{args}")
}

/// Flags, each with a blank before it.
struct Flags {
    escape: char,
    dollar: Dollar,
    text: String,
}

impl Flags {
    fn raw(mut self, name: &str, value: &str) -> Self {
        self.text.extend([" --", name, "=", value]);
        self
    }

    fn text(self, name: &str, value: &Option<Word>) -> Self {
        self.list(name, value.as_slice())
    }

    fn list(self, name: &str, values: &[Word]) -> Self {
        values.iter().fold(self, |flags, value| {
            let value = flags.quoted(&value.text);
            flags.raw(name, &value)
        })
    }

    fn bool(mut self, name: &str, flag: Option<BoolFlag>) -> Self {
        match flag {
            Some(BoolFlag { value: true, .. }) => self.text.extend([" --", name]),
            Some(BoolFlag { value: false, .. }) => return self.raw(name, "false"),
            None => {}
        }
        self
    }

    fn time(self, name: &str, time: Duration) -> Self {
        let nanos = time.as_nanos();
        match nanos {
            0 => self,
            _ if nanos.is_multiple_of(1_000_000_000) => {
                self.raw(name, &format!("{}s", time.as_secs()))
            }
            _ if nanos.is_multiple_of(1_000_000) => {
                self.raw(name, &format!("{}ms", time.as_millis()))
            }
            _ => self.raw(name, &format!("{nanos}ns")),
        }
    }

    /// Returns a value, in quotes if it needs them. Quotes are such that a flag and a shell word,
    /// as which it is read where heredocs are looked for, end at the same place.
    fn quoted(&self, value: &str) -> String {
        let needs_quotes = |c: char| match c {
            '\'' | '"' | '\\' | '<' => true,
            '$' => self.dollar == Dollar::Quoted,
            c => c.is_whitespace() || c == self.escape,
        };
        if !value.contains(needs_quotes) {
            return value.to_owned();
        }
        let mut quoted = String::from("'");
        for c in value.chars() {
            match c {
                '\'' => quoted.push_str("'\"'\"'"),
                c if c == self.escape => quoted.extend([c, c]),
                c => quoted.push(c),
            }
        }
        quoted + "'"
    }
}

fn add_flags(flags: Flags, it: &AddInstruction) -> String {
    let AddInstruction { chown, chmod, link, keep_git_dir, checksum, unpack, exclude, sources: _ } =
        it;
    let flags = flags.text("chown", chown).text("chmod", chmod).bool("link", *link);
    let flags = flags.bool("keep-git-dir", *keep_git_dir).text("checksum", checksum);
    flags.bool("unpack", *unpack).list("exclude", exclude).text
}

fn copy_flags(flags: Flags, it: &CopyInstruction) -> String {
    let CopyInstruction { from, chown, chmod, link, parents, exclude, sources: _ } = it;
    let flags = flags.text("from", from).text("chown", chown).text("chmod", chmod);
    flags.bool("link", *link).bool("parents", *parents).list("exclude", exclude).text
}

fn healthcheck_flags(flags: Flags, it: &HealthcheckCommand) -> String {
    let flags = flags.time("interval", it.interval).time("timeout", it.timeout);
    let flags = flags.time("start-period", it.start_period);
    let flags = flags.time("start-interval", it.start_interval);
    match it.retries {
        0 => flags.text,
        retries => flags.raw("retries", &retries.to_string()).text,
    }
}

fn run_flags(flags: Flags, it: &Run) -> String {
    let Run { mounts, network, security, devices, command: _ } = it;
    let mut flags = mounts
        .iter()
        .fold(flags, |flags, mount| flags.list("mount", std::slice::from_ref(&mount.value)));
    if let Some(network) = network {
        flags = flags.raw(
            "network",
            match network {
                Network::Default => "default",
                Network::None => "none",
                Network::Host => "host",
            },
        );
    }
    if let Some(security) = security {
        flags = flags.raw(
            "security",
            match security {
                Security::Sandbox => "sandbox",
                Security::Insecure => "insecure",
            },
        );
    }
    flags.list("device", devices).text
}

fn from(it: &FromInstruction) -> String {
    let image = &it.image.text;
    match &it.stage {
        Some(StageName { keyword, written, .. }) => {
            format!("{image} {} {}", keyword.text, written.text)
        }
        None => image.clone(),
    }
}

fn arg(it: &ArgItem) -> String {
    match &it.default {
        Some(default) => format!("{}={}", it.name.text, default.text),
        None => it.name.text.clone(),
    }
}

fn command(it: &Command) -> String {
    match it {
        Command::Exec(args) => json_form(args.iter().map(String::as_str)),
        Command::Shell(ShellCommand { text, .. }) => text.clone(),
    }
}

fn heredocs_of(command: &Command) -> &[Heredoc] {
    match command {
        Command::Exec(_) => &[],
        Command::Shell(ShellCommand { heredocs, .. }) => heredocs,
    }
}

fn with_head(it: &Heredoc) -> (Head, &str) {
    let Heredoc { name, fd, expand, chomp, body, body_span: _ } = it;
    let head = Head { name: name.clone(), fd: *fd, expand: *expand, chomp: *chomp };
    (head, body)
}

/// Adds the bodies of the inline files. Of several heredocs of one name all files have the body of the
/// last one, so that the others, and those which no file is, need none.
fn with_bodies(heads: Vec<Head>, files: &[InlineFile]) -> Vec<(Head, &str)> {
    let mut bodies: BTreeMap<&str, &str> = BTreeMap::new();
    for InlineFile { heredoc: Heredoc { name, body, .. }, .. } in files {
        bodies.insert(name, body);
    }
    let mut heredocs: Vec<(Head, &str)> = Vec::with_capacity(heads.len());
    for head in heads.into_iter().rev() {
        let body = bodies.remove(head.name.as_str()).unwrap_or_default();
        heredocs.push((head, body));
    }
    heredocs.reverse();
    heredocs
}

/// Returns the word of a heredoc, in quotes if it is not to be expanded. They are shell quotes,
/// whatever the escape of the file is.
fn heredoc_word(it: &Heredoc) -> String {
    let fd = it.fd.map(|fd| fd.to_string()).unwrap_or_default();
    let chomp = if it.chomp { "-" } else { "" };
    let name =
        if it.expand { it.name.clone() } else { format!("'{}'", it.name.replace('\'', "'\\''")) };
    format!("{fd}<<{chomp}{name}")
}

/// Returns the words of `VOLUME`, in JSON form if they would be read in another way.
fn list(words: &[Word]) -> String {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    if is_plain_list(&texts) { texts.join(" ") } else { json_form(texts) }
}

/// Returns whether the words are the same when they are written with blanks between them.
fn is_plain_list(words: &[&str]) -> bool {
    let text = words.join(" ");
    tokens::plain_words(text.trim()) == words
        && !text.contains('\n')
        && json::parse(&text) == Json::No
}

fn json_form<'a>(elements: impl IntoIterator<Item = &'a str>) -> String {
    let elements: Vec<String> = elements.into_iter().map(json::quote).collect();
    format!("[{}]", elements.join(", "))
}

fn spaced(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}
