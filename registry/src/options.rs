//! What a client is told at its start.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::ConfigPaths;

/// Settings of a [`Client`](crate::Client).
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Files with credentials; the first that knows a registry counts. None need exist. See
    /// [`auth_files`](crate::auth_files).
    pub auth_files: Vec<PathBuf>,
    /// Files about mirrors, certificates and the like. See [`config_paths`](crate::config_paths).
    pub config: ConfigPaths,
    /// Settings per registry, by host and port as in a reference (`registry.example:5000`). They count more than what
    /// files say.
    pub hosts: BTreeMap<String, HostOptions>,
    /// Further certificate authorities, PEM text, trusted beside those of the system.
    pub certificate_authorities: Vec<Vec<u8>>,
    /// Program name and version told to registries.
    pub user_agent: String,
    /// How often a request that failed for a passing reason is tried again.
    pub retries: u32,
    /// Pause before the first retry; doubles each time, with jitter.
    pub backoff: Duration,
    /// Longest pause before a retry, also for what `Retry-After` asks: more than this is an error.
    pub longest_wait: Duration,
    /// Longest time to make a connection.
    pub connect_timeout: Duration,
    /// Longest time without a byte in either direction.
    pub read_timeout: Duration,
    /// Longest time for one transfer, a document or a blob, with all its tries; `None` for no limit.
    pub transfer_timeout: Option<Duration>,
    /// Bytes of a large blob that are asked for by one request, so that several fetch it at once.
    pub range_size: u64,
    /// Bytes that are sent by one request to a registry that does not take a blob whole.
    pub chunk_size: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            auth_files: Vec::new(),
            config: ConfigPaths::default(),
            hosts: BTreeMap::new(),
            certificate_authorities: Vec::new(),
            user_agent: concat!("bricklayer/", env!("CARGO_PKG_VERSION")).to_owned(),
            retries: 4,
            backoff: Duration::from_millis(250),
            longest_wait: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_secs(60),
            transfer_timeout: Some(Duration::from_secs(3600)),
            range_size: 4 << 20,
            chunk_size: 16 << 20,
        }
    }
}

/// Settings of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// `Some(true)`: HTTPS without certificate check, else plain HTTP. `Some(false)`: never less than
    /// HTTPS, but for a loopback host, where HTTPS is tried when plain HTTP fails. `None`: HTTPS, and plain
    /// HTTP for a loopback host.
    pub insecure: Option<bool>,
}

/// One way to speak to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
    HttpsUnverified,
}

impl Scheme {
    /// As in a URL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https | Self::HttpsUnverified => "https",
        }
    }
}

/// Ways to speak to `host`, in the order to try.
pub(crate) fn schemes(host: &str, options: &HostOptions) -> &'static [Scheme] {
    match (is_loopback(host), options.insecure) {
        (true, Some(false)) => &[Scheme::Http, Scheme::Https],
        (true, _) => &[Scheme::Http],
        (false, Some(true)) => &[Scheme::HttpsUnverified, Scheme::Http],
        (false, _) => &[Scheme::Https],
    }
}

/// Whether `host`, with or without a port, names this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `host`, with or without a port, is one that means another machine to everybody who asks: where a
/// server elsewhere has no business to send anybody.
pub(crate) fn is_private_to_machine(host: &str) -> bool {
    let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    name.parse().is_ok_and(is_private_address)
}

/// Whether `address` is one that means another machine to everybody who asks.
pub(crate) fn is_private_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None if host.matches(':').count() > 1 => host,
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_by_name_and_address() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
            "[::1]",
            "LOCALHOST",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["docker.io", "localhost.example", "128.0.0.1", "[::2]:5000", "10.0.0.1:80", ""]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_means_another_machine_to_everybody_is_known() {
        for host in [
            "localhost",
            "a.localhost:80",
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "[::1]:80",
            "[::]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "LOCALHOST.",
        ] {
            assert!(is_private_to_machine(host), "{host}");
        }
        for host in
            ["docker.io", "localhost.example", "10.0.0.1", "192.168.0.1:5000", "[2001:db8::1]"]
        {
            assert!(!is_private_to_machine(host), "{host}");
        }
    }

    #[test]
    fn only_loopback_and_insecure_hosts_are_asked_without_tls() {
        let with = |insecure| HostOptions { insecure };
        assert_eq!(schemes("a.example", &with(None)), [Scheme::Https]);
        assert_eq!(schemes("a.example", &with(Some(false))), [Scheme::Https]);
        assert_eq!(
            schemes("a.example", &with(Some(true))),
            [Scheme::HttpsUnverified, Scheme::Http]
        );
        assert_eq!(schemes("localhost:5000", &with(None)), [Scheme::Http]);
        assert_eq!(schemes("localhost:5000", &with(Some(false))), [Scheme::Http, Scheme::Https]);
    }
}
