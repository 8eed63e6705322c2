//! What the tests share: texts of Dockerfiles, made at random, that cover all that can be written.

use proptest::prelude::*;
use proptest::sample::select;

/// Any Dockerfile; nearly all of them are valid.
pub(crate) fn any_dockerfile() -> BoxedStrategy<String> {
    select(vec!['\\', '`']).prop_flat_map(with_escape).boxed()
}

fn with_escape(escape: char) -> BoxedStrategy<String> {
    let instruction = prop_oneof![
        3 => any_run(escape),
        3 => any_transfer(escape),
        2 => any_pairs(escape),
        3 => any_other(escape),
        1 => any_onbuild(escape),
    ];
    let layout = (any_keyword_case(), any_comments(), prop::collection::vec(0..12_u8, 8));
    let instruction = (layout, instruction).prop_map(move |((case, comments, breaks), text)| {
        let (line, bodies) = text.split_at(text.find('\n').unwrap_or(text.len()));
        let line = case(line);
        format!("{comments}{}{bodies}\n", broken(&line, escape, &breaks))
    });
    let stage = (any_from(escape), prop::collection::vec(instruction, 0..8));
    let stage = stage.prop_map(|(from, instructions)| format!("{from}\n{}", instructions.concat()));
    let stages = prop::collection::vec(stage, 1..3);
    let globals = prop::collection::vec(any_arg(escape), 0..2);
    (any_head(escape), globals, any_comments(), stages)
        .prop_map(|(head, globals, comments, stages)| {
            let globals: String = globals.into_iter().map(|line| line + "\n").collect();
            format!("{head}{globals}{comments}{}", stages.concat())
        })
        .boxed()
}

/// Directives, or something that looks like them.
fn any_head(escape: char) -> BoxedStrategy<String> {
    let escape = if escape == '`' { "# Escape = `\n" } else { "" };
    let syntax = select(vec!["", "# syntax=docker/dockerfile:1 x\n", "#syntax = é\n"]);
    let check = select(vec!["", "# check=skip=all;error=true\n", "#   CHECK=skip=A b\n"]);
    let after =
        select(vec!["", "\n", "# plain\n", "# syntax=x\n# other=1\n", "\n# escape=x\n", "#\n"]);
    let before =
        if escape.is_empty() { vec!["", "\u{feff}", "#!/bin/x\n"] } else { vec!["", "\u{feff}"] };
    (select(before), syntax, check, after)
        .prop_map(move |(before, syntax, check, after)| {
            // A second directive of a name is a mistake while directives are read.
            let after =
                if syntax.is_empty() { after } else { after.trim_start_matches("# syntax=x\n") };
            format!("{before}{syntax}{escape}{check}{after}")
        })
        .boxed()
}

fn any_comments() -> BoxedStrategy<String> {
    prop_oneof![
        6 => Just(String::new()),
        1 => select(vec!["\n", "\r\n \t\n"]).prop_map(str::to_owned),
        2 => prop::collection::vec(
            select(vec!["# a b\n", "#\n", " \t# indented\n", "#é=1\n", "# check=skip=X\n", "##  \n"]),
            1..3,
        )
        .prop_map(|lines| lines.concat()),
    ]
    .boxed()
}

/// How the keyword is spelled.
fn any_keyword_case() -> BoxedStrategy<fn(&str) -> String> {
    fn with(line: &str, change: impl Fn(&str) -> String) -> String {
        let (keyword, rest) = line.split_at(line.find(' ').unwrap_or(line.len()));
        change(keyword) + rest
    }
    prop_oneof![
        4 => Just((|line| line.to_owned()) as fn(&str) -> String),
        1 => Just((|line| with(line, str::to_lowercase)) as fn(&str) -> String),
        1 => Just((|line| with(line, |it| it[..1].to_owned() + &it[1..].to_lowercase()))
            as fn(&str) -> String),
    ]
    .boxed()
}

/// Breaks a line at some of its blanks.
fn broken(line: &str, escape: char, breaks: &[u8]) -> String {
    let mut out = String::new();
    let mut breaks = breaks.iter().chain(std::iter::repeat(&0));
    let mut before = ' ';
    for c in line.chars() {
        out.push(c);
        let is_blank = c == ' ' && before != escape;
        before = c;
        let after = match breaks.next().filter(|_| is_blank) {
            Some(1) => "\n",
            Some(2) => " \t\r\n  ",
            Some(3) => "\n# in between\n",
            Some(4) => "\n\n",
            _ => continue,
        };
        out.push(escape);
        out.push_str(after);
    }
    out
}

