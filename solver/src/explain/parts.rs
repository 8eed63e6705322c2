//! The parts of a key, as they are kept: in words, in the order in which they are compared.
//!
//! Invariant: no value of a secret is among them. Secrets have no value in a definition; variables whose names speak
//! of one are kept as a hash, and credentials in URLs not at all.

use cache::{Key, KeyBuilder};
use llb::op::{
    ExecOp, FileAction, FileActionKind, FileInput, FileOp, Mount, MountKind, NetworkMode, Owner,
    SecurityMode, UserId,
};
use llb::url::redacted;
use llb::variable::looks_secret;
use llb::{Op, Vertex};
use serde::{Deserialize, Serialize};

/// Version of the encoding.
const VERSION: u8 = 1;

/// Longest value that is kept, in characters; of a longer one its hash is kept too.
const LONGEST: usize = 400;

/// What stands for a value that is not shown, before its hash.
const HIDDEN: &str = "\u{0}";

/// All parts of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parts {
    v: u8,
    /// Name of the vertex.
    pub(super) name: String,
    /// What the op says: what a part is about, and its value.
    pub(super) fields: Vec<(String, String)>,
    pub(super) inputs: Vec<InputPart>,
}

/// An input as part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InputPart {
    /// Name of the vertex that it is an output of.
    pub(super) name: String,
    /// Its content, when that counts.
    pub(super) content: Option<String>,
    /// The keys of its definition.
    pub(super) keys: Vec<String>,
    /// What it is, when it is a source from elsewhere.
    pub(super) source: Option<String>,
}

/// The first of the op's parts that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldChange {
    pub(super) label: String,
    /// `None` when there was none.
    pub(super) before: Option<String>,
    /// `None` when there is none any more.
    pub(super) now: Option<String>,
}

impl Parts {
    pub(super) fn of(vertex: &Vertex, inputs: Vec<InputPart>) -> Self {
        let mut fields = Fields(Vec::new());
        match &vertex.op {
            Op::Exec(exec) => fields.exec(exec),
            Op::File(file) => fields.file(file),
            Op::Source(source) => fields.put("source", &source.identifier),
            Op::Merge => fields.put("merge", ""),
            Op::Diff { lower, upper } => fields.put("diff", &format!("{lower} {upper}")),
        }
        if let Some(platform) = &vertex.platform {
            fields.put("platform", &platform.to_string());
        }
        let name = redacted(&vertex.metadata.name).into_owned();
        Self { v: VERSION, name, fields: fields.0, inputs }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Strings and lists alone always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what was kept; `None` when it is damaged or of another version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|parts: &Self| parts.v == VERSION)
    }

    /// The first part of the op that is not as it was.
    pub(super) fn first_change(&self, before: &Self) -> Option<FieldChange> {
        let numbered = |fields: &[(String, String)]| {
            let mut counted: Vec<((String, usize), String)> = Vec::with_capacity(fields.len());
            for (label, value) in fields {
                let number = counted.iter().filter(|((other, _), _)| other == label).count();
                counted.push(((label.clone(), number), value.clone()));
            }
            counted
        };
        let (old, new) = (numbered(&before.fields), numbered(&self.fields));
        for (label, value) in &new {
            let was = old.iter().find(|(other, _)| other == label).map(|(_, value)| value.clone());
            if was.as_ref() != Some(value) {
                let now = Some(value.clone());
                return Some(FieldChange { label: label.0.clone(), before: was, now });
            }
        }
        let gone = old.into_iter().find(|(label, _)| !new.iter().any(|(other, _)| other == label));
        if let Some(((label, _), value)) = gone {
            return Some(FieldChange { label, before: Some(value), now: None });
        }
        // The same parts in another order.
        (before.fields != self.fields).then(|| FieldChange {
            label: "order of the parts".to_owned(),
            before: None,
            now: None,
        })
    }
}

/// A value as it may be shown, in quotes; `None` when it may not, or is too long to be worth it.
pub(super) fn shown(value: &str) -> Option<String> {
    let is_short = value.chars().count() <= 60 && !value.contains('\n');
    (is_short && !value.starts_with(HIDDEN)).then(|| format!("\"{value}\""))
}

/// Whether a value is kept as a hash only.
pub(super) fn is_hidden(value: &str) -> bool {
    value.starts_with(HIDDEN)
}

struct Fields(Vec<(String, String)>);

