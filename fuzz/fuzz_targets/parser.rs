//! Any bytes are a Dockerfile or give errors. Every span is one of the text and shows what it is said to be, and
//! printing a tree and parsing the text gives the tree back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parser::{
    Command, Dockerfile, Instruction, InstructionKind, ParseErrors, Sources, Span, Word,
    parse_trigger,
};

fuzz_target!(|bytes: &[u8]| {
    match parser::parse(bytes) {
        Ok(file) => check_tree(file),
        Err(errors) => check_errors(&errors),
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(errors) = parse_trigger(text)
    {
        check_errors(&errors);
    }
});

fn check_errors(errors: &ParseErrors) {
    assert!(!errors.errors.is_empty());
    assert!(errors.errors.is_sorted_by_key(|error| error.at.offset()));
    for error in &errors.errors {
        let at = error.at.offset();
        assert!(errors.text.get(at..at + error.at.len()).is_some());
        assert!(error.lines.is_none_or(|lines| lines.start >= 1 && lines.start <= lines.end));
    }
}

fn check_tree(file: Dockerfile) {
    let is_from = |it: &Instruction| matches!(it.kind, InstructionKind::From(_));
    assert!(file.instructions.iter().any(is_from));
    for pair in file.instructions.windows(2) {
        assert!(pair[0].span.end <= pair[1].span.start && pair[0].lines.end < pair[1].lines.start);
    }
    for instruction in &file.instructions {
        check_spans(&file, instruction);
    }
    let printed = parser::print(&file);
    let again = parser::parse(printed.as_bytes()).expect("what is printed is a Dockerfile");
    assert_eq!(parser::print(&again), printed);
    for instruction in &file.instructions {
        check_trigger(&file, instruction);
    }
    assert_eq!(again.without_layout(), file.without_layout());
}

/// A logical line of its own says the same as in the file.
fn check_trigger(file: &Dockerfile, it: &Instruction) {
    let has_heredoc = it.lines.start != it.lines.end && it.text.contains("<<");
    if has_heredoc || it.text.ends_with('\\') || file.directives.escape.char() != '\\' {
        return;
    }
    if matches!(it.kind, InstructionKind::From(_)) || it.text.len() > 60_000 {
        return;
    }
    let trigger = parse_trigger(&it.text).expect("the line is an instruction");
    let alone = |it: Instruction| {
        let instructions = vec![Instruction { comments: Vec::new(), ..it }];
        Dockerfile { instructions, ..file.clone() }.without_layout()
    };
    assert_eq!(alone(trigger), alone(it.clone()));
}

fn check_spans(file: &Dockerfile, it: &Instruction) {
    let text = |span: Span| file.text.get(span.range()).expect("a span of the text");
    text(it.span);
    assert!(it.lines.start >= 1 && it.lines.start <= it.lines.end);
    assert!(it.lines.end <= file.text.split('\n').count());
    for comment in &it.comments {
        assert!(text(comment.span).contains(&comment.text));
    }
    let written = |word: &Word| {
        assert!(it.span.start <= word.span.start && word.span.end <= it.span.end, "{word:?}");
        text(word.span)
    };
    let inside = |word: &Word| {
        written(word);
    };
    // A word that no continuation breaks is what stands there.
    let exact = |word: &Word| {
        let written = written(word);
        assert!(written.contains('\n') || written == word.text, "{word:?} is written {written:?}");
    };
    exact(&it.keyword);
    let sources = |sources: &Sources| {
        sources.paths.iter().chain([&sources.dest]).for_each(inside);
        for file in &sources.files {
            text(file.span);
            assert!(
                text(file.heredoc.body_span) == &*file.heredoc.body || file.heredoc.body.is_empty()
            );
        }
    };
    let command = |command: &Command| {
        if let Command::Shell(shell) = command {
            exact(&Word { text: shell.text.clone(), span: shell.span });
            for heredoc in &shell.heredocs {
                assert_eq!(text(heredoc.body_span), &*heredoc.body);
            }
        }
    };
    match &it.kind {
        InstructionKind::Add(add) => sources(&add.sources),
        InstructionKind::Arg(arg) => {
            for arg in &arg.args {
                exact(&arg.name);
                arg.default.iter().for_each(exact);
            }
        }
        InstructionKind::Cmd(it) | InstructionKind::Entrypoint(it) => command(it),
        InstructionKind::Copy(copy) => sources(&copy.sources),
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            for pair in &pairs.pairs {
                exact(&pair.name);
                exact(&pair.value);
            }
        }
        InstructionKind::Expose(ports) => ports.iter().for_each(exact),
        InstructionKind::From(from) => {
            exact(&from.image);
            from.platform.iter().for_each(inside);
            if let Some(stage) = &from.stage {
                exact(&stage.keyword);
                exact(&stage.written);
                assert_eq!(stage.name, stage.written.text.to_lowercase());
            }
        }
        InstructionKind::Run(run) => {
            run.mounts.iter().for_each(|mount| inside(&mount.value));
            run.devices.iter().for_each(inside);
            command(&run.command);
        }
        InstructionKind::Maintainer(word)
        | InstructionKind::Stopsignal(word)
        | InstructionKind::User(word)
        | InstructionKind::Workdir(word) => exact(word),
        InstructionKind::Onbuild(onbuild) => assert!(!text(onbuild.span).is_empty()),
        InstructionKind::Volume(words) => words.iter().for_each(inside),
        InstructionKind::Healthcheck(_) | InstructionKind::Shell(_) => {}
    }
}
