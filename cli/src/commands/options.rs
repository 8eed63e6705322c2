//! Turns flags into what the frontend and the exporters take.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use frontend::{NamedContext, NoCache, Options, ResolveMode};
use llb::entitlement::{Entitlement, InvalidEntitlement};
use llb::op::{HostIp, NetworkMode, Ulimit};
use llb::{Platform, Reference};

use crate::args::BuildArgs;
use crate::report::{Exit, Failure, tell};

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

/// Options of the frontend that follow from flags and the environment alone.
pub(crate) fn frontend_options(args: &BuildArgs) -> Result<Options, Failure> {
    let build_args = build_args(&args.build_args)?;
    // What is no number names where the time comes from.
    let source_date_epoch = build_args.get("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok());
    let host = Platform::host();
    let platforms = platforms(&args.platform, &host)?;
    Ok(Options {
        target: args.target.clone(),
        platforms,
        build_platform: host,
        labels: labels(&args.labels)?,
        no_cache: no_cache(args)?,
        network: network(args.network.as_deref())?,
        extra_hosts: extra_hosts(&args.add_hosts)?,
        ulimits: ulimits(&args.ulimits)?,
        shm_size: args.shm_size.as_deref().map(size).transpose()?.unwrap_or(0),
        cgroup_parent: args.cgroup_parent.clone().unwrap_or_default(),
        hostname: build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned().unwrap_or_default(),
        entitlements: entitlements(args)?,
        resolve_mode: if args.pull { ResolveMode::ForcePull } else { ResolveMode::PreferLocal },
        source_date_epoch,
        multi_platform: build_args
            .get("BUILDKIT_MULTI_PLATFORM")
            .is_some_and(|value| matches!(value.as_str(), "1" | "true")),
        build_args,
        ..Options::default()
    })
}

fn build_args(given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    for text in given {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() {
            return Err(usage(format!("invalid --build-arg `{text}`: the name is empty")));
        }
        match value {
            Some(value) => all.insert(name.to_owned(), value),
            None => all.remove(name),
        };
    }
    let config = registry::docker_config_path(|name| std::env::var_os(name));
    add_proxies(&mut all, config.as_deref());
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        all.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert(epoch);
    }
    Ok(all)
}

