//! Parses the value of `STOPSIGNAL`.

/// Linux signals by name; the real-time ones are counted from both ends besides.
const NAMES: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether `text` names a signal: a number but 0, or a name in any letter case, with `SIG` or without.
pub(crate) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return number != 0;
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let counted =
        |prefix: &str| name.strip_prefix(prefix).and_then(|count| count.parse::<u32>().ok());
    NAMES.contains(&name)
        || counted("RTMIN+").is_some_and(|count| (1..=15).contains(&count))
        || counted("RTMAX-").is_some_and(|count| (1..=14).contains(&count))
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn names_and_numbers_are_signals() {
        for good in ["TERM", "SIGTERM", "sigkill", "kill", "15", "9", "SIGRTMIN+3", "RTMAX-14"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "0", "SIG", "SIGNOPE", "RTMIN+16", "SIGSIGTERM"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
