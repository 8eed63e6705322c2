//! Inputs of a mebibyte, nested or repeated as deep as they can be: linear time, and a small stack is enough.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use parser::word::{self, Budget, MAX_SIZE, Mode};
use parser::{Dockerfile, ParseErrors, mount};
use rustix::time::{ClockId, clock_gettime};

/// Size of every input, in bytes.
const SIZE: usize = 1 << 20;

/// Far more than each takes, far less than anything quadratic would; in seconds.
const LONGEST: i64 = 10;

/// Runs on a stack that does not hold a recursion as deep as the input, and looks at the time it takes.
#[track_caller]
fn limited<T: Send>(what: &str, run: impl FnOnce() -> T + Send) -> T {
    let timed = || {
        let result = run();
        // The time of this thread alone: others do not count, however busy the machine is.
        (result, clock_gettime(ClockId::ThreadCPUTime).tv_sec)
    };
    let (result, seconds) = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(128 << 10);
        thread.spawn_scoped(scope, timed).unwrap().join().unwrap()
    });
    assert!(seconds < LONGEST, "{what} takes {seconds} s");
    result
}

fn budget() -> Budget {
    Budget::new(1 << 25, MAX_SIZE)
}

/// A file of `head`, as many pieces as fit, and `tail`.
fn file(head: &str, piece: impl Fn(usize) -> String, tail: &str) -> String {
    let mut text = head.to_owned();
    let mut count = 0;
    while text.len() < SIZE {
        text += &piece(count);
        count += 1;
    }
    text + tail
}

/// Parses a file, and if it is valid all that is left to be read of it, and prints it.
#[track_caller]
fn parse(text: &str) -> Result<Dockerfile, ParseErrors> {
    let shown: String = text.chars().take(60).collect();
    limited(&shown, || {
        let tree = parser::parse(text.as_bytes())?;
        let printed = parser::print(&tree);
        let again = parser::parse(printed.as_bytes()).unwrap();
        assert!(again.without_layout() == tree.clone().without_layout(), "{shown}");
        Ok(tree)
    })
}

#[track_caller]
fn parse_repeated(head: &str, piece: &str, tail: &str) {
    let _ = parse(&file(head, |_| piece.to_owned(), tail));
}

#[test]
fn instructions() {
    parse_repeated("", "# \n", "");
    parse_repeated("", "# syntax=a\n", "FROM a");
    parse_repeated("", "# a\n", "FROM a");
    parse_repeated("FROM a\n", "X\n", "");
    parse_repeated("FROM a\n", "RUNN <<E\n", "");
    parse_repeated("FROM a\n", "COPY a\n", "");
    parse_repeated("FROM a\n", "FROM a AS b\n", "");
    parse_repeated("", "ENV a=b\n", "");
    parse_repeated("", "\u{feff}", "");
    parse_repeated("FROM a\n", "\\\n", "");
    parse_repeated("FROM a\nUSER ", "\\\\", "");
    parse_repeated("FROM a\nONBUILD ", "ONBUILD ", "");
    parse_repeated("FROM a\n", "ONBUILD ONBUILD\n", "");
    parse_repeated("FROM a\nONBUILD ", "\\\nONBUILD ", "RUN x");
    parse_repeated("{\"syntax\":", "[{\"a\":", "");
}

/// Parses a file in which every head is followed by its share of the pieces.
#[track_caller]
fn parse_arguments(heads: &[&str], piece: &str, tail: &str) {
    let arguments = format!(" \\\n{piece}").repeat(SIZE / heads.len() / (piece.len() + 3));
    let line = |head: &&str| format!("{head}{arguments}{tail}\n");
    let _ = parse(&format!("FROM a\n{}", heads.iter().map(line).collect::<String>()));
}

#[test]
fn arguments() {
    let heads = [
        "ENV a=b",
        "LABEL a=b",
        "ARG a",
        "ENV a",
        "EXPOSE 1",
        "VOLUME /a",
        "FROM a",
        "RUN x",
        "USER x",
    ];
    for piece in [
        "a=b",
        "a",
        "'\"'",
        "\"'\"",
        "\"\\\"",
        "${a:-",
        "\\ ",
        "$",
        "é",
        "\u{a0}",
        "[",
        "# ",
        "\"$a${b:-",
    ] {
        parse_arguments(&heads, piece, "");
    }
    parse_repeated("FROM a\nHEALTHCHECK --interval=", "\\\n1h", " CMD x");
    parse_repeated("FROM a\nHEALTHCHECK --interval=", "\\\n0s", " CMD x");
    parse_repeated("FROM a\nHEALTHCHECK --retries=", "\\\n0", " CMD x");
}

#[test]
fn flags() {
    let heads = ["COPY", "COPY --exclude=x --exclude=y", "RUN", "FROM", "HEALTHCHECK", "ARG"];
    for flag in [
        "--exclude=x",
        "--chmod=1",
        "--exclude=x --chmod=1",
        "--link",
        "--what",
        "--'a b'",
        "--from='",
        "--exclude=\\",
        "--",
        "--mount=type=cache,target=/x",
        "--mount=\"\"",
        "--mount=from=a,",
        "--mount='\"a\"'",
    ] {
        parse_arguments(&heads, flag, " a b");
    }
    for value in ["a,\\\n", "\\\n\"\"", "'\"\"',\\\n", "\"a\"\"b\",\\\n"] {
        parse_repeated("FROM a\nRUN --mount=", value, " x");
    }
}

