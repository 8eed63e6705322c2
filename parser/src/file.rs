//! From a whole file to its tree.

use crate::ast::{
    Directives, Dockerfile, Instruction, InstructionKind, Lines, Span, Warning, WarningKind, Word,
};
use crate::directive;
use crate::error::{ParseError, ParseErrorKind, ParseErrors};
use crate::heredoc::{self, Bodies, Head};
use crate::instruction::{self, Context, Statement};
use crate::line::{Reader, Unit};
use crate::text::{self, PhysicalLines};

/// Parses a whole Dockerfile.
///
/// # Errors
/// All mistakes that the text alone shows, in file order.
pub fn parse(bytes: &[u8]) -> Result<Dockerfile, ParseErrors> {
    let (file, mut errors, _) = read(bytes);
    if errors.is_empty() {
        return Ok(file);
    }
    errors.sort_by_key(|error| error.at.offset());
    Err(ParseErrors { text: file.text, errors })
}

/// Looks up the parser directives of a file that need not be a valid Dockerfile; `escape` is not among them.
pub fn directives(bytes: &[u8]) -> Directives {
    directive::look_up(&text::decode(bytes).text)
}

/// Parses what is right in a Dockerfile that [`parse`] finds mistakes in, to look for mistakes of other kinds.
///
/// `None` when a mistake may change what the rest of the file means: one in `FROM`, `ARG` or `ENV`, in a directive,
/// or in where instructions end.
pub fn parse_rest(bytes: &[u8]) -> Option<Dockerfile> {
    let (file, errors, is_contained) = read(bytes);
    (is_contained && !errors.is_empty()).then_some(file)
}

/// The instructions without mistakes, the mistakes, and whether those change nothing of the other instructions.
fn read(bytes: &[u8]) -> (Dockerfile, Vec<ParseError>, bool) {
    let decoded = text::decode(bytes);
    let text = decoded.text;
    let mut file = FileParser::new(&text);
    if text.is_empty() {
        file.fail(ParseError::new(ParseErrorKind::Empty, Span::new(0, 0), None));
    } else {
        file.check_lines();
        file.read_all();
        file.check_stages();
        file.check_encoding(&decoded.invalid);
    }
    let FileParser { reader, instructions, warnings, errors, is_contained, .. } = file;
    let mut directives = directive::look_up(&text);
    directives.escape = reader.directives.escape;
    (Dockerfile { directives, instructions, text, warnings }, errors, is_contained)
}

/// The text of a file as spans and lines refer to it: without a byte order mark, and with U+FFFD for what is not
/// UTF-8.
pub fn decode(bytes: &[u8]) -> String {
    text::decode(bytes).text
}

/// Parses one trigger of a base image's `OnBuild` list, or of
/// [`Onbuild::trigger`](crate::Onbuild::trigger).
///
/// Spans and lines of the result refer to `text`.
///
/// # Errors
/// All mistakes of the trigger; that it is not one instruction, or is `FROM`.
pub fn parse_trigger(text: &str) -> Result<Instruction, ParseErrors> {
    let mut file = FileParser::new(text);
    // The trigger runs in a stage, so it needs none of its own.
    file.has_stage = true;
    file.check_lines();
    file.read_all();
    let FileParser { mut instructions, mut errors, has_instruction, .. } = file;
    if !has_instruction {
        return Err(only(ParseErrorKind::NoInstructions, text.to_owned()));
    }
    if errors.is_empty() && instructions.len() == 1 {
        let instruction = instructions.remove(0);
        if !matches!(instruction.kind, InstructionKind::From(_)) {
            return Ok(instruction);
        }
        let kind = ParseErrorKind::OnbuildTrigger("FROM".to_owned());
        errors.push(ParseError::new(kind, instruction.keyword.span, Some(instruction.lines)));
    }
    if errors.is_empty() {
        return Err(only(ParseErrorKind::TriggerCount, text.to_owned()));
    }
    errors.sort_by_key(|error| error.at.offset());
    Err(ParseErrors { text: text.to_owned(), errors })
}

/// Returns one mistake that is that of the whole text.
fn only(kind: ParseErrorKind, text: String) -> ParseErrors {
    let end = text.trim_end().len();
    ParseErrors { errors: vec![ParseError::new(kind, Span::new(end, end), None)], text }
}

/// Reads a file instruction by instruction.
struct FileParser<'a> {
    text: &'a str,
    reader: Reader<'a>,
    instructions: Vec<Instruction>,
    warnings: Vec<Warning>,
    errors: Vec<ParseError>,
    /// Whether there was any instruction, right or wrong.
    has_instruction: bool,
    /// Whether there was something that is or could have been meant as a `FROM`.
    has_stage: bool,
    /// Whether bodies of an unknown instruction were looked for in vain. This is not done twice, as
    /// it reads to the end of the file.
    has_looked_ahead: bool,
    /// Heredoc bodies, in which lines with `#` are no comments.
    bodies: Vec<Span>,
    /// Whether the instructions without mistakes mean what they would mean without the others.
    is_contained: bool,
}