/// A piece of a word without blanks.
fn any_piece(escape: char) -> BoxedStrategy<String> {
    let fixed: Vec<String> = [
        "a", "b.c", "/x/y", "é", "日本", "$v", "${v}", "${v:-d}", "${v%%.*}", "'q r'", "\"s $t\"",
        "\"'\"", ":", ",", "=", "1", "-", "--", "#", "[", "]", "{", "}", "*", "?", "<", ">", "|",
        "&&", "@", "😀",
    ]
    .iter()
    .map(|it| (*it).to_owned())
    .chain([
        format!("{escape}{escape}"),
        format!("{escape}x"),
        format!("{escape}$"),
        format!("{escape}\""),
    ])
    .chain([if escape == '`' { "c:\\d" } else { "`" }.to_owned()])
    .collect();
    prop_oneof![8 => select(fixed), 1 => "[a-z]{1,8}", 1 => "\\PC".prop_filter("blank", |it| !it.contains(char::is_whitespace))].boxed()
}

/// A word without blanks outside of quotes.
fn any_word(escape: char) -> BoxedStrategy<String> {
    (select(vec!["a", "b", "x.y", "/p"]), prop::collection::vec(any_piece(escape), 0..4))
        .prop_map(|(first, pieces)| first.to_owned() + &pieces.concat())
        .boxed()
}

/// Text with blanks, which does not begin with one.
fn any_text(escape: char) -> BoxedStrategy<String> {
    let blank = select(vec![" ", "  ", "\t", " \u{a0}"]);
    let more = prop::collection::vec((blank, any_piece(escape)), 0..5);
    (any_word(escape), more)
        .prop_map(|(first, more)| {
            more.into_iter().fold(first, |text, (blank, piece)| text + blank + &piece)
        })
        .boxed()
}

/// A JSON array of strings, or what is nearly one.
fn any_json(least: usize) -> BoxedStrategy<String> {
    let element = prop_oneof![
        select(vec![
            r#""""#,
            r#""a b""#,
            r#""\n\t\"\\\/""#,
            r#""\u00e9\ud83d\ude00""#,
            r#""\ud800""#,
            r#""é""#,
            r#""$v""#,
            r#""[\"x\"]""#,
            r#""<<EOF""#,
            r#""--x""#,
            "\"\\u000a\""
        ])
        .prop_map(str::to_owned),
        "\"[a-z /.-]{0,6}\"",
    ];
    let elements = prop::collection::vec(element, least..least + 3);
    (elements, select(vec![",", ", ", " , "]))
        .prop_map(|(all, comma)| format!("[ {}]", all.join(comma)))
        .boxed()
}

fn any_command(escape: char) -> BoxedStrategy<String> {
    prop_oneof![
        3 => any_text(escape),
        2 => any_json(1),
        1 => select(vec!["['a']", "[\"a\",]", "[\"a\"] b", "[", "-- --x", "-x", "\"\""]).prop_map(str::to_owned),
    ]
    .boxed()
}

/// The value of a flag, as written.
fn any_value(escape: char) -> BoxedStrategy<String> {
    let fixed: Vec<String> =
        ["a", "x:y", "é", "$v", "${v:-w}", "'q r'", "\"s't\"", "'<<A'", "1", ""]
            .iter()
            .map(|it| (*it).to_owned())
            .chain([format!("{escape} "), format!("{escape}{escape}"), format!("'{escape}''")])
            .chain([if escape == '`' { "c:\\d" } else { "`" }.to_owned()])
            .collect();
    prop::collection::vec(select(fixed), 0..3).prop_map(|pieces| pieces.concat()).boxed()
}

/// Some of the flags, each with a blank behind it.
fn any_flags(
    escape: char,
    texts: &'static [&'static str],
    bools: &'static [&'static str],
) -> BoxedStrategy<String> {
    let text = (
        prop::sample::subsequence(texts.to_vec(), 0..=texts.len().min(2)),
        any_value(escape),
        any_value(escape),
    );
    let bools = prop::sample::subsequence(bools.to_vec(), 0..=bools.len());
    (text, bools, select(vec!["", "=true", "=False"]), select(vec!["", "", "", "-- "]))
        .prop_map(|((texts, first, second), bools, bool, end)| {
            let mut flags = String::new();
            for (name, value) in texts.into_iter().zip([first, second]) {
                flags += &format!("--{name}={value} ");
            }
            for name in bools {
                flags += &format!("--{name}{bool} ");
            }
            flags + end
        })
        .boxed()
}

