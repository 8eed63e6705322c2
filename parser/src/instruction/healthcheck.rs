//! `HEALTHCHECK`.

use std::time::Duration;

use crate::ast::{Command, Healthcheck, HealthcheckCommand, InstructionKind};
use crate::duration;
use crate::error::ParseErrorKind;
use crate::tokens::RawFlag;

use super::flags::{Flags, Known, Type};
use super::{Context, Site, command};

const FLAGS: &Known = &[
    ("interval", Type::Text),
    ("retries", Type::Text),
    ("start-interval", Type::Text),
    ("start-period", Type::Text),
    ("timeout", Type::Text),
];

/// Shortest time that is accepted, other than zero.
const SHORTEST: Duration = Duration::from_millis(1);

/// Reads the arguments of `HEALTHCHECK`.
pub(super) fn parse(
    cx: &mut Context<'_>,
    flags: &[RawFlag<'_>],
    site: Site<'_>,
) -> Option<InstructionKind> {
    if site.args.is_empty() {
        return cx.refuse(ParseErrorKind::AtLeastOneArgument("HEALTHCHECK"), site.keyword);
    }
    let end = site.args.find(char::is_whitespace).unwrap_or(site.args.len());
    let (kind, args) = site.args.split_at(end);
    let args = args.trim_start();
    // Written first, as its mistakes are those of the line, whatever the type is.
    let command = command::parse(cx, args, Vec::new())?;
    let is_empty = match &command {
        Command::Exec(args) => args.is_empty(),
        Command::Shell(command) => command.text.is_empty(),
    };
    match kind.to_uppercase().as_str() {
        // Flags are ignored here, whatever they are.
        "NONE" if is_empty => Some(InstructionKind::Healthcheck(Healthcheck::None)),
        "NONE" => cx.refuse(ParseErrorKind::HealthcheckNone, args),
        "CMD" => {
            let flags = Flags::check(cx, flags, FLAGS);
            let check = with_flags(cx, flags, command);
            if is_empty {
                return cx.refuse(ParseErrorKind::HealthcheckCommand, site.args);
            }
            Some(InstructionKind::Healthcheck(Healthcheck::Cmd(check)))
        }
        other => {
            Flags::check(cx, flags, FLAGS);
            cx.refuse(ParseErrorKind::HealthcheckType(other.to_owned()), kind)
        }
    }
}

fn with_flags(cx: &mut Context<'_>, mut flags: Flags, command: Command) -> HealthcheckCommand {
    let mut time = |name| time(cx, &mut flags, name).unwrap_or_default();
    let interval = time("interval");
    let timeout = time("timeout");
    let start_period = time("start-period");
    let start_interval = time("start-interval");
    let retries = retries(cx, &mut flags).unwrap_or_default();
    HealthcheckCommand { interval, timeout, start_period, start_interval, retries, command }
}

/// Reads a duration; none if it is not given, empty or wrong.
fn time(cx: &mut Context<'_>, flags: &mut Flags, name: &'static str) -> Option<Duration> {
    let value = flags.text(name).filter(|value| !value.text.is_empty())?;
    let kind = match duration::parse(&value.text) {
        Ok(time) if time.amount.is_zero() => return None,
        Ok(time) if !time.is_negative && time.amount >= SHORTEST => return Some(time.amount),
        Ok(_) => ParseErrorKind::Interval(name),
        Err(cause) => ParseErrorKind::Duration(cause),
    };
    cx.error(kind, value.span);
    None
}

fn retries(cx: &mut Context<'_>, flags: &mut Flags) -> Option<u32> {
    let value = flags.text("retries").filter(|value| !value.text.is_empty())?;
    let kind = match value.text.parse::<i32>() {
        Ok(number) => match u32::try_from(number) {
            Ok(number) => return Some(number),
            Err(_) => ParseErrorKind::NegativeRetries(number),
        },
        Err(_) => ParseErrorKind::Retries(value.text),
    };
    cx.error(kind, value.span);
    None
}
