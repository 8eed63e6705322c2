//! `RUN`.

use crate::ast::{Heredoc, InstructionKind, MountFlag, Network, Run, Security, Word};
use crate::error::ParseErrorKind;
use crate::mount;
use crate::tokens::RawFlag;

use super::flags::{Flags, Known, Type};
use super::{Context, Site, command};

const FLAGS: &Known = &[
    ("device", Type::List),
    ("mount", Type::List),
    ("network", Type::Text),
    ("security", Type::Text),
];

/// Reads the arguments of `RUN`.
pub(super) fn parse(
    cx: &mut Context<'_>,
    flags: &[RawFlag<'_>],
    site: Site<'_>,
    heredocs: Vec<Heredoc>,
) -> Option<InstructionKind> {
    let mut flags = Flags::check(cx, flags, FLAGS);
    let network = flags.text("network").and_then(|value| network(cx, value));
    let security = flags.text("security").and_then(|value| security(cx, value));
    let mounts = flags.list("mount").into_iter().filter_map(|value| mount(cx, value)).collect();
    let devices = flags.list("device");
    let command = command::parse(cx, site.args, heredocs)?;
    Some(InstructionKind::Run(Run { mounts, network, security, devices, command }))
}

fn network(cx: &mut Context<'_>, value: Word) -> Option<Network> {
    match value.text.as_str() {
        "default" => Some(Network::Default),
        "none" => Some(Network::None),
        "host" => Some(Network::Host),
        _ => {
            cx.error(ParseErrorKind::NetworkMode(value.text), value.span);
            None
        }
    }
}

fn security(cx: &mut Context<'_>, value: Word) -> Option<Security> {
    match value.text.as_str() {
        "sandbox" => Some(Security::Sandbox),
        "insecure" => Some(Security::Insecure),
        _ => {
            cx.error(ParseErrorKind::SecurityMode(value.text), value.span);
            None
        }
    }
}

fn mount(cx: &mut Context<'_>, value: Word) -> Option<MountFlag> {
    match mount::from(&value.text) {
        Ok(from) => Some(MountFlag { value, from }),
        Err(error) => {
            cx.error(ParseErrorKind::Mount(error), value.span);
            None
        }
    }
}
