//! The JSON (exec) form of arguments.
//!
//! A reader of our own, as the form needs three things that a general one does not give: where each
//! element stands, any depth of nesting without recursion, and strings as the reference decodes them,
//! where half of a surrogate pair is U+FFFD and no mistake.

/// What arguments are when read as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json<'a> {
    /// No JSON array: the shell form.
    No,
    /// An array that does not only hold strings.
    NotStrings,
    /// The elements, decoded, each with its source text.
    Strings(Vec<(String, &'a str)>),
}

/// Reads arguments as JSON. The whole text has to be one array; text that is no valid JSON is
/// silently taken for the shell form.
pub(crate) fn parse(args: &str) -> Json<'_> {
    let args = args.trim_start();
    if !args.starts_with('[') {
        return Json::No;
    }
    let mut reader = Reader::new(args);
    match reader.elements().filter(|_| reader.is_at_end()) {
        None => Json::No,
        Some(None) => Json::NotStrings,
        Some(Some(strings)) => Json::Strings(strings),
    }
}

/// Returns the string member of an object, which the whole text has to be. If there are several of
/// the name, the last one counts.
pub(crate) fn string_member(text: &str, name: &str) -> Option<String> {
    let mut reader = Reader::new(text);
    let found = reader.member(name)?;
    found.filter(|_| reader.is_at_end()).map(decode)
}