#[test]
fn json() {
    let heads =
        ["CMD [", "RUN [", "COPY [", "VOLUME [", "SHELL [", "HEALTHCHECK CMD [", "ONBUILD CMD ["];
    for piece in ["\"a\",", "\"\\u0041\",", "[],", "\"\\\\", "1", "\"", "[[\"a\"],"] {
        parse_arguments(&heads, piece, "\"a\"]");
    }
    for piece in ["[", "[{\"a\":", "{\"a\":["] {
        parse_repeated("FROM a\nCMD ", &format!("\\\n{piece}"), "");
    }
}

#[test]
fn heredocs() {
    for head in ["RUN", "COPY", "ADD", "ONBUILD RUN", "ONBUILD COPY"] {
        let words =
            |piece: &dyn Fn(usize) -> String| file(&format!("FROM a\n{head}"), piece, " x\n");
        let _ = parse(&words(&|_| " \\\n<<a".to_owned()));
        let _ = parse(&words(&|count| format!(" \\\n<<a{count}")));
        let _ = parse(&words(&|count| format!(" \\\n<<'a{count}")));
        let _ = parse(&words(&|_| " \\\n<<".to_owned()));
        let _ = parse(&words(&|_| " \\\n<<\\".to_owned()));
        let _ = parse(&words(&|_| " \\\n<<${a:-".to_owned()));
        let names = SIZE / 16;
        let all: String = (0..names).map(|count| format!(" \\\n<<{count}")).collect();
        let bodies: String = (0..names).map(|count| format!("x\n{count}\n")).collect();
        assert!(parse(&format!("FROM a\n{head}{all} x\n{bodies}")).is_ok());
        let body = "y\n".repeat(SIZE / 4);
        let same = " \\\n<<a".repeat(names);
        let ends = "a\n".repeat(names - 1);
        assert!(parse(&format!("FROM a\n{head}{same} x\n{ends}{body}a\n")).is_ok());
    }
    parse_repeated("FROM a\n", "RUN <<a\na\n", "");
    parse_repeated("FROM a\nRUN <<a\n", "\n", "a\n");
    parse_repeated("FROM a\nRUN <<-a\n", "\t", "a\n");
    parse_repeated("FROM a\n", "COPY <<a b\n\n\na\n", "");
}

#[test]
fn words() {
    let lookup = |name: &str| match name {
        "v" => Some("value".to_owned()),
        _ => None,
    };
    let raw = Mode { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Mode::default() };
    for (open, close) in [
        ("${n:-", "}"),
        ("${n:-x", "y}"),
        ("${v:+", "}"),
        ("${v?", "}"),
        ("${v#", "}"),
        ("${v%%", "}"),
        ("${v/e/", "}"),
        ("${v//", "/x}"),
        ("\"${n:-", "}\""),
        ("'", "'"),
        ("\"", "\""),
        ("\\", ""),
        ("$v", ""),
        ("${v//*/", "}"),
        ("<<", ""),
        ("<< ", ""),
        ("$", "$"),
        ("${", "}"),
        ("{", "}"),
        ("${n:-'", "'}"),
        ("${v#*${v%", "}}"),
        (" ", " "),
    ] {
        let count = SIZE / (open.len() + close.len());
        for text in [
            open.repeat(count),
            open.repeat(count) + "x" + &close.repeat(count),
            format!("{open}x{close}").repeat(count),
        ] {
            limited(&text[..20], || {
                for mode in [Mode::default(), raw] {
                    let _ = word::expand(&text, '\\', &lookup, mode, &budget());
                    let _ = word::expand_words(&text, '`', &lookup, mode, &budget());
                }
                let _ = word::expand_heredoc(&text, &lookup, &budget());
            });
        }
    }
}

#[test]
fn mounts() {
    for piece in [
        "a=b,",
        "ro,",
        "\"\",",
        "\"a=\"\"\",",
        "target=/x,",
        "type=cache,",
        "size=1,",
        "\"",
        ",",
        "${a:-",
        "1",
    ] {
        let text = format!("type=tmpfs,size={}", piece.repeat(SIZE / piece.len()));
        limited(piece, || {
            let _ = mount::from(&text);
            let _ = mount::parse(&text, &mut |value| Ok::<_, mount::MountError>(value.to_owned()));
        });
    }
}

#[test]
fn a_budget_that_is_used_up_grants_nothing() {
    let value = "x".repeat(1 << 20);
    let lookup = |_: &str| Some(value.clone());
    let results = limited("words that share a budget", || {
        let shared = Budget::new(1 << 25, 3 << 20);
        let expand = |_| word::expand("$v", '\\', &lookup, Mode::default(), &shared);
        let results = (0..1 << 17).map(expand).map(|result| match result {
            Ok(expanded) => expanded.text.len().to_string(),
            Err(error) => error.cause.to_string(),
        });
        let results: Vec<String> = results.collect();
        assert!(shared.is_used_up());
        results
    });
    let large = (1 << 20).to_string();
    let together = "what all words expand to together is too large";
    let steps = "the substitutions take too many steps";
    assert_eq!(results[..5], [&large, &large, &large, together, steps]);
    assert!(results[4..].iter().all(|result| result == steps));
}
