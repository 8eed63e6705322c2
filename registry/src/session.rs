//! One request to a registry: the way to reach it, authorization, retries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use llb::Reference;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::auth::{Auth, Scopes};
use crate::credential::Credential;
use crate::options::{Scheme, schemes};
use crate::transport::{self, LONGEST_MESSAGE, Request, Transport, bad_status};
use crate::{ClientOptions, Error};

/// State that all clones of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: ClientOptions,
    pub(crate) transport: Transport,
    /// Who to be everywhere, whatever the files say.
    pub(crate) given: Option<Credential>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// What is known of one registry.
#[derive(Debug)]
pub(crate) struct Host {
    /// As in a reference.
    pub(crate) name: String,
    scheme: OnceCell<Scheme>,
    pub(crate) auth: Auth,
}

/// A request to a registry, as `pull` and `push` make it.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Absolute, or relative to `/v2/` of the host.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) scopes: &'a Scopes,
    /// For messages: the reference, or the blob and its repository.
    pub(crate) what: &'a str,
    /// Whether passing errors are tried again.
    pub(crate) retry: bool,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: Method, path: String, scopes: &'a Scopes, what: &'a str) -> Self {
        Self { method, path, headers: HeaderMap::new(), body: None, scopes, what, retry: true }
    }
}

impl Shared {
    pub(crate) fn new(options: ClientOptions, given: Option<Credential>) -> Self {
        Self { options, transport: Transport::default(), given, hosts: Mutex::default() }
    }

    /// What is known of the registry of `reference`.
    pub(crate) fn host(&self, reference: &Reference) -> Arc<Host> {
        self.host_named(reference.host())
    }

    /// What is known of the registry with this name.
    pub(crate) fn host_named(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = || {
            Arc::new(Host { name: name.to_owned(), scheme: OnceCell::new(), auth: Auth::default() })
        };
        Arc::clone(hosts.entry(name.to_owned()).or_insert_with(host))
    }

    /// Pause before try number `attempt` + 1, doubled each time, with jitter of a half.
    pub(crate) fn backoff(&self, attempt: u32) -> Duration {
        let full = self
            .options
            .backoff
            .saturating_mul(1 << attempt.min(16))
            .min(self.options.longest_wait);
        // The sub-second clock is random enough to keep many clients from marching in step.
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        full.mul_f64(0.5 + f64::from(clock.subsec_nanos() % 1000) / 2000.0)
    }

    /// The request for `ask`, not yet authorized.
    pub(crate) async fn request(&self, host: &Host, ask: &Ask<'_>) -> Result<Request, Error> {
        let scheme = *host.scheme.get_or_try_init(|| self.find_scheme(host)).await?;
        let url = if ask.path.starts_with("http://") || ask.path.starts_with("https://") {
            Url::parse(&ask.path)
        } else {
            Url::parse(&format!("{}{}", base(scheme, &host.name), ask.path))
        };
        let url = url.map_err(|_| Error::Unusable {
            what: ask.what.to_owned(),
            problem: format!("`{}` is no address of a registry", host.name),
        })?;
        let unverified = self.is_unverified(host) && self.is_own(host, &url);
        Ok(Request {
            headers: ask.headers.clone(),
            body: ask.body.clone(),
            unverified,
            ..Request::new(ask.method.clone(), url)
        })
    }

    /// Whether `url` is at the registry itself, so that it may see its credentials.
    pub(crate) fn is_own(&self, host: &Host, url: &Url) -> bool {
        let scheme = host.scheme.get().copied().unwrap_or(Scheme::Https);
        Url::parse(&base(scheme, &host.name)).is_ok_and(|own| transport::same_origin(&own, url))
    }

