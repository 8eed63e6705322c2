//! Templates of `--format`: the part of Go's that people use for what Docker shows.
//!
//! ```text
//! {{.Field.Inner}}  {{.}}  {{json .Field}}  {{index .List 0}}  {{index .Map "key"}}  {{len .List}}
//! {{join .List ", "}}  {{split .Text ":"}}  {{lower .Text}}  {{upper .Text}}  {{println .Field}}
//! {{eq .Field "a" "b"}}  {{ne .Field 1}}  {{and .A .B}}  {{or .A .B}}  {{not .A}}
//! {{range .List}}…{{else}}…{{end}}  {{if .Field}}…{{else if .Other}}…{{else}}…{{end}}  {{with .Field}}…{{end}}
//! {{range $value := .List}}…{{end}}  {{range $key, $value := .Map}}{{$key}}={{$value}}{{end}}
//! {{.Field | json}}  {{(index .List 0).Inner}}  {{- trims before, and after -}}
//! ```
//!
//! Invariant: a template that asks for what is never there is refused, with what may be meant.

use serde_json::Value;

/// Deepest nesting of actions.
const DEEPEST: usize = 32;

/// What is wrong with a template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadTemplate {
    /// What is wrong.
    pub(crate) message: String,
    /// The field or function that may be meant.
    pub(crate) near: Option<String>,
}

impl BadTemplate {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), near: None }
    }
}

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Node>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Text(String),
    Print(Pipe),
    /// Names for key and value, where they have some.
    Range([Option<String>; 2], Pipe, Vec<Node>, Vec<Node>),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
}

/// Calls, each of which gets what the one before gave as its last argument.
type Pipe = Vec<Call>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    function: Option<&'static str>,
    arguments: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    /// A field of what is at hand, or all of it.
    Dot(Vec<String>),
    /// A field of the whole, or of what a range has given a name.
    Named(String, Vec<String>),
    Literal(Value),
    Nested(Pipe, Vec<String>),
}

const FUNCTIONS: [&str; 13] = [
    "json", "index", "len", "join", "split", "lower", "upper", "println", "not", "eq", "ne", "and",
    "or",
];

/// What a name stands for; the whole has the empty one. The last of a name counts.
type Names = Vec<(String, Value)>;

/// Names whose members are chosen by users, so that one may always be missing.
const FREE: [&str; 4] = ["Labels", "Volumes", "ExposedPorts", "Annotations"];

impl Template {
    /// Reads a template; `\t` and `\n` stand for what they do in Go's command line tools.
    pub(crate) fn parse(text: &str) -> Result<Self, BadTemplate> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut parser = Parser { pieces: pieces(&text)?, next: 0, depth: 0 };
        let (nodes, end) = parser.nodes()?;
        match end {
            None => Ok(Self(nodes)),
            Some(word) => Err(BadTemplate::new(format!("`{{{{{word}}}}}` ends nothing"))),
        }
    }

    /// Checks the fields that it takes of the whole against those that there are.
    pub(crate) fn check(&self, fields: &[&str]) -> Result<(), BadTemplate> {
        let mut used = Vec::new();
        fields_of(&self.0, true, &mut used);
        match used.into_iter().find(|name| !fields.contains(&name.as_str())) {
            Some(name) => Err(unknown(&name, fields.iter().copied())),
            None => Ok(()),
        }
    }

    /// The titles of its fields, instead of the fields.
    pub(crate) fn titles(&self, titles: &[(&str, &str)]) -> String {
        let title = |node: &Node| match node {
            Node::Text(text) => text.clone(),
            _ => {
                let mut used = Vec::new();
                fields_of(std::slice::from_ref(node), true, &mut used);
                let titles = used.iter().filter_map(|name| {
                    titles.iter().find(|(field, _)| field == name).map(|(_, title)| *title)
                });
                titles.collect::<Vec<_>>().join(" ")
            }
        };
        self.0.iter().map(title).collect()
    }

    /// The text for a value.
    pub(crate) fn render(&self, root: &Value) -> Result<String, BadTemplate> {
        let (mut out, mut names) = (String::new(), vec![(String::new(), root.clone())]);
        render(&self.0, &mut names, root, &mut out)?;
        Ok(out)
    }
}