/// Adds the proxies of Docker's configuration, each in capital and small letters, unless it is given in any letter
/// case.
fn add_proxies(args: &mut BTreeMap<String, String>, config: Option<&Path>) {
    let Some(text) = config.and_then(|config| fs_err::read(config).ok()) else { return };
    let Ok(config) = serde_json::from_slice::<serde_json::Value>(&text) else {
        return tell(format_args!(
            "WARNING: the proxies of Docker's configuration are not used: the file is not JSON"
        ));
    };
    let proxies = &config["proxies"]["default"];
    for (key, name) in [
        ("httpProxy", "HTTP_PROXY"),
        ("httpsProxy", "HTTPS_PROXY"),
        ("ftpProxy", "FTP_PROXY"),
        ("noProxy", "NO_PROXY"),
        ("allProxy", "ALL_PROXY"),
    ] {
        let value = proxies[key].as_str().filter(|value| !value.is_empty());
        let is_given = args.keys().any(|given| given.eq_ignore_ascii_case(name));
        if let Some(value) = value.filter(|_| !is_given) {
            args.insert(name.to_owned(), value.to_owned());
            args.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
}

fn platforms(given: &[String], host: &Platform) -> Result<Vec<Platform>, Failure> {
    let mut all: Vec<Platform> = Vec::new();
    for text in given {
        let platform = match text.trim() {
            "local" => host.clone(),
            text => Platform::parse(text).map_err(|error| usage(error.to_string()))?,
        };
        if !all.contains(&platform) {
            all.push(platform);
        }
    }
    Ok(all)
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    given
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            if key.is_empty() {
                return Err(usage(format!("invalid --label `{text}`: the key is empty")));
            }
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn no_cache(args: &BuildArgs) -> Result<NoCache, Failure> {
    // What comes from the cache would only be compared with itself.
    match (args.no_cache || args.verify, args.no_cache_filter.is_empty()) {
        (true, false) if args.verify => Ok(NoCache::All),
        (true, false) => {
            Err(usage("--no-cache and --no-cache-filter cannot be used together".to_owned()))
        }
        (true, true) => Ok(NoCache::All),
        (false, false) => Ok(NoCache::Stages(args.no_cache_filter.clone())),
        (false, true) => Ok(NoCache::None),
    }
}

fn network(given: Option<&str>) -> Result<NetworkMode, Failure> {
    match given {
        None | Some("" | "default") => Ok(NetworkMode::Unset),
        Some("none") => Ok(NetworkMode::None),
        Some("host") => Ok(NetworkMode::Host),
        Some(other) => {
            Err(usage(format!("network mode `{other}` not supported: want default, none or host")))
        }
    }
}

/// The right to empty a folder that is not below the current one.
pub(crate) const LOCAL_DELETE: &str = "buildx.local.delete";

fn entitlements(args: &BuildArgs) -> Result<BTreeSet<Entitlement>, Failure> {
    let mut all = BTreeSet::new();
    // A device may have an attribute behind a comma; rights without any may be a list.
    let separator = |text: &str| if text.starts_with("device=") { '\0' } else { ',' };
    for text in args.allow.iter().flat_map(|text| text.split(separator(text))) {
        // About outputs, not about steps.
        if text == LOCAL_DELETE {
            continue;
        }
        let right = Entitlement::parse(text).map_err(|error| {
            let near = llb::suggest::nearest(
                text,
                llb::entitlement::NAMES.into_iter().chain([LOCAL_DELETE]),
            );
            let is_unknown = matches!(error, InvalidEntitlement::Unknown { .. });
            usage(error.to_string()).did_you_mean(near.filter(|_| is_unknown))
        })?;
        all.insert(right);
    }
    if args.network.as_deref() == Some("host") {
        all.insert(Entitlement::NetworkHost);
    }
    Ok(all)
}

fn extra_hosts(given: &[String]) -> Result<Vec<HostIp>, Failure> {
    let mut all = Vec::new();
    for text in given {
        let (host, ips) = text
            .split_once('=')
            .or_else(|| text.split_once(':'))
            .ok_or_else(|| usage(format!("invalid host `{text}`")))?;
        for ip in ips.split(',') {
            let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
            if bare == "host-gateway" {
                return Err(usage("--add-host with host-gateway is not supported yet".to_owned()));
            }
            if host.is_empty() || bare.parse::<std::net::IpAddr>().is_err() {
                return Err(usage(format!("invalid host `{text}`: want host:ip")));
            }
            all.push(HostIp { host: host.to_ascii_lowercase(), ip: bare.to_owned() });
        }
    }
    Ok(all)
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn ulimits(given: &[String]) -> Result<Vec<Ulimit>, Failure> {
    let mut all: BTreeMap<String, Ulimit> = BTreeMap::new();
    for text in given {
        let bad = || usage(format!("invalid ulimit `{text}`: want name=soft[:hard]"));
        let (name, limits) = text.split_once('=').ok_or_else(bad)?;
        if !ULIMITS.contains(&name) {
            return Err(usage(format!(
                "invalid ulimit type `{name}`: want one of {}",
                ULIMITS.join(", ")
            )));
        }
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard): (i64, i64) =
            (soft.parse().map_err(|_| bad())?, hard.parse().map_err(|_| bad())?);
        // -1 is no limit.
        if soft < -1 || hard < -1 {
            return Err(bad());
        }
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(usage(format!("ulimit soft limit of `{text}` is above its hard limit")));
        }
        all.insert(name.to_owned(), Ulimit { name: name.to_owned(), soft, hard });
    }
    Ok(all.into_values().collect())
}

/// A size in bytes with an optional unit: `64m`, `1gb`, powers of 1024.
pub(crate) fn size(text: &str) -> Result<i64, Failure> {
    let bad = || {
        usage(format!(
            "invalid size `{text}`: want a number with a unit b, k, m, g or t, such as 64m"
        ))
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &lower[digits.len()..];
    let unit = unit.strip_suffix('b').map_or(unit, |unit| unit.strip_suffix('i').unwrap_or(unit));
    let factor: i64 = match unit {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(bad()),
    };
    // No sign and no exponent.
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(bad());
    }
    let value = digits.parse::<f64>().map_err(|_| bad())? * factor as f64;
    if value < i64::MAX as f64 { Ok(value as i64) } else { Err(bad()) }
}

/// Names of the image, each checked.
pub(crate) fn tags(given: &[String]) -> Result<Vec<Reference>, Failure> {
    let mut all: Vec<Reference> = Vec::new();
    for text in given {
        let name = Reference::parse(text)
            .map_err(|error| usage(format!("invalid tag \"{text}\": {error}")))?;
        if name.digest().is_some() {
            return Err(usage(format!("invalid tag \"{text}\": a name cannot have a digest")));
        }
        if name.looks_like_id() {
            return Err(usage(format!("invalid tag \"{text}\": it looks like the id of an image")));
        }
        if !all.contains(&name) {
            all.push(name);
        }
    }
    Ok(all)
}

/// A named context as it was given, and its folder if it is one.
pub(crate) fn named_context(text: &str) -> Result<(String, NamedContext), Failure> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| usage(format!("invalid build context `{text}`: want name=value")))?;
    let key = context_name(name)?;
    if let Some(place) = value.strip_prefix("oci-layout://") {
        let (path, tag, digest) = match place.split_once('@') {
            Some((path, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|error: llb::digest::InvalidDigest| usage(error.to_string()))?;
                (path, None, Some(digest))
            }
            None => match place.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
                Some((path, tag)) => (path, Some(tag.to_owned()), None),
                None => (place, None, None),
            },
        };
        return Ok((key, NamedContext::OciLayout { path: path.to_owned(), tag, digest }));
    }
    if let Some(reference) = value.strip_prefix("docker-image://") {
        return Ok((key, NamedContext::Image { reference: reference.to_owned() }));
    }
    if let Some(stage) = value.strip_prefix("target:") {
        return Ok((key, NamedContext::Stage { name: stage.to_owned() }));
    }
    if value.starts_with("input:") {
        return Err(usage(format!(
            "the build context `{value}` is not supported: `input:` names a result that only a program which drives builds can give"
        )));
    }
    if Path::new(value).is_dir() {
        return Ok((key.clone(), NamedContext::Local { name: key }));
    }
    if let Some(remote) = NamedContext::remote(value) {
        return Ok((key, remote));
    }
    Err(usage(format!("failed to get build context {name}: `{value}` is not a folder")).hint(
        "a named context is a folder, a URL, a git repository, oci-layout://PATH[:TAG|@DIGEST], docker-image://REFERENCE or target:STAGE",
    ))
}

