//! The build checks, rule by rule: when each fires, with which message and where, and when it does not.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use frontend::{Options, Rule};

/// Findings of one rule, `lines: message`.
fn found(rule: Rule, text: &str, args: &[&str]) -> Vec<String> {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let mut options = support::options(&args, "/ctx");
    if rule.is_experimental() {
        let check = format!("experimental={rule}");
        options.build_args.insert("BUILDKIT_DOCKERFILE_CHECK".to_owned(), check);
    }
    let (warnings, _) = support::check(text, &options);
    let warnings = warnings.iter().filter(|warning| warning.rule == rule);
    warnings
        .map(|warning| {
            let lines = warning.lines;
            let end =
                if lines.end > lines.start { format!("-{}", lines.end) } else { String::new() };
            format!("{}{end}: {}", lines.start, warning.message)
        })
        .collect()
}

#[track_caller]
fn fires(rule: Rule, text: &str, expect: &[&str]) {
    fires_with(rule, text, &[], expect);
}

#[track_caller]
fn fires_with(rule: Rule, text: &str, args: &[&str], expect: &[&str]) {
    assert_eq!(found(rule, text, args), expect, "{rule}\n{text}");
}

/// The rule says nothing about any of these.
#[track_caller]
fn is_quiet(rule: Rule, texts: &[&str]) {
    for text in texts {
        fires(rule, text, &[]);
    }
}

#[test]
fn stage_name_casing() {
    let rule = Rule::StageNameCasing;
    fires(
        rule,
        "FROM busybox AS Base\nFROM busybox AS B2\nFROM base\n",
        &["1: Stage name 'Base' should be lowercase", "2: Stage name 'B2' should be lowercase"],
    );
    is_quiet(rule, &["FROM busybox AS base-1\nFROM BASE-1\n", "FROM busybox\n"]);
}

#[test]
fn from_as_casing() {
    let rule = Rule::FromAsCasing;
    fires(rule, "FROM busybox as a\n", &["1: 'as' and 'FROM' keywords' casing do not match"]);
    fires(rule, "from busybox AS a\n", &["1: 'AS' and 'from' keywords' casing do not match"]);
    fires(rule, "FROM busybox As a\n", &["1: 'As' and 'FROM' keywords' casing do not match"]);
    is_quiet(
        rule,
        &[
            "from busybox as a\n",
            "FROM busybox AS a\n",
            "From busybox as a\n",
            "From busybox AS a\n",
        ],
    );
}

#[test]
fn no_empty_continuation() {
    let rule = Rule::NoEmptyContinuation;
    fires(
        rule,
        "FROM busybox\nRUN a \\\n\n\n b\nRUN c \\\n\n  d\n",
        &["5: Empty continuation line", "8: Empty continuation line"],
    );
    is_quiet(
        rule,
        &[
            "FROM busybox\nRUN a \\\n# note\n  b\n\nRUN c\n",
            "FROM busybox\nRUN <<E\na \\\n\nb\nE\n",
            "FROM busybox\n# check=skip=NoEmptyContinuation\nRUN a \\\n\n  b\n",
        ],
    );
}

#[test]
fn consistent_instruction_casing() {
    let rule = Rule::ConsistentInstructionCasing;
    let message = |word: &str, case: &str| {
        format!("Command '{word}' should match the case of the command majority ({case})")
    };
    fires(rule, "FROM busybox\nrun a\nRUN b\n", &[&format!("2: {}", message("run", "uppercase"))]);
    fires(rule, "from busybox\nrun a\nRUN b\n", &[&format!("3: {}", message("RUN", "lowercase"))]);
    // A tie goes to capital letters, and words of mixed case are never right.
    fires(rule, "FROM busybox\nrun a\n", &[&format!("2: {}", message("run", "uppercase"))]);
    fires(
        rule,
        "From busybox\nRun a\n",
        &[
            &format!("1: {}", message("From", "uppercase")),
            &format!("2: {}", message("Run", "uppercase")),
        ],
    );
    // Global arguments belong to no stage: they neither count nor are they looked at.
    fires(
        rule,
        "arg A\narg B\narg C\nFROM busybox\nRUN a\nrun b\n",
        &[&format!("6: {}", message("run", "uppercase"))],
    );
    is_quiet(
        rule,
        &["arg A\nFROM busybox\n", "from busybox\nrun a\n", "FROM busybox\nONBUILD run a\n"],
    );
}

#[test]
fn duplicate_and_reserved_stage_names() {
    let rule = Rule::DuplicateStageName;
    fires(
        rule,
        "FROM busybox AS a\nFROM busybox AS A\nFROM busybox AS a\n",
        &[
            "2: Duplicate stage name \"a\", stage names should be unique",
            "3: Duplicate stage name \"a\", stage names should be unique",
        ],
    );
    is_quiet(rule, &["FROM busybox AS a\nFROM a\nFROM busybox\nFROM busybox\n"]);
    let rule = Rule::ReservedStageName;
    let message =
        |name| format!("Stage name should not use the same name as reserved stage \"{name}\"");
    fires(
        rule,
        "FROM busybox AS Scratch\nFROM busybox AS context\n",
        &[&format!("1: {}", message("scratch")), &format!("2: {}", message("context"))],
    );
    is_quiet(rule, &["FROM scratch AS scratch1\nFROM busybox AS contexts\n"]);
}