/// Text and actions in turn, an action without its braces.
fn pieces(text: &str) -> Result<Vec<(String, Option<String>)>, BadTemplate> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trims = false;
    while let Some(at) = rest.find("{{") {
        let end = rest[at..].find("}}").ok_or_else(|| {
            BadTemplate::new(format!("`{}` is not closed with `}}}}`", &rest[at..]))
        })?;
        let mut before = if trims { rest[..at].trim_start() } else { &rest[..at] };
        let mut action = &rest[at + 2..at + end];
        if let Some(inner) = action.strip_prefix("- ") {
            before = before.trim_end();
            action = inner;
        }
        trims = action.ends_with(" -");
        action = action.strip_suffix(" -").unwrap_or(action);
        pieces.push((before.to_owned(), Some(action.trim().to_owned())));
        rest = &rest[at + end + 2..];
    }
    pieces.push((if trims { rest.trim_start() } else { rest }.to_owned(), None));
    Ok(pieces)
}

struct Parser {
    pieces: Vec<(String, Option<String>)>,
    next: usize,
    depth: usize,
}

/// The names that a range gives, and what it goes through: `$key, $value := .Map`.
fn range_names(action: &str) -> Result<([Option<String>; 2], &str), BadTemplate> {
    let Some((names, rest)) = action.split_once(":=") else { return Ok(([None, None], action)) };
    let name = |text: &str| {
        let name = text.trim().strip_prefix('$').filter(|name| is_name(name));
        let wrong = || BadTemplate::new(format!("`{}` is no name such as `$key`", text.trim()));
        name.map(|name| Some(name.to_owned())).ok_or_else(wrong)
    };
    let names = match names.split_once(',') {
        Some((key, value)) => [name(key)?, name(value)?],
        None => [None, name(names)?],
    };
    Ok((names, rest))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

impl Parser {
    /// Nodes up to `else` or `end`, which is returned too.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>), BadTemplate> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(BadTemplate::new("it is nested too deeply"));
        }
        let mut nodes = Vec::new();
        while let Some((text, action)) = self.pieces.get(self.next).cloned() {
            self.next += 1;
            if !text.is_empty() {
                nodes.push(Node::Text(text));
            }
            let Some(action) = action else { break };
            match word_of(&action).0 {
                "else" | "end" => {
                    self.depth -= 1;
                    return Ok((nodes, Some(action)));
                }
                "range" | "if" | "with" => nodes.push(self.block(&action)?),
                _ => nodes.push(Node::Print(pipe(&action)?)),
            }
        }
        self.depth -= 1;
        Ok((nodes, None))
    }

    /// What begins with `action`, up to its end.
    fn block(&mut self, action: &str) -> Result<Node, BadTemplate> {
        let (word, rest) = word_of(action);
        let (names, rest) = match word {
            "range" => range_names(rest)?,
            _ => ([None, None], rest),
        };
        let pipe = pipe(rest)?;
        let (body, end) = self.nodes()?;
        let other = match end.as_deref().map(word_of) {
            Some(("end", "")) => Vec::new(),
            Some(("else", "")) => match self.nodes()? {
                (other, Some(end)) if end == "end" => other,
                _ => return Err(BadTemplate::new(format!("`{{{{{action}}}}}` has no end"))),
            },
            // One end is for all that follow one another.
            Some(("else", next)) if matches!(word_of(next).0, "if" | "with") => {
                vec![self.block(next)?]
            }
            Some((_, rest)) if !rest.is_empty() => {
                return Err(BadTemplate::new(format!("`{rest}` makes no sense there")));
            }
            _ => return Err(BadTemplate::new(format!("`{{{{{action}}}}}` has no end"))),
        };
        Ok(match word {
            "range" => Node::Range(names, pipe, body, other),
            "if" => Node::If(pipe, body, other),
            _ => Node::With(pipe, body, other),
        })
    }
}