/// The name of a context, made comparable to the names in a Dockerfile; `name::os/arch` is for one platform.
fn context_name(name: &str) -> Result<String, Failure> {
    let (name, platform) = match name.split_once("::") {
        Some((name, platform)) => {
            let platform = Platform::parse(platform).map_err(|error| usage(error.to_string()))?;
            (name, format!("::{platform}"))
        }
        None => (name, String::new()),
    };
    let reference = Reference::parse(name)
        .map_err(|error| usage(format!("invalid context name `{name}`: {error}")))?;
    let familiar = reference.familiar();
    Ok(format!("{}{platform}", familiar.strip_suffix(":latest").unwrap_or(&familiar)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units() {
        assert_eq!(
            ["64", "64k", "1.5m", "2GB", "1gib"].map(|text| size(text).unwrap()),
            [64, 64 << 10, 3 << 19, 2 << 30, 1 << 30]
        );
        for bad in ["12q", "12gbb", "12ibib", "", "m", "-1", "+1", "1e3", "inf", "9999999t"] {
            let expect = format!(
                "invalid size `{bad}`: want a number with a unit b, k, m, g or t, such as 64m"
            );
            assert_eq!(size(bad).map_err(|failure| failure.message), Err(expect));
        }
    }

    #[test]
    fn limits_of_processes_are_numbers_or_none() {
        let limit = |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft, hard };
        assert_eq!(
            ulimits(&["nofile=10:20", "core=-1", "cpu=5"].map(str::to_owned)).unwrap(),
            [limit("core", -1, -1), limit("cpu", 5, 5), limit("nofile", 10, 20)]
        );
        for (bad, expect) in [
            ("nofile", "invalid ulimit `nofile`: want name=soft[:hard]"),
            ("nofile=-5", "invalid ulimit `nofile=-5`: want name=soft[:hard]"),
            ("nofile=1:-2", "invalid ulimit `nofile=1:-2`: want name=soft[:hard]"),
            ("nofile=2:1", "ulimit soft limit of `nofile=2:1` is above its hard limit"),
        ] {
            let message = ulimits(&[bad.to_owned()]).map_err(|failure| failure.message);
            assert_eq!(message, Err(expect.to_owned()));
        }
    }

    #[test]
    fn proxies_of_the_configuration_give_way_to_those_of_the_command_line() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.json");
        let text = r#"{"proxies": {"default": {"httpProxy": "http://p", "noProxy": "n", "allProxy": ""}}}"#;
        fs_err::write(&config, text).unwrap();
        let mut args = BTreeMap::from([("No_Proxy".to_owned(), "mine".to_owned())]);
        add_proxies(&mut args, Some(&config));
        let pairs: Vec<(&str, &str)> =
            args.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            pairs,
            [("HTTP_PROXY", "http://p"), ("No_Proxy", "mine"), ("http_proxy", "http://p")]
        );
        let before = args.clone();
        for text in
            ["", "[]", r#"{"proxies": 1}"#, r#"{"proxies": {"default": {"httpsProxy": 1}}}"#]
        {
            fs_err::write(&config, text).unwrap();
            add_proxies(&mut args, Some(&config));
        }
        assert_eq!(args, before);
    }

    #[test]
    fn contexts_are_told_apart() {
        let (name, context) = named_context("base:latest=oci-layout:///a/b:1.0").unwrap();
        assert_eq!(name, "base");
        assert_eq!(named_context("base::linux/x86_64=.").unwrap().0, "base::linux/amd64");
        let expect = NamedContext::OciLayout {
            path: "/a/b".to_owned(),
            tag: Some("1.0".to_owned()),
            digest: None,
        };
        assert_eq!(context, expect);
        let url = "https://example.com/x".to_owned();
        assert_eq!(named_context(&format!("x={url}")).unwrap().1, NamedContext::Http { url });
        let error = named_context("x=ftp://example.com/x").unwrap_err();
        assert_eq!(
            error.message,
            "failed to get build context x: `ftp://example.com/x` is not a folder"
        );
    }
}
