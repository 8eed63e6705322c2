//! What is left of a file with mistakes, for finding those of other kinds.

/// The keywords of the instructions that are left, or why there are none.
#[track_caller]
fn check(text: &str, expect: &str) {
    assert!(text.is_empty() || parser::parse(text.as_bytes()).is_err(), "{text:?}");
    let rest = parser::parse_rest(text.as_bytes());
    let words = |file: parser::Dockerfile| -> Vec<String> {
        file.instructions.into_iter().map(|instruction| instruction.keyword.text).collect()
    };
    assert_eq!(rest.map_or("none".to_owned(), |file| words(file).join(" ")), expect, "{text:?}");
}

#[test]
fn a_wrong_instruction_is_left_out() {
    check("FROM a\nCOPY x\nEXPOSE y\n", "FROM EXPOSE");
    check("FROM a\nRUNN x\nEXPOSE y\n", "FROM EXPOSE");
    check("FROM a\nRUN --network=x y\nLABEL z\nUSER u\n", "FROM USER");
}

#[test]
fn nothing_is_left_when_the_mistake_may_reach_further() {
    for text in [
        "",
        "# only a comment\n",
        "RUN x\nFROM a\n",
        "FROM a b\nEXPOSE y\n",
        "FORM a\nFROM b\nCOPY --from=x y z\n",
        "ARG =x\nFROM $x\n",
        "FROM a\nENV x\nEXPOSE $x\n",
        "FROM a\nEVN x=1\nEXPOSE $x\n",
        "# escape=x\nFROM a\n",
        "FROM a\nRUN <<EOF\nEXPOSE x\n",
    ] {
        check(text, "none");
    }
    let long = format!("FROM a\nRUN {}\n", "x".repeat(70_000));
    check(&long, "none");
}

#[test]
fn a_file_without_mistakes_has_no_rest() {
    assert!(parser::parse_rest(b"FROM a\n").is_none());
}