/// The first word of an action, and what follows.
fn word_of(action: &str) -> (&str, &str) {
    let (word, rest) = action.split_once(' ').unwrap_or((action, ""));
    (word, rest.trim())
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    /// A closing parenthesis and the fields that are taken of what it closes.
    Close(String),
    Bar,
}

fn tokens(action: &str) -> Result<Vec<Token>, BadTemplate> {
    let mut tokens = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let ends = |c: char| c.is_whitespace() || "()|\"`".contains(c);
        let length = match first {
            '(' => {
                tokens.push(Token::Open);
                1
            }
            '|' => {
                tokens.push(Token::Bar);
                1
            }
            ')' => {
                let fields = &rest[1..];
                let end = fields.find(ends).unwrap_or(fields.len());
                tokens.push(Token::Close(fields[..end].to_owned()));
                1 + end
            }
            '"' | '`' => {
                let inner = &rest[1..];
                let end = inner.find(first);
                let end = end.ok_or_else(|| BadTemplate::new(format!("`{rest}` is not closed")))?;
                tokens.push(Token::Text(inner[..end].to_owned()));
                end + 2
            }
            _ => {
                let end = rest.find(ends).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn pipe(action: &str) -> Result<Pipe, BadTemplate> {
    let tokens = tokens(action)?;
    let mut at = 0;
    let pipe = pipe_of(&tokens, &mut at, 0)?;
    if at < tokens.len() {
        return Err(BadTemplate::new(format!("`{action}` has a `)` too many")));
    }
    Ok(pipe)
}

fn pipe_of(tokens: &[Token], at: &mut usize, depth: usize) -> Result<Pipe, BadTemplate> {
    if depth > DEEPEST {
        return Err(BadTemplate::new("it is nested too deeply"));
    }
    let mut calls = Vec::new();
    let mut call = Call { function: None, arguments: Vec::new() };
    let done = |call: Call, calls: &mut Pipe| {
        // Behind a bar only a function can go on.
        let makes_sense = match (call.function, calls.is_empty()) {
            (None, true) => call.arguments.len() == 1,
            (None, false) => false,
            (Some(_), _) => true,
        };
        if !makes_sense {
            return Err(BadTemplate::new("an action is a field, or a function and its arguments"));
        }
        calls.push(call);
        Ok(())
    };
    while let Some(token) = tokens.get(*at) {
        *at += 1;
        match token {
            Token::Bar => {
                let next = Call { function: None, arguments: Vec::new() };
                done(std::mem::replace(&mut call, next), &mut calls)?;
            }
            Token::Open => {
                let nested = pipe_of(tokens, at, depth + 1)?;
                let Some(Token::Close(fields)) = tokens.get(at.wrapping_sub(1)) else {
                    return Err(BadTemplate::new("a `(` is not closed"));
                };
                call.arguments.push(Term::Nested(nested, path(fields)));
            }
            Token::Close(_) => {
                if depth == 0 {
                    *at -= 1;
                }
                break;
            }
            Token::Text(text) => call.arguments.push(Term::Literal(text.as_str().into())),
            Token::Word(word) => {
                let is_first = call.function.is_none() && call.arguments.is_empty();
                if let Some(named) = word.strip_prefix('$') {
                    let (name, fields) = named.split_once('.').unwrap_or((named, ""));
                    call.arguments.push(Term::Named(name.to_owned(), path(fields)));
                } else if word.starts_with('.') {
                    call.arguments.push(Term::Dot(path(word)));
                } else if let Ok(number) = word.parse::<i64>() {
                    call.arguments.push(Term::Literal(number.into()));
                } else if let Some(function) =
                    FUNCTIONS.into_iter().find(|name| is_first && name == word)
                {
                    call.function = Some(function);
                } else {
                    let near = llb::suggest::nearest(word, FUNCTIONS).map(str::to_owned);
                    return Err(BadTemplate { message: format!("`{word}` is not known"), near });
                }
            }
        }
    }
    done(call, &mut calls)?;
    Ok(calls)
}

fn path(text: &str) -> Vec<String> {
    text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Fields of the whole that nodes use; `top` says whether the whole is what is at hand.
fn fields_of(nodes: &[Node], top: bool, used: &mut Vec<String>) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Print(pipe) => pipe_fields(pipe, top, used),
            Node::If(pipe, body, other) => {
                pipe_fields(pipe, top, used);
                fields_of(body, top, used);
                fields_of(other, top, used);
            }
            Node::Range(_, pipe, body, other) | Node::With(pipe, body, other) => {
                pipe_fields(pipe, top, used);
                fields_of(body, false, used);
                fields_of(other, top, used);
            }
        }
    }
}

fn pipe_fields(pipe: &Pipe, top: bool, used: &mut Vec<String>) {
    for term in pipe.iter().flat_map(|call| &call.arguments) {
        match term {
            Term::Dot(path) if top => used.extend(path.first().cloned()),
            Term::Named(name, path) if name.is_empty() => used.extend(path.first().cloned()),
            Term::Nested(pipe, _) => pipe_fields(pipe, top, used),
            Term::Dot(_) | Term::Named(..) | Term::Literal(_) => {}
        }
    }
}

fn unknown<'n>(name: &str, fields: impl Iterator<Item = &'n str> + Clone) -> BadTemplate {
    let same = |field: &&str| field.eq_ignore_ascii_case(name);
    let near = fields.clone().find(same).or_else(|| llb::suggest::nearest(name, fields.clone()));
    let near = near.map(|near| format!(".{near}")).or_else(|| {
        let all: Vec<&str> = fields.collect();
        (!all.is_empty()).then(|| format!("one of .{}", all.join(", .")))
    });
    BadTemplate { message: format!("there is no field `.{name}`"), near }
}

