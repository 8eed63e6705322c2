//! Predefined build arguments: platforms (`TARGETPLATFORM`, …) and proxies.

use std::collections::BTreeMap;

use llb::Platform;
use llb::op::ProxyEnv;

use crate::scope::Variables;

/// Arguments that never become environment variables.
const NO_VARIABLE: &[&str] = &["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Whether a declared argument is put into the environment of the stage.
pub(crate) fn is_variable(name: &str) -> bool {
    !NO_VARIABLE.contains(&name)
}

/// The global scope before the first `ARG`; a build-arg of the same name replaces a value.
pub(crate) fn global_scope(
    target: &Platform,
    build: &Platform,
    target_stage: &str,
    build_args: &BTreeMap<String, String>,
) -> Variables {
    let mut scope = Variables::default();
    let mut add = |name: &str, value: &str| {
        scope.set(name, build_args.get(name).map_or(value, String::as_str));
    };
    for (prefix, platform) in [("BUILD", build), ("TARGET", target)] {
        add(&format!("{prefix}PLATFORM"), &platform.to_string());
        add(&format!("{prefix}OS"), &platform.os);
        add(&format!("{prefix}OSVERSION"), &platform.os_version);
        add(&format!("{prefix}ARCH"), &platform.architecture);
        add(&format!("{prefix}VARIANT"), &platform.variant);
    }
    add("TARGETSTAGE", target_stage);
    scope
}

/// Proxy settings among the build-args, in any letter case; `None` when there is none.
pub(crate) fn proxy_env(build_args: &BTreeMap<String, String>) -> Option<ProxyEnv> {
    let mut proxy = ProxyEnv::default();
    let mut found = false;
    for (name, value) in build_args {
        let slot = match name.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxy.http_proxy,
            "https_proxy" => &mut proxy.https_proxy,
            "ftp_proxy" => &mut proxy.ftp_proxy,
            "no_proxy" => &mut proxy.no_proxy,
            "all_proxy" => &mut proxy.all_proxy,
            _ => continue,
        };
        value.clone_into(slot);
        found = true;
    }
    found.then_some(proxy)
}
