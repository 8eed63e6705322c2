//! Git refs and addresses: what is accepted prints as it was, and gives git no option and no other transport.

#![no_main]

use frontend::{MainContext, Options};
use libfuzzer_sys::fuzz_target;
use llb::{GitUrl, Op};

fuzz_target!(|text: &str| {
    if let Ok(url) = GitUrl::parse(text) {
        assert_eq!(url.with_credentials(), text);
        check(&url);
        if let Ok(joined) = url.join(text) {
            check(&joined);
        }
    }
    let parent = GitUrl::parse("https://user:secret@h/o/r.git").expect("this is an address");
    if let Ok(joined) = parent.join(text) {
        check(&joined);
    }
    let Some(context) = MainContext::remote(text) else { return };
    let options = Options { context, ..Options::default() };
    if let Ok(Some(definition)) = frontend::main_context(&options) {
        for vertex in definition.vertices() {
            let Op::Source(source) = &vertex.op else { continue };
            if let Some(url) = source.attrs.get("git.fullurl") {
                check(&GitUrl::parse(url).expect("the frontend checks addresses"));
            }
        }
    }
});

fn check(url: &GitUrl) {
    let shown = url.without_credentials();
    assert_eq!(GitUrl::parse(&shown).map(|again| again.without_credentials()), Ok(shown.clone()));
    assert!(!shown.starts_with('-') && !url.host().starts_with('-'));
    assert!(!shown.chars().any(|c| c.is_whitespace() || c.is_control()));
}