fn render(
    nodes: &[Node],
    names: &mut Names,
    dot: &Value,
    out: &mut String,
) -> Result<(), BadTemplate> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&shown(&value(pipe, names, dot)?)),
            Node::If(pipe, body, other) => {
                let branch = if is_true(&value(pipe, names, dot)?) { body } else { other };
                render(branch, names, dot, out)?;
            }
            Node::With(pipe, body, other) => match value(pipe, names, dot)? {
                found if is_true(&found) => render(body, names, &found, out)?,
                _ => render(other, names, dot, out)?,
            },
            Node::Range(given, pipe, body, other) => {
                let items: Vec<(Value, Value)> = match value(pipe, names, dot)? {
                    Value::Array(items) => {
                        items.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect()
                    }
                    Value::Object(fields) => {
                        fields.into_iter().map(|(name, item)| (name.into(), item)).collect()
                    }
                    _ => Vec::new(),
                };
                if items.is_empty() {
                    render(other, names, dot, out)?;
                }
                let known = names.len();
                for (key, item) in items {
                    let values = given.iter().zip([key, item.clone()]);
                    names.extend(values.filter_map(|(name, value)| Some((name.clone()?, value))));
                    render(body, names, &item, out)?;
                    names.truncate(known);
                }
            }
        }
    }
    Ok(())
}

fn value(pipe: &Pipe, names: &Names, dot: &Value) -> Result<Value, BadTemplate> {
    let mut last = None;
    for call in pipe {
        let mut arguments = Vec::with_capacity(call.arguments.len() + 1);
        for term in &call.arguments {
            arguments.push(match term {
                Term::Literal(value) => value.clone(),
                Term::Dot(path) => field(dot, path)?,
                Term::Named(name, path) => {
                    let known = names.iter().rfind(|(known, _)| known == name);
                    let (_, value) =
                        known.ok_or_else(|| BadTemplate::new(format!("`${name}` is not known")))?;
                    field(value, path)?
                }
                Term::Nested(pipe, path) => field(&value(pipe, names, dot)?, path)?,
            });
        }
        arguments.extend(last.take());
        last = Some(match call.function {
            None => arguments.into_iter().next().unwrap_or_default(),
            Some(function) => apply(function, &arguments)?,
        });
    }
    Ok(last.unwrap_or_default())
}