impl Fields {
    fn put(&mut self, label: impl Into<String>, value: &str) {
        let shown = redacted(value);
        let value = match shown.char_indices().nth(LONGEST) {
            None if shown == value => shown.into_owned(),
            None => format!("{shown} {}", hash(value)),
            Some((end, _)) => format!("{}… {}", &shown[..end], hash(value)),
        };
        self.0.push((label.into(), value));
    }

    fn hidden(&mut self, label: String, value: &str) {
        self.0.push((label, format!("{HIDDEN}{}", hash(value))));
    }

    fn some(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.put(label, value);
        }
    }

    fn exec(&mut self, exec: &ExecOp) {
        let meta = &exec.meta;
        self.put("command", &meta.args.join(" "));
        for variable in &meta.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            let label = format!("variable {name}");
            match looks_secret(name) {
                true => self.hidden(label, value),
                false => self.put(label, value),
            }
        }
        self.put("working directory", &meta.cwd);
        self.some("user", &meta.user);
        self.some("host name", &meta.hostname);
        self.some("cgroup parent", &meta.cgroup_parent);
        match exec.network {
            NetworkMode::Unset => {}
            NetworkMode::Host => self.put("network", "host"),
            NetworkMode::None => self.put("network", "none"),
        }
        if exec.security == SecurityMode::Insecure {
            self.put("security", "insecure");
        }
        for host in &meta.extra_hosts {
            self.put(format!("host {}", host.host), "");
        }
        for limit in &meta.ulimits {
            self.put(format!("ulimit {}", limit.name), &format!("{}:{}", limit.soft, limit.hard));
        }
        for code in &meta.valid_exit_codes {
            self.put(format!("exit code {code}"), "");
        }
        for secret in &exec.secret_env {
            let text = format!("id={} required={}", secret.id, !secret.optional);
            self.put(format!("secret variable {}", secret.name), &text);
        }
        for device in &exec.cdi_devices {
            self.put(format!("device {}", device.name), "");
        }
        for mount in exec.mounts.iter().filter(|mount| mount.dest != "/") {
            self.put(format!("mount {}", mount.dest), &mount_text(mount));
        }
    }

    fn file(&mut self, file: &FileOp) {
        for action in &file.actions {
            self.action(action);
        }
    }

    fn action(&mut self, action: &FileAction) {
        match &action.kind {
            FileActionKind::Copy(copy) => {
                // Of a source its last part counts; the rest is part of the input.
                let source = match action.secondary_input {
                    FileInput::Action(_) => copy.src.clone(),
                    FileInput::Input(_) | FileInput::Scratch => {
                        let path = tree::path::clean(&copy.src);
                        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
                    }
                };
                self.put("source name", &source);
                self.put("destination", &copy.dest);
                self.owner(copy.owner.as_ref());
                let mode =
                    if copy.mode >= 0 { format!("{:04o}", copy.mode) } else { String::new() };
                self.some("mode", &(mode + &copy.mode_str));
                for pattern in &copy.include_patterns {
                    self.put("pattern", pattern);
                }
                for pattern in &copy.exclude_patterns {
                    self.put("exclude", pattern);
                }
                let flags = [
                    ("follows symlinks", copy.follow_symlink),
                    ("copies the contents of folders", copy.dir_copy_contents),
                    ("unpacks archives", copy.attempt_unpack),
                    ("makes the destination", copy.create_dest_path),
                    ("has wildcards", copy.allow_wildcard),
                    ("may match nothing", copy.allow_empty_wildcard),
                    ("replaces what is there", copy.always_replace_existing_dest_paths),
                ];
                for (name, _) in flags.iter().filter(|(_, is_set)| *is_set) {
                    self.put(format!("flag \"{name}\""), "");
                }
                self.time(copy.timestamp);
            }
            FileActionKind::Mkfile(make) => {
                let text = format!("{:04o} {}", make.mode, hash_of(&make.data));
                self.put(format!("file {}", make.path), &text);
                self.owner(make.owner.as_ref());
                self.time(make.timestamp);
            }
            FileActionKind::Mkdir(make) => {
                self.put(format!("folder {}", make.path), &format!("{:04o}", make.mode));
                self.owner(make.owner.as_ref());
                self.time(make.timestamp);
            }
            FileActionKind::Rm(remove) => self.put(format!("removal of {}", remove.path), ""),
            FileActionKind::Symlink(link) => {
                self.put(format!("symlink {}", link.new_path), &link.old_path);
                self.owner(link.owner.as_ref());
                self.time(link.timestamp);
            }
        }
    }

    fn owner(&mut self, owner: Option<&Owner>) {
        let id = |id: Option<&UserId>| match id {
            None => String::new(),
            Some(UserId::Id(id)) => id.to_string(),
            Some(UserId::Name { name, .. }) => name.clone(),
        };
        if let Some(owner) = owner {
            let (user, group) = (id(owner.user.as_ref()), id(owner.group.as_ref()));
            self.put("owner", &format!("{user}:{group}"));
        }
    }

    fn time(&mut self, nanoseconds: i64) {
        if nanoseconds >= 0 {
            self.put("time of the files", &(nanoseconds / 1_000_000_000).to_string());
        }
    }
}

