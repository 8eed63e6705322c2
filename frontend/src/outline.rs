//! The outline of a target: the arguments, secrets and ssh agents that it uses.
//!
//! Stages note what they ask for while they are converted; the outline of a target is put together from the
//! notes of the stages that it needs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::context::Globals;
use crate::outcome::LineRange;
use crate::stage::{Plan, StageId};

/// What a target asks of the user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// Name of the target.
    pub name: Option<String>,
    /// Its doc comment.
    pub description: Option<String>,
    /// Arguments that it uses, by line.
    pub args: Vec<OutlineArg>,
    /// Secrets that its steps mount, by line.
    pub secrets: Vec<OutlineMount>,
    /// Ssh agents that its steps mount, by line.
    pub ssh: Vec<OutlineMount>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// Its doc comment.
    pub description: Option<String>,
    /// Its value: that of the build-arg, else its default.
    pub value: Option<String>,
    /// Where it is declared.
    pub lines: LineRange,
}

/// A secret or an ssh agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// Where it is mounted first.
    pub lines: LineRange,
}

/// Takes notes of what stages ask for.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// By stage; `None` when nobody asks.
    stages: Option<RefCell<BTreeMap<StageId, StageNotes>>>,
}

/// What one stage asks for.
#[derive(Debug, Default)]
struct StageNotes {
    /// Arguments by name; `None` is the global one of that name.
    args: BTreeMap<String, Option<OutlineArg>>,
    secrets: BTreeMap<String, OutlineMount>,
    ssh: BTreeMap<String, OutlineMount>,
}

impl Notes {
    /// Notes that are kept.
    pub(crate) fn kept() -> Self {
        Self { stages: Some(RefCell::default()) }
    }

    /// Notes an argument that a stage declares; of several with one name the last counts.
    pub(crate) fn arg(&self, stage: StageId, name: &str, own: impl FnOnce() -> Option<OutlineArg>) {
        self.on(stage, |notes| {
            let own = own();
            let known = notes.args.entry(name.to_owned()).or_default();
            *known = own.or(known.take());
        });
    }

    /// Notes a secret; of several mounts the first counts.
    pub(crate) fn secret(&self, stage: StageId, id: &str, required: bool, lines: LineRange) {
        self.on(stage, |notes| mount(&mut notes.secrets, id, required, lines));
    }

    /// Notes an ssh agent; of several mounts the first counts.
    pub(crate) fn ssh(&self, stage: StageId, id: &str, required: bool, lines: LineRange) {
        self.on(stage, |notes| mount(&mut notes.ssh, id, required, lines));
    }

    fn on(&self, stage: StageId, note: impl FnOnce(&mut StageNotes)) {
        if let Some(stages) = &self.stages {
            note(stages.borrow_mut().entry(stage).or_default());
        }
    }

    /// Puts the outline of the target together; the nearest stage that asks for a thing says where.
    pub(crate) fn outline(&self, plan: &Plan<'_>, globals: &Globals) -> Outline {
        let mut outline = Outline::default();
        let none = RefCell::default();
        let stages = self.stages.as_ref().unwrap_or(&none).borrow();
        let mut known = [(); 3].map(|()| BTreeSet::new());
        let mut seen = vec![false; plan.stages.len()];
        let mut pending = vec![plan.target];
        while let Some(id) = pending.pop() {
            if std::mem::replace(&mut seen[id], true) {
                continue;
            }
            pending.extend(plan.dependencies(id).into_iter().rev());
            let notes = stages.get(&id);
            for arg in args(&plan.stages[id].args, notes, globals) {
                if known[0].insert(arg.name.clone()) {
                    outline.args.push(arg);
                }
            }
            let Some(notes) = notes else { continue };
            let new = |mounts: &BTreeMap<String, OutlineMount>, known: &mut BTreeSet<String>| {
                let new = mounts.values().filter(|mount| known.insert(mount.name.clone()));
                new.cloned().collect::<Vec<_>>()
            };
            outline.secrets.extend(new(&notes.secrets, &mut known[1]));
            outline.ssh.extend(new(&notes.ssh, &mut known[2]));
        }
        outline.args.sort_by_key(|arg| arg.lines.start);
        outline.secrets.sort_by_key(|mount| mount.lines.start);
        outline.ssh.sort_by_key(|mount| mount.lines.start);
        outline
    }
}

fn mount(known: &mut BTreeMap<String, OutlineMount>, name: &str, required: bool, lines: LineRange) {
    known.entry(name.to_owned()).or_insert_with(|| OutlineMount {
        name: name.to_owned(),
        required,
        lines,
    });
}

/// Arguments of one stage: those it declares, and the global ones that it or its `FROM` uses, with those they
/// are made from.
fn args(from: &[String], notes: Option<&StageNotes>, globals: &Globals) -> Vec<OutlineArg> {
    let mut found = Vec::new();
    let mut pending: Vec<&str> = from.iter().map(String::as_str).collect();
    for (name, own) in notes.into_iter().flat_map(|notes| &notes.args) {
        match own {
            Some(own) => found.push(own.clone()),
            None => pending.push(name),
        }
    }
    let mut seen: BTreeSet<String> = found.iter().map(|arg| arg.name.clone()).collect();
    while let Some(name) = pending.pop() {
        let Some(global) = globals.args.get(name).filter(|_| seen.insert(name.to_owned())) else {
            continue;
        };
        pending.extend(global.uses.iter().map(String::as_str));
        found.push(OutlineArg {
            name: name.to_owned(),
            description: global.description.clone(),
            value: global.value.clone(),
            lines: global.lines,
        });
    }
    found
}