    /// Sends `ask` until there is an answer that is not a passing error, authorized as the registry wants.
    ///
    /// The answer is one of success or 404, or another 4xx that [`refusal`] makes an error of.
    pub(crate) async fn send(&self, host: &Host, ask: &Ask<'_>) -> Result<Response, Error> {
        let mut attempt = 0;
        loop {
            let error = match self.send_once(host, ask).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let Some(pause) = self.pause(&error, attempt).filter(|_| ask.retry) else {
                return Err(error);
            };
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// How long to wait before another try after `error`, if another try makes sense.
    pub(crate) fn pause(&self, error: &Error, attempt: u32) -> Option<Duration> {
        let most = match error {
            // A port that nobody listens on seldom opens soon.
            Error::Unreachable { reason: transport::REFUSED | transport::NO_SUCH_HOST, .. } => {
                self.options.retries.min(2)
            }
            error if error.is_transient() => self.options.retries,
            _ => 0,
        };
        if attempt >= most {
            return None;
        }
        let pause = self.backoff(attempt);
        match error {
            Error::RateLimited { until: Some(until), .. } => {
                let wanted = until.duration_since(SystemTime::now()).unwrap_or_default();
                (wanted <= self.options.longest_wait).then(|| wanted.max(pause))
            }
            _ => Some(pause),
        }
    }

    async fn send_once(&self, host: &Host, ask: &Ask<'_>) -> Result<Response, Error> {
        let mut request = self.request(host, ask).await?;
        let own = self.is_own(host, &request.url);
        let shown = if own { self.authorization(host, ask.scopes).await? } else { None };
        request.headers.extend(shown.clone().map(|value| (AUTHORIZATION, value)));
        let mut response = self.transport.send(&host.name, request.clone(), &self.options).await?;
        if response.status() == StatusCode::UNAUTHORIZED && own {
            let header = self.answer_challenge(host, ask.scopes, &response, shown.as_ref()).await?;
            if let Some(header) = header {
                request.headers.insert(AUTHORIZATION, header);
                response = self.transport.send(&host.name, request.clone(), &self.options).await?;
            }
        }
        check_status(host, &request, response, ask).await
    }

    /// Whether certificates of `host` are not checked.
    pub(crate) fn is_unverified(&self, host: &Host) -> bool {
        host.scheme.get() == Some(&Scheme::HttpsUnverified)
    }

    /// Asks the ways to speak to `host` in turn; the first that answers is kept.
    async fn find_scheme(&self, host: &Host) -> Result<Scheme, Error> {
        let options = self.options.hosts.get(&host.name).cloned().unwrap_or_default();
        let candidates = schemes(&host.name, &options);
        let [others @ .., last] = candidates else { return Ok(Scheme::Https) };
        for scheme in others {
            let Ok(url) = Url::parse(&base(*scheme, &host.name)) else { continue };
            let mut request = Request::new(Method::GET, url);
            request.unverified = *scheme == Scheme::HttpsUnverified;
            let answer = self.transport.send(&host.name, request, &self.options).await;
            // A TLS server that is spoken to in plain text answers 400.
            if answer.is_ok_and(|response| response.status() != StatusCode::BAD_REQUEST) {
                return Ok(*scheme);
            }
        }
        Ok(*last)
    }
}

/// `https://host/v2/`; Docker Hub's registry has another name than its images.
fn base(scheme: Scheme, host: &str) -> String {
    let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
    format!("{}://{host}/v2/", scheme.name())
}

/// Passes on success and 404; other answers become errors.
pub(crate) async fn check_status(
    host: &Host,
    request: &Request,
    response: Response,
    ask: &Ask<'_>,
) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() || status == StatusCode::NOT_FOUND {
        return Ok(response);
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        let until = retry_after(response.headers());
        return Err(Error::RateLimited { host: host.name.clone(), until });
    }
    let message = message(response).await;
    if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
        let action = ask.scopes.action();
        return Err(Error::Unauthorized { what: ask.what.to_owned(), action, message });
    }
    Err(bad_status(&host.name, request, status, &message))
}

/// When the server will answer again: `Retry-After` in seconds. Its other form, a date, is rare, and then
/// the usual pauses are made.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<SystemTime> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u32>().ok()?;
    SystemTime::now().checked_add(Duration::from_secs(seconds.into()))
}

/// What the server says of its refusal, fit for a terminal.
async fn message(mut response: Response) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut text = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            text.extend_from_slice(&chunk);
            if text.len() > LONGEST_MESSAGE {
                break;
            }
        }
    };
    // A message that does not come is no reason to wait long.
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
    let Ok(Errors { errors }) = serde_json::from_slice(&text) else { return String::new() };
    let first = errors.into_iter().next();
    first.map_or_else(String::new, |item| {
        clean(if item.message.is_empty() { &item.code } else { &item.message })
    })
}

/// Text from a server without control characters, and not too long.
pub(crate) fn clean(text: &str) -> String {
    let mut kept: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    if kept.len() < text.len() && text.chars().nth(200).is_some() {
        kept.push('…');
    }
    kept
}

/// A value for a header, kept out of debug output.
pub(crate) fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