fn field(value: &Value, path: &[String]) -> Result<Value, BadTemplate> {
    let (mut value, mut is_free) = (value, false);
    for name in path {
        value = match value {
            Value::Object(fields) => match fields.get(name) {
                Some(found) => found,
                None if is_free => return Ok("<no value>".into()),
                None => return Err(unknown(name, fields.keys().map(String::as_str))),
            },
            Value::Null => return Ok("<no value>".into()),
            _ => return Err(unknown(name, std::iter::empty())),
        };
        is_free = FREE.contains(&name.as_str());
    }
    Ok(value.clone())
}

fn apply(function: &str, arguments: &[Value]) -> Result<Value, BadTemplate> {
    let wrong = || BadTemplate::new(format!("`{function}` has arguments that it cannot use"));
    let text = |value: &Value| shown(value);
    Ok(match (function, arguments) {
        ("json", [value]) => value.to_string().into(),
        ("len", [Value::Array(items)]) => items.len().into(),
        ("len", [Value::Object(fields)]) => fields.len().into(),
        ("len", [Value::String(text)]) => text.len().into(),
        ("len", [Value::Null]) => 0.into(),
        ("join", [Value::Array(items), Value::String(between)]) => {
            items.iter().map(text).collect::<Vec<_>>().join(between).into()
        }
        ("join", [Value::Null, Value::String(_)]) => "".into(),
        ("split", [Value::String(text), Value::String(between)]) if !between.is_empty() => {
            text.split(between.as_str()).map(Value::from).collect::<Vec<_>>().into()
        }
        ("lower", [value]) => text(value).to_lowercase().into(),
        ("upper", [value]) => text(value).to_uppercase().into(),
        ("not", [value]) => (!is_true(value)).into(),
        ("eq", [value, others @ ..]) if !others.is_empty() => others.contains(value).into(),
        ("ne", [one, other]) => (one != other).into(),
        ("and", [all @ .., last]) => all.iter().find(|one| !is_true(one)).unwrap_or(last).clone(),
        ("or", [all @ .., last]) => all.iter().find(|one| is_true(one)).unwrap_or(last).clone(),
        ("println", all) => (all.iter().map(text).collect::<Vec<_>>().join(" ") + "\n").into(),
        ("index", [value, keys @ ..]) => {
            let mut value = value;
            for key in keys {
                let found = match (value, key) {
                    (Value::Array(items), Value::Number(number)) => {
                        let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
                        let found = at.and_then(|at| items.get(at));
                        found.ok_or_else(|| {
                            let have = items.len();
                            BadTemplate::new(format!("there is no item {number}, of {have}"))
                        })?
                    }
                    (Value::Object(fields), Value::String(name)) => match fields.get(name) {
                        Some(found) => found,
                        None => return Ok("".into()),
                    },
                    (Value::Null, Value::String(_)) => return Ok("".into()),
                    _ => return Err(wrong()),
                };
                value = found;
            }
            value.clone()
        }
        _ => return Err(wrong()),
    })
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" "))
        }
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| format!("{name}:{}", shown(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        serde_json::json!({
            "Id": "sha256:1", "Size": 7, "RepoTags": ["app:1", "app:2"], "None": null,
            "Config": { "Env": ["A=b"], "Labels": { "x.y": "z" }, "User": "" },
        })
    }

    #[track_caller]
    fn check(template: &str, expect: &str) {
        let actual = Template::parse(template).and_then(|template| template.render(&sample()));
        assert_eq!(actual.unwrap(), expect, "{template}");
    }

    #[track_caller]
    fn wrong(template: &str, message: &str, near: Option<&str>) {
        let actual = Template::parse(template).and_then(|template| template.render(&sample()));
        let actual = actual.unwrap_err();
        assert_eq!((actual.message.as_str(), actual.near.as_deref()), (message, near));
    }

    #[test]
    fn what_docker_users_write_gives_what_they_expect() {
        check("{{.Id}}\\t{{.Size}}", "sha256:1\t7");
        check("{{json .Config.Env}} {{.Config.Env}}", "[\"A=b\"] [A=b]");
        check("{{index .RepoTags 1}} {{index .Config.Labels \"x.y\"}}", "app:2 z");
        check("{{range .RepoTags}}<{{.}}{{$.Size}}>{{end}}", "<app:17><app:27>");
        check("{{if .Config.User}}{{.Config.User}}{{else}}root{{end}}", "root");
        check(
            "{{with .Config}}{{len .Env}}{{end}} {{.RepoTags | json}}",
            "1 [\"app:1\",\"app:2\"]",
        );
        check("{{join .RepoTags \", \"}} {{upper .Id}}", "app:1, app:2 SHA256:1");
        check("{{index (split (index .RepoTags 0) \":\") 0}}", "app");
        check("a {{- .Size -}} b {{.Config.Labels.none}}", "a7b <no value>");
        check("{{.Config.Labels}} {{.None}}", "map[x.y:z] <nil>");
    }

    #[test]
    fn values_are_compared_and_chosen() {
        check("{{if eq .Size 7}}seven{{end}} {{eq .Id \"a\" \"sha256:1\"}}", "seven true");
        check("{{ne .Size 8}} {{and .Id .Size}} {{or .Config.User \"root\"}}", "true 7 root");
        check("{{if and (eq .Size 7) (not .Config.User)}}both{{end}}", "both");
        check("{{if eq .Size 1}}a{{else if eq .Size 7}}b{{else}}c{{end}}", "b");
        check("{{if eq .Size 1}}a{{else if eq .Size 2}}b{{else}}c{{end}}.", "c.");
        wrong("{{eq .Size}}", "`eq` has arguments that it cannot use", None);
        wrong("{{if .Id}}a{{else range .Id}}b{{end}}", "`range .Id` makes no sense there", None);
        wrong("{{if .Id}}a{{else if .Id}}b{{end}}{{end}}", "`{{end}}` ends nothing", None);
    }

    #[test]
    fn a_range_gives_names() {
        check("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}", "x.y=z");
        check(
            "{{range $at, $tag := .RepoTags}}{{$at}}{{$tag}}{{$.Size}} {{end}}",
            "0app:17 1app:27 ",
        );
        check(
            "{{range $tag := .RepoTags}}{{range $e := $.Config.Env}}{{$tag}}{{$e}}{{end}}{{end}}",
            "app:1A=bapp:2A=b",
        );
        wrong("{{range $k, v := .Config.Labels}}{{end}}", "`v` is no name such as `$key`", None);
        wrong("{{range $k := .RepoTags}}{{end}}{{$k}}", "`$k` is not known", None);
        wrong("{{$k}}", "`$k` is not known", None);
    }

    #[test]
    fn what_is_never_there_is_refused_with_what_may_be_meant() {
        wrong("{{.Sise}}", "there is no field `.Sise`", Some(".Size"));
        wrong("{{.config}}", "there is no field `.config`", Some(".Config"));
        wrong("{{jsn .}}", "`jsn` is not known", Some("json"));
        wrong("{{.Id", "`{{.Id` is not closed with `}}`", None);
        wrong("{{range .RepoTags}}x", "`{{range .RepoTags}}` has no end", None);
        wrong("x{{end}}", "`{{end}}` ends nothing", None);
        wrong("{{index .RepoTags 2}}", "there is no item 2, of 2", None);
        wrong("{{(.Id}}", "a `(` is not closed", None);
        wrong("{{.Id)}}", "`.Id)` has a `)` too many", None);
        wrong("{{}}", "an action is a field, or a function and its arguments", None);
    }

    #[test]
    fn fields_are_checked_before_there_is_a_value() {
        let check = |text| Template::parse(text).unwrap().check(&["Id", "Size"]);
        assert!(check("{{.Id}} {{json .}}{{with .Size}}{{.Any}}{{end}}").is_ok());
        assert_eq!(check("{{if .ID}}x{{end}}").unwrap_err().near.as_deref(), Some(".Id"));
    }
}
