//! What to say when a step for another platform than the machine's cannot be started.

use llb::Platform;
use sandbox::ExecReason;

/// What is behind a program that cannot be executed, and what to do about it.
pub(crate) struct Explanation {
    /// Goes behind the reason.
    pub(crate) cause: Option<String>,
    pub(crate) hint: String,
}

/// Explains a program of a step for `platform` that the machine does not run; `None` when something else is wrong
/// with it.
pub(crate) fn explain(platform: &Platform, reason: &ExecReason) -> Option<Explanation> {
    explain_on(&Platform::host(), platform, reason, sandbox::runs(&platform.architecture))
}

/// As [`explain`], on a machine that is known to run programs for the platform, or not to.
fn explain_on(
    host: &Platform,
    platform: &Platform,
    reason: &ExecReason,
    runs: Option<bool>,
) -> Option<Explanation> {
    let is_foreign = platform.os != host.os || platform.architecture != host.architecture;
    match reason {
        ExecReason::Format if is_foreign && runs != Some(true) => Some(Explanation {
            cause: Some(format!(
                "the step is for {platform}, this machine is {host}, and emulation of {platform} is missing"
            )),
            hint: install(platform),
        }),
        ExecReason::Format => Some(Explanation {
            cause: None,
            hint: format!(
                "the program is not one for {platform}: it is for another platform, or a script without `#!` \
                 in its first line"
            ),
        }),
        // The emulator is outside of the step, where the kernel does not look for it.
        ExecReason::NoInterpreter if is_foreign && runs == Some(true) => Some(Explanation {
            cause: Some(format!("the emulator for {platform} is not found inside the step")),
            hint: format!(
                "it is registered without the flag F, which makes it known to steps too; {}",
                install(platform)
            ),
        }),
        _ => None,
    }
}

/// How to have the kernel run programs for a platform.
fn install(platform: &Platform) -> String {
    if platform.os != "linux" {
        return format!("steps for {} cannot run on Linux", platform.os);
    }
    format!(
        "install an emulator: `apt-get install qemu-user-static binfmt-support` on Debian and Ubuntu, or \
         `docker run --privileged --rm tonistiigi/binfmt --install {}`",
        platform.architecture
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(platform: &str, reason: ExecReason, runs: Option<bool>, expect: &str) {
        let host = Platform::parse("linux/amd64").unwrap();
        let found = explain_on(&host, &Platform::parse(platform).unwrap(), &reason, runs);
        let text = found.map(|it| format!("{}; {}", it.cause.unwrap_or_default(), it.hint));
        assert_eq!(text.unwrap_or_default(), expect);
    }

    #[test]
    fn missing_emulation_names_the_platform_and_what_to_install() {
        let expect = "the step is for linux/arm64, this machine is linux/amd64, and emulation of linux/arm64 is \
                      missing; install an emulator: `apt-get install qemu-user-static binfmt-support` on Debian \
                      and Ubuntu, or `docker run --privileged --rm tonistiigi/binfmt --install arm64`";
        check("linux/arm64", ExecReason::Format, Some(false), expect);
        let expect = "the step is for windows/amd64, this machine is linux/amd64, and emulation of windows/amd64 \
                      is missing; steps for windows cannot run on Linux";
        check("windows/amd64", ExecReason::Format, None, expect);
    }

    #[test]
    fn an_emulator_that_steps_do_not_see_is_told_from_none() {
        let expect = "the emulator for linux/arm64 is not found inside the step; it is registered without the flag \
                      F, which makes it known to steps too; install an emulator: `apt-get install \
                      qemu-user-static binfmt-support` on Debian and Ubuntu, or `docker run --privileged --rm \
                      tonistiigi/binfmt --install arm64`";
        check("linux/arm64", ExecReason::NoInterpreter, Some(true), expect);
        check("linux/arm64", ExecReason::NoInterpreter, Some(false), "");
        check("linux/amd64", ExecReason::NoInterpreter, Some(true), "");
    }

    #[test]
    fn a_bad_program_is_not_blamed_on_the_machine() {
        let expect = "; the program is not one for linux/amd64: it is for another platform, or a script without \
                      `#!` in its first line";
        check("linux/amd64", ExecReason::Format, Some(true), expect);
        let expect = expect.replace("amd64", "arm64");
        check("linux/arm64", ExecReason::Format, Some(true), &expect);
    }
}