#[test]
fn json_args_recommended() {
    let rule = Rule::JSONArgsRecommended;
    let message = |word| {
        format!(
            "JSON arguments recommended for {word} to prevent unintended behavior related to OS signals"
        )
    };
    fires(
        rule,
        "FROM busybox\nENTRYPOINT a\ncmd b \\\n  c\n",
        &[&format!("2: {}", message("ENTRYPOINT")), &format!("3-4: {}", message("cmd"))],
    );
    // What is no JSON is shell form.
    fires(rule, "FROM busybox\nCMD ['a']\n", &[&format!("2: {}", message("CMD"))]);
    is_quiet(
        rule,
        &[
            "FROM busybox\nCMD [\"a\"]\nENTRYPOINT []\n",
            "FROM busybox\nSHELL [\"/bin/ash\", \"-c\"]\nCMD a\n",
            "FROM busybox AS a\nSHELL [\"/bin/ash\", \"-c\"]\nFROM a\nENTRYPOINT b\n",
            "FROM busybox\nHEALTHCHECK CMD a\nRUN b\nONBUILD CMD c\n",
        ],
    );
}

#[test]
fn maintainer_deprecated() {
    let rule = Rule::MaintainerDeprecated;
    fires(
        rule,
        "FROM busybox\nMAINTAINER me\n",
        &["2: Maintainer instruction is deprecated in favor of using label"],
    );
    is_quiet(rule, &["FROM busybox\nLABEL maintainer=me\n"]);
}

#[test]
fn undefined_arg_in_from() {
    let rule = Rule::UndefinedArgInFrom;
    fires(
        rule,
        "ARG TAG=1\nFROM busybox:${TAGS:-1}\n",
        &["2: FROM argument 'TAGS' is not declared (did you mean TAG?)"],
    );
    fires(
        rule,
        "FROM --platform=$BUILDPLATFROM busybox$OTHER\nARG OTHER\n",
        &[
            "1: FROM argument 'OTHER' is not declared",
            "1: FROM argument 'BUILDPLATFROM' is not declared (did you mean BUILDPLATFORM?)",
        ],
    );
    is_quiet(
        rule,
        &[
            // Declared is enough; there need not be a value.
            "ARG TAG\nFROM busybox:${TAG:-1}\n",
            "FROM --platform=$BUILDPLATFORM busybox\n",
            "ARG TAG=1\nFROM busybox:$TAG\n",
        ],
    );
}

#[test]
fn undefined_var() {
    let rule = Rule::UndefinedVar;
    fires(
        rule,
        "FROM busybox\nENV FOO=1\nCOPY $FO ${X:-d} ${Y+e} /dst/\nWORKDIR /$PATHX\n",
        &[
            "3: Usage of undefined variable '$FO' (did you mean $FOO?)",
            "3: Usage of undefined variable '$X'",
            "3: Usage of undefined variable '$Y'",
            "4: Usage of undefined variable '$PATHX' (did you mean $PATH?)",
        ],
    );
    // A global argument must be declared again; an instruction sees what was there before it.
    fires(
        rule,
        "ARG G=1\nFROM busybox\nUSER $G\nENV A=1 B=$A\nARG C=1 D=$C\n",
        &["3: Usage of undefined variable '$G'", "4: Usage of undefined variable '$A'"],
    );
    fires(
        rule,
        "FROM busybox\nCOPY <<E /x\n$U\nE\nRUN --mount=type=cache,target=$T true\n",
        &["2-4: Usage of undefined variable '$U'", "5: Usage of undefined variable '$T'"],
    );
    is_quiet(
        rule,
        &[
            "FROM busybox\nARG A\nCOPY $A /dst/\n",
            "FROM busybox AS a\nARG A\nENV B=\nFROM a\nCOPY $A $B /dst/\n",
            "FROM busybox\nWORKDIR $PATH\n",
            "FROM busybox\nRUN $NOPE\nCMD [\"$NOPE\"]\nHEALTHCHECK CMD $NOPE\nONBUILD COPY $NOPE /\n",
            "FROM busybox\nCOPY \\$A '$A' /dst/\n",
            "FROM busybox\nCOPY <<'E' /x\n$U\nE\n",
            // Its environment is not known.
            "FROM nowhere.invalid/x\nCOPY $NOPE /x\n",
        ],
    );
}

#[test]
fn workdir_relative_path() {
    let rule = Rule::WorkdirRelativePath;
    let message = |path| {
        format!("Relative workdir {path} can have unexpected results if the base image changes")
    };
    // Only the first one counts, and a WORKDIR of the base image does not help.
    fires(rule, "FROM kit\nWORKDIR a\nWORKDIR b\n", &[&format!("2: {}", message("\"a\""))]);
    fires(
        rule,
        "FROM busybox\nENV D=a\nWORKDIR $D/é\u{1}\n",
        &[&format!("3: {}", message("\"a/é\\x01\""))],
    );
    is_quiet(
        rule,
        &[
            "FROM busybox\nWORKDIR /a\nWORKDIR b\n",
            "FROM busybox AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n",
            "FROM busybox\nENV D=/a\nWORKDIR $D\n",
        ],
    );
}

#[test]
fn multiple_instructions_disallowed() {
    let rule = Rule::MultipleInstructionsDisallowed;
    let message = |word| {
        format!(
            "Multiple {word} instructions should not be used in the same stage because only the last one will be used"
        )
    };
    fires(
        rule,
        "FROM busybox\nCMD [\"a\"]\nCMD [\"b\"]\ncmd [\"c\"]\nENTRYPOINT [\"a\"]\nHEALTHCHECK NONE\nHEALTHCHECK CMD a\n",
        &[
            &format!("2: {}", message("CMD")),
            &format!("3: {}", message("cmd")),
            &format!("6: {}", message("HEALTHCHECK")),
        ],
    );
    is_quiet(
        rule,
        &[
            "FROM busybox AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n",
            "FROM busybox\nCMD [\"a\"]\nENTRYPOINT [\"b\"]\nUSER a\nUSER b\n",
            "FROM busybox\nCMD [\"a\"]\n# check=skip=MultipleInstructionsDisallowed\nCMD [\"b\"]\n",
        ],
    );
}

