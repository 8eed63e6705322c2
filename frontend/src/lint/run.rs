//! Rules about the commands of `RUN`: what they leave in the layer, and what they run unseen.

use super::shell::{self, Command, MAX_DEPTH, Script, Word};

/// What the rules find in a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// A download whose output is run, and what runs it.
    pub(crate) piped: Option<(String, String)>,
    /// Commands that leave something of a package manager behind, one for each manager.
    pub(crate) kept: Vec<Kept>,
}

/// Something that a package manager leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Program and what it was told, such as `apt-get update`.
    pub(crate) command: String,
    manager: Manager,
}

impl Kept {
    /// The finding, with what to do.
    pub(crate) fn message(&self) -> String {
        let Self { command, manager } = self;
        let program = command.split(' ').next().unwrap_or_default();
        match manager {
            Manager::Apt => format!(
                "{command} leaves package lists in this layer: remove /var/lib/apt/lists in the same RUN, or mount a cache there"
            ),
            Manager::Apk => format!(
                "{command} leaves package indexes in this layer: use --no-cache, or mount a cache at /var/cache/apk"
            ),
            Manager::Rpm => format!(
                "{command} leaves metadata and packages in this layer: end the RUN with `{program} clean all`, or mount a cache at /var/cache"
            ),
        }
    }
}

/// A family of package managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    Apk,
    Rpm,
}

impl Manager {
    const ALL: [Self; 3] = [Self::Apt, Self::Apk, Self::Rpm];

    /// Where it keeps what need not stay; any of these will do.
    fn folders(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["/var/lib/apt/lists"],
            Self::Apk => &["/var/cache/apk", "/etc/apk/cache"],
            Self::Rpm => {
                &["/var/cache/yum", "/var/cache/dnf", "/var/cache/libdnf5", "/var/cache/tdnf"]
            }
        }
    }

    /// Options of it that take the next word as their value.
    fn valued(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["-o", "--option", "-c", "--config-file", "-t", "--target-release", "-a"],
            Self::Apk => &[
                "-p",
                "--root",
                "-X",
                "--repository",
                "--repositories-file",
                "--keys-dir",
                "--arch",
                "--cache-dir",
                "--wait",
                "-t",
                "--virtual",
            ],
            Self::Rpm => &[
                "-c",
                "--config",
                "-x",
                "--exclude",
                "--enablerepo",
                "--disablerepo",
                "--releasever",
                "--setopt",
                "-R",
                "-d",
                "-e",
                "--repo",
                "--repoid",
            ],
        }
    }

    /// The manager that a program belongs to.
    fn of(program: &str) -> Option<Self> {
        match program {
            "apt-get" | "apt" | "aptitude" => Some(Self::Apt),
            "apk" => Some(Self::Apk),
            "yum" | "dnf" | "dnf5" | "microdnf" | "tdnf" => Some(Self::Rpm),
            _ => None,
        }
    }
}

/// Shells that read a script from their input.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "zsh", "ksh"];

/// Other programs that do.
const INTERPRETERS: [&str; 8] =
    ["python", "python2", "python3", "perl", "ruby", "node", "php", "lua"];

/// Programs that write what they download to their output.
const DOWNLOADERS: [&str; 3] = ["curl", "wget", "fetch"];

/// Whether a `SHELL` is one whose scripts can be read here.
pub(crate) fn is_posix(shell: &[String]) -> bool {
    shell.first().is_none_or(|program| SHELLS.contains(&base_name(program)))
}

/// What the rules find in a script; `mounted` are places whose content is no part of the layer.
pub(crate) fn in_script(script: &str, mounted: &[&str]) -> Facts {
    let mut search = Search::default();
    search.script(&shell::parse(script), 0);
    search.facts(mounted)
}

/// What the rules find in a command in JSON form.
pub(crate) fn in_args(args: &[String], mounted: &[&str]) -> Facts {
    let word = |text: &String| Word { text: text.clone(), scripts: Vec::new() };
    let command = Command { words: args.iter().map(word).collect(), ..Command::default() };
    let mut search = Search::default();
    search.script(&vec![command], 0);
    search.facts(mounted)
}

/// Collects facts in the order of execution.
#[derive(Default)]
struct Search {
    piped: Option<(String, String)>,
    kept: Vec<Kept>,
}

impl Search {
    fn facts(self, mounted: &[&str]) -> Facts {
        let is_mounted = |kept: &Kept| {
            let mut folders = kept.manager.folders().iter();
            folders.any(|folder| mounted.iter().any(|mount| covers(mount, folder)))
        };
        let kept = self.kept.into_iter().filter(|kept| !is_mounted(kept)).collect();
        Facts { piped: self.piped, kept }
    }

