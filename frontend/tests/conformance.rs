//! The conformance cases, as far as the frontend decides their outcome: config, history, refusal.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::path::Path;

use serde_json::{Value, json};

/// Cases whose wanted words stand in the excerpt of the Dockerfile, which the caller shows.
const SHOWN_IN_EXCERPT: &[&str] = &["syntax-expand-required-error"];

#[test]
fn configs_and_histories_are_those_of_the_reference() {
    let cases = support::images().join("../cases");
    let mut failures = Vec::new();
    let mut compared = 0;
    let mut folders: Vec<_> =
        fs_err::read_dir(&cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for folder in folders {
        compared += run_case(&folder, &mut failures);
    }
    assert!(
        failures.is_empty(),
        "{} of {compared} steps differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(compared > 200, "only {compared} steps were compared");
}

/// Compares the steps of a case whose Dockerfile lies there as it is; returns how many.
fn run_case(folder: &Path, failures: &mut Vec<String>) -> usize {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let case: Value =
        serde_json::from_slice(&fs_err::read(folder.join("case.json")).unwrap()).unwrap();
    let expected: Value = match fs_err::read(folder.join("expected.json")) {
        Ok(text) => serde_json::from_slice(&text).unwrap(),
        Err(_) => return 0,
    };
    let context = folder.join("ctx");
    let Ok(text) = fs_err::read(context.join("Dockerfile")) else { return 0 };
    if case["setup"].as_str().is_some_and(|script| script.contains("Dockerfile")) {
        return 0;
    }
    let steps = case["steps"].as_array().cloned().unwrap_or_else(|| vec![json!({})]);
    let mut compared = 0;
    for (index, step) in steps.iter().enumerate() {
        let odd = ["mutate", "context", "stdin"].iter().any(|key| !step[*key].is_null());
        let args: Vec<String> = serde_json::from_value(step["args"].clone()).unwrap_or_default();
        if odd || args.iter().any(|arg| arg == "-f" || arg.starts_with("--call")) {
            break;
        }
        compared += 1;
        if SHOWN_IN_EXCERPT.contains(&name.as_str()) {
            continue;
        }
        if let Err(difference) = compare(&case, step, &text, &context, &expected[index]) {
            failures.push(format!("{name} step {index}: {difference}"));
        }
    }
    compared
}

fn compare(
    case: &Value,
    step: &Value,
    text: &[u8],
    context: &Path,
    expected: &Value,
) -> Result<(), String> {
    let args: Vec<String> = serde_json::from_value(step["args"].clone()).unwrap_or_default();
    let mut options = support::options(&args, &context.display().to_string());
    for arg in args.windows(2).filter(|pair| pair[0] == "--build-arg" && !pair[1].contains('=')) {
        if let Some(value) = case["env"][&arg[1]].as_str() {
            options.build_args.insert(arg[1].clone(), value.to_owned());
        }
    }
    for image in fs_err::read_dir(support::images()).unwrap() {
        let image = image.unwrap();
        let path = image.path().display().to_string();
        options.contexts.entry(image.file_name().to_string_lossy().into_owned()).or_insert(
            frontend::NamedContext::OciLayout {
                path,
                tag: Some("latest".to_owned()),
                digest: None,
            },
        );
    }
    let wanted: Vec<String> =
        serde_json::from_value(step["stderr_match"].clone()).unwrap_or_default();
    let build = match support::convert(text, &options) {
        Ok(Ok(build)) => build,
        Ok(Err(open)) => return Err(format!("these images are missing: {open:?}")),
        Err(errors) if expected["ok"] == json!(false) => {
            return find_all(&wanted, &errors.join("\n"));
        }
        Err(errors) => return Err(errors.join("\n")),
    };
    if args.iter().any(|arg| arg == "--check") {
        let found: Vec<String> = build
            .warnings
            .iter()
            .map(|warning| format!("{}: {}", warning.rule, warning.message))
            .collect();
        let is_clean = step["expect"] != json!("error");
        if is_clean != found.is_empty() {
            return Err(format!("findings: {found:?}"));
        }
        return find_all(&wanted, &found.join("\n"));
    }
    let skipped = |aspect: &str| {
        case["compare"].as_array().is_some_and(|only| !only.contains(&json!(aspect)))
    };
    let config = serde_json::to_value(&build.targets[0].config).unwrap();
    for aspect in ["config", "history"] {
        let (actual, expect) = (pick(&config, aspect), &expected[aspect]);
        if !expect.is_null() && !skipped(aspect) && actual != *expect {
            return Err(format!("{aspect}\n  expected {expect}\n  got      {actual}"));
        }
    }
    let layers =
        build.targets[0].config.history.iter().flatten().filter(|entry| !entry.empty_layer).count();
    match expected["layers"].as_array() {
        Some(expect) if expect.len() != layers => {
            Err(format!("{} layers expected, got {layers}", expect.len()))
        }
        _ => Ok(()),
    }
}

/// Checks that each pattern, words with `|` or `.*` between them, is found in `text`.
fn find_all(patterns: &[String], text: &str) -> Result<(), String> {
    for pattern in patterns {
        let is_found = pattern.replace("\\.", ".").split('|').any(|alternative| {
            let mut rest = Some(text);
            for part in alternative.split(".*") {
                rest = rest.and_then(|rest| Some(rest.split_once(part)?.1));
            }
            rest.is_some()
        });
        if !is_found {
            return Err(format!("no {pattern} in {text}"));
        }
    }
    Ok(())
}

/// The part of a config that the cases compare.
fn pick(config: &Value, aspect: &str) -> Value {
    if aspect == "history" {
        let entries = config["history"].as_array().cloned().unwrap_or_default();
        return entries
            .iter()
            .map(|entry| {
                let empty = entry["empty_layer"].as_bool().unwrap_or(false);
                json!({ "created_by": entry["created_by"].as_str().unwrap_or(""), "empty_layer": empty })
            })
            .collect();
    }
    let mut picked = json!({
        "config": config["config"], "os": config["os"], "architecture": config["architecture"],
    });
    for key in ["author", "variant"] {
        if config[key].as_str().is_some_and(|text| !text.is_empty()) {
            picked[key] = config[key].clone();
        }
    }
    picked
}