#[test]
fn legacy_key_value_format() {
    let rule = Rule::LegacyKeyValueFormat;
    let message = |word| {
        format!("\"{word} key=value\" should be used instead of legacy \"{word} key value\" format")
    };
    fires(
        rule,
        "FROM busybox\nENV A 1\nlabel b c d\n",
        &[&format!("2: {}", message("ENV")), &format!("3: {}", message("label"))],
    );
    is_quiet(rule, &["FROM busybox\nENV A=1 B=\"c d\"\nLABEL x=y\nARG Z\n"]);
}

#[test]
fn invalid_base_image_platform() {
    let rule = Rule::InvalidBaseImagePlatform;
    let message = |name| {
        format!(
            "Base image {name} was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build"
        )
    };
    let arm = ["--platform", "linux/arm64"];
    fires_with(
        rule,
        "FROM busybox\nCOPY --from=kit /a /b\n",
        &arm,
        &[&format!("1: {}", message("busybox")), &format!("2: {}", message("kit"))],
    );
    fires(
        rule,
        "FROM busybox AS a\n# check=skip=all\nRUN b\nFROM --platform=linux/arm64 busybox AS arm64\n",
        &[&format!("4: {}", message("busybox"))],
    );
    fires_with(
        rule,
        "# check=skip=InvalidBaseImagePlatform\n\n# check=skip=all\nFROM busybox\n",
        &arm,
        &[],
    );
    fires_with(rule, "FROM multi\n", &arm, &[]);
    // A context was chosen for what it is.
    let layout = format!("busybox=oci-layout://{}/busybox:latest", support::images().display());
    fires_with(rule, "FROM busybox\n", &[&arm[..], &["--build-context", &layout]].concat(), &[]);
    is_quiet(rule, &["FROM busybox\n", "FROM scratch\n", "FROM --platform=linux/amd64 busybox\n"]);
}

#[test]
fn redundant_target_platform() {
    let rule = Rule::RedundantTargetPlatform;
    let message = |written| {
        format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        )
    };
    fires(
        rule,
        "FROM --platform=$TARGETPLATFORM busybox\n",
        &[&format!("1: {}", message("$TARGETPLATFORM"))],
    );
    fires(
        rule,
        "FROM --platform=${TARGETPLATFORM} busybox\n",
        &[&format!("1: {}", message("${TARGETPLATFORM}"))],
    );
    is_quiet(
        rule,
        &[
            "FROM --platform=$BUILDPLATFORM busybox\n",
            "FROM --platform=$TARGETOS/$TARGETARCH busybox\n",
            "FROM --platform=${TARGETPLATFORM}$NOPE busybox\n",
            "ARG TARGETPLATFORM=linux/arm64\nFROM --platform=linux/${TARGETARCH} busybox\n",
        ],
    );
}

#[test]
fn secrets_used_in_arg_or_env() {
    let rule = Rule::SecretsUsedInArgOrEnv;
    let message =
        |what: &str| format!("Do not use ARG or ENV instructions for sensitive data ({what})");
    fires(
        rule,
        "FROM busybox\nARG api_key PUBLIC_KEY\nENV DB_PASSWORD=x PASSWORD_FILE=y AUTH=\n",
        &[
            &format!("2: {}", message("ARG \"api_key\"")),
            &format!("3: {}", message("ENV \"DB_PASSWORD\"")),
            &format!("3: {}", message("ENV \"AUTH\"")),
        ],
    );
    for word in [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ] {
        let name = format!("MY_{}_X", word.to_uppercase());
        let text = format!("FROM busybox\nARG {name}\n");
        fires(rule, &text, &[&format!("2: {}", message(&format!("ARG \"{name}\"")))]);
    }
    is_quiet(
        rule,
        &[
            "FROM busybox\nARG TOKENIZER MONKEY AUTHOR KEYS PASSWORDS TOKEN_VERSION SECRET_FILE\nLABEL token=x\n",
            // A global argument is in no image; where a stage takes it over, it is reported.
            "ARG TOKEN\nFROM busybox\n",
        ],
    );
}

#[test]
fn invalid_default_arg_in_from() {
    let rule = Rule::InvalidDefaultArgInFrom;
    let message = |written| {
        format!("Default value for ARG {written} results in empty or invalid base image name")
    };
    fires(rule, "ARG TAG\nFROM busybox:$TAG\n", &[&format!("2: {}", message("busybox:$TAG"))]);
    fires_with(
        rule,
        "ARG IMAGE\nFROM $IMAGE\n",
        &["--build-arg", "IMAGE=busybox"],
        &[&format!("2: {}", message("$IMAGE"))],
    );
    is_quiet(
        rule,
        &[
            "ARG TAG=1\nFROM busybox:$TAG\n",
            "ARG TAG\nFROM busybox${TAG:+:}$TAG\n",
            "ARG TAG=latest\nARG IMAGE=busybox:$TAG\nFROM $IMAGE\n",
            "FROM busybox:\n",
        ],
    );
    // A default that must be given is no empty one.
    let must = "ARG BASE=${GIVEN:?missing}\nFROM $BASE\n";
    fires_with(rule, must, &["--build-arg", "BASE=busybox"], &[]);
}

#[test]
fn from_platform_flag_const_disallowed() {
    let rule = Rule::FromPlatformFlagConstDisallowed;
    let message = |value| format!("FROM --platform flag should not use constant value \"{value}\"");
    fires(
        rule,
        "FROM --platform=linux/amd64 busybox\nFROM --platform=linux/amd64 busybox AS build\n",
        &[&format!("1: {}", message("linux/amd64")), &format!("2: {}", message("linux/amd64"))],
    );
    is_quiet(
        rule,
        &[
            "FROM --platform=linux/amd64 busybox AS build-amd64\n",
            "FROM --platform=linux/amd64 busybox AS linux\n",
            "FROM --platform=$BUILDPLATFORM busybox\n",
            "ARG P=linux/amd64\nFROM --platform=$P busybox\n",
            "FROM busybox\n",
        ],
    );
}

