//! A file system whose files can share bytes: what is copied there takes nothing more.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Place, can_run, has};

/// Bytes of the file that is copied.
const LARGE: u64 = 48 << 20;

/// A file system in a file, unmounted with the test.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

fn done(program: &str, words: &[&Path]) {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Disk {
    /// Makes one of Btrfs, which may be smaller than one of XFS.
    fn mount(place: &Place) -> Self {
        let (image, at) = (place.path("disk.img"), place.path("disk"));
        fs_err::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        done("mkfs.btrfs", &[Path::new("-q"), &image]);
        fs_err::create_dir(&at).unwrap();
        done("mount", &[Path::new("-oloop"), &image, &at]);
        Self(at)
    }

    /// Bytes in use, once all is on the disk.
    fn used(&self) -> u64 {
        done("sync", &[Path::new("-f"), &self.0]);
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

/// Builds with contexts and state on the disk, and checks that large files were not written once more.
#[track_caller]
fn check(isolation: &str, dockerfile: &str) {
    if !can_run() || !has("mkfs.btrfs") {
        return;
    }
    let place = Place::new(&[("Dockerfile", dockerfile)]);
    let disk = Disk::mount(&place);
    // Bytes that no file system makes smaller.
    let mut state = 1u64;
    let random = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    });
    let context = disk.0.join("ctx");
    fs_err::create_dir(&context).unwrap();
    fs_err::write(context.join("large"), random.take(LARGE as usize).collect::<Vec<u8>>()).unwrap();
    fs_err::copy(place.path("ctx/Dockerfile"), context.join("Dockerfile")).unwrap();
    let before = disk.used();
    let images = support::repository().join("testdata/conformance/images");
    let base = format!("--build-context=busybox=oci-layout://{}/busybox:latest", images.display());
    let mut command = place.command(&["--isolation", isolation, "--progress=plain", &base]);
    command.arg(&context).env("BRICKLAYER_ROOT", disk.0.join("state"));
    let ran = place.ran(command.output().unwrap()).ok();
    let grown = disk.used() - before;
    assert!(grown < LARGE / 2, "{isolation}: {grown} bytes more\n{}", ran.stderr);
}

#[test]
fn copies_of_the_context_and_of_stages_share_bytes() {
    let dockerfile = "FROM busybox AS a\nCOPY large /large\nRUN true\nFROM busybox\n\
                      COPY --from=a /large /again\nRUN cmp /again /again && touch /done\n";
    check("root", dockerfile);
}

#[test]
fn working_trees_share_bytes_with_layers() {
    let dockerfile = "FROM busybox\nCOPY large /large\nRUN touch /one\nRUN touch /two\n\
                      FROM busybox\nCOPY --from=0 /large /again\nRUN touch /three\n";
    check("chroot", dockerfile);
}