/// A heredoc: its word, and its body with the closing line.
fn any_heredoc() -> BoxedStrategy<(String, String)> {
    let name = select(vec![
        ("EOF", "EOF"),
        ("EOF", "'EOF'"),
        ("A", "\"A\""),
        ("B", "\\B"),
        ("x/y", "x/y"),
        ("é", "é"),
        ("EF", "E\"F\""),
        ("$v", "$v"),
        ("it's", "\"it's\""),
    ]);
    let line = select(vec!["", "a $v", "\tb", "\t\t'c'", "# d", " EOF", "\\", "é\r", "<<A", "}"]);
    let body = prop::collection::vec(line, 0..4);
    (name, select(vec!["<<", "<<-", "<< ", "3<<"]), body, any::<bool>())
        .prop_map(|((name, word), start, body, tab)| {
            let lines: String = body.into_iter().map(|line| format!("{line}\n")).collect();
            let tab = if tab && start == "<<-" { "\t" } else { "" };
            (format!("{start}{word}"), format!("\n{lines}{tab}{name}"))
        })
        .boxed()
}

fn any_heredocs(most: usize) -> BoxedStrategy<(String, String)> {
    prop::collection::vec(any_heredoc(), 1..=most)
        .prop_map(|all| {
            let (words, bodies): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            (words.join(" "), bodies.concat())
        })
        .boxed()
}

fn any_run(escape: char) -> BoxedStrategy<String> {
    let mount = select(vec![
        "--mount=type=cache,target=/c,id=$v ",
        "--mount=type=bind,from=base,target=/b,rw ",
        "--mount=type=tmpfs,size=1g ",
        "--mount='type=secret,\"id=a,b\",env=C' ",
        "--mount=type=ssh,required ",
        "",
    ]);
    let mode = select(vec![
        "",
        "--network=none ",
        "--network=host --security=insecure ",
        "--security=sandbox ",
    ]);
    let flags = (mount, mode, any_flags(escape, &["device"], &[]))
        .prop_map(|(a, b, c)| a.to_owned() + b + &c);
    prop_oneof![
        3 => (flags.clone(), any_command(escape)).prop_map(|(flags, text)| format!("RUN {flags}{text}")),
        1 => flags.clone().prop_map(|flags| format!("RUN {flags}")),
        3 => (flags, any_heredocs(2), select(vec!["", "cat ", "sh -s "]), select(vec!["", " > /x", " it's"]))
            .prop_map(|(flags, (words, bodies), before, after)| {
                let bodies = if after == " it's" { String::new() } else { bodies };
                format!("RUN {flags}{before}{words}{after}{bodies}")
            }),
    ]
    .boxed()
}

/// `COPY` and `ADD`.
fn any_transfer(escape: char) -> BoxedStrategy<String> {
    let copy =
        any_flags(escape, &["from", "chown", "chmod", "exclude", "exclude"], &["link", "parents"]);
    let add = any_flags(
        escape,
        &["chown", "chmod", "checksum", "exclude"],
        &["link", "keep-git-dir", "unpack"],
    );
    let start = prop_oneof![
        copy.prop_map(|flags| format!("COPY {flags}")),
        add.prop_map(|flags| format!("ADD {flags}")),
    ];
    let words = prop::collection::vec(any_word(escape), 1..4).prop_map(|words| words.join(" "));
    let arguments = prop_oneof![
        3 => (words.clone(), any_word(escape)).prop_map(|(words, dest)| format!("{words} {dest}")),
        2 => any_json(2),
        2 => (prop::option::of(words), any_heredocs(3), select(vec!["/d", "/d/", "${v}"])).prop_map(
            |(words, (heredocs, bodies), dest)| {
                format!("{heredocs} {} {dest}{bodies}", words.unwrap_or_default())
            }
        ),
    ];
    (start, arguments).prop_map(|(start, arguments)| start + &arguments).boxed()
}

fn any_pair(escape: char) -> BoxedStrategy<String> {
    let quoted = (any_text(escape), select(vec!['\'', '"'])).prop_map(move |(text, quote)| {
        let text = text.replace(['\'', '"', escape], "");
        format!("{quote}{text}{quote}")
    });
    let part = prop_oneof![4 => any_piece(escape), 2 => quoted, 1 => Just(format!("{escape} "))];
    (select(vec!["a", "B_1", "\"c d\"", "com.é", "$v"]), prop::collection::vec(part, 0..3))
        .prop_map(|(name, value)| format!("{name}={}", value.concat()))
        .boxed()
}

