//! Builds whose state lies where the kernel makes no overlays.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use support::{Place, can_run};

const DOCKERFILE: &str = "\
FROM busybox AS tools
RUN mkdir -p /t/sub && echo tool > /t/sub/tool && ln /t/sub/tool /t/second
RUN rm /t/second && echo more > /t/more
FROM busybox
COPY a /d/a
COPY a /d/same
RUN mkdir -p /r/in /all && echo 1 > /r/in/f && echo 2 > /all/x && echo 3 > /all/y && ln /all/y /all/z
RUN rm -r /r && mkdir /r && echo new > /r/g && rm /all/* && chmod 700 /d && chown 3:4 /d/a
COPY a /r/later
RUN --mount=type=cache,target=/c echo kept >> /c/n && cp /c/n /r/n
RUN --mount=type=bind,from=tools,target=/m,rw echo x > /m/t/written && cat /m/t/sub/tool > /r/tool
RUN --mount=type=bind,from=tools,source=/t,target=/m cat /m/sub/tool /m/more > /r/both && test ! -e /m/second
RUN rm -r /d && echo file > /d && mkfifo /p && ln -s ../../etc /l && rm -r /bin/arp
WORKDIR /w/x
RUN echo $PWD > here && test ! -e /m/t
";

/// An overlay file system at a folder, gone when dropped.
struct Overlay(PathBuf);

impl Overlay {
    /// Mounts one whose folders are beside `at`; prints why not.
    fn mount(at: &Path) -> Option<Self> {
        let folder = |name: &str| {
            let path = at.with_extension(name);
            fs::create_dir(&path).unwrap();
            path.display().to_string()
        };
        fs::create_dir(at).unwrap();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            folder("lower"),
            folder("upper"),
            folder("work")
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(at);
        if !mount.status().is_ok_and(|status| status.success()) {
            println!("SKIP: cannot mount an overlay here");
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Every entry of every layer of an image, without its time.
fn layers(place: &Place) -> Vec<String> {
    let unpacked = place.path("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(place.path("image.tar")).current_dir(&unpacked);
    assert!(tar.status().unwrap().success());
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(unpacked.join("manifest.json")).unwrap()).unwrap();
    let mut lines = Vec::new();
    for (number, layer) in manifest[0]["Layers"].as_array().unwrap().iter().enumerate() {
        let layer = fs::File::open(unpacked.join(layer.as_str().unwrap())).unwrap();
        let mut reader = tree::tar::Reader::new(tree::codec::decompress(Box::new(layer)).unwrap());
        while let Some(entry) = reader.next_entry().unwrap() {
            lines.push(format!(
                "{number} {:?} {} {:o} {}:{} {} {}",
                entry.kind,
                String::from_utf8_lossy(&entry.path),
                entry.mode,
                entry.uid,
                entry.gid,
                entry.size,
                String::from_utf8_lossy(&entry.link)
            ));
        }
    }
    lines
}

#[test]
fn a_state_on_an_overlay_builds_the_same_image_with_one_warning() {
    if !can_run() {
        return;
    }
    let files = [("Dockerfile", DOCKERFILE), ("a", "text\n")];
    let usual = Place::new(&files);
    let output = ["--progress=plain", "-o", "type=docker,dest=image.tar,compression=uncompressed"];
    let ran = usual.build(&output).ok();
    assert!(!ran.stderr.contains("WARNING"), "{}", ran.stderr);
    let wanted = layers(&usual);

    let place = Place::new(&files);
    let Some(_mounted) = Overlay::mount(&place.path("state")) else { return };
    let ran = place.build(&output).ok();
    let warnings = ran.stderr.matches("cannot be used for overlays").count();
    assert_eq!(warnings, 1, "{}", ran.stderr);
    assert_eq!(layers(&place), wanted);
    let again = place.build(&output).ok();
    assert!(!again.stderr.contains("cannot be used for overlays"), "{}", again.stderr);
}
