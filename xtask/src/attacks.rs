//! `cargo xtask attacks`: shows that each test of an attack fails on a builder without the defence.
//!
//! `testdata/attacks/defences.json` names the attacks: the test, where the defence is, and how its text is changed so
//! that the environment can turn it off. All changes are made in a copy of the project, which is built once; each test
//! then has to pass there as it is, and to fail with its defence turned off.
//!
//! ```text
//! target/attacks/   the copy
//! ```
//!
//! Nothing of the project itself is changed. Attacks do succeed here, as root: on files and processes of the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::shell::{line, run};

const LIST: &str = "testdata/attacks/defences.json";

/// Stands in a changed text for whether the defence is turned off.
const OFF: &str = "OFF";

/// The variable that names the defence which is turned off.
const VARIABLE: &str = "WITHOUT";

/// The entry that is none: it hands the variable on to the processes of steps.
#[cfg(test)]
const SWITCH: &str = "switch";

/// Seconds that a test may take without its defence: some then wait for what does not come.
const PATIENCE: &str = "300";

/// How often a test is tried without its defence: a race is not lost every time.
const TRIES: usize = 3;

/// One attack.
struct Attack {
    name: String,
    edits: Vec<Edit>,
    tests: Vec<Test>,
}

/// A text that stands once in a file, and what it becomes.
struct Edit {
    file: String,
    find: String,
    with: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    package: String,
    /// A file of tests.
    target: String,
    name: String,
}