/// `ENV` and `LABEL`.
fn any_pairs(escape: char) -> BoxedStrategy<String> {
    let modern = (prop::collection::vec(any_pair(escape), 1..4), any_dangling(escape))
        .prop_map(|(pairs, after)| pairs.join(" ") + &after);
    let names = vec!["n".to_owned(), "\"a".to_owned(), format!("n{escape} "), "é".to_owned()];
    let legacy =
        (select(names), any_text(escape)).prop_map(|(name, value)| format!("{name} {value}"));
    (select(vec!["ENV", "LABEL"]), prop_oneof![2 => modern, 1 => legacy])
        .prop_map(|(keyword, pairs)| format!("{keyword} {pairs}"))
        .boxed()
}

fn any_arg(escape: char) -> BoxedStrategy<String> {
    let item = prop_oneof![any_pair(escape), "[A-Z]{1,3}"];
    (select(vec!["", "--x "]), prop::collection::vec(item, 1..4), any_dangling(escape))
        .prop_map(|(flags, items, after)| format!("ARG {flags}{}{after}", items.join(" ")))
        .boxed()
}

/// Now and then an escape that escapes nothing, which continues no line.
fn any_dangling(escape: char) -> BoxedStrategy<String> {
    prop_oneof![8 => Just(String::new()), 1 => Just(format!(" {escape}\u{b}"))].boxed()
}

fn any_from(escape: char) -> BoxedStrategy<String> {
    let flags = select(vec![
        "",
        "--platform=linux/arm64 ",
        "--platform=$BUILDPLATFORM ",
        "--platform=' ' ",
    ]);
    let image =
        prop_oneof![Just("scratch".to_owned()), Just("a/b:1@x".to_owned()), any_word(escape)];
    let stage = select(vec!["", " AS one", " as Two-2", " As x_.3"]);
    (select(vec!["FROM", "from", "From"]), flags, image, stage)
        .prop_map(|(keyword, flags, image, stage)| format!("{keyword} {flags}{image}{stage}"))
        .boxed()
}

fn any_other(escape: char) -> BoxedStrategy<String> {
    let single = select(vec!["MAINTAINER", "STOPSIGNAL", "USER", "WORKDIR"]);
    let times = select(vec![
        "",
        "--interval=1m30s ",
        "--timeout=1.5ms --retries=3 ",
        "--start-period=1us1h --start-interval=0 ",
    ]);
    prop_oneof![
        (single, any_text(escape)).prop_map(|(keyword, text)| format!("{keyword} {text}")),
        (select(vec!["CMD", "ENTRYPOINT"]), any_command(escape))
            .prop_map(|(keyword, text)| format!("{keyword} {text}")),
        select(vec!["CMD", "ENTRYPOINT", "CMD []", "ENTRYPOINT [ ]", "STOPSIGNAL --x 9"])
            .prop_map(str::to_owned),
        any_arg(escape),
        prop::collection::vec(any_word(escape), 1..4)
            .prop_map(|words| format!("EXPOSE {}", words.join(" "))),
        prop::collection::vec(any_word(escape), 1..4)
            .prop_map(|words| format!("VOLUME {}", words.join(" "))),
        select(vec![r#"VOLUME ["/a b", "/c"]"#, r#"VOLUME ["[\"/a\"]", "x\n"]"#])
            .prop_map(str::to_owned),
        any_json(1).prop_map(|json| format!("SHELL {json}")),
        (times, select(vec!["CMD", "cmd"]), any_command(escape))
            .prop_map(|(times, keyword, text)| format!("HEALTHCHECK {times}{keyword} {text}")),
        select(vec!["HEALTHCHECK NONE", "HEALTHCHECK --x none"]).prop_map(str::to_owned),
    ]
    .boxed()
}

fn any_onbuild(escape: char) -> BoxedStrategy<String> {
    let trigger =
        prop_oneof![any_run(escape), any_transfer(escape), any_pairs(escape), any_other(escape)];
    (select(vec!["ONBUILD ", "ONBUILD  ", "ONBUILD -- "]), trigger)
        .prop_filter("no trigger", |(_, trigger)| !trigger.starts_with("MAINTAINER"))
        .prop_map(|(keyword, trigger)| keyword.to_owned() + &trigger)
        .boxed()
}
