//! What of a tree is layout: where things stand, and how they were spelled.

use crate::ast::{
    AddInstruction, Command, CopyInstruction, Directive, Dockerfile, FromInstruction, Healthcheck,
    Heredoc, Instruction, InstructionKind, Lines, MountFlag, Pairs, Run, Sources, Span, Word,
};

impl Dockerfile {
    /// Returns the tree without what only tells the layout of its text: spans and line numbers are
    /// zero, the text of the file and of its logical lines is empty, and there are no warnings, as
    /// all that the parser gives are about layout.
    ///
    /// Two texts say the same if and only if these trees are equal.
    #[must_use]
    pub fn without_layout(mut self) -> Self {
        let Self { directives, instructions, text, warnings } = &mut self;
        for directive in [&mut directives.syntax, &mut directives.check].into_iter().flatten() {
            let Directive { value: _, span, line } = directive;
            (*span, *line) = (Span::default(), 0);
        }
        instructions.iter_mut().for_each(instruction);
        text.clear();
        warnings.clear();
        self
    }
}

fn instruction(it: &mut Instruction) {
    let Instruction { keyword, text, span, lines, comments, kind } = it;
    word(keyword);
    text.clear();
    *span = Span::default();
    *lines = Lines { start: 0, end: 0 };
    for comment in comments {
        (comment.span, comment.line) = (Span::default(), 0);
    }
    self::kind(kind);
}

fn kind(kind: &mut InstructionKind) {
    use InstructionKind as Kind;
    match kind {
        Kind::Add(it) => add(it),
        Kind::Arg(it) => {
            for arg in &mut it.args {
                word(&mut arg.name);
                words(&mut arg.default);
            }
        }
        Kind::Cmd(it) | Kind::Entrypoint(it) => command(it),
        Kind::Copy(it) => copy(it),
        Kind::Env(it) | Kind::Label(it) => pairs(it),
        Kind::Expose(it) | Kind::Volume(it) => words(it),
        Kind::From(it) => from(it),
        Kind::Healthcheck(Healthcheck::Cmd(it)) => command(&mut it.command),
        Kind::Healthcheck(Healthcheck::None) | Kind::Shell(_) => {}
        Kind::Maintainer(it) | Kind::Stopsignal(it) | Kind::User(it) | Kind::Workdir(it) => {
            word(it);
        }
        Kind::Onbuild(it) => it.span = Span::default(),
        Kind::Run(it) => run(it),
    }
}

fn add(it: &mut AddInstruction) {
    let AddInstruction { chown, chmod, link, keep_git_dir, checksum, unpack, exclude, sources } =
        it;
    words([chown, chmod, checksum].into_iter().flatten());
    for flag in [link, keep_git_dir, unpack].into_iter().flatten() {
        flag.span = Span::default();
    }
    words(exclude);
    self::sources(sources);
}

fn copy(it: &mut CopyInstruction) {
    let CopyInstruction { from, chown, chmod, link, parents, exclude, sources } = it;
    words([from, chown, chmod].into_iter().flatten());
    for flag in [link, parents].into_iter().flatten() {
        flag.span = Span::default();
    }
    words(exclude);
    self::sources(sources);
}

fn sources(it: &mut Sources) {
    words(&mut it.paths);
    word(&mut it.dest);
    for file in &mut it.files {
        file.span = Span::default();
        heredoc(&mut file.heredoc);
    }
}

fn pairs(it: &mut Pairs) {
    for pair in &mut it.pairs {
        words([&mut pair.name, &mut pair.value]);
    }
}

fn from(it: &mut FromInstruction) {
    let FromInstruction { platform, image, stage } = it;
    words(platform);
    word(image);
    if let Some(stage) = stage {
        words([&mut stage.keyword, &mut stage.written]);
    }
}

fn run(it: &mut Run) {
    let Run { mounts, network: _, security: _, devices, command } = it;
    for MountFlag { value, from: _ } in mounts {
        word(value);
    }
    words(devices);
    self::command(command);
}

fn command(it: &mut Command) {
    if let Command::Shell(shell) = it {
        shell.span = Span::default();
        shell.heredocs.iter_mut().for_each(heredoc);
    }
}

fn heredoc(it: &mut Heredoc) {
    it.body_span = Span::default();
}

fn words<'a>(words: impl IntoIterator<Item = &'a mut Word>) {
    words.into_iter().for_each(word);
}

fn word(word: &mut Word) {
    word.span = Span::default();
}
