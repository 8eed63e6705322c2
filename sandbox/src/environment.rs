//! The environment of a step.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Where programs are looked for when the image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Proxies that were given as build arguments; empty ones were not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http:` addresses.
    pub http: String,
    /// For `https:` addresses.
    pub https: String,
    /// For `ftp:` addresses.
    pub ftp: String,
    /// What needs no proxy.
    pub no: String,
    /// For everything.
    pub all: String,
}

/// What the environment of a step is put together from.
#[derive(Debug, Clone, Default)]
pub struct Environment<'a> {
    /// `NAME=value` of the stage: image, `ENV` and `ARG`, in order.
    pub stage: &'a [String],
    /// Target of the first ssh mount.
    pub ssh_socket: Option<&'a str>,
    /// Proxies from build arguments.
    pub proxies: Proxies,
    /// Secrets as (name, value); an optional one that is missing has an empty value.
    pub secrets: &'a [(String, Vec<u8>)],
    /// Home directory of the user by the passwd file of the root, if it has one.
    pub home: Option<&'a str>,
}

/// Returns the `NAME=value` entries of a step: those of the stage and what always comes on top.
///
/// Follows the order of the reference; of several entries with one name the last counts.
pub fn complete_environment(from: &Environment<'_>) -> Vec<OsString> {
    let mut entries: Vec<OsString> = from.stage.iter().map(OsString::from).collect();
    if let Some(socket) = from.ssh_socket
        && !has(&entries, "SSH_AUTH_SOCK")
    {
        entries.push(format!("SSH_AUTH_SOCK={socket}").into());
    }
    let Proxies { http, https, ftp, no, all } = &from.proxies;
    for (scheme, value) in
        [("http", http), ("https", https), ("ftp", ftp), ("no", no), ("all", all)]
    {
        if !value.is_empty() {
            let name = format!("{scheme}_proxy");
            entries.push(format!("{}={value}", name.to_uppercase()).into());
            entries.push(format!("{name}={value}").into());
        }
    }
    if !has(&entries, "PATH") {
        entries.push(DEFAULT_PATH.into());
    }
    for (name, value) in from.secrets {
        entries.push(OsString::from_vec([name.as_bytes(), b"=", value].concat()));
    }
    if !has(&entries, "HOME") {
        let home = from.home.filter(|home| !home.is_empty()).unwrap_or("/");
        entries.push(format!("HOME={home}").into());
    }
    entries
}

fn has(entries: &[OsString], name: &str) -> bool {
    entries.iter().any(|entry| {
        let rest = entry.as_bytes().strip_prefix(name.as_bytes());
        rest.and_then(<[u8]>::first) == Some(&b'=')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: &Environment<'_>, expect: &[&str]) {
        assert_eq!(complete_environment(from), expect);
    }

    #[test]
    fn path_and_home_are_completed() {
        check(&Environment::default(), &[DEFAULT_PATH, "HOME=/"]);
        let stage = ["PATHS=1".to_owned(), "HOME=".to_owned(), "PATH=/x".to_owned()];
        check(
            &Environment { stage: &stage, home: Some("/root"), ..Default::default() },
            &["PATHS=1", "HOME=", "PATH=/x"],
        );
    }

    #[test]
    fn additions_come_in_the_order_of_the_reference() {
        let from = Environment {
            stage: &["A=b".to_owned()],
            ssh_socket: Some("/run/agent"),
            proxies: Proxies { http: "p".to_owned(), no: "n".to_owned(), ..Default::default() },
            secrets: &[("TOKEN".to_owned(), b"t".to_vec()), ("HOME".to_owned(), Vec::new())],
            home: Some("/home/x"),
        };
        check(
            &from,
            &[
                "A=b",
                "SSH_AUTH_SOCK=/run/agent",
                "HTTP_PROXY=p",
                "http_proxy=p",
                "NO_PROXY=n",
                "no_proxy=n",
                DEFAULT_PATH,
                "TOKEN=t",
                "HOME=",
            ],
        );
        let stage = ["SSH_AUTH_SOCK=/mine".to_owned(), "PATH=/".to_owned(), "HOME=/h".to_owned()];
        check(
            &Environment { stage: &stage, ssh_socket: Some("/x"), ..Default::default() },
            &["SSH_AUTH_SOCK=/mine", "PATH=/", "HOME=/h"],
        );
    }
}
