//! `COPY` and `ADD`.

use crate::ast::{
    AddInstruction, CopyInstruction, Heredoc, InlineFile, InstructionKind, Sources, Word,
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
    let mut sources = Sources { paths: Vec::new(), files: Vec::new(), dest };
    for word in words {
        match inline_file(&word, heredocs) {
            Some(file) => sources.files.push(file),
            None => sources.paths.push(word),
        }
    }
    Some(sources)
}

/// Returns the inline file that a source is, if it is a heredoc.
///
/// If several heredocs have one name, all of them are the last one. A heredoc word that is none of
/// the line, because quotes elsewhere in it do not match, is an empty file.
fn inline_file(word: &Word, heredocs: &[Heredoc]) -> Option<InlineFile> {
    let head = heredoc::parse_word(&word.text)?;
    let body = heredocs.iter().rfind(|it| it.name == head.name).map(|it| it.body.clone());
    let heredoc::Head { name, fd, expand, chomp } = head;
    let body = body.unwrap_or_default();
    let heredoc = Heredoc { name, fd, expand, chomp, body, body_span: word.span };
    let content = heredoc.content().into_owned();
    Some(InlineFile { name: heredoc.name, span: word.span, expand, content })
}