impl<'a> FileParser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            reader: Reader::new(text),
            instructions: Vec::new(),
            warnings: Vec::new(),
            errors: Vec::new(),
            has_instruction: false,
            has_stage: false,
            has_looked_ahead: false,
            bodies: Vec::new(),
            is_contained: true,
        }
    }

    /// Notes a mistake that may change what the rest of the file means.
    fn fail(&mut self, error: ParseError) {
        self.is_contained = false;
        self.errors.push(error);
    }

    /// Notes the lines that are over the limit.
    fn check_lines(&mut self) {
        for line in PhysicalLines::new(self.text).filter(|line| line.is_too_long()) {
            let lines = Lines { start: line.number, end: line.number };
            let start = Span::new(line.start, line.start);
            self.fail(ParseError::new(ParseErrorKind::LineTooLong, start, Some(lines)));
        }
    }

    fn read_all(&mut self) {
        let mut directives = Vec::new();
        while let Some(unit) = self.reader.next(&mut directives) {
            self.has_instruction = true;
            self.read(unit);
        }
        self.is_contained &= directives.is_empty();
        self.errors.append(&mut directives);
    }

    /// Reads one instruction, with its heredocs.
    fn read(&mut self, unit: Unit) {
        let escape = self.reader.directives.escape.char();
        let statement = Statement::new(&unit.line.text, escape);
        let Bodies { heredocs, is_complete } = self.bodies_of(&statement, &unit, escape);
        let trimmed = unit.line.text.trim();
        let mut lines = unit.lines;
        let mut span = unit.line.span_of(trimmed);
        if !heredocs.is_empty() {
            lines.end = self.reader.lines.number();
            span.end = self.reader.lines.end_of_last();
            self.bodies.push(Span::new(unit.end, span.end));
        }
        if let Some(blank) = unit.blank {
            let kind = WarningKind::EmptyContinuation;
            self.warnings.push(Warning { kind, line: lines.end, span: blank });
        }
        if !is_complete {
            let kind = ParseErrorKind::UnterminatedHeredoc;
            let at = unit.line.span_of(trimmed);
            self.fail(ParseError::new(kind, at, Some(lines)));
        }

        let keyword = statement.keyword;
        let keyword = Word { text: keyword.to_owned(), span: unit.line.span_of(keyword) };
        let known = statement.known;
        let mut cx = Context { line: &unit.line, escape, lines, errors: &mut self.errors };
        let kind = instruction::parse(&mut cx, statement, heredocs);
        self.is_contained &= kind.is_some() || !instruction::has_effect_on_others(&keyword.text);
        self.check_stage(known, keyword.span, lines);
        if let Some(kind) = kind {
            self.instructions.push(Instruction {
                keyword,
                text: trimmed.to_owned(),
                span,
                lines,
                comments: unit.comments,
                kind,
            });
        }
    }

    /// Reads the bodies of the statement's heredocs.
    ///
    /// Those of an unknown instruction are read if all of them are there, so that a misspelt `RUN`
    /// is one mistake and not one for each line of its script.
    fn bodies_of(&mut self, statement: &Statement<'_>, unit: &Unit, escape: char) -> Bodies {
        let none = Bodies { heredocs: Vec::new(), is_complete: true };
        let is_known = statement.known.is_some();
        let may_have = match statement.can_have_heredocs(escape) {
            Some(can) => can,
            None => !self.has_looked_ahead,
        };
        if !may_have {
            return none;
        }
        let heads: Vec<Head> = heredoc::find_words(&unit.line.text);
        if heads.is_empty() {
            return none;
        }
        let before = self.reader.lines.clone();
        let bodies = heredoc::read_bodies(heads, &mut self.reader.lines, unit.end);
        if !bodies.is_complete && !is_known {
            self.reader.lines = before;
            self.has_looked_ahead = true;
            return none;
        }
        bodies
    }

    /// Notes an instruction that stands before the first `FROM`. Only the first such one is noted,
    /// and none after a word that may be a misspelt `FROM`.
    fn check_stage(&mut self, known: Option<&str>, keyword: Span, lines: Lines) {
        match known {
            Some("arg") => {}
            Some(known) if known != "from" && !self.has_stage => {
                let kind = ParseErrorKind::NoStage;
                self.fail(ParseError::new(kind, keyword, Some(lines)));
                self.has_stage = true;
            }
            _ => self.has_stage = true,
        }
    }

    /// Notes that there is nothing to build.
    fn check_stages(&mut self) {
        let kind = match (self.has_instruction, self.has_stage) {
            (false, _) => ParseErrorKind::NoInstructions,
            (true, false) => ParseErrorKind::NoStages,
            (true, true) => return,
        };
        let end = self.text.trim_end().len();
        self.fail(ParseError::new(kind, Span::new(end, end), None));
    }

    /// Notes what is not UTF-8, once for each line. In comments it does no harm.
    fn check_encoding(&mut self, invalid: &[Span]) {
        if invalid.is_empty() {
            return;
        }
        let mut invalid = invalid.iter().peekable();
        for line in PhysicalLines::new(self.text) {
            let end = line.start + line.full.len();
            let Some(first) = invalid.next_if(|span| span.start < end) else { continue };
            while invalid.next_if(|span| span.start < end).is_some() {}
            let after = self.bodies.partition_point(|body| body.start <= line.start);
            let is_body = after > 0 && line.start < self.bodies[after - 1].end;
            if is_body || !line.is_comment() {
                let lines = Lines { start: line.number, end: line.number };
                let kind = ParseErrorKind::NotUtf8;
                self.errors.push(ParseError::new(kind, *first, Some(lines)));
            }
        }
    }
}