fn mount_text(mount: &Mount) -> String {
    let kind = match &mount.kind {
        MountKind::Bind => format!("bind source={}", mount.selector),
        MountKind::Secret(secret) => format!(
            "secret id={} owner={}:{} mode={:04o} required={}",
            secret.id, secret.uid, secret.gid, secret.mode, !secret.optional
        ),
        MountKind::Ssh(ssh) => format!(
            "ssh id={} owner={}:{} mode={:04o} required={}",
            ssh.id, ssh.uid, ssh.gid, ssh.mode, !ssh.optional
        ),
        MountKind::Cache(_) => "cache".to_owned(),
        MountKind::Tmpfs { size } => format!("tmpfs size={size}"),
    };
    if mount.readonly { kind + " readonly" } else { kind }
}

fn hash(text: &str) -> String {
    hash_of(text.as_bytes())
}

fn hash_of(bytes: &[u8]) -> String {
    let Key(hash) = KeyBuilder::new("part.v1").bytes(bytes).finish();
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use llb::op::ExecMeta;
    use llb::{Definition, VertexMetadata};

    use super::*;

    fn run(env: &[&str], command: &str) -> Parts {
        let meta = ExecMeta {
            args: vec![command.to_owned()],
            env: env.iter().map(|&variable| variable.to_owned()).collect(),
            ..ExecMeta::default()
        };
        let mut definition = Definition::default();
        let op = Op::Exec(ExecOp { meta, ..ExecOp::default() });
        let vertex = definition.add(op, Vec::new(), None, VertexMetadata::default());
        let parts = Parts::of(definition.vertex(vertex), Vec::new());
        assert_eq!(Parts::decode(&parts.encode()).as_ref(), Some(&parts));
        parts
    }

    #[track_caller]
    fn check(before: &Parts, now: &Parts, expect: Option<(&str, Option<&str>, Option<&str>)>) {
        let change = now.first_change(before);
        let change = change
            .as_ref()
            .map(|change| (change.label.as_str(), change.before.as_deref(), change.now.as_deref()));
        assert_eq!(change, expect);
    }

    #[test]
    fn the_first_part_that_differs_is_named() {
        let plain = run(&["A=1", "B=2"], "make");
        check(&plain, &plain, None);
        check(
            &plain,
            &run(&["A=1", "B=2"], "make x"),
            Some(("command", Some("make"), Some("make x"))),
        );
        check(&plain, &run(&["A=1", "B=3"], "make"), Some(("variable B", Some("2"), Some("3"))));
        check(&plain, &run(&["A=1", "B=2", "C=4"], "make"), Some(("variable C", None, Some("4"))));
        check(&plain, &run(&["B=2"], "make"), Some(("variable A", Some("1"), None)));
        check(&plain, &run(&["B=2", "A=1"], "make"), Some(("order of the parts", None, None)));
    }

    #[test]
    fn secrets_are_compared_and_not_kept() {
        let (one, two) = (run(&["API_TOKEN=hunter2"], "x"), run(&["API_TOKEN=hunter3"], "x"));
        let change = two.first_change(&one).unwrap();
        assert_eq!(change.label, "variable API_TOKEN");
        assert!(is_hidden(&change.now.unwrap()));
        let long = "y".repeat(5000);
        let url = run(&["URL=https://me:hunter2@example.com/x", &format!("L={long}")], "x");
        for parts in [&one, &two, &url] {
            let text = String::from_utf8(parts.encode()).unwrap();
            assert!(!text.contains("hunter") && text.len() < 2000, "{text}");
        }
        let other = run(&["URL=https://me:hunter3@example.com/x", &format!("L={long}")], "x");
        assert_eq!(other.first_change(&url).unwrap().label, "variable URL");
    }
}
