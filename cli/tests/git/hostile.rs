//! Repositories that mean harm.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use fs_err as fs;

use super::server::{Repository, git};
use super::{Fixture, listing};

/// A folder outside everything, which must stay as it is.
struct Outside(std::path::PathBuf);

impl Outside {
    fn new(fixture: &Fixture) -> Self {
        let folder = fixture.place.path("outside");
        fs::create_dir_all(folder.join("b")).unwrap();
        fs::write(folder.join("secret"), "not for anyone").unwrap();
        Self(folder)
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let expect = "b/ 755 0:0\nsecret 644 0:0 \"not for anyone\"";
        assert_eq!(listing(&self.0), expect);
    }
}

#[test]
fn a_part_of_a_tree_is_not_reached_through_a_symlink() {
    let fixture = Fixture::new();
    let outside = Outside::new(&fixture);
    let repository = fixture.repository("r", &[("real/x", "x")]);
    for (name, target) in [
        ("etc", "/etc"),
        ("out", outside.0.to_str().unwrap()),
        ("up", "../../../../../../etc"),
        ("inside", "real"),
        ("real/deep", "/etc"),
    ] {
        symlink(target, repository.tree.join(name)).unwrap();
    }
    repository.commit(&[]);
    for (subdir, symlink) in [
        ("etc", "etc"),
        ("etc/ssl", "etc"),
        ("out", "out"),
        ("out/b", "out"),
        ("up", "up"),
        ("inside", "inside"),
        ("real/deep", "real/deep"),
        ("real/../etc", "etc"),
    ] {
        let ran = fixture.build(&format!("ADD {{}}/r.git#:{subdir} /s"), &[]);
        let told = format!("`{symlink}` is a symlink");
        assert!(ran.code == Some(1) && ran.stderr.contains(&told), "{subdir}: {}", ran.stderr);
    }
    for subdir in ["..", "../outside", "real/../../outside", "%2e%2e/outside"] {
        let ran = fixture.build(&format!("ADD {{}}/r.git#:{subdir} /s"), &[]);
        assert!(
            ran.code == Some(1) && ran.stderr.contains("leads out of the repository"),
            "{}",
            ran.stderr
        );
    }
    // A link that a step names is followed in the tree of the repository, and nowhere else.
    let ran = fixture.build("ADD {}/r.git /s\nFROM scratch\nCOPY --from=0 /s/out/secret /t", &[]);
    assert!(ran.code == Some(1) && ran.stderr.contains("not found"), "{}", ran.stderr);
    outside.assert_untouched();
}