#[test]
fn copy_ignored_file() {
    let rule = Rule::CopyIgnoredFile;
    let message = |verb, path| {
        format!("Attempting to {verb} file \"{path}\" that is excluded by .dockerignore")
    };
    let ignore = ["--ignore", "*.log", "--ignore", "dir"];
    fires_with(
        rule,
        "FROM busybox\nCOPY a.log ok ./dir/x/ /x/\nADD dir /y\nCOPY *.log /z/\n",
        &ignore,
        &[
            &format!("2: {}", message("Copy", "a.log")),
            &format!("2: {}", message("Copy", "dir/x")),
            &format!("3: {}", message("Add", "dir")),
            &format!("4: {}", message("Copy", "*.log")),
        ],
    );
    fires_with(
        rule,
        "FROM busybox\nCOPY . /x\n",
        &["--ignore", "*"],
        &[&format!("2: {}", message("Copy", "."))],
    );
    for text in [
        "FROM busybox AS a\nFROM busybox\nCOPY --from=a a.log /x\n",
        "FROM busybox\nADD https://example.com/a.log /x\n",
        "FROM busybox\nCOPY <<a.log /x\nx\na.log\nCOPY . /y\nCOPY a.logs sub/a.log /z/\n",
        "FROM busybox\nRUN --mount=type=bind,source=a.log,target=/a true\n",
    ] {
        fires_with(rule, text, &ignore, &[]);
    }
    // With names taken back it is hard to tell.
    fires_with(
        rule,
        "FROM busybox\nCOPY a.log /x\n",
        &["--ignore", "*.log", "--ignore", "!b.log"],
        &[],
    );
}

#[test]
fn expose_rules() {
    let rule = Rule::ExposeProtoCasing;
    let message =
        |port| format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
    fires(
        rule,
        "FROM busybox\nENV P=8080/UDP\nEXPOSE 80/TCP $P 9\n",
        &[&format!("3: {}", message("8080/UDP")), &format!("3: {}", message("80/TCP"))],
    );
    is_quiet(rule, &["FROM busybox\nEXPOSE 80 81/tcp 82/udp 83/sctp 84-85/tcp\n"]);
    let rule = Rule::ExposeInvalidFormat;
    let message = |port| {
        format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        )
    };
    fires(
        rule,
        "FROM busybox\nEXPOSE 127.0.0.1:80:80 [::1]:81:81/tcp 82:82\n",
        &[
            &format!("2: {}", message("127.0.0.1:80:80")),
            &format!("2: {}", message("82:82")),
            &format!("2: {}", message("[::1]:81:81/tcp")),
        ],
    );
    is_quiet(rule, &["FROM busybox\nEXPOSE 80 81-82/udp\nEXPOSE :83 ::84\n"]);
}

#[test]
fn invalid_definition_description() {
    let rule = Rule::InvalidDefinitionDescription;
    let message = |what, name| {
        format!("Comment for {what} should follow the format: `# {name} <description>`")
    };
    fires(
        rule,
        "# a note\nARG A=1\n# Base the base\nFROM busybox AS Base\n# B\nARG B C\n# see below\nARG D E\n",
        &[
            &format!("2: {}", message("ARG", "A")),
            &format!("4: {}", message("FROM", "base")),
            &format!("8: {}", message("ARG", "<arg_key>")),
        ],
    );
    // A blank line does not part a comment from what follows; an empty comment does.
    fires(rule, "# a note\n\nARG A\nFROM busybox\n", &[&format!("3: {}", message("ARG", "A"))]);
    is_quiet(
        rule,
        &[
            "# A the letter\nARG A\n# base of all\nFROM busybox AS base\n",
            "# a note\n# A the letter\nARG A\n# a note\n#\nARG B\nFROM busybox\n",
            "# a note\nFROM busybox\n# a note\nRUN x\n",
            "FROM busybox\n# check=skip=UndefinedVar\nARG A=$B\n",
            "FROM busybox\n# check=skip=InvalidDefinitionDescription\nARG A\n",
        ],
    );
    assert_eq!(support::check("# a note\nARG A\nFROM busybox\n", &support::options(&[], "")).0, []);
}

#[test]
fn secret_value_in_arg_or_env() {
    let rule = Rule::SecretValueInArgOrEnv;
    let message = |what, kind| {
        format!("Value of {what} looks like {kind}, and stays readable in the image's history")
    };
    let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b";
    let token = format!("gh{}_{}", "p", "aZ3kQ9xT1mB7vLp0RsD5wYc8NgH2jFu6aZ3k");
    fires(
        rule,
        &format!("ARG A={token}\nFROM busybox\nARG A\nARG B_KEY={hex} C=1\nENV D='{token}' E=x\n"),
        &[
            &format!("1: {}", message("ARG \"A\"", "a GitHub token")),
            &format!("4: {}", message("ARG \"B_KEY\"", "a random text")),
            &format!("5: {}", message("ENV \"D\"", "a GitHub token")),
        ],
    );
    // A value that is given on the command line is in the history too.
    fires_with(
        rule,
        "FROM busybox\nARG ANY\n",
        &["--build-arg", &format!("ANY={token}")],
        &[&format!("2: {}", message("ARG \"ANY\"", "a GitHub token"))],
    );
    is_quiet(
        rule,
        &[
            "FROM busybox\nARG TOKEN\nENV PASSWORD=changeme KEY_FILE=/run/secrets/key\n",
            &format!("FROM busybox\nENV COMMIT={hex}\nLABEL KEY={hex}\n"),
            &format!("FROM busybox\n# check=skip=SecretValueInArgOrEnv\nENV API_KEY={hex}\n"),
        ],
    );
}