/// Tries the attacks of these names, or all.
pub(crate) fn run_all(top: &Path, names: &[String]) -> Result<(), String> {
    let attacks = read(top)?;
    if let Some(name) = names.iter().find(|name| attacks.iter().all(|one| one.name != **name)) {
        return Err(format!("`{LIST}` has no attack `{name}`"));
    }
    let copy = top.join("target/attacks");
    copy_to(top, &copy, &attacks)?;
    let attacks: Vec<_> =
        attacks.iter().filter(|one| names.is_empty() || names.contains(&one.name)).collect();
    let tests: BTreeSet<&Test> = attacks.iter().flat_map(|one| &one.tests).collect();
    for test in &tests {
        run(cargo(top, &copy, test).arg("--no-run"))?;
    }
    let mut wrong = Vec::new();
    for test in tests {
        if !passes(top, &copy, test, "")? {
            wrong.push(format!("{} fails with all defences", test.name));
        }
    }
    for attack in attacks {
        for test in &attack.tests {
            let mut found = true;
            for _ in 0..TRIES {
                found = found && passes(top, &copy, test, &attack.name)?;
            }
            let outcome = if found { "PASSES" } else { "fails" };
            println!("{}: {} {}: {outcome}", attack.name, test.package, test.name);
            if found {
                wrong.push(format!("{} passes without the defence {}", test.name, attack.name));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// The command that runs one test in the copy; what is not of the project is not built again for it.
fn cargo(top: &Path, copy: &Path, test: &Test) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(copy).args(["test", "--quiet", "--profile", "ci", "--test", &test.target]);
    // Always the same, so that what they have in common is built once.
    command.args(["-p", "cli", "-p", "sandbox"]);
    command.env("CARGO_TARGET_DIR", top.join("target"));
    command.env("CARGO_BUILD_BUILD_DIR", top.join("target/intermediate"));
    command
}

/// Whether a test passes without a defence; the empty name is none.
fn passes(top: &Path, copy: &Path, test: &Test, without: &str) -> Result<bool, String> {
    let mut cargo = cargo(top, copy, test);
    cargo.args(["--", "--exact", &test.name]);
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", PATIENCE]).arg(cargo.get_program()).args(cargo.get_args());
    command.current_dir(copy).stdin(Stdio::null()).env(VARIABLE, without);
    command.envs(cargo.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().map_err(|error| format!("{}: {error}", line(&command)))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // One kind of tests says so line by line, the other by how many.
    let ran = text.contains(" 1 passed") || text.contains(&format!("test {} ... ok", test.name));
    if output.status.success() && !ran {
        return Err(format!("{} did not run `{}`:\n{text}", line(&command), test.name));
    }
    Ok(output.status.success())
}

/// Copies the project as far as it has changed, with all edits.
fn copy_to(top: &Path, copy: &Path, attacks: &[Attack]) -> Result<(), String> {
    let mut git = Command::new("git");
    git.current_dir(top).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().map_err(|error| format!("{}: {error}", line(&git)))?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let failed = |error: std::io::Error| format!("cannot copy `{name}`: {error}");
        let from = top.join(name);
        // Settings of cargo hold below their folder: given twice they would be others, and all be built again.
        if !from.is_file() || name.starts_with(".cargo/") {
            continue;
        }
        let bytes = edited(attacks, name, fs::read(&from).map_err(failed)?)?;
        let to = copy.join(name);
        // What is as it was keeps its time, by which cargo knows what to build.
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(copy)).map_err(failed)?;
        fs::write(&to, bytes).map_err(failed)?;
        fs::set_permissions(&to, fs::metadata(&from).map_err(failed)?.permissions())
            .map_err(failed)?;
    }
    Ok(())
}

/// What a file is with all edits.
fn edited(attacks: &[Attack], file: &str, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let edits = attacks.iter().flat_map(|one| one.edits.iter().map(move |edit| (one, edit)));
    edits.filter(|(_, edit)| edit.file == file).try_fold(bytes, |bytes, (attack, edit)| {
        Ok(edit.apply(&String::from_utf8_lossy(&bytes), &attack.name)?.into_bytes())
    })
}

impl Edit {
    fn apply(&self, text: &str, name: &str) -> Result<String, String> {
        let count = text.matches(&self.find).count();
        if count != 1 {
            let Self { file, find, .. } = self;
            return Err(format!("{name}: `{file}` has {count} times, not once:\n{find}"));
        }
        let off = format!("std::env::var_os(\"{VARIABLE}\").is_some_and(|off| off == \"{name}\")");
        Ok(text.replacen(&self.find, &self.with.replace(OFF, &off), 1))
    }
}

fn read(top: &Path) -> Result<Vec<Attack>, String> {
    let failed = |error: String| format!("cannot read `{LIST}`: {error}");
    let bytes = fs::read(top.join(LIST)).map_err(|error| failed(error.to_string()))?;
    let list: Value = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
    let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| match value {
        Value::Array(lines) => {
            lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
        }
        value => value.as_str().unwrap_or_default().to_owned(),
    };
    let edit = |edit: &Value| Edit {
        file: text(&edit["file"]),
        find: text(&edit["find"]),
        with: text(&edit["with"]),
    };
    let test = |words: &Value| {
        let words = text(words);
        let mut words = words.splitn(3, ' ').map(str::to_owned);
        let mut next = || words.next().unwrap_or_default();
        Test { package: next(), target: next(), name: next() }
    };
    let attack = |attack: &Value| Attack {
        name: text(&attack["name"]),
        edits: each(&attack["edits"]).iter().map(edit).collect(),
        tests: each(&attack["tests"]).iter().map(test).collect(),
    };
    Ok(each(&list).iter().map(attack).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn the_list_names_defences_and_tests_that_are_there() {
        let attacks = read(top()).unwrap();
        assert!(attacks.len() > 20);
        for attack in &attacks {
            for Edit { file, .. } in &attack.edits {
                edited(&attacks, file, fs::read(top().join(file)).unwrap()).unwrap();
            }
            assert!(attack.name == SWITCH || !attack.tests.is_empty(), "{}", attack.name);
            for Test { package, target, name } in &attack.tests {
                let folder = top().join(package);
                let tests = folder.join("tests");
                let places = [tests.join(target), tests.join(format!("{target}.rs"))];
                let function = format!("fn {}()", name.rsplit("::").next().unwrap());
                let mut grep = Command::new("grep");
                grep.args(["-rqF", &function]).args(&places).stderr(Stdio::null());
                assert!(grep.status().unwrap().success(), "{package} {target} has no {name}");
            }
        }
    }
}