#[test]
fn nothing_that_settings_say_is_run() {
    let fixture = Fixture::new();
    let pwned = fixture.place.path("pwned");
    let touch = format!("touch {}", pwned.display());
    let repository =
        fixture.repository("r", &[(".gitattributes", "* filter=evil diff=evil\n"), ("a", "1")]);
    // Hooks and settings of the repository that is served stay there; those of the user are for the user.
    for hook in ["post-checkout", "post-merge", "reference-transaction", "post-index-change"] {
        let path = repository.bare.join("hooks").join(hook);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{touch}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let hooks = repository.bare.join("hooks");
    let home = fixture.place.path("home");
    fs::create_dir_all(home.join("template/hooks")).unwrap();
    fs::copy(hooks.join("post-checkout"), home.join("template/hooks/post-checkout")).unwrap();
    let config = format!(
        "[core]\n\thooksPath = {hooks}\n\tfsmonitor = {touch}\n\tsshCommand = {touch}\n[filter \"evil\"]\n\tsmudge = {touch}; cat\n\tprocess = {touch}\n[init]\n\ttemplateDir = {home}/template\n[credential]\n\thelper = !{touch}\n[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = http://\n[alias]\n\tfetch = !{touch}\n",
        hooks = hooks.display(),
        home = home.display(),
    );
    fs::write(home.join(".gitconfig"), config).unwrap();
    for text in ["ADD {}/r.git /s", "ADD --keep-git-dir {}/r.git /s"] {
        let text = text.replace("{}", fixture.server.url("").trim_end_matches('/'));
        fixture.place.write("Dockerfile", &format!("FROM scratch\n{text}\n"));
        let mut build = fixture.place.command(&["-o", "out", "ctx"]);
        build
            .env("HOME", &home)
            .env("GIT_TEMPLATE_DIR", home.join("template"))
            .env("GIT_CONFIG_GLOBAL", home.join(".gitconfig"))
            .env("GIT_CONFIG_PARAMETERS", format!("'core.hooksPath={}'", hooks.display()))
            .env("GIT_SSH_COMMAND", &touch)
            .env("GIT_PROXY_COMMAND", &touch)
            .env("GIT_ASKPASS", &touch)
            .env("GIT_EXEC_PATH", home.join("template/hooks"))
            .env("GIT_DIR", &repository.bare);
        fixture.place.ran(build.output().unwrap()).ok();
    }
    assert!(!fixture.place.path("out/s/.git/hooks").exists());
    assert!(!pwned.exists(), "something was run");
}

#[test]
fn submodules_lead_nowhere_but_to_repositories() {
    let fixture = Fixture::new();
    let outside = Outside::new(&fixture);
    let pwned = fixture.place.path("pwned");
    let local =
        Repository::new(&fixture.place.path("outside-repositories"), "x", &[("a", "local")]);
    let commit = local.git(&["rev-parse", "HEAD"]);
    let top = fixture.repository("top", &[("t", "t")]);
    top.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
    top.git(&["commit", "--quiet", "--message=sub"]);
    let touch = format!("touch {}", pwned.display());
    let check = |modules: &str, told: &str| {
        fs::write(top.tree.join(".gitmodules"), modules).unwrap();
        top.git(&["add", ".gitmodules"]);
        top.git(&["commit", "--quiet", "--allow-empty", "--message=modules"]);
        top.publish();
        let ran = fixture.build("ADD {}/top.git /s", &[]);
        assert!(ran.code == Some(1) && ran.stderr.contains(told), "{modules}:\n{}", ran.stderr);
        assert!(ran.stderr.contains("submodules=false"), "{}", ran.stderr);
    };
    let with = |url: &str| format!("[submodule \"sub\"]\n\tpath = sub\n\turl = \"{url}\"\n");
    for url in [
        local.bare.to_str().unwrap(),
        &format!("file://{}", local.bare.display()),
        &format!("ext::sh -c {}", touch.replace(' ', "% ")),
        &format!("-u{touch}"),
        "--upload-pack=touch",
        "ssh://-oProxyCommand=touch/x",
        "git@-oProxyCommand=x:y",
        "../../../../etc",
        "fd::17",
    ] {
        check(&with(url), "submodule `sub` has the address");
    }
    check("", "no url found for submodule path `sub` in .gitmodules");
    check(
        "[submodule \"../../hooks\"]\n\tpath = sub\n\turl = ../top.git\n",
        "no url found for submodule path `sub`",
    );
    check("[submodule \"sub\"]\n\tpath = sub\n", "no url found for submodule path `sub`");
    // What is to be run for an update is not.
    let url = fixture.repository("lib", &[("a", "lib")]);
    let lib = url.git(&["rev-parse", "HEAD"]);
    top.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{lib},sub")]);
    let modules =
        format!("[submodule \"sub\"]\n\tpath = sub\n\turl = ../lib.git\n\tupdate = \"!{touch}\"\n");
    fs::write(top.tree.join(".gitmodules"), modules).unwrap();
    top.git(&["add", ".gitmodules"]);
    top.git(&["commit", "--quiet", "--message=modules"]);
    top.publish();
    assert!(fixture.built("ADD {}/top.git /s").contains("s/sub/a 644 0:0 \"lib\""));
    assert!(!pwned.exists(), "something was run");
    outside.assert_untouched();
}

/// Adds an object that git itself would not make.
fn object(repository: &Path, kind: &str, bytes: &[u8]) -> String {
    let mut command = Command::new("git");
    command
        .args(["hash-object", "-w", "--literally", "-t", kind, "--stdin"])
        .current_dir(repository);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A tree with these entries: mode, name, object.
fn tree(repository: &Path, entries: &[(&str, &str, &str)]) -> String {
    let mut bytes = Vec::new();
    for (mode, name, object) in entries {
        bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        let digit = |at: usize| u8::from_str_radix(&object[at..at + 2], 16).unwrap();
        bytes.extend((0..object.len()).step_by(2).map(digit));
    }
    object_of_tree(repository, &bytes)
}

fn object_of_tree(repository: &Path, bytes: &[u8]) -> String {
    object(repository, "tree", bytes)
}

#[test]
fn trees_that_git_would_not_make_stay_in_their_place() {
    let fixture = Fixture::new();
    let outside = Outside::new(&fixture);
    let repository = fixture.repository("r", &[("a", "1")]);
    let bare = &repository.bare;
    let file = object(bare, "blob", b"#!/bin/sh\nexit 0\n");
    let link = object(bare, "blob", outside.0.to_str().unwrap().as_bytes());
    let folder = tree(bare, &[("100755", "post-checkout", &file)]);
    let hooks = tree(bare, &[("40000", "hooks", &folder)]);
    let commit_of_lib = repository.git(&["rev-parse", "HEAD"]);
    let gitlink = tree(bare, &[("160000", "b", &commit_of_lib)]);
    let modules = object(bare, "blob", b"[submodule \"b\"]\n\tpath = a/b\n\turl = ../r.git\n");
    for (name, entries) in [
        ("dot-git", vec![("40000", ".git", hooks.as_str())]),
        ("dot-git-case", vec![("40000", ".GIT", &hooks)]),
        ("dot-dot", vec![("40000", "..", &folder)]),
        ("slash", vec![("100644", "../../outside/new", &file)]),
        ("absolute", vec![("100644", "/tmp/bricklayer-must-not-be", &file)]),
        ("twice", vec![("120000", "a", &link), ("40000", "a", &folder)]),
        (
            "twice-module",
            vec![
                ("100644", ".gitmodules", &modules),
                ("120000", "a", &link),
                ("40000", "a", &gitlink),
            ],
        ),
    ] {
        let tree = tree(bare, &entries);
        let commit = git(bare, &["commit-tree", "-m", "x", &tree]);
        git(bare, &["update-ref", &format!("refs/heads/{name}"), &commit]);
        // Of two entries of one name git keeps the folder.
        let expect = if name.starts_with("twice") { 0 } else { 1 };
        for flag in ["", "--keep-git-dir "] {
            let ran = fixture.build(&format!("ADD {flag}{{}}/r.git#{name} /s"), &[]);
            assert_eq!(ran.code, Some(expect), "{name}: {}", ran.stderr);
            assert!(expect == 0 || ran.stderr.contains(": invalid path '"), "{}", ran.stderr);
            outside.assert_untouched();
        }
    }
    assert!(!Path::new("/tmp/bricklayer-must-not-be").exists());
    assert_eq!(fixture.built("ADD {}/r.git#main /s"), "s/ 755 0:0\ns/a 644 0:0 \"1\"");
}

#[test]
fn names_are_only_names() {
    let fixture = Fixture::new();
    let repository = fixture
        .repository("r", &[("a", "1"), ("d/.wh.a", "w"), ("d/.wh..wh..opq", "o"), ("-x", "x")]);
    let commit = repository.git(&["rev-parse", "HEAD"]);
    git(&repository.bare, &["update-ref", "refs/heads/-x", &commit]);
    let expect = "s/ 755 0:0\ns/-x 644 0:0 \"x\"\ns/a 644 0:0 \"1\"\ns/d/ 755 0:0\ns/d/.wh..wh..opq 644 0:0 \"o\"\ns/d/.wh.a 644 0:0 \"w\"";
    assert_eq!(fixture.built("ADD {}/r.git /s"), expect);
    assert_eq!(fixture.built("ADD {}/r.git#refs/heads/-x /s"), expect);
    for reference in
        ["-x", "--upload-pack=touch", "-u", "main^", "main:a:b", "@{-1}", "main..x", "*"]
    {
        let ran = fixture.build(&format!("ADD {{}}/r.git?ref={reference} /s"), &[]);
        assert!(
            ran.code == Some(1) && ran.stderr.contains("invalid ref "),
            "{reference}: {}",
            ran.stderr
        );
    }
    for url in ["ssh://-oProxyCommand=x/r.git", "git://-x/r.git", "git@h:--x", "https://-x/r.git"] {
        let ran = fixture.build(&format!("ADD {url} /s"), &[]);
        assert!(
            ran.code == Some(1) && ran.stderr.contains(" in a git URL"),
            "{url}: {}",
            ran.stderr
        );
    }
}