#[test]
fn latest_image_tag() {
    let rule = Rule::LatestImageTag;
    let message =
        |name, what| format!("Image \"{name}\" {what}: which version it is changes over time");
    fires(
        rule,
        "ARG I=multi:latest\nFROM busybox\nFROM $I AS a\nCOPY --from=kit /x /x\nRUN --mount=from=nosh:latest,target=/m true\n",
        &[
            &format!("2: {}", message("busybox", "has no tag")),
            &format!("3: {}", message("multi:latest", "has the tag latest")),
            &format!("4: {}", message("kit", "has no tag")),
            &format!("5: {}", message("nosh:latest", "has the tag latest")),
        ],
    );
    fires(rule, "FROM host:5000/x\n", &[&format!("1: {}", message("host:5000/x", "has no tag"))]);
    let digest = format!(
        "FROM busybox@sha256:{}\n",
        "72c04d23c08a76e30e5c8bdd5a6313585ac0d5d5f4f6d8c12e56268374adc003"
    );
    is_quiet(
        rule,
        &[
            &digest,
            "FROM scratch AS a\nFROM a\nCOPY --from=a /x /y\n",
            "FROM busybox:1.36\nRUN --mount=target=/m true\n",
            "FROM busybox:latest-alpine\n",
            "\n# check=skip=LatestImageTag\nFROM busybox\n# check=skip=LatestImageTag\nCOPY --from=kit /x /x\n",
        ],
    );
    let layout = format!("busybox=oci-layout://{}/busybox:latest", support::images().display());
    fires_with(rule, "FROM busybox\n", &["--build-context", &layout], &[]);
}

#[test]
fn final_stage_runs_as_root() {
    let rule = Rule::FinalStageRunsAsRoot;
    fires(
        rule,
        "FROM busybox AS a\nUSER 5\nFROM busybox\nRUN x\n",
        &["3: Final stage runs as root: no USER names another user"],
    );
    fires(
        rule,
        "FROM busybox AS a\nUSER app\nFROM a\nUSER root:root\nRUN x\n",
        &["4: Final stage runs as root: its last USER is \"root:root\""],
    );
    fires(
        rule,
        "FROM scratch\nENTRYPOINT [\"/app\"]\n",
        &["1: Final stage runs as root: no USER names another user"],
    );
    fires(
        rule,
        "FROM nowhere.invalid/x:1\n",
        &["1: Final stage has no USER, and its base image is not known here"],
    );
    is_quiet(
        rule,
        &[
            "FROM busybox\nUSER app\n",
            "FROM busybox\nARG U=1000\nUSER $U:0\n",
            "FROM busybox AS a\nUSER app\nFROM a\n",
            "FROM busybox AS a\nFROM busybox AS b\nUSER app\n",
            "FROM scratch\nCOPY a /\n",
            "FROM nowhere.invalid/x:1\nUSER app\n",
            "\n# check=skip=FinalStageRunsAsRoot\nFROM busybox\n",
            "FROM busybox\n# check=skip=FinalStageRunsAsRoot\nUSER root\n",
        ],
    );
    fires_with(
        rule,
        "FROM busybox AS a\nFROM busybox\nUSER app\n",
        &["--target", "a"],
        &["1: Final stage runs as root: no USER names another user"],
    );
}

#[test]
fn healthcheck_missing() {
    let rule = Rule::HealthcheckMissing;
    fires(
        rule,
        "FROM busybox AS a\nHEALTHCHECK CMD x\nFROM busybox\n",
        &["3: Final stage has no HEALTHCHECK: nothing notices when its container hangs"],
    );
    fires(
        rule,
        "FROM nowhere.invalid/x:1\n",
        &["1: Final stage has no HEALTHCHECK, and its base image is not known here"],
    );
    is_quiet(
        rule,
        &[
            "FROM busybox\nHEALTHCHECK CMD x\n",
            "FROM busybox\nHEALTHCHECK NONE\n",
            "FROM busybox AS a\nHEALTHCHECK CMD x\nFROM a\n",
            "FROM scratch\nCOPY a /\n",
            "\n# check=skip=HealthcheckMissing\nFROM busybox\n",
        ],
    );
}

#[test]
fn package_lists_kept() {
    let rule = Rule::PackageListsKept;
    let apt = "apt-get update leaves package lists in this layer: remove /var/lib/apt/lists in the same RUN, or mount a cache there";
    fires(
        rule,
        "FROM debian:12\nRUN apt-get update && \\\n  apt-get install -y x\n",
        &[&format!("2-3: {apt}")],
    );
    fires(rule, "FROM debian:12\nRUN <<E\nset -e\napt-get update\nE\n", &[&format!("2-5: {apt}")]);
    fires(rule, "FROM debian:12\nRUN [\"apt-get\", \"update\"]\n", &[&format!("2: {apt}")]);
    // Removing them in a later layer takes nothing out of the earlier one.
    fires(
        rule,
        "FROM debian:12\nRUN apt-get update\nRUN rm -rf /var/lib/apt/lists/*\n",
        &[&format!("2: {apt}")],
    );
    fires(rule, "FROM debian:12 AS a\nRUN apt-get update\nFROM a\n", &[&format!("2: {apt}")]);
    fires(
        rule,
        "FROM alpine:3\nRUN apk add x && dnf -y install y\n",
        &[
            "2: apk add leaves package indexes in this layer: use --no-cache, or mount a cache at /var/cache/apk",
            "2: dnf install leaves metadata and packages in this layer: end the RUN with `dnf clean all`, or mount a cache at /var/cache",
        ],
    );
    is_quiet(
        rule,
        &[
            "FROM debian:12\nRUN apt-get update && apt-get install -y x \\\n # why\n && rm -rf /var/lib/apt/lists/*\n",
            "FROM debian:12\nRUN --mount=type=cache,target=/var/lib/apt apt-get update\n",
            "FROM debian:12\nARG D=/var/lib\nRUN --mount=type=tmpfs,target=$D/apt/lists apt-get update\n",
            // Only files of this stage are in the image.
            "FROM debian:12 AS build\nRUN apt-get update\nFROM debian:12\nCOPY --from=build /a /b\n",
            "FROM debian:12\nRUN <<E cat > /x\napt-get update\nE\n",
            "FROM debian:12\nRUN <<E\n#!/usr/bin/env python3\napt-get update\nE\n",
            "FROM debian:12\nRUN echo 'apt-get update'\nCMD apt-get update\n",
            "FROM alpine:3\nRUN apk add --no-cache x\n",
            "FROM debian:12\nSHELL [\"pwsh\", \"-c\"]\nRUN apt-get update\n",
            "FROM debian:12\n# check=skip=PackageListsKept\nRUN apt-get update\n",
        ],
    );
}

