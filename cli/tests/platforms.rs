//! Several platforms, other platforms than the machine's, and emulators.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Place, can_run, has};

/// A Linux program: ELF with one segment, loaded at 4 MiB.
fn program(is_64_bit: bool, machine: u16, code: &[u8]) -> Vec<u8> {
    let word = |value: u32| -> Vec<u8> {
        if is_64_bit { u64::from(value).to_le_bytes().into() } else { value.to_le_bytes().into() }
    };
    let (header, segment): (u16, u16) = if is_64_bit { (64, 56) } else { (52, 32) };
    let start = u32::from(header + segment);
    let size = start + u32::try_from(code.len()).unwrap();
    let (class, flags) = if is_64_bit { (2, &[5_u32][..]) } else { (1, &[][..]) };
    let mut bytes = [b"\x7fELF".as_slice(), &[class, 1, 1], &[0; 9]].concat();
    bytes.extend([2_u16.to_le_bytes(), machine.to_le_bytes()].concat());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([word(0x40_0000 + start), word(header.into()), word(0)].concat());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([header, segment, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(flags.iter().flat_map(|flags| flags.to_le_bytes()));
    bytes.extend([0, 0x40_0000, 0x40_0000, size, size].map(word).concat());
    if !is_64_bit {
        bytes.extend(5_u32.to_le_bytes());
    }
    bytes.extend(word(0x1_0000));
    bytes.extend(code);
    bytes
}

/// A program for arm64 that writes `hello from arm64` and ends.
fn arm64_program() -> Vec<u8> {
    let text = b"hello from arm64\n";
    let instructions: [u32; 8] = [
        0xd280_0020,                            // mov x0, #1
        0x1000_00e1,                            // adr x1, text
        0xd280_0002 | (text.len() as u32) << 5, // mov x2, #length
        0xd280_0808,                            // mov x8, #64: write
        0xd400_0001,                            // svc #0
        0xd280_0000,                            // mov x0, #0
        0xd280_0ba8,                            // mov x8, #93: exit
        0xd400_0001,                            // svc #0
    ];
    let code = instructions.map(u32::to_le_bytes).concat();
    program(true, 183, &[&code, text.as_slice()].concat())
}

/// A program for i386 that writes `hello from 386` and ends.
fn i386_program() -> Vec<u8> {
    let text = b"hello from 386\n";
    let code_size = 4 * 5 + 2 + 5 + 2 + 2;
    let address = 0x40_0000_u32 + 52 + 32 + code_size;
    let move_to = |opcode: u8, value: u32| [&[opcode][..], &value.to_le_bytes()].concat();
    let code = [
        move_to(0xb8, 4),                 // mov eax, 4: write
        move_to(0xbb, 1),                 // mov ebx, 1
        move_to(0xb9, address),           // mov ecx, text
        move_to(0xba, text.len() as u32), // mov edx, length
        vec![0xcd, 0x80],                 // int 0x80
        move_to(0xb8, 1),                 // mov eax, 1: exit
        vec![0x31, 0xdb, 0xcd, 0x80],     // xor ebx, ebx; int 0x80
        text.to_vec(),
    ];
    program(false, 3, &code.concat())
}

/// An emulator registered with the kernel for this test alone, taken away in the end.
struct Registration {
    mount: PathBuf,
    name: String,
}

impl Registration {
    /// Registers `interpreter` for programs of a machine, with these flags.
    fn new(place: &Place, machine: u8, interpreter: &Path, flags: &str) -> Option<Self> {
        let mount = place.path("binfmt");
        fs_err::create_dir_all(&mount).unwrap();
        let flags_of_mount = rustix::mount::MountFlags::empty();
        if let Err(error) =
            rustix::mount::mount("binfmt_misc", &mount, "binfmt_misc", flags_of_mount, None)
        {
            println!("SKIP: binfmt_misc cannot be mounted: {error}");
            return None;
        }
        let name = format!("test-{machine}-{}", std::process::id());
        let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00";
        let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff";
        let line = format!(
            r":{name}:M::{magic}\x{machine:02x}\x00:{mask}\xff\xff:{}:{flags}",
            interpreter.display()
        );
        fs_err::write(mount.join("register"), line).unwrap();
        Some(Self { mount, name })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _ = fs_err::write(self.mount.join(&self.name), "-1");
        let _ = rustix::mount::unmount(&self.mount, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Writes an OCI layout with an index of images without layers: platform and further config of each.
fn layout(folder: &Path, images: &[(&str, &str, Value)]) {
    let blobs = folder.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, value: &Value| {
        let bytes = serde_json::to_vec(value).unwrap();
        let digest = llb::Digest::of(&bytes);
        fs_err::write(blobs.join(digest.hex()), &bytes).unwrap();
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}.v1+json"),
            "digest": digest.to_string(), "size": bytes.len(),
        })
    };
    let manifests: Vec<Value> = images
        .iter()
        .map(|(architecture, variant, config)| {
            let mut config = config.clone();
            config["os"] = json!("linux");
            config["architecture"] = json!(architecture);
            config["variant"] = json!(variant);
            config["rootfs"] = json!({"type": "layers", "diff_ids": []});
            let config = put("config", &config);
            let mut manifest =
                put("manifest", &json!({"schemaVersion": 2, "config": config, "layers": []}));
            manifest["platform"] = json!({"os": "linux", "architecture": architecture});
            manifest
        })
        .collect();
    let index = put("index", &json!({"schemaVersion": 2, "manifests": manifests}));
    let top = json!({"schemaVersion": 2, "manifests": [index]});
    fs_err::write(folder.join("index.json"), top.to_string()).unwrap();
    fs_err::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// How many vertices of this name ran: `#5 name` in the plain progress, again when it goes on.
fn count(stderr: &str, name: &str) -> usize {
    let headers = stderr.lines().filter_map(|line| line.strip_prefix('#')?.split_once(' '));
    let numbers = headers.filter(|(_, title)| *title == name).map(|(number, _)| number);
    numbers.collect::<std::collections::BTreeSet<_>>().len()
}

/// The document of an OCI layout folder with this digest.
fn document(layout: &Path, digest: &Value) -> Value {
    let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
    serde_json::from_slice(&fs_err::read(layout.join("blobs/sha256").join(hex)).unwrap()).unwrap()
}

#[test]
fn several_platforms_make_an_index_and_shared_stages_run_once() {
    if !can_run() {
        return;
    }
    let dockerfile = "FROM --platform=$BUILDPLATFORM busybox AS tools\n\
                      RUN echo shared > /shared\n\
                      FROM --platform=$BUILDPLATFORM busybox AS cross\n\
                      ARG BUILDPLATFORM TARGETPLATFORM TARGETARCH\n\
                      RUN echo $BUILDPLATFORM makes $TARGETPLATFORM > /for\n\
                      FROM scratch AS files\n\
                      COPY file /file\n\
                      FROM scratch\n\
                      COPY --from=tools /shared /shared\n\
                      COPY --from=cross /for /for\n\
                      COPY --from=files / /\n";
    let place = Place::new(&[("Dockerfile", dockerfile), ("file", "x")]);
    let words = ["--progress=plain", "--platform=linux/amd64,linux/arm64"];
    let out = place.path("out").display().to_string();
    let output = format!("--output=type=oci,tar=false,dest={out}");
    let ran = place.build(&[words[0], words[1], &output]).ok();
    // What does not depend on the platform is one vertex, whatever is built of it.
    for (name, times) in [
        ("[linux/amd64 tools 1/2] RUN echo shared > /shared", 1),
        ("[linux/amd64 cross 1/2] RUN echo linux/amd64 makes linux/amd64 > /for", 1),
        ("[linux/amd64->arm64 cross 1/2] RUN echo linux/amd64 makes linux/arm64 > /for", 1),
        ("[linux/amd64 files 1/1] COPY file /file", 1),
        ("[linux/arm64 files 1/1] COPY file /file", 0),
        ("[linux/amd64 stage-3 1/3] COPY --from=tools /shared /shared", 1),
        ("[linux/arm64 stage-3 1/3] COPY --from=tools /shared /shared", 0),
        ("[linux/amd64 stage-3 2/3] COPY --from=cross /for /for", 1),
        ("[linux/arm64 stage-3 2/3] COPY --from=cross /for /for", 1),
    ] {
        assert_eq!(count(&ran.stderr, name), times, "{name}\n{}", ran.stderr);
    }

    let layout = Path::new(&out);
    let index: Value =
        serde_json::from_slice(&fs_err::read(layout.join("index.json")).unwrap()).unwrap();
    let inner = document(layout, &index["manifests"][0]["digest"]);
    let architectures: Vec<&Value> = inner["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| &manifest["platform"]["architecture"])
        .collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    for (manifest, architecture) in
        inner["manifests"].as_array().unwrap().iter().zip(["amd64", "arm64"])
    {
        let manifest = document(layout, &manifest["digest"]);
        let config = document(layout, &manifest["config"]["digest"]);
        assert_eq!(config["architecture"], architecture);
    }

    let folder = place.path("files").display().to_string();
    place.build(&[words[1], &format!("--output={folder}")]).ok();
    let read = |path: &str| fs_err::read_to_string(place.path("files").join(path)).unwrap();
    assert_eq!(read("linux_amd64/for"), "linux/amd64 makes linux/amd64\n");
    assert_eq!(read("linux_arm64/for"), "linux/amd64 makes linux/arm64\n");
}

#[test]
fn a_foreign_step_without_an_emulator_says_what_to_install() {
    if !can_run() {
        return;
    }
    if sandbox::runs("mips64le") == Some(true) {
        println!("SKIP: this machine emulates mips64le");
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY prog /prog\nRUN [\"/prog\"]\n")]);
    fs_err::write(place.path("ctx/prog"), program(true, 8, b"")).unwrap();
    executable(&place.path("ctx/prog"));
    let ran = place.build(&["--progress=plain", "--platform=linux/mips64le"]);
    assert_eq!(
        ran.report().trim_end(),
        r#"
exit 1
------
 > [2/2] RUN ["/prog"]:
unable to start container process: exec: "/prog": exec format error
------
Dockerfile:3
--------------------
   1 |     FROM scratch
   2 |     COPY prog /prog
   3 | >>> RUN ["/prog"]
   4 |     
--------------------
ERROR: failed to solve: process "/prog" did not complete successfully: exit code: 1: exec: "/prog": exec format error: the step is for linux/mips64le, this machine is linux/amd64, and emulation of linux/mips64le is missing
  help: install an emulator: `apt-get install qemu-user-static binfmt-support` on Debian and Ubuntu, or `docker run --privileged --rm tonistiigi/binfmt --install mips64le`
"#
        .trim()
    );
}

fn executable(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(path, mode).unwrap();
}

#[test]
fn a_foreign_step_runs_with_an_emulator_and_its_images_are_found() {
    if !can_run() || !has("qemu-aarch64-static") {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM base\nCOPY prog /prog\nRUN [\"/prog\"]\n")]);
    fs_err::write(place.path("ctx/prog"), arm64_program()).unwrap();
    executable(&place.path("ctx/prog"));
    layout(&place.path("base"), &[("arm64", "", json!({"config": {"Env": ["FROM=arm64"]}}))]);
    let context = format!("--build-context=base=oci-layout://{}", place.path("base").display());
    let build = || place.build(&["--progress=plain", "--no-cache", "-t=app", &context]);
    if sandbox::runs("arm64") == Some(false) {
        let report = build().report();
        let expect = "ERROR: failed to solve: failed to resolve source metadata for base: no image for platform \
                      `linux/amd64`, there are `linux/arm64`\n  help: choose one of these with --platform, \
                      or with FROM --platform=... for one stage";
        assert!(report.contains(expect), "{report}");
    }
    let emulator = Path::new("/usr/bin/qemu-aarch64-static");
    let Some(registration) = Registration::new(&place, 183, emulator, "F") else { return };
    assert_eq!(sandbox::runs("arm64"), Some(true));
    // The only image that there is is for a platform that runs here, so it is taken.
    let ran = build().ok();
    assert!(ran.stderr.contains(" hello from arm64\n"), "{}", ran.stderr);
    let config = place.run(&["inspect", "app"]).ok().stdout;
    assert!(config.contains("\"architecture\": \"arm64\""), "{config}");
    drop(registration);
}

#[test]
fn an_emulator_that_steps_do_not_see_is_told_from_none() {
    if !can_run() || !has("qemu-riscv64-static") {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY prog /prog\nRUN [\"/prog\"]\n")]);
    fs_err::write(place.path("ctx/prog"), program(true, 243, b"")).unwrap();
    executable(&place.path("ctx/prog"));
    let emulator = Path::new("/usr/bin/qemu-riscv64-static");
    let Some(registration) = Registration::new(&place, 243, emulator, "") else { return };
    let ran = place.build(&["--progress=plain", "--platform=linux/riscv64"]);
    drop(registration);
    let report = ran.report();
    assert!(
        report.contains("the emulator for linux/riscv64 is not found inside the step"),
        "{report}"
    );
    assert!(report.contains("help: it is registered without the flag F"), "{report}");
}

#[test]
fn programs_for_386_run_on_amd64() {
    if !can_run() {
        return;
    }
    if sandbox::runs("386") != Some(true) {
        println!("SKIP: the kernel runs no programs for 386");
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY prog /prog\nRUN [\"/prog\"]\n")]);
    fs_err::write(place.path("ctx/prog"), i386_program()).unwrap();
    executable(&place.path("ctx/prog"));
    let ran = place.build(&["--progress=plain", "--platform=linux/386"]).ok();
    assert!(ran.stderr.contains(" hello from 386\n"), "{}", ran.stderr);
}

#[test]
fn results_for_another_platform_are_warned_about() {
    let place = Place::new(&[("Dockerfile", "FROM base\nLABEL a=b\n")]);
    layout(&place.path("base"), &[("amd64", "v2", json!({}))]);
    let context = format!("--build-context=base=oci-layout://{}", place.path("base").display());
    let ran = place.build(&["--progress=plain", "--platform=linux/amd64", &context]).ok();
    assert!(
        ran.stderr.ends_with(
            "\nWARNING: Requested platform \"linux/amd64\" does not match result platform \
             \"linux/amd64/v2\"\n"
        ),
        "{}",
        ran.stderr
    );
}