    fn script(&mut self, script: &Script, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        // The first download whose output reaches the command at hand.
        let mut upstream: Option<String> = None;
        for command in script {
            if !command.piped {
                upstream = None;
            }
            for inner in command.words.iter().chain(&command.input).flat_map(|word| &word.scripts) {
                self.script(inner, depth + 1);
            }
            let Some(call) = Call::of(command) else { continue };
            self.download(&call, upstream.as_deref());
            self.packages(&call);
            for text in call.scripts() {
                self.script(&shell::parse(text), depth + 1);
            }
            if upstream.is_none() && DOWNLOADERS.contains(&call.program) {
                upstream = Some(call.program.to_owned());
            }
        }
    }

    /// Notes a command that runs what is downloaded.
    fn download(&mut self, call: &Call<'_>, upstream: Option<&str>) {
        if self.piped.is_some() {
            return;
        }
        let from = if call.runs_its_input() {
            upstream.or_else(|| downloader(&call.command.input))
        } else {
            None
        };
        let from = from.or_else(|| downloader(call.executed_words()));
        self.piped = from.map(|from| (from.to_owned(), call.program.to_owned()));
    }

    /// Notes what a package manager leaves, and what is removed.
    fn packages(&mut self, call: &Call<'_>) {
        if let Some(manager) = Manager::of(call.program) {
            match effect(manager, call) {
                Effect::None => {}
                Effect::Keeps(verb) => {
                    if !self.kept.iter().any(|kept| kept.manager == manager) {
                        let command = format!("{} {verb}", call.program);
                        self.kept.push(Kept { command, manager });
                    }
                }
                Effect::Removes => self.kept.retain(|kept| kept.manager != manager),
            }
            return;
        }
        let texts: Vec<&str> = call.args.iter().map(|word| word.text.as_str()).collect();
        let removes = match call.program {
            "rm" => true,
            "find" => texts.contains(&"-delete") || texts.contains(&"rm"),
            _ => false,
        };
        for manager in Manager::ALL.into_iter().filter(|_| removes) {
            let is_gone = |folder: &&str| texts.iter().any(|path| removes_content(path, folder));
            if manager.folders().iter().any(is_gone) {
                self.kept.retain(|kept| kept.manager != manager);
            }
        }
    }
}

/// What a package manager does to the layer.
enum Effect<'a> {
    None,
    Keeps(&'a str),
    Removes,
}

fn effect<'a>(manager: Manager, call: &Call<'a>) -> Effect<'a> {
    let has = |flag: &str| call.args.iter().any(|word| word.text == flag);
    let mut words = positional(call.args, manager.valued());
    let verb = words.next().unwrap_or_default();
    match (manager, verb) {
        (Manager::Apt, "update") => Effect::Keeps(verb),
        (Manager::Apt, "distclean" | "dist-clean") => Effect::Removes,
        (Manager::Apk, "add" | "update" | "upgrade" | "fix") if !has("--no-cache") => {
            Effect::Keeps(verb)
        }
        (Manager::Apk, "cache") if words.next() == Some("clean") => Effect::Removes,
        (Manager::Rpm, "clean") => Effect::Removes,
        (Manager::Rpm, _) if call.args.iter().any(|it| it.text.starts_with("--installroot")) => {
            Effect::None
        }
        (
            Manager::Rpm,
            "install" | "update" | "upgrade" | "reinstall" | "downgrade" | "localinstall"
            | "groupinstall" | "group" | "module" | "swap" | "builddep" | "makecache"
            | "distro-sync" | "check-update",
        ) => Effect::Keeps(verb),
        _ => Effect::None,
    }
}

/// Arguments that are no options and no values of options.
fn positional<'a>(args: &'a [Word], valued: &'static [&str]) -> impl Iterator<Item = &'a str> {
    let mut is_value = false;
    args.iter().map(|word| word.text.as_str()).filter(move |text| {
        if std::mem::take(&mut is_value) {
            return false;
        }
        is_value = valued.contains(text);
        !is_value && !text.starts_with('-')
    })
}

/// A command without what only surrounds it: assignments, reserved words, `sudo` and its kin.
struct Call<'a> {
    command: &'a Command,
    program: &'a str,
    args: &'a [Word],
}

