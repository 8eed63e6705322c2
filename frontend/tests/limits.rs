//! Small files that come to much: each is refused soon, and little memory is taken until then.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use frontend::{
    Answer, FrontendError, ImageRequest, Options, Outcome, ResolvedImage, ResolvedImages,
};
use llb::{Digest, Platform};
use rustix::time::{ClockId, clock_gettime};

/// Size of the files, in bytes.
const SIZE: usize = 1 << 20;

/// Far more than each takes, far less than it would without limits; in seconds.
const LONGEST: i64 = 30;

/// More than all of them take, in KiB.
const LARGEST: usize = 2 << 20;

/// An image with this environment and these triggers.
fn image(request: &ImageRequest, env: &[String], triggers: &[String]) -> ResolvedImage {
    let mut config: llb::image::ImageConfig = serde_json::from_str(
        r#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#,
    )
    .unwrap();
    config.config.env = env.to_vec();
    config.config.on_build = triggers.to_vec();
    let platform = request.platform.clone();
    let reference = "docker.io/library/base:latest".to_owned();
    ResolvedImage { digest: Digest::of(b"base"), config, platform, reference }
}

/// Converts, with an image of this environment and these triggers for every name.
fn convert(text: &str, env: &[String], triggers: &[String]) -> Result<(), Vec<FrontendError>> {
    let dockerfile = parser::parse(text.as_bytes()).unwrap();
    let options =
        Options { build_platform: Platform::parse("linux/amd64").unwrap(), ..Options::default() };
    let mut known = ResolvedImages::default();
    let answer = |known: &mut ResolvedImages, requests: Vec<ImageRequest>| {
        for request in &requests {
            known.insert(request, image(request, env, triggers));
        }
    };
    loop {
        // Questions keep within the same limits.
        if let Answer::Known(findings) = frontend::check(&dockerfile, &options, &known)
            && !findings.errors.is_empty()
        {
            return Err(findings.errors);
        }
        match frontend::convert(&dockerfile, &options, &known)? {
            Outcome::Done(_) => return Ok(()),
            Outcome::Needs(requests) => answer(&mut known, requests),
        }
    }
}

