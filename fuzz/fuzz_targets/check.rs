//! Whatever a Dockerfile says, its checks and its outline come to an end, and findings lie in the file.

#![no_main]

use frontend::{Answer, Options, ResolvedImages};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = parser::parse(bytes) else { return };
    let check = "experimental=bricklayer,InvalidDefinitionDescription".to_owned();
    let options = Options {
        filename: "Dockerfile".to_owned(),
        build_platform: llb::Platform::host(),
        build_args: [("BUILDKIT_DOCKERFILE_CHECK".to_owned(), check)].into(),
        ..Options::default()
    };
    let mut images = ResolvedImages::default();
    let findings = loop {
        match frontend::check(&file, &options, &images) {
            Answer::Needs(requests) => requests.iter().for_each(|it| images.insert_unknown(it)),
            Answer::Known(findings) => break findings,
        }
    };
    let count = file.text.lines().count();
    for warning in &findings.warnings {
        assert!((1..=count).contains(&warning.lines.start));
        assert!((warning.lines.start..=count).contains(&warning.lines.end));
    }
    while let Ok(Answer::Needs(requests)) = frontend::outline(&file, &options, &images) {
        requests.iter().for_each(|it| images.insert_unknown(it));
    }
});
