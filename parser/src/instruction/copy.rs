//! `COPY` and `ADD`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{
    AddInstruction, CopyInstruction, Heredoc, InlineFile, InstructionKind, Sources, Span, Word,
};
use crate::error::ParseErrorKind;
use crate::heredoc;
use crate::json::{self, Json};
use crate::tokens::RawFlag;

use super::flags::{Flags, Known, Type};
use super::{Context, Site, list};

const COPY_FLAGS: &Known = &[
    ("chmod", Type::Text),
    ("chown", Type::Text),
    ("exclude", Type::List),
    ("from", Type::Text),
    ("link", Type::Bool),
    ("parents", Type::Bool),
];

const ADD_FLAGS: &Known = &[
    ("checksum", Type::Text),
    ("chmod", Type::Text),
    ("chown", Type::Text),
    ("exclude", Type::List),
    ("keep-git-dir", Type::Bool),
    ("link", Type::Bool),
    ("unpack", Type::Bool),
];

/// Reads the arguments of `COPY`.
pub(super) fn copy(
    cx: &mut Context<'_>,
    flags: &[RawFlag<'_>],
    site: Site<'_>,
    heredocs: &[Heredoc],
) -> Option<InstructionKind> {
    let mut flags = Flags::check(cx, flags, COPY_FLAGS);
    let sources = sources(cx, site, heredocs, "COPY")?;
    Some(InstructionKind::Copy(CopyInstruction {
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link"),
        parents: flags.bool("parents"),
        exclude: flags.list("exclude"),
        sources,
    }))
}

/// Reads the arguments of `ADD`.
pub(super) fn add(
    cx: &mut Context<'_>,
    flags: &[RawFlag<'_>],
    site: Site<'_>,
    heredocs: &[Heredoc],
) -> Option<InstructionKind> {
    let mut flags = Flags::check(cx, flags, ADD_FLAGS);
    let sources = sources(cx, site, heredocs, "ADD")?;
    Some(InstructionKind::Add(AddInstruction {
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link"),
        keep_git_dir: flags.bool("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.bool("unpack"),
        exclude: flags.list("exclude"),
        sources,
    }))
}

/// Reads sources and destination.
fn sources(
    cx: &mut Context<'_>,
    site: Site<'_>,
    heredocs: &[Heredoc],
    name: &'static str,
) -> Option<Sources> {
    let is_json = json::parse(site.args) != Json::No;
    let mut words = list(cx, site.args)?;
    let dest = words.pop();
    let Some(dest) = dest.filter(|_| !words.is_empty()) else {
        return cx.refuse(ParseErrorKind::NoDestination(name), site.part());
    };
    if is_json {
        return Some(Sources { paths: words, files: Vec::new(), dest });
    }
    if heredoc::is_heredoc_word(&dest.text) {
        cx.error(ParseErrorKind::HeredocDestination(name), dest.span);
        return None;
    }
    // Of several heredocs of one name, all words get the last one.
    let by_name: BTreeMap<&str, &Heredoc> =
        heredocs.iter().map(|heredoc| (heredoc.name.as_str(), heredoc)).collect();
    let mut sources = Sources { paths: Vec::new(), files: Vec::new(), dest };
    for word in words {
        match inline_file(&word, &by_name) {
            Some(file) => sources.files.push(file),
            None => sources.paths.push(word),
        }
    }
    Some(sources)
}

/// Returns the inline file that a source is, if it is a heredoc.
///
/// A heredoc word that is none of the line, because quotes elsewhere in it do not match, is an empty
/// file.
fn inline_file(word: &Word, heredocs: &BTreeMap<&str, &Heredoc>) -> Option<InlineFile> {
    let heredoc::Head { name, fd, expand, chomp } = heredoc::parse_word(&word.text)?;
    let known = heredocs.get(name.as_str());
    let body = known.map(|it| Arc::clone(&it.body)).unwrap_or_default();
    let body_span = known.map_or(Span::new(word.span.end, word.span.end), |it| it.body_span);
    let heredoc = Heredoc { name, fd, expand, chomp, body, body_span };
    Some(InlineFile { span: word.span, heredoc })
}
