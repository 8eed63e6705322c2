//! `--chmod`: octal bits, or changes such as `u+x,go=rX` that start from each file's own mode.
//!
//! Format: spec `instructions.md` §7.7; the symbolic form is BSD's, with umask 0.

use crate::TreeError;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const ALL: u32 = SET_UID | SET_GID | 0o777;

/// What becomes of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModeChange {
    /// They stay.
    Keep,
    /// They are replaced.
    Set(u32),
    /// They are changed step by step.
    Steps(Vec<Step>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bits the step may touch.
    who: u32,
    operator: char,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Bits {
        bits: u32,
        /// `X`: execute for directories and for what can be executed already.
        execute_if_any: bool,
    },
    /// The bits that user (6), group (3) or others (0) have; the number is how far they are shifted.
    CopyOf(u32),
}

impl ModeChange {
    pub(crate) fn new(mode: Option<u32>, text: &str) -> Result<Self, TreeError> {
        if text.is_empty() {
            return Ok(mode.map_or(Self::Keep, |mode| Self::Set(mode & 0o7777)));
        }
        let invalid = || TreeError::Mode { text: text.to_owned() };
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777);
            return bits.map(Self::Set).ok_or_else(invalid);
        }
        let mut steps = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut steps).ok_or_else(invalid)?;
        }
        Ok(Self::Steps(steps))
    }

    /// The bits a file or directory gets.
    pub(crate) fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Keep => mode,
            Self::Set(bits) => *bits,
            Self::Steps(steps) => {
                steps.iter().fold(mode, |now, step| step.apply(now, mode, directory))
            }
        }
    }

    /// The bits of directories that are made on the way: only octal ones count there.
    pub(crate) fn parents(&self) -> u32 {
        if let Self::Set(bits) = self { *bits } else { 0o755 }
    }
}

impl Step {
    fn apply(self, mode: u32, original: u32, directory: bool) -> u32 {
        let bits = match self.what {
            What::Bits { bits, execute_if_any } => {
                let execute = execute_if_any && (directory || original & 0o111 != 0);
                bits | if execute { 0o111 } else { 0 }
            }
            What::CopyOf(shift) => ((mode >> shift) & 7) * 0o111,
        };
        let bits = bits & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            // The sticky bit is only ever set by `=`, never cleared.
            _ => (mode & !(self.who & ALL)) | bits,
        }
    }
}

fn parse_clause(clause: &str, steps: &mut Vec<Step>) -> Option<()> {
    let operators = clause.find(['+', '-', '='])?;
    let (names, mut rest) = clause.split_at(operators);
    let mut who = 0;
    for name in names.chars() {
        who |= match name {
            'u' => SET_UID | 0o700,
            'g' => SET_GID | 0o070,
            'o' => 0o007,
            'a' => ALL,
            _ => return None,
        };
    }
    let only_others = who == 0o007;
    let who = if who == 0 { ALL } else { who } | if only_others { 0 } else { STICKY };
    while let Some(operator) = rest.chars().next() {
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        steps.push(Step { who, operator, what: parse_what(&rest[..end])? });
        rest = &rest[end..];
    }
    Some(())
}

fn parse_what(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::CopyOf(6)),
        "g" => return Some(What::CopyOf(3)),
        "o" => return Some(What::CopyOf(0)),
        _ => {}
    }
    let (mut bits, mut execute_if_any) = (0, false);
    for letter in text.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            's' => bits |= SET_UID | SET_GID,
            't' => bits |= STICKY,
            'X' => execute_if_any = true,
            _ => return None,
        }
    }
    Some(What::Bits { bits, execute_if_any })
}

#[cfg(test)]
mod tests {
    use super::ModeChange;

    #[track_caller]
    fn check(text: &str, mode: u32, directory: bool, expect: u32) {
        let change = ModeChange::new(None, text).unwrap();
        assert_eq!(change.apply(mode, directory), expect, "{text} on {mode:o}: {:o}", expect);
    }

    #[test]
    fn symbolic_modes_change_the_mode_they_find() {
        check("u+x", 0o644, false, 0o744);
        check("go=rX", 0o700, false, 0o755);
        check("go=rX", 0o600, false, 0o644);
        check("go=rX", 0o700, true, 0o755);
        check("+X", 0o644, true, 0o755);
        check("g=u", 0o640, false, 0o660);
        check("a-w,u+w", 0o666, false, 0o644);
        check("u+s", 0o755, false, 0o4755);
        check("g+s", 0o755, true, 0o2755);
        check("o+s", 0o755, true, 0o755);
        check("+t", 0o777, true, 0o1777);
        check("o+t", 0o777, true, 0o777);
        check("u=rw", 0o4755, false, 0o655);
        check("a=", 0o755, false, 0);
        check("u+x-w", 0o644, false, 0o544);
        check("0644", 0o777, false, 0o644);
    }

    #[test]
    fn malformed_modes_are_errors() {
        for text in ["u", "z+x", "u+q", "8", "10000", "u+x,", "x"] {
            let error = ModeChange::new(None, text).unwrap_err().to_string();
            let expect = format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            );
            assert_eq!(error, expect);
        }
    }
}
