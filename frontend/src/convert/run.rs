//! Converts `RUN` into an exec op, heredocs included.

use llb::entitlement::{Entitlement, allows_device};
use llb::op::{
    CdiDevice, ExecMeta, ExecOp, FileAction, FileActionKind, FileInput, FileOp, MkfileAction,
    Mount, MountKind, NetworkMode, SecurityMode,
};
use llb::{Edge, Op};
use parser::{Command, Heredoc, Run, Security, ShellCommand, Word};

use super::mount::{Mounts, PlacedMount, plain};
use super::{Converter, ENTRY_SIZE};
use crate::error::{ErrorKind, FrontendError};
use crate::lint::{self, Rule};
use crate::paths;
use crate::place::Place;
use crate::platform_args;
use crate::stage::Step;

/// Where scripts of heredocs are mounted.
const SCRIPTS: &str = "/dev/pipes";

impl Converter<'_, '_> {
    /// Runs a command on the file tree of the stage.
    pub(super) fn run(&mut self, step: &Step<'_>, run: &Run) -> Result<(), FrontendError> {
        self.state.note_result(self.cx);
        let mut mounts = self.mounts(step, run)?;
        self.check_command(step, &run.command, &mounts);
        let (args, suffix) = self.run_args(step.place, &run.command, &mut mounts)?;
        let network = self.network(run.network);
        if network == NetworkMode::Host {
            self.require(step.place, Entitlement::NetworkHost)?;
        }
        let security = match run.security {
            Some(Security::Insecure) => SecurityMode::Insecure,
            Some(Security::Sandbox) | None => SecurityMode::Sandbox,
        };
        if security == SecurityMode::Insecure {
            self.require(step.place, Entitlement::SecurityInsecure)?;
        }
        let devices: Vec<_> =
            run.devices.iter().map(|device| self.device(step.place, device)).collect();
        let cdi_devices = self.all(devices)?;
        let rights: Vec<_> = run
            .devices
            .iter()
            .zip(&cdi_devices)
            .map(|(word, device)| self.require_device(step.place, word, device))
            .collect();
        self.all(rights)?;
        if !self.cx.wants_definition {
            return Ok(());
        }
        if self.cx.options.shm_size > 0 {
            let shm = MountKind::Tmpfs { size: self.cx.options.shm_size };
            mounts.mounts.push(PlacedMount {
                source: None,
                mount: plain("/dev/shm".to_owned(), false, shm),
            });
        }
        let hidden: Vec<String> =
            mounts.secret_env.iter().map(|secret| secret.name.clone()).collect();
        let name = self.step_name(step, &suffix, &hidden);
        let history = self.run_history(&args);
        let mut meta = self.exec_meta(args);
        // The texts are paid for with the vertex.
        let _ = self.cx.budget.keep(meta.env.len() * ENTRY_SIZE);
        if let Some(socket) = mounts.ssh_sockets.first()
            && self.state.env.get("SSH_AUTH_SOCK").is_none()
        {
            meta.env.push(format!("SSH_AUTH_SOCK={socket}"));
        }
        let (inputs, placed) = self.number_inputs(mounts.mounts);
        let secret_env = mounts.secret_env;
        let op = ExecOp { meta, mounts: placed, network, security, secret_env, cdi_devices };
        let metadata = self.metadata(step, name, self.ignore_cache);
        let platform = self.state.platform.clone();
        let vertex = self.definition.add(Op::Exec(op), inputs, Some(platform), metadata);
        self.state.edge = Some(Edge { vertex, output: 0 });
        self.history(history, true);
        Ok(())
    }