impl<'a> Call<'a> {
    fn of(command: &'a Command) -> Option<Self> {
        let mut words = command.words.as_slice();
        loop {
            let (first, rest) = words.split_first()?;
            let program = base_name(&first.text);
            words = match program {
                "if" | "then" | "elif" | "else" | "while" | "until" | "do" | "!" | "{" | "time"
                | "command" | "builtin" | "nohup" | "busybox" | "toybox" | "eatmydata" => rest,
                "exec" => skip_options(rest, &["-a"], 0),
                "nice" => skip_options(rest, &["-n", "--adjustment"], 0),
                "ionice" => skip_options(rest, &["-c", "-n", "--class", "--classdata"], 0),
                "stdbuf" => skip_options(rest, &["-i", "-o", "-e"], 0),
                "timeout" => skip_options(rest, &["-k", "-s", "--kill-after", "--signal"], 1),
                "gosu" | "su-exec" => skip_options(rest, &[], 1),
                "env" => skip_options(rest, &["-u", "--unset", "-C", "--chdir"], 0),
                "sudo" | "doas" => skip_options(
                    rest,
                    &[
                        "-u", "-g", "-h", "-p", "-C", "-r", "-t", "-U", "-D", "-R", "-T", "--user",
                        "--group",
                    ],
                    0,
                ),
                _ if is_assignment(&first.text) => rest,
                _ => return Some(Self { command, program, args: rest }),
            };
        }
    }

    fn is_shell(&self) -> bool {
        SHELLS.contains(&self.program)
    }

    /// Whether it takes what comes on its input for a script.
    fn runs_its_input(&self) -> bool {
        if self.is_shell() {
            return self.script_option().is_none() && {
                let reads =
                    self.args.iter().any(|word| is_short_with(&word.text, 's') || word.text == "-");
                let mut files =
                    positional(self.args, &["-o", "+o", "-O", "+O", "--rcfile", "--init-file"]);
                reads || files.all(|file| file == "/dev/stdin" || file.starts_with('+'))
            };
        }
        INTERPRETERS.contains(&self.program) && self.reads_program()
    }

    /// Whether an interpreter is told neither a program nor a file.
    fn reads_program(&self) -> bool {
        for word in self.args {
            match word.text.as_str() {
                "-" | "--" => return true,
                option if option.starts_with('-') => {
                    if option.starts_with("--eval")
                        || option.contains(['c', 'e', 'm', 'n', 'p', 'r'])
                    {
                        return false;
                    }
                }
                _ => return false,
            }
        }
        true
    }

    /// The word behind `-c`.
    fn script_option(&self) -> Option<&'a Word> {
        let at = self.args.iter().position(|word| is_short_with(&word.text, 'c'))?;
        self.args[at + 1..]
            .iter()
            .find(|word| !word.text.starts_with('-') || !word.scripts.is_empty())
    }

    /// Words whose content is run.
    fn executed_words(&self) -> &'a [Word] {
        match self.program {
            "eval" | "source" | "." => self.args,
            _ if self.is_shell() => match self.script_option() {
                Some(word) => std::slice::from_ref(word),
                None => self.args,
            },
            _ => &[],
        }
    }

    /// Texts that are scripts: behind `-c`, behind `eval`, and what a shell reads from a heredoc.
    fn scripts(&self) -> Vec<&'a str> {
        let mut scripts = Vec::new();
        if self.program == "eval" {
            scripts.extend(self.args.iter().map(|word| word.text.as_str()));
        }
        if self.is_shell() {
            scripts.extend(self.script_option().map(|word| word.text.as_str()));
            if self.runs_its_input() {
                scripts.extend(self.command.heredocs.iter().map(String::as_str));
            }
        }
        scripts
    }
}

/// The program that downloads a part of one of the words.
fn downloader(words: &[Word]) -> Option<&'static str> {
    let commands = words.iter().flat_map(|word| &word.scripts).flatten();
    commands
        .filter_map(Call::of)
        .find_map(|call| DOWNLOADERS.into_iter().find(|program| *program == call.program))
}

/// What is left behind options and the first `count` other words; variables for `env` go too.
fn skip_options<'a>(words: &'a [Word], valued: &[&str], count: usize) -> &'a [Word] {
    let (mut at, mut left) = (0, count);
    while let Some(word) = words.get(at) {
        if word.text.starts_with('-') {
            at += if valued.contains(&word.text.as_str()) { 2 } else { 1 };
        } else if left > 0 {
            left -= 1;
            at += 1;
        } else {
            break;
        }
    }
    words.get(at..).unwrap_or_default()
}

/// Whether a word is `NAME=value`.
fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let name = name.strip_suffix('+').unwrap_or(name);
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

/// Whether a word is a group of short options with this one among them.
fn is_short_with(word: &str, option: char) -> bool {
    word.strip_prefix('-')
        .is_some_and(|letters| !letters.starts_with('-') && letters.contains(option))
}

fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Whether removing `path` empties `folder`.
fn removes_content(path: &str, folder: &str) -> bool {
    alternatives(path).iter().any(|path| {
        // What a wildcard matches is in the folder before it.
        let fixed = path.split_once('*').map_or(path.as_str(), |(before, _)| {
            before.rsplit_once('/').map_or("", |(parent, _)| parent)
        });
        covers(fixed, folder)
    })
}

/// Whether `folder` is `path` or below it. The root does not count: nobody mounts or removes all of it.
fn covers(path: &str, folder: &str) -> bool {
    let path = path.trim_end_matches('/');
    let rest = folder.strip_prefix(path).filter(|_| !path.is_empty());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Most alternatives that a pair of braces is taken for.
const MOST_ALTERNATIVES: usize = 32;

/// What `a{b,c}d` stands for, for the first pair of braces.
fn alternatives(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(before, rest)| {
        let (inside, after) = rest.split_once('}')?;
        Some((before, inside, after))
    });
    match parts {
        Some((before, inside, after)) => inside
            .split(',')
            .take(MOST_ALTERNATIVES)
            .map(|part| format!("{before}{part}{after}"))
            .collect(),
        None => vec![path.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piped(script: &str) -> Option<String> {
        in_script(script, &[]).piped.map(|(from, to)| format!("{from} {to}"))
    }

    fn kept(script: &str) -> Vec<String> {
        in_script(script, &[]).kept.into_iter().map(|kept| kept.command).collect()
    }

    #[test]
    fn downloads_that_are_run_are_found() {
        for (script, expect) in [
            ("curl x | sh", "curl sh"),
            ("curl -fsSL https://x/y | sudo -E bash -", "curl bash"),
            ("wget -qO- x|/bin/bash -s -- --yes a b", "wget bash"),
            ("set -e; curl x \\\n  | tee log | gunzip | sh -x", "curl sh"),
            ("a && (curl x || wget y) | env A=b ash", "wget ash"),
            ("{ curl x; } | sh", "curl sh"),
            ("if true; then curl x | sh; fi", "curl sh"),
            ("curl x | python3 - --user", "curl python3"),
            ("curl x | python3", "curl python3"),
            ("curl x | php -- --install-dir=/bin", "curl php"),
            ("bash <(curl x)", "curl bash"),
            ("bash -o pipefail < <(curl x)", "curl bash"),
            ("sh -c \"$(curl -fsSL x)\"", "curl sh"),
            ("bash -ec 'curl x | sh'", "curl sh"),
            ("source <(wget -O - x)", "wget source"),
            (". <(curl x)", "curl ."),
            ("eval \"$(curl x)\"", "curl eval"),
            ("eval `curl x`", "curl eval"),
            ("bash <<< \"$(curl x)\"", "curl bash"),
            ("bash -e <<E\ncurl x | sh\nE", "curl sh"),
            ("X=$(curl x | sh)", "curl sh"),
            ("timeout 10 curl x | nice -n 5 bash", "curl bash"),
            ("curl x |\n  bash", "curl bash"),
        ] {
            assert_eq!(piped(script).as_deref(), Some(expect), "{script}");
        }
    }

    #[test]
    fn downloads_that_are_data_are_not() {
        for script in [
            "curl -o f x && sh f",
            "curl x > f; sh f",
            "curl x | tar xz",
            "curl x || sh f",
            "curl x | grep sh",
            "curl x | bash script.sh",
            "curl x | bash -c 'cat > f'",
            "curl x | python3 -c 'import sys'",
            "curl x | python3 -m json.tool",
            "curl x | perl -ne print",
            "curl x | jq .sh",
            "echo 'curl x | sh'",
            "echo \"curl x | sh\"",
            "# curl x | sh",
            "cat <<E > f\ncurl x | sh\nE",
            "echo curl | sh",
            "cat f | sh",
            "sh -c \"$(cat f)\"",
            "V=$(curl x) && echo $V",
            "while read l; do echo $l; done < <(curl x)",
            "curl x | sha256sum -c; cat f | sh",
            "apt-get install -y curl bash",
            "command -v curl && sh f",
        ] {
            assert_eq!(piped(script), None, "{script}");
        }
    }

    #[test]
    fn package_lists_that_stay_are_found() {
        for (script, expect) in [
            ("apt-get update && apt-get install -y x", "apt-get update"),
            ("apt update; apt-get clean", "apt update"),
            ("DEBIAN_FRONTEND=noninteractive sudo apt-get -qq -o A=b update", "apt-get update"),
            ("rm -rf /var/lib/apt/lists/* && apt-get update", "apt-get update"),
            (
                "apt-get update && rm -rf /tmp/* /var/lib/apt/listsx /var/cache/apt",
                "apt-get update",
            ),
            ("bash -c 'apt-get update'", "apt-get update"),
            ("apk add curl", "apk add"),
            ("apk -X https://x/y -U add curl && rm -rf /tmp", "apk add"),
            ("apk update", "apk update"),
            ("yum -y install x", "yum install"),
            ("dnf --setopt install_weak_deps=0 -y upgrade", "dnf upgrade"),
            ("microdnf install x; rm -rf /var/cache/apk", "microdnf install"),
        ] {
            assert_eq!(kept(script), [expect], "{script}");
        }
        assert_eq!(kept("apt-get update; apk add x; yum install x").len(), 3);
    }

    #[test]
    fn package_lists_that_go_are_not() {
        for script in [
            "apt-get update && apt-get install -y x && rm -rf /var/lib/apt/lists/*",
            "apt-get update; rm -rf /var/lib/apt",
            "apt-get update; rm -r /tmp/x \"/var/lib/apt/lists/\"",
            "apt-get update; rm -rf /var/lib/{apt,dpkg,cache}/lists",
            "apt-get update; rm -rf /var/lib/apt/lists/*_*",
            "apt-get update; find /var/lib/apt/lists -type f -delete",
            "apt-get update; apt-get distclean",
            "apt-get install -y x",
            "echo apt-get update",
            "apt-get --help",
            "apk add --no-cache x",
            "apk --no-cache add x",
            "apk add x && rm -rf /var/cache/apk/*",
            "apk del x",
            "apk info",
            "yum install -y x && yum clean all",
            "dnf -y install x; rm -rf /var/cache/dnf",
            "dnf --installroot=/mnt install x",
            "yum list",
        ] {
            assert_eq!(kept(script), [""; 0], "{script}");
        }
    }

    #[test]
    fn what_is_in_a_mount_does_not_stay() {
        let kept = |script, mounts: &[&str]| in_script(script, mounts).kept.len();
        for mount in ["/var/lib/apt", "/var/lib/apt/lists", "/var/lib/apt/lists/", "/var"] {
            assert_eq!(kept("apt-get update", &[mount]), 0, "{mount}");
        }
        for mount in ["/", "/var/cache/apt", "/var/lib/ap", "/var/lib/apt/lists/partial"] {
            assert_eq!(kept("apt-get update", &[mount]), 1, "{mount}");
        }
        assert_eq!(kept("apk add x", &["/etc/apk/cache"]), 0);
        assert_eq!(kept("dnf install x", &["/var/cache/dnf"]), 0);
    }

    #[test]
    fn json_forms_are_commands_too() {
        let args = |args: &[&str]| args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>();
        assert_eq!(in_args(&args(&["apt-get", "update"]), &[]).kept.len(), 1);
        assert!(in_args(&args(&["/bin/bash", "-c", "curl x | sh"]), &[]).piped.is_some());
        assert_eq!(in_args(&args(&["echo", "curl x | sh"]), &[]), Facts::default());
        assert_eq!(in_args(&[], &[]), Facts::default());
    }

    #[test]
    fn deep_nesting_ends() {
        let mut script = "curl x | sh".to_owned();
        for _ in 0..6 {
            script = format!("sh -c '{}'", script.replace('\'', "'\\''"));
        }
        in_script(&script, &[]);
        in_script(&"curl|sh|".repeat(10_000), &[]);
    }

    /// Scripts put together at random from what matters to the parser: nothing panics or hangs.
    #[test]
    fn any_script_has_facts() {
        const PARTS: [&str; 40] = [
            "curl", "sh", "bash", "eval", "apt-get", "update", "rm", "-c", "-", "x", " ", " ", " ",
            "\n", "|", "||", "&", "&&", ";", "(", ")", "{", "}", "$(", "$((", "${", "`", "'", "\"",
            "\\", "<", "<<", "<<<", "<(", ">", "#", "=", "EOF", "env ", "sudo ",
        ];
        let mut state = 88_172_645_463_325_252_u64;
        for _ in 0..20_000 {
            let mut script = String::new();
            for _ in 0..40 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                script += PARTS[(state >> 32) as usize % PARTS.len()];
            }
            let facts = in_script(&script, &["/var/lib/apt"]);
            assert!(facts.kept.iter().all(|kept| !kept.command.starts_with("apt-get")), "{script}");
        }
    }
}
