//! `FROM`.

use nom::character::complete::{one_of, satisfy};
use nom::combinator::all_consuming;
use nom::multi::many0_count;
use nom::{IResult, Parser};

use crate::ast::{FromInstruction, InstructionKind, StageName};
use crate::error::ParseErrorKind;
use crate::tokens::{self, RawFlag};

use super::flags::{Flags, Known, Type};
use super::{Context, Site};

const FLAGS: &Known = &[("platform", Type::Text)];

/// Reads the arguments of `FROM`.
pub(super) fn parse(
    cx: &mut Context<'_>,
    flags: &[RawFlag<'_>],
    site: Site<'_>,
) -> Option<InstructionKind> {
    let mut flags = Flags::check(cx, flags, FLAGS);
    let (image, stage) = match tokens::plain_words(site.args).as_slice() {
        [image] => (*image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            if stage_name(&lower).is_err() {
                return cx.refuse(ParseErrorKind::StageName((*name).to_owned()), name);
            }
            let (keyword, written) = (cx.word(keyword), cx.word(name));
            (*image, Some(StageName { keyword, written, name: lower }))
        }
        _ => return cx.refuse(ParseErrorKind::FromArguments, site.part()),
    };
    let platform = flags.text("platform");
    Some(InstructionKind::From(FromInstruction { platform, image: cx.word(image), stage }))
}

/// Parses a stage name in lower case: a letter, then letters, digits, `-`, `_` and `.`.
fn stage_name(input: &str) -> IResult<&str, ()> {
    let rest = satisfy(|c| c.is_ascii_lowercase() || c.is_ascii_digit()).or(one_of("-_."));
    let name = (satisfy(|c| c.is_ascii_lowercase()), many0_count(rest));
    all_consuming(name).map(|_| ()).parse(input)
}