#[test]
fn wide_copy_without_ignore_file() {
    let rule = Rule::WideCopyWithoutIgnoreFile;
    let message = |word| {
        format!("{word} takes the whole context, and no .dockerignore keeps anything out of it")
    };
    fires(
        rule,
        "FROM busybox\nCOPY . /app\nADD ./ /x\nCOPY a /../ /y/\nCOPY --chown=1 * /z/\n",
        &[
            &format!("2: {}", message("COPY")),
            &format!("3: {}", message("ADD")),
            &format!("4: {}", message("COPY")),
            &format!("5: {}", message("COPY")),
        ],
    );
    is_quiet(
        rule,
        &[
            "FROM busybox\nCOPY src *.c /app/\n",
            "FROM busybox AS a\nFROM busybox\nCOPY --from=a . /app\n",
            "FROM busybox\nCOPY --exclude=.git . /app\n",
            "FROM busybox\nRUN --mount=target=/src true\n",
            "FROM busybox\n# check=skip=WideCopyWithoutIgnoreFile\nCOPY . /app\n",
        ],
    );
    fires_with(rule, "FROM busybox\nCOPY . /app\n", &["--ignore", ".git"], &[]);
}

#[test]
fn download_piped_to_shell() {
    let rule = Rule::DownloadPipedToShell;
    let message = |from, to| {
        format!("Output of {from} is run by {to}: what the step does is up to the server")
    };
    for (run, lines, from, to) in [
        ("RUN curl https://x | sh", "2", "curl", "sh"),
        ("RUN set -eux; \\\n  wget -qO- x \\\n  | sudo -E bash -s -- -y", "2-4", "wget", "bash"),
        ("RUN <<E\ncurl x |\n  sh\nE", "2-5", "curl", "sh"),
        ("RUN <<E bash -x\ncurl x | zsh\nE", "2-4", "curl", "zsh"),
        ("RUN <<E\n#!/bin/bash -e\ncurl x | sh\nE", "2-5", "curl", "sh"),
        ("RUN [\"sh\", \"-c\", \"curl x | sh\"]", "2", "curl", "sh"),
        ("RUN sh -c \"$(curl -fsSL x)\"", "2", "curl", "sh"),
        ("RUN --mount=type=cache,target=/c bash <(curl x)", "2", "curl", "bash"),
    ] {
        let expect = format!("{lines}: {}", message(from, to));
        fires(rule, &format!("FROM busybox\n{run}\n"), &[&expect]);
    }
    is_quiet(
        rule,
        &[
            "FROM busybox\nRUN curl -o f x && sh f\nRUN curl x | tar xz\nCMD curl x | sh\n",
            "FROM busybox\nRUN <<E\n# curl x | sh\necho \"curl x | sh\"\nE\n",
            "FROM busybox\nRUN cat <<E > f\ncurl x | sh\nE\n",
            "FROM busybox\nRUN <<E\n#!/usr/bin/python3\ncurl x | sh\nE\n",
            "FROM busybox\nRUN [\"echo\", \"curl x | sh\"]\nONBUILD RUN curl x | sh\n",
            "FROM busybox\nSHELL [\"pwsh\", \"-c\"]\nRUN curl x | sh\n",
            "FROM busybox\n# check=skip=bricklayer\nRUN curl x | sh\n",
        ],
    );
}

#[test]
fn stages_that_are_not_needed_are_checked_unless_there_is_a_target() {
    let text = "FROM busybox AS unused\nWORKDIR a\nFROM busybox AS other\nWORKDIR b\nFROM busybox AS last\nWORKDIR c\n";
    let rule = Rule::WorkdirRelativePath;
    assert_eq!(found(rule, text, &[]).len(), 3);
    assert_eq!(found(rule, text, &["--target", "other"]).len(), 1);
    let build = support::convert(text.as_bytes(), &support::options(&[], "")).unwrap().unwrap();
    assert_eq!(build.warnings.len(), 1, "a build checks what it needs");
    // What a FROM says is known without its stage.
    let text = "FROM busybox AS Unused\nFROM busybox\n";
    let build = support::convert(text.as_bytes(), &support::options(&[], "")).unwrap().unwrap();
    assert_eq!(build.warnings.len(), 1);
}

#[test]
fn findings_are_those_for_the_first_platform() {
    let args = ["--platform", "linux/amd64,linux/arm64"];
    let text = "FROM busybox\nWORKDIR a$TARGETARCH\n";
    assert_eq!(found(Rule::WorkdirRelativePath, text, &args).len(), 1);
    assert_eq!(found(Rule::InvalidBaseImagePlatform, text, &args), [""; 0]);
}

