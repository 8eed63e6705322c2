//! Takes shell scripts apart, as far as the rules about `RUN` need it.
//!
//! ```text
//! script ─▶ commands ─▶ words        `a | b && c "$(d)"`: three commands, the second reads the first,
//!                        └▶ scripts  and the word of the third has a script inside
//! ```
//!
//! Groups, loops and conditions are looked through: what matters is which commands there are, in which order,
//! and which reads whose output. Nothing is expanded. What is no valid script gives some commands or other.
//!
//! Invariants:
//! - Total: every text gives commands, and nothing panics.
//! - Scripts inside scripts are followed [`MAX_DEPTH`] deep; the work is linear in the text for each level.

use std::iter::Peekable;
use std::str::Chars;

/// How deep scripts inside scripts are followed.
pub(super) const MAX_DEPTH: usize = 16;

/// The commands of a script, in order.
pub(super) type Script = Vec<Command>;

/// A simple command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Command {
    /// Name and arguments, without redirections; assignments and reserved words may stand before the name.
    pub(super) words: Vec<Word>,
    /// Whether it reads the output of the command before it.
    pub(super) piped: bool,
    /// What it reads instead: files, here-strings.
    pub(super) input: Vec<Word>,
    /// Bodies of its heredocs.
    pub(super) heredocs: Vec<String>,
}

/// A word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Word {
    /// Its text without quotes; variables stay as they are written.
    pub(super) text: String,
    /// Scripts whose output is part of it: `$(…)`, backticks and `<(…)`.
    pub(super) scripts: Vec<Script>,
}

/// The commands of a script.
pub(super) fn parse(script: &str) -> Script {
    parse_at(script, 0)
}

fn parse_at(script: &str, depth: usize) -> Script {
    let mut reader = Reader { chars: script.chars().peekable(), depth };
    reader.script(false)
}

/// Words that end a group, loop or condition; its output may go on into a pipe.
const CLOSERS: [&str; 4] = ["}", "fi", "done", "esac"];

/// A heredoc whose body is still to come.
struct Pending {
    command: usize,
    delimiter: String,
    strips_tabs: bool,
}

/// What one level of a script has come to.
#[derive(Default)]
struct Level {
    done: Script,
    current: Command,
    pending: Vec<Pending>,
    /// Whether the next command reads the last one.
    is_piped: bool,
    /// Subshells that are open.
    open: usize,
}

impl Level {
    fn end_command(&mut self) {
        let current = std::mem::take(&mut self.current);
        if !current.words.is_empty() {
            self.done.push(Command { piped: std::mem::take(&mut self.is_piped), ..current });
        }
    }
}

/// Reads a text from left to right.
struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    depth: usize,
}

