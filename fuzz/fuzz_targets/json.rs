//! Arguments in JSON form: all instructions take the same texts for JSON as a general reader does, read the same
//! strings from them, and print them as something that reads the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parser::{Command, Dockerfile, Healthcheck, InstructionKind, ParseErrorKind, ParseErrors};
use serde_json::Value;

/// What the arguments of an instruction are.
#[derive(Debug, PartialEq)]
enum Form {
    Strings(Vec<String>),
    OtherArray,
    Shell,
}

fuzz_target!(|text: &str| {
    // Arguments are one line, and do not go on in the next one.
    let args = text.replace(['\n', '\r'], " ");
    let args = args.trim();
    if args.is_empty() || args.ends_with('\\') || args.starts_with("--") || args.len() > 60_000 {
        return;
    }
    let form = form_of(&parse("CMD", args));
    if let Some(expect) = expected(args) {
        assert_eq!(form, expect);
    }
    for keyword in ["ENTRYPOINT", "HEALTHCHECK CMD", "SHELL", "VOLUME", "COPY", "ADD", "RUN"] {
        let result = parse(keyword, args);
        match (&form, &result) {
            (Form::OtherArray, result) => assert_eq!(form_of(result), Form::OtherArray),
            (Form::Strings(strings), Ok(file)) => {
                assert_eq!(strings_of(&file.instructions[1].kind).as_ref(), Some(strings));
            }
            (Form::Strings(strings), Err(_)) => {
                // These want elements, and some of them more than one or none that is blank.
                let is_blank = strings.iter().any(|it| it.trim().is_empty());
                assert!(strings.len() < 2 || (keyword == "VOLUME" && is_blank), "{keyword}");
            }
            (Form::Shell, _) => {}
        }
        if let Ok(file) = result {
            let again = parser::parse(parser::print(&file).as_bytes())
                .expect("what is printed is a Dockerfile");
            assert_eq!(again.without_layout(), file.without_layout());
        }
    }
});

fn parse(keyword: &str, args: &str) -> Result<Dockerfile, ParseErrors> {
    parser::parse(format!("FROM a\n{keyword} {args}\n").as_bytes())
}

fn form_of(result: &Result<Dockerfile, ParseErrors>) -> Form {
    match result {
        Ok(file) => strings_of(&file.instructions[1].kind).map_or(Form::Shell, Form::Strings),
        Err(errors) => {
            assert_eq!(errors.errors[0].kind, ParseErrorKind::NotStrings);
            Form::OtherArray
        }
    }
}

/// Strings of the exec form, or the words of instructions whose words are the same in both forms.
fn strings_of(kind: &InstructionKind) -> Option<Vec<String>> {
    let words = |words: &[parser::Word]| words.iter().map(|word| word.text.clone()).collect();
    let sources = |it: &parser::Sources| {
        let mut paths: Vec<String> = words(&it.paths);
        paths.push(it.dest.text.clone());
        paths
    };
    let command = match kind {
        InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => command,
        InstructionKind::Run(run) => &run.command,
        InstructionKind::Healthcheck(Healthcheck::Cmd(check)) => &check.command,
        InstructionKind::Shell(strings) => return Some(strings.clone()),
        InstructionKind::Volume(volumes) => return Some(words(volumes)),
        InstructionKind::Copy(copy) => return Some(sources(&copy.sources)),
        InstructionKind::Add(add) => return Some(sources(&add.sources)),
        _ => return None,
    };
    match command {
        Command::Exec(strings) => Some(strings.clone()),
        Command::Shell(_) => None,
    }
}

/// What a general reader says; nothing where it is known to differ: it refuses deep nesting and half a surrogate pair.
fn expected(args: &str) -> Option<Form> {
    if !args.starts_with('[') {
        return Some(Form::Shell);
    }
    match serde_json::from_str::<Vec<Value>>(args) {
        Ok(values) => {
            let strings: Option<Vec<_>> =
                values.iter().map(|it| it.as_str().map(str::to_owned)).collect();
            Some(strings.map_or(Form::OtherArray, Form::Strings))
        }
        Err(_) if args.contains("\\u") || args.matches(['[', '{']).count() > 100 => None,
        Err(_) => Some(Form::Shell),
    }
}