#[test]
fn warnings_are_told_even_if_there_are_mistakes() {
    let options = support::options(&[], "");
    let (warnings, errors) =
        support::check("FROM busybox AS A\nCOPY --chmod=x a b\nCMD c\nVOLUME ''\n", &options);
    let rules: Vec<&str> = warnings.iter().map(|warning| warning.rule.name()).collect();
    assert_eq!(rules, ["StageNameCasing", "JSONArgsRecommended"]);
    assert_eq!(errors.len(), 2, "{errors:?}");
    let (warnings, errors) =
        support::check("# check=error=true\nFROM busybox AS A\nCMD c\n", &options);
    assert_eq!(warnings.len(), 2);
    assert!(
        errors[0].contains("lint violation found for rules: JSONArgsRecommended, StageNameCasing")
    );
    let (_, errors) = support::check("# check=nonsense\nFROM busybox\n", &options);
    assert!(errors[0].contains("failed to parse check options: invalid check option \"nonsense\""));
    let (_, errors) = support::check("# check=skip=all;error=true\nFROM busybox AS A\n", &options);
    assert_eq!(errors, [""; 0]);
}

#[test]
fn a_build_argument_replaces_the_directive() {
    let mut options = support::options(&[], "");
    let text = "# check=skip=all;error=true\nFROM busybox AS A\nCMD c\n";
    options
        .build_args
        .insert("BUILDKIT_DOCKERFILE_CHECK".to_owned(), " skip = StageNameCasing ".to_owned());
    let (warnings, errors) = support::check(text, &options);
    let rules: Vec<&str> = warnings.iter().map(|warning| warning.rule.name()).collect();
    assert_eq!((rules, errors.len()), (vec!["JSONArgsRecommended"], 0));
}

fn outline(text: &str, args: &[&str]) -> String {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let outline = match support::outline(text, &support::options(&args, "")) {
        Ok(outline) => outline,
        Err(errors) => return errors.join("\n"),
    };
    let mut out = format!("{:?} {:?}\n", outline.name, outline.description);
    for arg in &outline.args {
        let (value, description) = (&arg.value, &arg.description);
        writeln!(out, "{}: {}={value:?} {description:?}", arg.lines.start, arg.name).unwrap();
    }
    for (kind, mounts) in [("secret", &outline.secrets), ("ssh", &outline.ssh)] {
        for mount in mounts {
            writeln!(out, "{}: {kind} {} {}", mount.lines.start, mount.name, mount.required)
                .unwrap();
        }
    }
    out
}

const RICH: &str = r#"# TAG of the base image
ARG TAG=latest
ARG IMAGE=busybox:$TAG
ARG UNUSED=1
# MODE of the build
ARG MODE=fast
FROM ${IMAGE} AS tools
ARG TOOLS=/usr/$MODE
RUN --mount=type=secret,id=netrc,required --mount=type=ssh true
# app is what runs
FROM busybox AS app
ARG MODE
# VERSION of the app
ARG VERSION=${MODE}-1 EMPTY
ARG TARGETARCH
COPY --from=tools /a /b
RUN --mount=type=secret,target=/run/token --mount=type=secret,id=netrc --mount=type=ssh,id=deploy,required=true true
FROM busybox AS other
ARG OTHER=1
"#;

#[test]
fn an_outline_lists_what_the_target_and_the_stages_it_needs_ask_for() {
    assert_eq!(
        outline(RICH, &["--target", "app"]),
        r#"Some("app") Some("is what runs")
2: TAG=Some("latest") Some("of the base image")
3: IMAGE=Some("busybox:latest") None
6: MODE=Some("fast") Some("of the build")
8: TOOLS=Some("/usr/") None
14: VERSION=Some("fast-1") Some("of the app")
14: EMPTY=None None
17: secret netrc false
17: secret token false
9: ssh default false
17: ssh deploy true
"#
        .replace(
            "VERSION=Some(\"fast-1\") Some(\"of the app\")\n14: EMPTY=None None",
            "EMPTY=None None\n14: VERSION=Some(\"fast-1\") Some(\"of the app\")"
        )
    );
    assert_eq!(outline(RICH, &[]), "Some(\"other\") None\n19: OTHER=Some(\"1\") None\n");
}

#[test]
fn an_outline_shows_the_values_that_are_given() {
    assert_eq!(
        outline(
            "ARG A=1\nFROM busybox\n# A here\nARG A\nARG B=$A\nARG C\n",
            &["--build-arg", "A=2", "--build-arg", "C=3"]
        ),
        "None None\n4: A=Some(\"2\") Some(\"here\")\n5: B=Some(\"2\") None\n6: C=Some(\"3\") None\n"
    );
    // Made from itself, an argument is made from what it was made from before.
    assert_eq!(
        outline("ARG V=1\nARG I=b$V\nARG I=${I#b}\nFROM busybox:$I\n", &[]),
        "None None\n1: V=Some(\"1\") None\n3: I=Some(\"1\") None\n"
    );
}

#[test]
fn an_outline_needs_no_image_but_a_right_dockerfile() {
    assert_eq!(
        outline("FROM nowhere.invalid/x\nARG A=$NOPE-1\n", &[]),
        "None None\n2: A=Some(\"-1\") None\n"
    );
    // Triggers of the base image ask for something too.
    assert!(outline("FROM onbuild\n", &[]).starts_with("None None\n"));
    let error = outline("FROM busybox\nVOLUME ''\n", &[]);
    assert!(error.contains("VOLUME specified can not be an empty string"), "{error}");
    let error = outline("FROM busybox\n", &["--target", "x"]);
    assert!(error.contains("target stage \"x\" could not be found"), "{error}");
}