impl Reader<'_> {
    /// Reads commands up to the end, or up to the parenthesis that closes a substitution.
    fn script(&mut self, is_inner: bool) -> Script {
        let mut level = Level::default();
        while let Some(&c) = self.chars.peek() {
            match c {
                '\n' => {
                    self.chars.next();
                    level.end_command();
                    self.heredoc_bodies(&mut level);
                }
                _ if c.is_whitespace() => {
                    self.chars.next();
                }
                '#' => while self.chars.next_if(|c| *c != '\n').is_some() {},
                ';' => {
                    self.chars.next();
                    level.end_command();
                }
                '&' => {
                    self.chars.next();
                    // `&>file` and `>&2` are redirections.
                    if self.chars.peek() != Some(&'>') {
                        level.end_command();
                        self.chars.next_if_eq(&'&');
                    }
                }
                '|' => {
                    self.chars.next();
                    level.end_command();
                    level.is_piped = self.chars.next_if_eq(&'|').is_none();
                    self.chars.next_if_eq(&'&');
                }
                '(' => {
                    self.chars.next();
                    level.end_command();
                    level.open += 1;
                }
                ')' => {
                    self.chars.next();
                    level.end_command();
                    if level.open == 0 && is_inner {
                        break;
                    }
                    level.open = level.open.saturating_sub(1);
                }
                '<' | '>' => self.redirection(&mut level),
                _ => self.next_word(&mut level),
            }
        }
        level.end_command();
        level.done
    }

    /// Reads a word of a command.
    fn next_word(&mut self, level: &mut Level) {
        let word = self.word();
        let names_a_file_descriptor = !word.text.is_empty()
            && word.text.bytes().all(|byte| byte.is_ascii_digit())
            && matches!(self.chars.peek(), Some('<' | '>'));
        let closes = level.current.words.is_empty() && CLOSERS.contains(&word.text.as_str());
        if !names_a_file_descriptor && !closes {
            level.current.words.push(word);
        }
    }

    /// Reads `<`, `>` and their kin, with what they name.
    fn redirection(&mut self, level: &mut Level) {
        let is_input = self.chars.next() == Some('<');
        if self.chars.peek() == Some(&'(') {
            // A process substitution is a word.
            self.chars.next();
            let scripts = vec![self.inner()];
            level.current.words.push(Word { text: String::new(), scripts });
            return;
        }
        if is_input && self.chars.next_if_eq(&'<').is_some() {
            if self.chars.next_if_eq(&'<').is_none() {
                return self.heredoc_word(level);
            }
        } else {
            while self.chars.next_if(|c| matches!(c, '<' | '>' | '&' | '|')).is_some() {}
        }
        self.skip_blanks();
        let target = match self.chars.peek() {
            Some('<' | '>') => {
                self.chars.next();
                match self.chars.next_if_eq(&'(') {
                    Some(_) => Word { text: String::new(), scripts: vec![self.inner()] },
                    None => return,
                }
            }
            _ => self.word(),
        };
        if is_input {
            level.current.input.push(target);
        }
    }

    /// Reads the delimiter behind `<<`.
    fn heredoc_word(&mut self, level: &mut Level) {
        let strips_tabs = self.chars.next_if_eq(&'-').is_some();
        self.skip_blanks();
        let delimiter = self.word().text;
        if !delimiter.is_empty() {
            level.pending.push(Pending { command: level.done.len(), delimiter, strips_tabs });
        }
    }

    /// Reads the bodies of the heredocs of the line that has just ended.
    fn heredoc_bodies(&mut self, level: &mut Level) {
        for Pending { command, delimiter, strips_tabs } in std::mem::take(&mut level.pending) {
            let mut body = String::new();
            while self.chars.peek().is_some() {
                let mut line = String::new();
                while let Some(c) = self.chars.next_if(|c| *c != '\n') {
                    line.push(c);
                }
                self.chars.next();
                let text = if strips_tabs { line.trim_start_matches('\t') } else { &line };
                if text.trim_end_matches('\r') == delimiter {
                    break;
                }
                body.push_str(text);
                body.push('\n');
            }
            if let Some(command) = level.done.get_mut(command) {
                command.heredocs.push(body);
            }
        }
    }

    fn skip_blanks(&mut self) {
        while self.chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
    }

    /// Reads a word up to a blank or an operator.
    fn word(&mut self) -> Word {
        let mut word = Word::default();
        while let Some(&c) = self.chars.peek() {
            if c.is_whitespace() || matches!(c, ';' | '&' | '|' | '<' | '>' | '(' | ')') {
                break;
            }
            self.chars.next();
            match c {
                '\\' => match self.chars.next() {
                    Some('\n') | None => {}
                    Some(escaped) => word.text.push(escaped),
                },
                '\'' => self.single_quoted(&mut word),
                '"' => self.double_quoted(&mut word),
                '$' => self.dollar(&mut word),
                '`' => self.backticks(&mut word),
                _ => word.text.push(c),
            }
        }
        word
    }

    fn single_quoted(&mut self, word: &mut Word) {
        while let Some(c) = self.chars.next().filter(|c| *c != '\'') {
            word.text.push(c);
        }
    }

    fn double_quoted(&mut self, word: &mut Word) {
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return,
                '\\' => match self.chars.next() {
                    Some('\n') | None => {}
                    Some(escaped @ ('"' | '\\' | '$' | '`')) => word.text.push(escaped),
                    Some(other) => word.text.extend(['\\', other]),
                },
                '$' => self.dollar(word),
                '`' => self.backticks(word),
                _ => word.text.push(c),
            }
        }
    }

    /// Reads what follows a `$`: a substitution, or the beginning of a variable.
    fn dollar(&mut self, word: &mut Word) {
        match self.chars.peek() {
            Some('(') => {
                self.chars.next();
                if self.chars.peek() == Some(&'(') {
                    self.arithmetic();
                } else {
                    let script = self.inner();
                    word.scripts.push(script);
                }
            }
            Some('{') => {
                word.text.push('$');
                self.braces(word);
            }
            _ => word.text.push('$'),
        }
    }

    /// Skips the rest of `$((…))`.
    fn arithmetic(&mut self) {
        let mut open = 1_usize;
        while open > 0 {
            match self.chars.next() {
                Some('(') => open += 1,
                Some(')') => open -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Takes `{…}` over as it is.
    fn braces(&mut self, word: &mut Word) {
        let mut open = 0_usize;
        for c in self.chars.by_ref() {
            word.text.push(c);
            match c {
                '{' => open += 1,
                '}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open == 0 {
                return;
            }
        }
    }

    /// The script of a substitution up to its closing parenthesis.
    fn inner(&mut self) -> Script {
        if self.depth >= MAX_DEPTH {
            self.arithmetic();
            return Script::new();
        }
        self.depth += 1;
        let script = self.script(true);
        self.depth -= 1;
        script
    }

    /// The script between backticks, in which a backslash escapes them.
    fn backticks(&mut self, word: &mut Word) {
        let mut text = String::new();
        while let Some(c) = self.chars.next().filter(|c| *c != '`') {
            match c {
                '\\' => match self.chars.next() {
                    Some(escaped @ ('`' | '\\' | '$')) => text.push(escaped),
                    Some(other) => text.extend(['\\', other]),
                    None => {}
                },
                _ => text.push(c),
            }
        }
        if self.depth < MAX_DEPTH {
            word.scripts.push(parse_at(&text, self.depth + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands on one line: words in brackets, `>` before one that reads the command before it.
    fn dump(script: &Script) -> String {
        let word = |word: &Word| {
            let inner: Vec<String> =
                word.scripts.iter().map(|it| format!("$({})", dump(it))).collect();
            word.text.clone() + &inner.concat()
        };
        let commands = script.iter().map(|command| {
            let words: Vec<String> = command.words.iter().map(word).collect();
            let mut text = format!("{}[{}]", if command.piped { ">" } else { "" }, words.join(","));
            for input in &command.input {
                text = text + "<" + &word(input);
            }
            for body in &command.heredocs {
                text = format!("{text}<<{body:?}");
            }
            text
        });
        commands.collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(script: &str, expect: &str) {
        assert_eq!(dump(&parse(script)), expect, "{script:?}");
    }

    #[test]
    fn commands_and_pipes() {
        check("a b|c && d || e; f &\ng", "[a,b] >[c] [d] [e] [f] [g]");
        check("a |& b |\n c", "[a] >[b] >[c]");
        check("(a; b) | c", "[a] [b] >[c]");
        check("{ a; } | b", "[{,a] >[b]");
        check("if a; then b; fi | c", "[if,a] [then,b] >[c]");
        check("a | (b; c)", "[a] >[b] [c]");
        check("f() { a; }", "[f] [{,a]");
        check("case x in a) b;; esac; c", "[case,x,in,a] [b] [c]");
        check("# a | b\nc # d", "[c]");
        check("", "");
        check("| ; & )(", "");
    }

    #[test]
    fn words_and_quotes() {
        check(r#"a 'b | c' "d; \"e\"" f\ g h"i"'j'"#, r#"[a,b | c,d; "e",f g,hij]"#);
        check("a ${b:-${c}} $d \"$e\"", "[a,${b:-${c}},$d,$e]");
        check("a\\\n b", "[a,b]");
        check("a'b", "[ab]");
        check("a\"b\\", "[ab]");
    }

    #[test]
    fn substitutions() {
        check("a $(b | c) \"x$(d)\" `e \\`f\\``", "[a,$([b] >[c]),x$([d]),$([e,$([f])])]");
        check("a <(b) > >(c) < <(d e)", "[a,$([b])]<$([d,e])");
        check("a $((1 << 2)) b\nc", "[a,,b] [c]");
        check("a $(b (c) d) e", "[a,$([b] [c] [d]),e]");
        check("a $(b", "[a,$([b])]");
    }

    #[test]
    fn redirections_and_heredocs() {
        check("a >b 2>&1 3< c &> d <<< e", "[a]<c<e");
        check("a <<E | b <<-'F'\nx | y\nE\n\tz\n\tF\nc", "[a]<<\"x | y\\n\" >[b]<<\"z\\n\" [c]");
        check("a <<E\nnever ends", "[a]<<\"never ends\\n\"");
        check("<<E\nx\nE\na", "[a]");
    }

    #[test]
    fn deep_nesting_is_no_trouble() {
        for (open, close) in
            [("$(", ")"), ("`", "`"), ("(", ")"), ("\"$(", ")\""), ("${", "}"), ("<(", ")")]
        {
            let text = format!("{}x{}", open.repeat(20_000), close.repeat(20_000));
            parse(&text);
            parse(&open.repeat(20_000));
        }
    }
}
