//! `cargo xtask demo`: builds the multi-stage demo of `testdata/demo`, twice, and exports it.
//!
//! Offline: the base image is the busybox layout of the conformance kit.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::shell::{as_root, run};

/// Builds the demo with `tool`; the state stays in `target/demo`, so that a second call is all cached.
pub(crate) fn demo(top: &Path, tool: &Path) -> Result<(), String> {
    let state = top.join("target/demo/state");
    let archive = top.join("target/demo/demo.oci.tar");
    run(Command::new("mkdir").arg("-p").arg(top.join("target/demo")))?;
    let layout = top.join("testdata/conformance/images/busybox");
    let build = |extra: &[&str]| -> Result<f64, String> {
        let mut command = as_root(tool);
        command
            .arg(format!("--root={}", state.display()))
            .arg(format!("--build-context=busybox=oci-layout://{}:latest", layout.display()))
            .args(["--progress=plain", "--tag=demo:1.0"])
            .args(extra)
            .arg(top.join("testdata/demo"));
        let started = Instant::now();
        run(&mut command)?;
        Ok(started.elapsed().as_secs_f64())
    };
    println!("== building testdata/demo into the local image store");
    let first = build(&[])?;
    println!("\n== building it again: every step comes from the cache");
    let second = build(&[])?;
    println!("\n== exporting it as an OCI archive");
    build(&[&format!("--output=type=oci,dest={}", archive.display())])?;
    println!("\n== images in the store");
    run(as_root(tool).arg("images").arg(format!("--root={}", state.display())))?;
    println!("\nfirst build {first:.2} s, from cache {second:.3} s");
    println!("builder:   {}", tool.display());
    println!(
        "OCI image: {} (try `skopeo inspect oci-archive:{}`)",
        archive.display(),
        archive.display()
    );
    Ok(())
}