/// Whatever is cut off a file or left out of it, its checks and its outline come to an end.
#[test]
fn damaged_files_are_checked_without_panic() {
    let page = fs_err::read_to_string(support::images().join("../../../docs/checks.md")).unwrap();
    let examples = page.split("```dockerfile\n").skip(1);
    let examples = examples.map(|block| block.split("```").next().unwrap().to_owned());
    let options = all_rules();
    let mut checked = 0;
    for text in examples.chain([RICH.to_owned(), long(40)]) {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let shortened = (0..lines.len()).map(|left_out| {
            let kept = lines.iter().enumerate().filter(|(index, _)| *index != left_out);
            kept.map(|(_, line)| *line).collect()
        });
        let cut = text.char_indices().map(|(end, _)| text[..end].to_owned());
        for damaged in shortened.chain(cut) {
            if parser::parse(damaged.as_bytes()).is_ok() {
                let count = damaged.lines().count();
                let (warnings, _) = support::check(&damaged, &options);
                assert!(warnings.iter().all(|it| (1..=count).contains(&it.lines.end)), "{damaged}");
                let _ = support::outline(&damaged, &options);
                checked += 1;
            }
        }
    }
    assert!(checked > 2000, "only {checked}");
}

/// Arguments that an example of the documentation needs: those of its bad and of its good form.
fn example_args(rule: Rule) -> [&'static [&'static str]; 2] {
    match rule {
        Rule::CopyIgnoredFile => [&["--ignore", "*.log"]; 2],
        Rule::InvalidBaseImagePlatform => [&["--platform", "linux/arm64"]; 2],
        _ => [&[]; 2],
    }
}

/// The examples of the documentation are what they are said to be, and no rule is missing there.
#[test]
fn every_rule_is_documented_with_a_bad_and_a_good_example() {
    let page = support::images().join("../../../docs/checks.md");
    let page = fs_err::read_to_string(page).unwrap();
    let sections: Vec<(&str, &str)> =
        page.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let names: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
    let expect: Vec<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    let sorted =
        |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&names), sorted(&expect));
    for (name, text) in sections {
        let rule = *Rule::ALL.iter().find(|rule| rule.name() == name).unwrap();
        if rule.is_own() {
            assert_eq!(rule.url(), format!("docs/checks.md#{}", name.to_lowercase()));
        } else {
            assert!(
                rule.url().starts_with("https://docs.docker.com/go/dockerfile/rule/"),
                "{name}"
            );
        }
        let blocks: Vec<&str> = text.split("```dockerfile\n").skip(1).collect();
        assert_eq!(blocks.len(), 2, "{name}");
        let [bad, good] = [0, 1].map(|index| blocks[index].split("```").next().unwrap());
        let [bad_args, good_args] = example_args(rule);
        assert!(!found(rule, bad, bad_args).is_empty(), "{name}: the bad example is fine\n{bad}");
        assert_eq!(
            found(rule, good, good_args),
            [""; 0],
            "{name}: the good example is bad\n{good}"
        );
    }
}

/// A Dockerfile of many lines, of everything that is checked.
fn long(instructions: usize) -> String {
    let kinds: [fn(usize) -> String; 8] = [
        |n| format!("RUN apt-get update && echo {n} && curl x{n} | sh\n"),
        |n| format!("COPY file{n}.log dir/$UNDEFINED{n} /dst/\n"),
        |n| format!("ENV NAME{n}=value{n} API_KEY{n}=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b\n"),
        |n| format!("ARG ARG{n}=$NAME{n}\n"),
        |n| format!("RUN echo one \\\n\n  && echo {n}\n"),
        |n| format!("LABEL key{n} value\n"),
        |n| format!("CMD echo {n}\n"),
        |n| format!("EXPOSE {}/TCP\n", n % 60_000 + 1),
    ];
    let body = (0..instructions).map(|n| kinds[n % kinds.len()](n));
    "FROM busybox\n".to_owned() + &body.collect::<String>()
}

fn all_rules() -> Options {
    let args = ["--ignore", "*.txt", "--ignore", "target", "--build-arg"].map(str::to_owned);
    let check = "BUILDKIT_DOCKERFILE_CHECK=experimental=bricklayer,InvalidDefinitionDescription";
    support::options(&[&args[..], &[check.to_owned()]].concat(), "")
}

#[test]
fn long_files_are_checked_in_time() {
    let options = all_rules();
    let chain: String = (0..5_000)
        .map(|n| {
            format!(
                "FROM {} AS s{n}\n",
                if n == 0 { "busybox".to_owned() } else { format!("s{}", n - 1) }
            )
        })
        .collect();
    let many_lines =
        |line: &str| "FROM busybox\nRUN true \\\n".to_owned() + &line.repeat(20_000) + "  x\n";
    for (what, text) in [
        ("all kinds", long(20_000)),
        ("stages", chain),
        (
            "comments",
            "FROM busybox\n".to_owned() + &"# check=skip=UndefinedVar\n".repeat(20_000) + "RUN x\n",
        ),
        ("empty lines", many_lines("\n")),
        ("pipes", many_lines(" | curl x | sh \\\n")),
        ("substitutions", many_lines(" $(\"`{ \\\n")),
        (
            "arguments",
            "FROM busybox\n".to_owned()
                + &(0..20_000).map(|n| format!("ARG A{n}\n")).collect::<String>(),
        ),
    ] {
        let start = Instant::now();
        let _ = support::check(&text, &options);
        let took = start.elapsed();
        println!("{what}: {took:?}");
        // Far more than it takes on a busy machine, and far less than it would take if the work grew with
        // the square of the lines.
        assert!(took < Duration::from_secs(20), "{what} took {took:?}");
    }
}