/// Reads JSON from left to right. Each method returns `None` where the text is no JSON.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Steps over blanks; returns the byte after them.
    fn next_token(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.peek()
    }

    /// Steps over blanks and this byte.
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next_token()? == byte).then(|| self.at += 1)
    }

    fn is_at_end(&mut self) -> bool {
        self.next_token().is_none()
    }

    /// Reads an array; the inner `None` says that an element is no string.
    fn elements(&mut self) -> Option<Option<Vec<(String, &'a str)>>> {
        self.expect(b'[')?;
        let mut strings = Some(Vec::new());
        if self.expect(b']').is_some() {
            return Some(strings);
        }
        loop {
            if self.next_token()? == b'"' {
                let literal = self.string()?;
                if let Some(strings) = &mut strings {
                    strings.push((decode(literal), literal));
                }
            } else {
                self.value()?;
                strings = None;
            }
            if self.expect(b',').is_none() {
                self.expect(b']')?;
                return Some(strings);
            }
        }
    }

    /// Reads an object; returns the literal of the member, if it is there and a string.
    fn member(&mut self, name: &str) -> Option<Option<&'a str>> {
        self.expect(b'{')?;
        let mut found = None;
        if self.expect(b'}').is_some() {
            return Some(found);
        }
        loop {
            let is_wanted = decode(self.key()?) == name;
            let value = self.value()?;
            if is_wanted {
                found = Some(value).filter(|value| value.starts_with('"'));
            }
            if self.expect(b',').is_none() {
                self.expect(b'}')?;
                return Some(found);
            }
        }
    }

    /// Reads a name and its colon.
    fn key(&mut self) -> Option<&'a str> {
        self.next_token();
        let key = self.string()?;
        self.expect(b':')?;
        Some(key)
    }

    /// Reads a value of any kind; returns its text.
    fn value(&mut self) -> Option<&'a str> {
        self.next_token();
        let start = self.at;
        // The closing bytes of what is open: nesting costs no stack, only these.
        let mut open = Vec::new();
        loop {
            match self.next_token()? {
                byte @ (b'[' | b'{') => {
                    self.at += 1;
                    let closing = if byte == b'[' { b']' } else { b'}' };
                    if self.expect(closing).is_none() {
                        open.push(closing);
                        if closing == b'}' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => self.number()?,
            }
            loop {
                let Some(&closing) = open.last() else { return Some(&self.text[start..self.at]) };
                if self.expect(b',').is_some() {
                    if closing == b'}' {
                        self.key()?;
                    }
                    break;
                }
                self.expect(closing)?;
                open.pop();
            }
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    /// Reads a string literal; returns it with its quotes.
    fn string(&mut self) -> Option<&'a str> {
        let start = self.at;
        (self.peek()? == b'"').then(|| self.at += 1)?;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(&self.text[start..self.at]),
                b'\\' => {
                    let escaped = self.peek()?;
                    self.at += 1;
                    match escaped {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            hex(self.text.as_bytes().get(self.at..)?)?;
                            self.at += 4;
                        }
                        _ => return None,
                    }
                }
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    /// Reads a number that a 64-bit float can hold.
    fn number(&mut self) -> Option<()> {
        let start = self.at;
        self.skip_if(b"-");
        if !self.skip_if(b"0") {
            self.digits()?;
        }
        if self.skip_if(b".") {
            self.digits()?;
        }
        if self.skip_if(b"eE") {
            self.skip_if(b"+-");
            self.digits()?;
        }
        self.text[start..self.at].parse().ok().filter(|number: &f64| number.is_finite()).map(drop)
    }

    fn skip_if(&mut self, any_of: &[u8]) -> bool {
        let is_one = self.peek().is_some_and(|byte| any_of.contains(&byte));
        self.at += usize::from(is_one);
        is_one
    }

    /// Reads at least one digit.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// Reads four hexadecimal digits.
fn hex(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.get(..4)?;
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

/// Returns what a valid literal stands for.
fn decode(literal: &str) -> String {
    let mut rest = &literal[1..literal.len() - 1];
    let mut text = String::with_capacity(rest.len());
    while let Some((plain, after)) = rest.split_once('\\') {
        text.push_str(plain);
        let (c, length) = escape(after);
        text.push(c);
        rest = &after[length..];
    }
    text + rest
}

/// Returns what an escape stands for, and how long it is behind its backslash.
fn escape(after: &str) -> (char, usize) {
    match after.as_bytes().first() {
        Some(b'b') => ('\x08', 1),
        Some(b'f') => ('\x0c', 1),
        Some(b'n') => ('\n', 1),
        Some(b'r') => ('\r', 1),
        Some(b't') => ('\t', 1),
        Some(b'u') => {
            let unit = |at: usize| after.as_bytes().get(at..).and_then(hex).unwrap_or_default();
            let first = unit(1);
            let second = if after[5..].starts_with("\\u") { unit(7) } else { 0 };
            match (first, second) {
                (0xd800..0xdc00, 0xdc00..0xe000) => {
                    let both = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    (char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER), 11)
                }
                _ => (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 5),
            }
        }
        // A quote, a slash or a backslash.
        other => (other.copied().map_or('\\', char::from), 1),
    }
}

/// Writes a text as a literal.
pub(crate) fn quote(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for c in text.chars() {
        match c {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\0'..' ' => literal.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => literal.push(c),
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn strings(text: &str) -> Vec<(String, &str)> {
        match parse(text) {
            Json::Strings(strings) => strings,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn arrays_of_strings_and_other_things() {
        let expect = [("a\"]", r#""a\"]""#), ("A\\", r#""\u0041\\""#), ("", r#""""#)];
        let expect = expect.map(|(text, raw)| (text.to_owned(), raw)).to_vec();
        assert_eq!(strings(r#" [ "a\"]" , "\u0041\\", "" ] "#), expect);
        assert_eq!(strings("[]"), []);
        assert_eq!(strings("[ ]"), []);
        for text in
            ["[1]", r#"["a", ["b"]]"#, "[null]", "[[],{}]", r#"[{"a":[true,{"b":-0.5e+1}]}]"#]
        {
            assert_eq!(parse(text), Json::NotStrings, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_the_shell_form() {
        for text in [
            "",
            "a",
            "['a']",
            r#"["a",]"#,
            r#"["a"] b"#,
            r#"["a""#,
            "[a]",
            "[",
            "[,]",
            "[\"a\" \"b\"]",
            "[\"\t\"]",
            r#"["\x"]"#,
            r#"["\u12"]"#,
            r#"["\u12g4"]"#,
            "[01]",
            "[1.]",
            "[.5]",
            "[+1]",
            "[-]",
            "[1e]",
            "[1e999]",
            "[tru]",
            "[[}]",
            "[{]",
            r#"[{"a"}]"#,
            r#"[{"a":1,}]"#,
            r#"[{a:1}]"#,
            "[[1]",
            "[\u{a0}]",
            "[1]]",
            "[] []",
        ] {
            assert_eq!(parse(text), Json::No, "{text}");
        }
    }

    #[test]
    fn escapes_are_decoded_and_half_a_pair_is_replaced() {
        let decoded = |text| strings(text).remove(0).0;
        assert_eq!(decoded(r#"["\b\f\n\r\t\/\"\\"]"#), "\x08\x0c\n\r\t/\"\\");
        assert_eq!(decoded(r#"["\ud83d\ude00\u00E9"]"#), "😀é");
        assert_eq!(decoded(r#"["\ud83d"]"#), "\u{fffd}");
        assert_eq!(decoded(r#"["\ude00\ud83d\u0041"]"#), "\u{fffd}\u{fffd}A");
    }

    #[test]
    fn nesting_has_no_limit() {
        let depth = 500_000;
        let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(parse(&arrays), Json::NotStrings);
        assert_eq!(parse(&arrays[1..]), Json::No);
        let objects = format!("[{}1{}]", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert_eq!(parse(&objects), Json::NotStrings);
        assert_eq!(parse(&"[{\"a\":".repeat(depth)), Json::No);
    }

    #[test]
    fn a_member_of_an_object_is_found() {
        let syntax = |text| string_member(text, "syntax");
        assert_eq!(syntax(r#" {"a": [1], "syntax": "b"} "#).as_deref(), Some("b"));
        assert_eq!(syntax(r#"{"syntax": "a", "s\u0079ntax": "b"}"#).as_deref(), Some("b"));
        for text in ["", "{}", r#"{"syntax": 1}"#, r#"{"syntax": "a"} x"#, r#"{"syntax": "a""#] {
            assert_eq!(syntax(text), None, "{text}");
        }
    }

    proptest! {
        /// A general reader of JSON agrees, but for what the module says is different.
        #[test]
        fn a_general_reader_agrees(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "[", "]", "{", "}", ",", ":", " ", "\"a\"", "\"", "\\n", "\\u00e9", "1", "-", "0", ".", "e", "+",
                    "null", "true", "false", "\"k\":", "é", "\t",
                ]),
                0..8,
            ),
        ) {
            let text = format!("[{}]", pieces.concat());
            let expect = match serde_json::from_str::<Vec<serde_json::Value>>(&text) {
                Err(_) => None,
                Ok(values) => {
                    Some(values.iter().map(|it| it.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>())
                }
            };
            let actual = match parse(&text) {
                Json::No => None,
                Json::NotStrings => Some(None),
                Json::Strings(strings) => Some(Some(strings.into_iter().map(|(text, _)| text).collect())),
            };
            prop_assert_eq!(actual, expect);
        }

        #[test]
        fn literals_give_back_any_text(texts in proptest::collection::vec("\\PC{0,8}|[\"\\\\\0-\x1f]{0,4}", 0..4)) {
            let array = texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(" , ");
            let array = format!("[{array}]");
            let read: Vec<String> = strings(&array).into_iter().map(|(text, _)| text).collect();
            prop_assert_eq!(read, texts);
        }
    }
}
