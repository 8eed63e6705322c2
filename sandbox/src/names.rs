//! What a step reads in `/etc/hosts` and `/etc/resolv.conf`.
//!
//! The machine's resolver configuration is written anew: all `nameserver` lines, one `search`, one
//! `options`, then what is not known, word for word; comments go.

use std::io;
use std::net::IpAddr;
use std::path::Path;

/// The configuration that every machine has.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What systemd's resolver uses itself, where the other file only names that resolver.
const SYSTEMD_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";
/// Where systemd's resolver listens.
const SYSTEMD_RESOLVER: &str = "127.0.0.53";

/// Servers for when none that a step could reach is left.
const PUBLIC_SERVERS: [&str; 4] =
    ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];

/// Returns the content of `/etc/hosts`: loopback names, then `extra` as (name, address).
pub fn hosts_file(hostname: &str, extra: &[(String, IpAddr)]) -> Vec<u8> {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{}\n", name.to_lowercase()));
    }
    text.into_bytes()
}

/// Settings that replace those of the machine's resolver configuration; empty ones do not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolverOverrides {
    /// Addresses of name servers; never filtered.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

#[derive(Default)]
struct Resolver<'a> {
    nameservers: Vec<&'a str>,
    search: Vec<&'a str>,
    options: Vec<&'a str>,
    others: Vec<&'a str>,
}

impl<'a> Resolver<'a> {
    fn parse(text: &'a str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.nameservers.extend(words.next()),
                Some("search" | "domain") => resolver.search = words.collect(),
                Some("options") => resolver.options.extend(words),
                _ => resolver.others.push(line),
            }
        }
        resolver
    }

    fn write(&self) -> String {
        let mut lines: Vec<_> =
            self.nameservers.iter().map(|server| format!("nameserver {server}")).collect();
        for (name, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                lines.push(format!("{name} {}", words.join(" ")));
            }
        }
        lines.extend(self.others.iter().map(|line| (*line).to_owned()));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Returns the content of `/etc/resolv.conf` for a step, from that of the machine.
///
/// `unfiltered` is for steps that ask for the machine's network: they may use a name server that
/// listens on a loopback address there.
pub fn resolv_conf(machine: &[u8], unfiltered: bool, overrides: &ResolverOverrides) -> Vec<u8> {
    let machine = String::from_utf8_lossy(machine);
    let mut resolver = Resolver::parse(&machine);
    if !overrides.nameservers.is_empty() {
        resolver.nameservers = texts_of(&overrides.nameservers);
    } else if !unfiltered || resolver.nameservers.is_empty() {
        resolver.nameservers.retain(|address| !is_loopback(address));
        if resolver.nameservers.is_empty() {
            resolver.nameservers.extend(PUBLIC_SERVERS);
        }
    }
    if !overrides.search.is_empty() {
        resolver.search = texts_of(&overrides.search);
    }
    if !overrides.options.is_empty() {
        resolver.options = texts_of(&overrides.options);
    }
    resolver.write().into_bytes()
}

/// Returns the machine's resolver configuration; empty if there is none.
///
/// # Errors
///
/// When a file is there but cannot be read.
pub fn machine_resolver(unfiltered: bool) -> io::Result<Vec<u8>> {
    let text = read_if_there(RESOLV_CONF)?;
    let lossy = String::from_utf8_lossy(&text);
    if !unfiltered && Resolver::parse(&lossy).nameservers == [SYSTEMD_RESOLVER] {
        return read_if_there(SYSTEMD_RESOLV_CONF);
    }
    Ok(text)
}

fn read_if_there(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    match fs_err::read(path.as_ref()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

fn texts_of(list: &[String]) -> Vec<&str> {
    list.iter().map(|entry| &**entry).collect()
}

/// Returns whether a name server listens on the machine itself only; a zone may follow `%`.
fn is_loopback(address: &str) -> bool {
    let address = address.split('%').next().unwrap_or(address);
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(machine: &str, unfiltered: bool, overrides: &ResolverOverrides, expect: &str) {
        let actual = resolv_conf(machine.as_bytes(), unfiltered, overrides);
        assert_eq!(String::from_utf8(actual).unwrap(), expect, "from {machine:?}");
    }

    const PUBLIC: &str = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n\
        nameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n";

    #[test]
    fn extra_hosts_follow_the_loopback_names() {
        let extra = [("Registry.Local".to_owned(), "10.0.0.7".parse().unwrap())];
        assert_eq!(
            String::from_utf8(hosts_file("buildkitsandbox", &extra)).unwrap(),
            "127.0.0.1\tlocalhost buildkitsandbox\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tregistry.local\n"
        );
    }

    #[test]
    fn lines_are_written_in_a_fixed_order() {
        check(
            "# by hand\nsortlist 1.2.3.0\noptions ndots:2\nsearch a b\nnameserver 10.0.0.1\n\
             domain c\noptions rotate\nnameserver fe80::1%eth0 ; here\n",
            false,
            &ResolverOverrides::default(),
            "nameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch c\noptions ndots:2 rotate\n\
             sortlist 1.2.3.0\n",
        );
    }

    #[test]
    fn servers_on_the_machine_itself_are_left_out() {
        let none = ResolverOverrides::default();
        check("nameserver 127.0.0.1\nnameserver 1.1.1.1\n", false, &none, "nameserver 1.1.1.1\n");
        check("nameserver 127.0.0.53\n", true, &none, "nameserver 127.0.0.53\n");
        check("nameserver 127.0.0.53\nnameserver ::1\n", false, &none, PUBLIC);
        check("", true, &none, PUBLIC);
    }

    #[test]
    fn overrides_replace_and_are_not_filtered() {
        let overrides = ResolverOverrides {
            nameservers: vec!["127.0.0.9".to_owned()],
            search: vec!["x".to_owned(), "y".to_owned()],
            options: vec![],
        };
        check(
            "nameserver 1.1.1.1\nsearch a\noptions rotate\n",
            false,
            &overrides,
            "nameserver 127.0.0.9\nsearch x y\noptions rotate\n",
        );
    }
}