/// Memory that the process has had at most, in KiB.
fn peak() -> usize {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Converts, and looks at what it takes.
#[track_caller]
fn limited(text: &str, env: &[String], triggers: &[String]) -> Result<(), Vec<FrontendError>> {
    fs_err::write("/proc/self/clear_refs", "5").unwrap();
    let start = clock_gettime(ClockId::ThreadCPUTime).tv_sec;
    let converted = convert(text, env, triggers);
    let seconds = clock_gettime(ClockId::ThreadCPUTime).tv_sec - start;
    let shown: String = text.chars().take(200).collect();
    eprintln!("{seconds} s, {} KiB, {shown}", peak());
    assert!(seconds < LONGEST, "{seconds} s: {shown}");
    assert!(peak() < LARGEST, "{} KiB: {shown}", peak());
    converted
}

/// Checks that a file is refused once, for one reason, and where.
#[track_caller]
fn check(text: &str, expect: &str) {
    check_on(text, &[], &[], expect);
}

#[track_caller]
fn check_on(text: &str, env: &[String], triggers: &[String], expect: &str) {
    let errors = limited(text, env, triggers).unwrap_err();
    let shown: Vec<String> = errors
        .iter()
        .map(|error| {
            let text = error.to_string();
            let reason = text.rsplit_once("\": ").map_or(text.as_str(), |(_, reason)| reason);
            format!("{}: {reason}", error.lines.start)
        })
        .collect();
    assert_eq!(shown, [expect], "{}", text.chars().take(200).collect::<String>());
}

/// As many copies of a line as fit.
fn repeated(line: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    let mut count = 0;
    while text.len() < SIZE {
        text += &line(count);
        count += 1;
    }
    text
}

/// A stage whose variable `b` has nearly 16 MiB.
fn large() -> String {
    format!("FROM scratch\nENV a={}\nENV b={}\n", "x".repeat(60_000), "$a".repeat(279))
}

const TOGETHER: &str = "what all words expand to together is too large";
const ALL: &str = "what all instructions come to together is too large";
const STEPS: &str = "the substitutions take too many steps";

#[test]
fn words_are_limited_together() {
    let doubling = repeated(|count| format!("ENV v{}=$v{count}$v{count}\n", count + 1));
    check(&format!("FROM scratch\nENV v0=x\n{doubling}"), "27: the result is larger than 16 MiB");
    let copies = repeated(|count| format!("ENV c{count}=$b\n"));
    check(&(large() + &copies), &format!("7: {TOGETHER}"));
    let wide = repeated(|count| format!("ARG c{count}=$a\n"));
    check(&format!("ARG a={}\n{wide}FROM a", "x".repeat(60_000)), &format!("1119: {STEPS}"));
    let bases = repeated(|_| "FROM x$b\n".to_owned());
    check(
        &format!("{}{bases}", large().replace("FROM scratch\n", "").replace("ENV", "ARG")),
        &format!("6: {STEPS}"),
    );
    let ports = repeated(|_| "EXPOSE ${b:+80}\n".to_owned());
    check(&(large() + &ports), &format!("67: {STEPS}"));
    let patterns = repeated(|_| "USER ${a//*x*y/}\n".to_owned());
    check(&(large() + &patterns), &format!("218: {STEPS}"));
    let files = repeated(|_| "COPY <<E /\n$b\nE\n".to_owned());
    check(&(large() + &files), &format!("19: {TOGETHER}"));
}

#[test]
fn what_is_made_of_words_is_limited() {
    let variables: String = (0..30_000).map(|count| format!("ENV v{count}=x\n")).collect();
    let runs = repeated(|_| "RUN x\n".to_owned());
    check(&format!("FROM scratch\n{variables}{runs}"), &format!("30062: {ALL}"));
    let arguments: String = (0..30_000).map(|count| format!("ARG v{count}=x\n")).collect();
    check(&format!("FROM scratch\n{arguments}{runs}"), &format!("30056: {ALL}"));
    let named = repeated(|_| "RUN $b\n".to_owned());
    check(&(large() + &named), &format!("6: {ALL}"));
    let shell = format!("SHELL [\"{}\"]\n", "x".repeat(60_000));
    check(&format!("FROM scratch\n{shell}{runs}"), &format!("1117: {ALL}"));
    let commands = repeated(|_| "CMD x\n".to_owned());
    check(&format!("FROM scratch\n{shell}{commands}"), &format!("2238: {ALL}"));
    let folders = repeated(|_| "WORKDIR a\n".to_owned());
    check(&format!("FROM scratch\n{folders}"), &format!("8143: {ALL}"));
    let name = format!("FROM scratch AS a{}\n", "x".repeat(60_000));
    check(&(name + &runs), &format!("2226: {ALL}"));
    let range = repeated(|_| "EXPOSE 1-65535\n".to_owned());
    check(&format!("FROM scratch\n{range}"), &format!("26: {ALL}"));
    let ranges = repeated(|_| " \\\n1-65535".to_owned());
    check(&format!("FROM scratch\nEXPOSE{ranges}"), &format!("2: {ALL}"));
}

#[test]
fn stages_are_limited() {
    let on_top = repeated(|_| "FROM a\n".to_owned());
    let chain = repeated(|count| format!("FROM s{count} AS s{}\n", count + 1));
    let copies = repeated(|count| format!("COPY --from={count} a b\n"));
    let chained = |first: &str| format!("{first}{chain}").replacen("scratch", "scratch AS s0", 1);
    check(&chained(&large()), &format!("5: {ALL}"));
    let user = format!("FROM scratch\nUSER {}\n", "x".repeat(60_000));
    check(&chained(&user), &format!("1110: {ALL}"));
    let triggers: String = (0..30_000).map(|_| "ONBUILD RUN x\n".to_owned()).collect();
    check(&format!("FROM scratch AS a\n{triggers}{on_top}"), &format!("30006: {ALL}"));
    let env: Vec<String> =
        (0..4).map(|count| format!("e{count}={}", "x".repeat(1 << 20))).collect();
    let separate = repeated(|_| "FROM x\n".to_owned());
    check_on(&format!("{separate}FROM x\n{copies}"), &env, &[], &format!("16: {ALL}"));
    check_on(
        &format!("FROM x\n{}", repeated(|_| "RUN x\n".to_owned())),
        &env,
        &[],
        &format!("31: {ALL}"),
    );
    check_on(&separate, &[], &vec!["RUN x".to_owned(); 30_000], &format!("5: {ALL}"));
}
