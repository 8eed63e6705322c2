//! Parses the arguments of `EXPOSE`: ports, ranges and protocols.

/// A port specification as written, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortSpec {
    /// `port/proto`, one for each port of a range.
    pub(crate) ports: Vec<String>,
    /// Whether an address or host port was given, which has no effect.
    pub(crate) has_mapping: bool,
    /// Whether the protocol has capital letters.
    pub(crate) has_capitals: bool,
}

/// Reads `[[ip:]host:]container[-end][/proto]`.
///
/// # Errors
/// A message in the reference's words.
pub(crate) fn parse(spec: &str) -> Result<PortSpec, String> {
    let (rest, protocol) = spec.rsplit_once('/').unwrap_or((spec, "tcp"));
    let protocol = if protocol.is_empty() { "tcp" } else { protocol };
    let lower = protocol.to_lowercase();
    let (mapping, container) = match rest.rsplit_once(':') {
        Some((mapping, container)) => (Some(mapping), container),
        None => (None, rest),
    };
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let (start, end) =
        range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    if !["tcp", "udp", "sctp"].contains(&lower.as_str()) {
        return Err(format!("invalid port: {spec:?}: invalid proto: {lower}"));
    }
    if let Some(mapping) = mapping {
        check_host_port(mapping, container, end - start)?;
    }
    Ok(PortSpec {
        ports: (start..=end).map(|port| format!("{port}/{lower}")).collect(),
        has_mapping: mapping.is_some_and(|mapping| !matches!(mapping, "" | ":")),
        has_capitals: protocol != lower,
    })
}

/// Checks the host part of `[ip:]host`; an empty host port is any.
fn check_host_port(mapping: &str, container: &str, span: u16) -> Result<(), String> {
    let host = mapping.rsplit_once(':').map_or(mapping, |(_, host)| host);
    if host.is_empty() {
        return Ok(());
    }
    let (start, end) = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
    if span != 0 && end - start != span {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    Ok(())
}

/// Reads `start[-end]`.
fn range(text: &str) -> Option<(u16, u16)> {
    let port =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (port(start)?, port(end)?);
    (start <= end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_expanded() {
        for (spec, ports) in [
            ("80", "80/tcp"),
            ("53/UDP", "53/udp"),
            ("7000-7002/sctp", "7000/sctp 7001/sctp 7002/sctp"),
            ("127.0.0.1:8080:80", "80/tcp"),
            ("[::1]:8080:80/udp", "80/udp"),
        ] {
            assert_eq!(parse(spec).unwrap().ports.join(" "), ports, "{spec}");
        }
    }

    #[test]
    fn bad_ports_are_refused_in_the_words_of_the_reference() {
        for (spec, message) in [
            ("seventy", "invalid containerPort: seventy"),
            ("65536", "invalid containerPort: 65536"),
            ("9-8", "invalid containerPort: 9-8"),
            ("80/x", "invalid port: \"80/x\": invalid proto: x"),
            ("h:80", "invalid hostPort: h"),
            ("1-2:80-90", "invalid ranges specified for container and host Ports: 80-90 and 1-2"),
        ] {
            assert_eq!(parse(spec).unwrap_err(), message, "{spec}");
        }
    }
}
