//! Users without rights, to try the builder as they run it. They are made when they are first needed, and stay.

use std::process::{Command, Stdio};

/// A user with a range of ids, who builds rootless.
pub(crate) const WITH_RANGE: &str = "bricklayer-range";

/// A user without one, who builds with a single id.
pub(crate) const WITHOUT_RANGE: &str = "bricklayer-single";

/// Makes a user, as root, unless it is there.
pub(crate) fn ensure(name: &str) -> Result<(), String> {
    if id_of(name).is_some() {
        return Ok(());
    }
    // Ranges are given out only where there is a file to write them to.
    command("touch", &["/etc/subuid", "/etc/subgid"])?;
    let count = if name == WITH_RANGE { 65_536 } else { 0 };
    let counts = [format!("SUB_UID_COUNT={count}"), format!("SUB_GID_COUNT={count}")];
    let words = ["-K", &counts[0], "-K", &counts[1], "-M", "-s", "/bin/sh", "-U", name];
    let made = command("/usr/sbin/useradd", &words);
    // Another test may have been faster.
    if id_of(name).is_some() { Ok(()) } else { made }
}

/// Number of a user and of its group.
pub(crate) fn id_of(name: &str) -> Option<(u32, u32)> {
    let number = |option: &str| {
        let output = Command::new("id").args([option, name]).stderr(Stdio::null()).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    Some((number("-u")?, number("-g")?))
}

fn command(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
