//! Which proxy a request goes through, for messages: the HTTP library decides it from the environment, and does not tell.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;

use crate::options::is_loopback;

/// The proxy for `url`, without user and password, if the environment names one.
pub(crate) fn of(url: &Url) -> Option<String> {
    through(url, &Matcher::from_system())
}

fn through(url: &Url, matcher: &Matcher) -> Option<String> {
    // This machine is never asked through a proxy.
    if url.host_str().is_none_or(is_loopback) {
        return None;
    }
    let proxy = matcher.intercept(&url.as_str().parse().ok()?)?;
    let proxy = proxy.uri();
    Some(format!(
        "{}://{}",
        proxy.scheme_str().unwrap_or("http"),
        address(proxy.authority()?.as_str())
    ))
}

/// Host and port of an authority that may have a user and a password.
fn address(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, address)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_told_without_their_passwords() {
        let matcher = Matcher::builder()
            .https("http://user:secret@proxy.example:3128")
            .no(".inside.example")
            .build();
        let told = |url: &str| through(&url.parse().unwrap(), &matcher);
        assert_eq!(told("https://r.example/v2/"), Some("http://proxy.example:3128".to_owned()));
        for url in ["http://r.example/v2/", "https://r.inside.example/", "https://127.0.0.1/"] {
            assert_eq!(told(url), None, "{url}");
        }
        assert_eq!(address("u:p@w@h:1"), "h:1");
    }
}