    /// The argument vector, and what is added to the step's name.
    fn run_args(
        &mut self,
        place: Place,
        command: &Command,
        mounts: &mut Mounts,
    ) -> Result<(Vec<String>, String), FrontendError> {
        let shell = match command {
            Command::Exec(args) if args.is_empty() => {
                return Err(place.error(ErrorKind::NoArguments));
            }
            Command::Exec(args) => return Ok((args.clone(), String::new())),
            Command::Shell(shell) => shell,
        };
        let Some(heredoc) = shell.sole_heredoc() else {
            return Ok((self.with_shell(with_bodies(shell)), String::new()));
        };
        let suffix = format!(" ({})", summary(&heredoc.body));
        let is_script = heredoc.body.starts_with("#!") && self.state.platform.os != "windows";
        let text = if is_script {
            let script = self.script(place, heredoc);
            let path = script.mount.dest.clone();
            mounts.mounts.push(script);
            path
        } else {
            heredoc.content().into_owned()
        };
        Ok((self.with_shell(text), suffix))
    }

    /// Mounts the body of a heredoc as an executable file.
    fn script(&mut self, place: Place, heredoc: &Heredoc) -> PlacedMount {
        let file = paths::clean(&heredoc.name);
        let dest = format!("{SCRIPTS}{file}");
        let action = MkfileAction {
            path: file.clone(),
            mode: 0o755,
            data: heredoc.content().into_owned().into_bytes(),
            owner: None,
            timestamp: -1,
        };
        let source = self.inline_file(place, action);
        PlacedMount {
            source: Some(source),
            mount: Mount { selector: file, ..plain(dest, true, MountKind::Bind) },
        }
    }

    /// Evaluates the rules about commands.
    fn check_command(&self, step: &Step<'_>, command: &Command, mounts: &Mounts) {
        let linter = self.cx.linter;
        let is_wanted =
            linter.is_on(Rule::PackageListsKept) || linter.is_on(Rule::DownloadPipedToShell);
        if !is_wanted || step.place.is_trigger() {
            return;
        }
        // What is written into these is no part of the layer.
        let places = mounts.mounts.iter().filter(|placed| {
            matches!(placed.mount.kind, MountKind::Cache(_) | MountKind::Tmpfs { .. })
        });
        let places: Vec<&str> = places.map(|placed| placed.mount.dest.as_str()).collect();
        let facts = match command {
            Command::Exec(args) => lint::run::in_args(args, &places),
            Command::Shell(_) if !lint::run::is_posix(&self.state.image.config.shell) => return,
            Command::Shell(shell) => match shell.sole_heredoc() {
                Some(heredoc) if is_foreign_script(&heredoc.body) => return,
                Some(heredoc) => lint::run::in_script(&heredoc.content(), &places),
                None => lint::run::in_script(&with_bodies(shell), &places),
            },
        };
        if let Some((from, to)) = &facts.piped {
            linter.report(Rule::DownloadPipedToShell, step.place.lines, || {
                format!("Output of {from} is run by {to}: what the step does is up to the server")
            });
        }
        for kept in facts.kept.iter().filter(|_| self.plan.is_shipped(self.id)) {
            linter.report(Rule::PackageListsKept, step.place.lines, || kept.message());
        }
    }

    /// A tree with just this file.
    pub(super) fn inline_file(&mut self, place: Place, action: MkfileAction) -> Edge {
        let op = FileOp {
            actions: vec![FileAction {
                input: FileInput::Scratch,
                secondary_input: FileInput::Scratch,
                output: Some(0),
                kind: FileActionKind::Mkfile(action),
            }],
        };
        self.add_internal(place, "preparing inline document", Op::File(op), Vec::new())
    }

    /// Surroundings of a command.
    fn exec_meta(&self, args: Vec<String>) -> ExecMeta {
        let options = self.cx.options;
        let hostname =
            options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").unwrap_or(&options.hostname);
        ExecMeta {
            args,
            env: self.state.env.to_lines(),
            cwd: self.cwd(),
            user: self.state.image.config.user.clone(),
            proxy_env: platform_args::proxy_env(&options.build_args),
            extra_hosts: options.extra_hosts.clone(),
            hostname: hostname.clone(),
            ulimits: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: Vec::new(),
        }
    }

