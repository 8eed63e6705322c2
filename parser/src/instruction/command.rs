//! Commands in exec or shell form: `CMD`, `ENTRYPOINT`, `SHELL`.

use crate::ast::{Command, Heredoc, ShellCommand};
use crate::error::ParseErrorKind;
use crate::json::{self, Json};

use super::{Context, Site};

/// Reads a command in one of its forms.
pub(super) fn parse(cx: &mut Context<'_>, args: &str, heredocs: Vec<Heredoc>) -> Option<Command> {
    match json::parse(args) {
        Json::Strings(strings) => {
            Some(Command::Exec(strings.into_iter().map(|(text, _)| text).collect()))
        }
        Json::NotStrings => cx.refuse(ParseErrorKind::NotStrings, args),
        Json::No => {
            let span = cx.line.span_of(args);
            Some(Command::Shell(ShellCommand { text: args.to_owned(), span, heredocs }))
        }
    }
}

/// Reads the arguments of `SHELL`, which has the exec form only.
pub(super) fn shell(cx: &mut Context<'_>, site: Site<'_>) -> Option<Vec<String>> {
    match parse(cx, site.args, Vec::new())? {
        Command::Exec(args) if !args.is_empty() => Some(args),
        Command::Shell(command) if !command.text.is_empty() => {
            cx.refuse(ParseErrorKind::ShellNotJson, site.args)
        }
        _ => cx.refuse(ParseErrorKind::AtLeastOneArgument("SHELL"), site.part()),
    }
}
