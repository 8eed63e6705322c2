use proptest::prelude::*;

use super::*;

fn variables(name: &str) -> Option<String> {
    let value = match name {
        "v" => "value",
        "empty" => "",
        "ports" => "80 443/udp",
        "path" => "/usr/local/bin",
        "lines" => "a\nb",
        "é" => "accent",
        "1" => "one",
        _ => return None,
    };
    Some(value.to_owned())
}

fn budget() -> Budget {
    Budget::new(1 << 25, MAX_SIZE)
}

#[track_caller]
fn check(text: &str, expect: &str) {
    let actual = match expand(text, '\\', &variables, Mode::default(), &budget()) {
        Ok(expanded) => expanded.text,
        Err(error) => format!("error: {}", error.cause),
    };
    assert_eq!(actual, expect, "input: {text:?}");
}

#[test]
fn quotes_and_escapes() {
    check("a b", "a b");
    check("'a $v \\'", "a $v \\");
    check(r#""a $v \" \$ \\ \n 'x'""#, r#"a value " $ \ \n 'x'"#);
    check(r"\$v \a\\", r"$v a\");
    check("a\\", "a");
    check("a''b\"\"", "ab");
    check("a < b << c", "a < b << c");
    check("'a", "error: unexpected end of statement while looking for matching single-quote");
    check("\"a", "error: unexpected end of statement while looking for matching double-quote");
    check("\"a\\", "error: unexpected end of statement while looking for matching double-quote");
    check("é'ü'", "éü");
}

#[test]
fn plain_variables() {
    check("$v-$empty-$none-$v_x", "value---");
    check("$1a $12b $0 $@$*$#$?$-$!$$", "onea b  ");
    check("$ $. $", "$ $. $");
    check("$é", "accent");
    check("${v}${none}}", "value}");
}

#[test]
fn braced_forms() {
    check("${v:-w} ${empty:-w} ${none:-w}", "value w w");
    check("${v-w} ${empty-w} ${none-w}", "value  w");
    check("${v:+w} ${empty:+w} ${none:+w}.", "w  .");
    check("${v+w} ${empty+w} ${none+w}.", "w w .");
    check("${v:?w} ${v?w}", "value value");
    check("${none:-${other:-'z }'}}", "z }");
    check("${none:-\"a b\"}\\}", "a b}");
    check("${none:?}", "error: none: is not allowed to be unset");
    check("${empty:?}", "error: empty: is not allowed to be empty");
    check("${empty?}", "");
    check("${empty:?be set}", "error: empty: be set");
}

#[test]
fn patterns() {
    check("${path#*/} ${path##*/}", "usr/local/bin bin");
    check("${path%/*} ${path%%/*}.", "/usr/local .");
    check("${path%l?c*}", "/usr/");
    check("${path/\\//:}", ":usr/local/bin");
    check("${path//\\//:}", ":usr:local:bin");
    check("${v//a/\\/}", "v\\/lue");
    check("${v//}/x}", "value");
    check("${v///-}", "-v-a-l-u-e-");
    check("${v//*/x}", "x");
    check("${lines//*/x}", "x\nx");
    check("${v/z/x}", "value");
    check("${none/z/x}", "");
    check("${v#\\a}", "error: invalid pattern (\\a) in substitution: invalid escape '\\a'");
    check("${v/p}", "error: syntax error: missing '/' in ${}");
}

#[test]
fn bad_forms() {
    check("${}", "error: syntax error: bad substitution");
    check("${:}", "error: syntax error: bad substitution");
    check("${{x}", "error: syntax error: bad substitution");
    check("${", "error: syntax error: missing '}'");
    check("${v:-x", "error: syntax error: missing '}'");
    check("${v#x", "error: syntax error: missing '}'");
    check("${v:", "error: syntax error: missing '}'");
    check("${v", "error: unsupported modifier (\u{fffd}) in substitution");
    check("${v^}", "error: unsupported modifier (^) in substitution");
    check("${v:=x}", "error: unsupported modifier (:=) in substitution");
    check("${v:#x}", "error: unsupported modifier (:#) in substitution");
    check("${v:%x}", "error: unsupported modifier (:%) in substitution");
    check("${.}", "error: unsupported modifier (.) in substitution");
}

#[test]
fn the_error_names_the_whole_word() {
    let error = expand("a\"${}\"", '\\', &variables, Mode::default(), &budget()).unwrap_err();
    let expect = r#"failed to process "a\"${}\"": syntax error: bad substitution"#;
    assert_eq!(error.to_string(), expect);
}

#[test]
fn a_backtick_can_be_the_escape() {
    let expanded = expand(r"c:\dir\`$v", '`', &variables, Mode::default(), &budget()).unwrap();
    assert_eq!(expanded.text, r"c:\dir\$v");
}

#[test]
fn names_are_told_once_in_order_of_use() {
    let text = "$b $v ${a:-$b} $a ${v+x}";
    let expanded = expand(text, '\\', &variables, Mode::default(), &budget()).unwrap();
    assert_eq!(expanded.used, ["v"]);
    assert_eq!(expanded.unset, ["b", "a"]);
}

#[test]
fn words_split_at_blanks_outside_quotes() {
    let words = |text: &str| {
        expand_words(text, '\\', &variables, Mode::default(), &budget()).map(|it| it.words).unwrap()
    };
    assert_eq!(words("$ports"), ["80", "443/udp"]);
    assert_eq!(words("8$ports '1 2'\\ 3 $none"), ["880", "443/udp", "1 2 3"]);
    assert_eq!(words("\"$ports\""), ["80 443/udp"]);
    assert_eq!(words(" '' a \u{a0} b "), ["a", "b"]);
}

#[test]
fn raw_modes_keep_what_they_say() {
    let all = Mode { raw_quotes: true, raw_escapes: true, skip_unset: true, ignore_quotes: false };
    let keep = |text: &str| expand(text, '\\', &|_| None, all, &budget()).unwrap().text;
    let text = r#"'a' "b \" $c" \d $e ${f} ${g:-h} ${i//j/k} ${l#m\*}"#;
    assert_eq!(keep(text), text);
}

#[test]
fn heredoc_bodies_keep_quotes() {
    let body = "it's \"$v\" \\$v \\\\ \\n ${none:-'x'}\n";
    let expanded = expand_heredoc(body, &variables, &budget()).unwrap();
    assert_eq!(expanded.text, "it's \"value\" $v \\ n 'x'\n");
}

#[test]
fn a_mistake_at_the_end_is_that_of_the_outermost_open_form() {
    check("${v:-'x", "error: syntax error: missing '}'");
    check("${v:-\"x", "error: syntax error: missing '}'");
    check("${v:-${b", "error: syntax error: missing '}'");
    check("${v/${b:-", "error: syntax error: missing '/' in ${}");
    check("${v/a/${b:-", "error: syntax error: missing '}'");
    check("${v:-${none:?x}", "error: syntax error: missing '}'");
    check("${v:-${none:?x}}", "error: none: x");
    check("${v:-${}}", "error: syntax error: bad substitution");
    check("\"${v:-'x", "error: syntax error: missing '}'");
}

#[test]
fn forms_nest_to_any_depth() {
    let depth = 1 << 17;
    let nest = |open: &str, close: &str| format!("{}x{}", open.repeat(depth), close.repeat(depth));
    let check = |text: &str, expect: Result<&str, WordErrorKind>| {
        let actual = expand(text, '\\', &variables, Mode::default(), &budget());
        let actual = actual.map(|it| it.text).map_err(|error| error.cause);
        // The texts are too long to be shown.
        assert!(actual.as_deref() == expect.as_ref().map(|it| *it), "{}", &text[..10]);
    };
    check(&nest("${n:-", "}"), Ok("x"));
    check(&nest("${v+", "}"), Ok("x"));
    check(&nest("\"${n-", "}\""), Ok("x"));
    check(&nest("${v:-", "}"), Ok("value"));
    check(&nest("a${n:-", "}b"), Ok(&nest("a", "b")));
    check(&nest("${v#", "}"), Ok(""));
    check(&nest("${v/value/", "}"), Ok("x"));
    check(&"\"${n:-".repeat(depth), Err(WordErrorKind::MissingBrace));
    check(&"${n/".repeat(depth), Err(WordErrorKind::MissingSlash));
    let kept = nest("${n:-", "}");
    let skip = Mode { skip_unset: true, ..Mode::default() };
    assert!(expand(&kept, '\\', &variables, skip, &budget()).unwrap().text == kept);
}

#[test]
fn work_is_bounded_whatever_is_nested() {
    let large = "x".repeat(1 << 20);
    let lookup = |name: &str| Some(if name == "v" { large.clone() } else { "x".to_owned() });
    let cause =
        |text: &str| expand(text, '\\', &lookup, Mode::default(), &budget()).unwrap_err().cause;
    assert_eq!(cause(&"${v#$v}".repeat(1 << 16)), WordErrorKind::TooExpensive);
    let depth = 1 << 13;
    let deep = format!("{}$v{}", "${x/x/".repeat(depth), "}".repeat(depth));
    assert_eq!(cause(&deep), WordErrorKind::TooExpensive);
}

#[test]
fn size_is_bounded() {
    let large = "x".repeat(MAX_SIZE / 2 + 1);
    let lookup = |_: &str| Some(large.clone());
    let cause = |text| expand(text, '\\', &lookup, Mode::default(), &budget()).unwrap_err().cause;
    assert_eq!(cause("$a$a"), WordErrorKind::TooLarge);
    assert_eq!(cause("${a//x/$a}"), WordErrorKind::TooLarge);
    assert_eq!(cause(&format!("${{a//{}y/}}", "*x".repeat(50))), WordErrorKind::TooExpensive);
}

proptest! {
    #[test]
    fn any_text_is_processed_or_refused(text in "[a${}:/#%*?\\\\\"' <`+-]{0,40}") {
        let _ = expand_words(&text, '\\', &variables, Mode::default(), &budget());
        let _ = expand_words(&text, '`', &variables, Mode::default(), &budget());
        let _ = expand_heredoc(&text, &variables, &budget());
    }

    #[test]
    fn single_quotes_give_back_any_text(text in "[^']{0,20}") {
        let quoted = format!("'{text}'");
        let expanded = expand(&quoted, '\\', &variables, Mode::default(), &budget());
        prop_assert_eq!(expanded.unwrap().text, text);
    }
}
