//! One request for a file: redirects, retries, what went wrong.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};

use super::error::FetchError;
use crate::options::is_loopback;
use crate::session::{Shared, retry_after};
use crate::transport::{self, MOST_REDIRECTS, Request, Trouble};

/// Tries of a server that says nothing: each takes the whole read timeout.
const TRIES_OF_SILENCE: u32 = 1;

/// A file that is asked for.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) shared: Arc<Shared>,
    pub(super) url: Url,
}

impl Target {
    /// # Errors
    /// When the text is no URL of a file behind HTTP.
    pub(super) fn new(shared: Arc<Shared>, url: &str) -> Result<Self, FetchError> {
        let malformed = |problem: String| FetchError::Url { problem };
        let url = Url::parse(url).map_err(|error| malformed(error.to_string()))?;
        if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
            return Err(malformed("want http://HOST/… or https://HOST/…".to_owned()));
        }
        Ok(Self { shared, url })
    }

    /// Asks until there is an answer that is not a passing error: one of success, or 304 or 416, or an error.
    pub(super) async fn send(&self, headers: &HeaderMap) -> Result<Response, FetchError> {
        let mut attempt = 0;
        loop {
            let (error, wanted) = match self.follow(headers).await {
                Ok(response) => match refusal(&response) {
                    None => return Ok(response),
                    Some(error) => (error, wanted_pause(&response)),
                },
                Err(error) => (error, None),
            };
            let Some(pause) = self.pause(&error, attempt, wanted) else { return Err(error) };
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// How long to wait before another try after `error`, if another try makes sense. The server may have
    /// wanted a longer pause.
    pub(super) fn pause(
        &self,
        error: &FetchError,
        attempt: u32,
        wanted: Option<Duration>,
    ) -> Option<Duration> {
        let options = &self.shared.options;
        let most = match error {
            FetchError::Unreachable { reason, .. } => match *reason {
                transport::REFUSED | transport::NO_SUCH_HOST => options.retries.min(2),
                transport::NO_ANSWER => options.retries.min(TRIES_OF_SILENCE),
                _ => options.retries,
            },
            FetchError::Status { status: 408 | 429 | 500 | 502 | 503 | 504 } => options.retries,
            _ => 0,
        };
        let pause = self.shared.backoff(attempt).max(wanted.unwrap_or_default());
        (attempt < most && pause <= options.longest_wait).then_some(pause)
    }

    /// Sends one request and follows where it leads.
    async fn follow(&self, headers: &HeaderMap) -> Result<Response, FetchError> {
        let (mut url, mut guarded) = (self.url.clone(), false);
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send_once(&url, guarded, headers).await?;
            let Some(next) = redirected(&url, &response)? else { return Ok(response) };
            guarded |= !transport::same_origin(&url, &next) && !transport::is_near(&response);
            url = next;
        }
        Err(FetchError::Redirect {
            problem: format!("the server redirects more than {MOST_REDIRECTS} times"),
        })
    }

    async fn send_once(
        &self,
        url: &Url,
        guarded: bool,
        headers: &HeaderMap,
    ) -> Result<Response, FetchError> {
        let options = &self.shared.options;
        let request = Request { guarded, ..Request::new(Method::GET, url.clone()) };
        let client = self.shared.transport.client(&request, options);
        let client = client.map_err(|error| FetchError::Setup(Arc::new(error)))?;
        let request = client
            .get(url.clone())
            // What comes is kept as it is, so it had better be the file itself.
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .headers(headers.clone());
        match tokio::time::timeout(options.read_timeout, request.send()).await {
            Ok(answer) => answer.map_err(|error| trouble(url, error)),
            Err(_) => Err(silent(url, options.read_timeout)),
        }
    }
}

/// Where an answer leads to, if it does.
fn redirected(from: &Url, response: &Response) -> Result<Option<Url>, FetchError> {
    if !transport::is_redirect(response.status()) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let problem = |problem: &str| FetchError::Redirect { problem: format!("the server {problem}") };
    let location = location.ok_or_else(|| problem("redirects without a usable location"))?;
    let mut to = transport::follow(from, location).map_err(|text| problem(&text))?;
    if transport::same_origin(from, &to) && to.username().is_empty() && to.password().is_none() {
        // These fail only for URLs without a host.
        let _ = to.set_username(from.username());
        let _ = to.set_password(from.password());
    }
    Ok(Some(to))
}

/// Why an answer is none that a file can come with.
fn refusal(response: &Response) -> Option<FetchError> {
    let status = response.status();
    let is_usable = status.is_success()
        || [StatusCode::NOT_MODIFIED, StatusCode::RANGE_NOT_SATISFIABLE].contains(&status);
    (!is_usable).then(|| FetchError::Status { status: status.as_u16() })
}

fn wanted_pause(response: &Response) -> Option<Duration> {
    let until = retry_after(response.headers())?;
    until.duration_since(std::time::SystemTime::now()).ok()
}

/// A server that said nothing for the read timeout.
pub(super) fn silent(url: &Url, timeout: Duration) -> FetchError {
    let seconds = timeout.as_secs_f32();
    let source = std::io::Error::other(format!("nothing was received for {seconds} seconds"));
    FetchError::Unreachable {
        address: transport::address(url),
        reason: transport::NO_ANSWER,
        hint: transport::NETWORK,
        source: Some(Arc::new(source)),
    }
}

/// A request that got no answer, or only a part of one.
pub(super) fn trouble(url: &Url, error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    let address = transport::address(url);
    let local = url.host_str().is_some_and(is_loopback);
    let (reason, hint) = match Trouble::of(&error) {
        Trouble::Request => {
            return FetchError::Url { problem: "it cannot be asked for".to_owned() };
        }
        Trouble::Tls | Trouble::Certificate => {
            return FetchError::Tls { address, source: Arc::new(error) };
        }
        Trouble::Refused if local => (transport::REFUSED, "check that the server is running"),
        Trouble::Refused => {
            (transport::REFUSED, "check that the server is running, and that the port is right")
        }
        Trouble::NoSuchHost => {
            (transport::NO_SUCH_HOST, "check the name of the host and the DNS settings")
        }
        Trouble::NoAnswer => (transport::NO_ANSWER, transport::NETWORK),
        Trouble::CannotConnect => ("cannot connect", transport::NETWORK),
        Trouble::Broken => ("connection broke", transport::NETWORK),
    };
    let tells_more = ![transport::REFUSED, transport::NO_SUCH_HOST].contains(&reason);
    let source = tells_more.then(|| Arc::new(error) as _);
    FetchError::Unreachable { address, reason, hint, source }
}