    /// Gives the mounts their inputs: the root comes first, and equal inputs are one.
    fn number_inputs(&self, mounts: Vec<PlacedMount>) -> (Vec<Edge>, Vec<Mount>) {
        let mut inputs: Vec<Edge> = self.state.edge.into_iter().collect();
        let root = Mount {
            input: self.state.edge.map(|_| 0),
            output: Some(0),
            ..plain("/".to_owned(), false, MountKind::Bind)
        };
        let mut placed = vec![root];
        for PlacedMount { source, mut mount } in mounts {
            mount.input = source.map(|source| {
                inputs.iter().position(|input| *input == source).unwrap_or_else(|| {
                    inputs.push(source);
                    inputs.len() - 1
                })
            });
            placed.push(mount);
        }
        placed.sort_by(|a, b| a.dest.cmp(&b.dest));
        (inputs, placed)
    }

    /// History text: declared arguments with their values, then the argument vector.
    fn run_history(&self, args: &[String]) -> String {
        let declared: Vec<String> = self
            .state
            .declared
            .names()
            .map(|name| format!("{name}={} ", self.state.env.get(name).unwrap_or_default()))
            .collect();
        let count =
            if declared.is_empty() { String::new() } else { format!("|{} ", declared.len()) };
        format!("RUN {count}{}{} # buildkit", declared.concat(), args.join(" "))
    }

    /// Fails unless a device that the step cannot do without may be used.
    fn require_device(
        &self,
        place: Place,
        word: &Word,
        device: &CdiDevice,
    ) -> Result<(), FrontendError> {
        let granted = &self.cx.options.entitlements;
        if device.optional || allows_device(granted, &device.name) {
            return Ok(());
        }
        let kind = ErrorKind::NotAllowed { right: Entitlement::Device(None).to_string() };
        let hint =
            format!("grant it with `--allow device={}`, or all with `--allow device`", device.name);
        Err(place.error_at(word.span, kind).with_hint(Some(hint)))
    }

    /// Reads a `--device`: `name[,required]`.
    fn device(&self, place: Place, word: &Word) -> Result<CdiDevice, FrontendError> {
        let mut device = CdiDevice { name: String::new(), optional: true };
        for (index, field) in word.text.split(',').enumerate() {
            let (key, value) =
                field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
            match (key.to_lowercase().as_str(), value) {
                ("name", Some(name)) => name.clone_into(&mut device.name),
                ("required", None | Some("true")) => device.optional = false,
                ("required", Some("false")) => device.optional = true,
                // A qualified name such as `vendor.com/class=name` has an equals sign itself.
                _ if index == 0 => field.clone_into(&mut device.name),
                _ => {
                    let kind = ErrorKind::UnexpectedDeviceKey {
                        key: key.to_owned(),
                        field: field.to_owned(),
                    };
                    return Err(place.error_at(word.span, kind));
                }
            }
        }
        Ok(device)
    }
}

/// The command with the bodies of its heredocs below, as the shell reads them.
fn with_bodies(shell: &ShellCommand) -> String {
    let mut text = shell.text.clone();
    for heredoc in &shell.heredocs {
        text = text + "\n" + &heredoc.body + &heredoc.name;
    }
    text
}

/// Whether a script names an interpreter that is no shell.
fn is_foreign_script(body: &str) -> bool {
    let Some(line) = body.strip_prefix("#!").and_then(|body| body.lines().next()) else {
        return false;
    };
    let mut words = line.split_whitespace().map(str::to_owned);
    let program = words.find(|word| !word.ends_with("/env") && !word.starts_with('-'));
    !lint::run::is_posix(&program.into_iter().collect::<Vec<_>>())
}

/// First line of a heredoc body, with dots when there are more.
fn summary(body: &str) -> String {
    match body.trim().split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => body.trim().to_owned(),
    }
}
