//! One request to a registry: the way to reach it, authorization, retries.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use llb::Digest;
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::{OnceCell, Semaphore};

use crate::auth::{Auth, Scopes};
use crate::config::{Config, Way};
use crate::credential::Credential;
use crate::fetch::date;
use crate::login::{HUB, HUB_AUTHORITY};
use crate::notice::Notices;
use crate::options::{Scheme, schemes};
use crate::transport::{self, HostTls, LONGEST_MESSAGE, Request, Transport, answered, bad_status};
use crate::{ClientOptions, Error, HostOptions};

/// State that all clones of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: ClientOptions,
    pub(crate) transport: Transport,
    /// Who to be everywhere, whatever the files say.
    pub(crate) given: Option<Credential>,
    /// What files say, once something was asked.
    pub(crate) config: OnceLock<Config>,
    /// Permits to read ranges of blobs before their turn.
    pub(crate) ahead: Arc<Semaphore>,
    /// What the user should hear of although it went well.
    pub(crate) notices: Notices,
    hosts: Mutex<HashMap<HostKey, Arc<Host>>>,
}

/// What tells hosts apart: the name, and how it is reached.
type HostKey = (String, Option<bool>, Option<usize>);

/// What is known of one registry.
#[derive(Debug)]
pub(crate) struct Host {
    /// As in a reference.
    pub(crate) name: String,
    scheme: OnceCell<Scheme>,
    pub(crate) auth: Auth,
    way: Way,
    /// Certificates, if there are any for it.
    pub(crate) tls: Option<Arc<HostTls>>,
    /// Where certificates for it may be put.
    pub(crate) folder: Option<PathBuf>,
    /// Why it is not asked while there is another place.
    pub(crate) down: OnceLock<String>,
    /// Whether it was asked once more in TLS 1.2.
    probed: AtomicBool,
    /// Whether it is on this machine, whatever its name.
    near: AtomicBool,
    /// Blobs that came damaged from it, and how.
    pub(crate) spoilt: Mutex<HashMap<Digest, String>>,
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
        let (transport, config) = (Transport::default(), OnceLock::new());
        let ahead = Arc::new(Semaphore::new(crate::download::AHEAD));
        let (notices, hosts) = (Notices::default(), Mutex::default());
        Self { options, transport, given, config, ahead, notices, hosts }
    }

    /// What is known of the registry with this name.
    pub(crate) fn registry(&self, name: &str) -> Result<Arc<Host>, Error> {
        self.host_by(name, self.config()?.way_to(name)?)
    }

    /// What is known of the host with this name that is reached in this way.
    pub(crate) fn host_by(&self, name: &str, way: Way) -> Result<Arc<Host>, Error> {
        let route = way.route.as_ref().map(|route| Arc::as_ptr(route).addr());
        let key = (name.to_owned(), way.insecure, route);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(&key) {
            return Ok(Arc::clone(host));
        }
        let config = self.config()?;
        let tls = HostTls::read(way.route.as_deref(), config.certificates(name)?.as_deref())?;
        let host = Arc::new(Host {
            name: name.to_owned(),
            scheme: OnceCell::new(),
            auth: Auth::default(),
            way,
            tls: tls.map(Arc::new),
            folder: config.folder_for(name),
            down: OnceLock::new(),
            probed: AtomicBool::new(false),
            near: AtomicBool::new(false),
            spoilt: Mutex::default(),
        });
        hosts.insert(key, Arc::clone(&host));
        Ok(host)
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
        let absolute = ask.path.starts_with("http://") || ask.path.starts_with("https://");
        let url = if absolute {
            Url::parse(&ask.path)
        } else {
            Url::parse(&format!("{}{}", host.base(scheme), ask.path))
        };
        let mut url = url.map_err(|_| Error::Unusable {
            what: ask.what.to_owned(),
            problem: format!("`{}` is no address of a registry", host.name),
        })?;
        if let Some(namespace) = host.namespace().filter(|_| !absolute) {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        let mut request = Request {
            headers: ask.headers.clone(),
            body: ask.body.clone(),
            ..Request::new(ask.method.clone(), url)
        };
        self.trust(host, &mut request);
        Ok(request)
    }

    /// Has a request made with the certificates for `host`, and with what only the host itself may see.
    pub(crate) fn trust(&self, host: &Host, request: &mut Request) {
        let own = self.is_own(host, &request.url);
        request.unverified = own && self.is_unverified(host);
        request.tls.clone_from(&host.tls);
        request.own = host.headers().filter(|_| own);
        request.shows_certificate = own;
        request.guarded = !own && !host.near.load(Ordering::Relaxed);
    }

    /// Whether `url` is at the registry itself, so that it may see its credentials.
    pub(crate) fn is_own(&self, host: &Host, url: &Url) -> bool {
        let scheme = host.scheme.get().copied().unwrap_or(Scheme::Https);
        Url::parse(&host.base(scheme)).is_ok_and(|own| transport::same_origin(&own, url))
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
            // Something on the way may have damaged them.
            Error::BadDigest { .. } => self.options.retries.min(1),
            error if error.is_transient() => self.options.retries,
            _ => 0,
        };
        if attempt >= most {
            return None;
        }
        let pause = self.backoff(attempt);
        match error {
            Error::RateLimited { until: Some(until), .. } | Error::Busy { until, .. } => {
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
        let mut response = self.answer(host, &request).await?;
        if response.status() == StatusCode::UNAUTHORIZED && own {
            let header = self.answer_challenge(host, ask.scopes, &response, shown.as_ref()).await?;
            if let Some(header) = header {
                request.headers.insert(AUTHORIZATION, header);
                response = self.answer(host, &request).await?;
            }
        }
        check_status(host, &request, response, ask).await
    }

    async fn answer(&self, host: &Host, request: &Request) -> Result<Response, Error> {
        match self.transport.send(&host.name, request.clone(), &self.options).await {
            Ok(response) => {
                self.hear(host, &response);
                Ok(response)
            }
            Err(error) => Err(host.advise(self.explained(host, request, error).await)),
        }
    }

    /// Keeps what the registry itself wants the user to know.
    pub(crate) fn hear(&self, host: &Host, response: &Response) {
        if self.is_own(host, response.url()) {
            host.near.store(transport::is_near(response), Ordering::Relaxed);
            self.notices.hear(&host.name, response.headers());
        }
    }

    /// Finds out whether a connection broke for want of a certificate. In TLS 1.3 a server says so when the connection
    /// is made already, and that may be lost with it; in TLS 1.2 it says so before. Asked once of each host.
    async fn explained(&self, host: &Host, request: &Request, error: Error) -> Error {
        let broke = matches!(error, Error::Unreachable { reason: transport::BROKEN, .. });
        if !broke
            || request.url.scheme() != "https"
            || !self.is_own(host, &request.url)
            || host.probed.swap(true, Ordering::Relaxed)
        {
            return error;
        }
        let mut probe = Request::new(Method::HEAD, request.url.clone());
        self.trust(host, &mut probe);
        probe.old_tls = true;
        match self.transport.send(&host.name, probe, &self.options).await {
            Err(found @ Error::ClientCertificate { .. }) => found,
            _ => error,
        }
    }

    /// Whether certificates of `host` are not checked.
    pub(crate) fn is_unverified(&self, host: &Host) -> bool {
        host.scheme.get() == Some(&Scheme::HttpsUnverified)
    }

    /// Asks the ways to speak to `host` in turn; the first that answers is kept.
    async fn find_scheme(&self, host: &Host) -> Result<Scheme, Error> {
        let candidates = host.schemes(&self.options);
        let [others @ .., last] = &*candidates else { return Ok(Scheme::Https) };
        for scheme in others {
            let Ok(url) = Url::parse(&host.base(*scheme)) else { continue };
            let mut request = Request::new(Method::GET, url);
            self.trust(host, &mut request);
            request.unverified = *scheme == Scheme::HttpsUnverified;
            request.shows_certificate = true;
            let answer = self.transport.send(&host.name, request, &self.options).await;
            // A TLS server that is spoken to in plain text answers 400.
            if answer.is_ok_and(|response| response.status() != StatusCode::BAD_REQUEST) {
                return Ok(*scheme);
            }
        }
        Ok(*last)
    }
}

impl Host {
    /// `https://host/v2/`; Docker Hub's registry has another name than its images.
    fn base(&self, scheme: Scheme) -> String {
        let scheme = scheme.name();
        match &self.way.route {
            Some(route) => format!("{scheme}://{}{}", route.authority, route.path),
            None if self.name == HUB => format!("{scheme}://{HUB_AUTHORITY}/v2/"),
            None => format!("{scheme}://{}/v2/", self.name),
        }
    }

    /// Ways to speak to it, in the order to try.
    fn schemes(&self, options: &ClientOptions) -> Cow<'_, [Scheme]> {
        let given = options.hosts.get(&self.name).filter(|given| given.insecure.is_some());
        match (given, &self.way.route) {
            (None, Some(route)) => Cow::Borrowed(&route.schemes),
            // Whoever puts certificates of a host on this machine into a folder wants them used.
            (None, None) if self.tls.is_some() && self.way.insecure != Some(true) => {
                Cow::Borrowed(&[Scheme::Https])
            }
            (Some(given), _) => Cow::Borrowed(schemes(&self.name, given)),
            (None, None) => {
                let insecure = self.way.insecure;
                Cow::Borrowed(schemes(&self.name, &HostOptions { insecure }))
            }
        }
    }

    fn namespace(&self) -> Option<&str> {
        self.way.route.as_ref()?.namespace.as_deref()
    }

    fn headers(&self) -> Option<HeaderMap> {
        Some(self.way.route.as_ref()?.headers.clone()).filter(|headers| !headers.is_empty())
    }

    /// Tells what may be done about a certificate.
    pub(crate) fn advise(&self, error: Error) -> Error {
        match error {
            Error::Tls { host, address, fault, source, .. } => {
                Error::Tls { host, address, fault, folder: self.folder.clone(), source }
            }
            Error::ClientCertificate { host, address, source, .. } => {
                let shown = self.tls.as_ref().and_then(|tls| tls.shown());
                let folder = self.folder.clone();
                Error::ClientCertificate { host, address, shown, folder, source }
            }
            other => other,
        }
    }
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
        let message = message(response).await;
        return Err(Error::RateLimited { host: host.name.clone(), message, until });
    }
    let (until, clock) = (retry_after(response.headers()), clock_note(response.headers()));
    let mut message = message(response).await;
    if let Some(until) = until.filter(|_| status == StatusCode::SERVICE_UNAVAILABLE) {
        let (host, asked) = (host.name.clone(), request.asked());
        return Err(Error::Busy { host, asked, answer: answered(status, &message), until });
    }
    if status == StatusCode::BAD_REQUEST
        && request.url.scheme() == "http"
        && message.is_empty()
        && let Some(folder) = &host.folder
    {
        let authority = folder.join("ca.crt");
        message = format!(
            "servers with TLS answer so to plain HTTP: if it is one, put its certificate authority into `{}`",
            authority.display()
        );
    }
    if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
        let action = ask.scopes.action();
        if let Some(clock) = clock {
            message = [message, clock].join(" ").trim_start().to_owned();
        }
        let login = host.auth.login(ask.scopes).await;
        let (what, host) = (ask.what.to_owned(), host.name.clone());
        return Err(Error::Unauthorized { what, action, message, host, login });
    }
    Err(bad_status(&host.name, request, status, &message))
}

/// When the server will answer again: `Retry-After`, in seconds or as a date.
///
/// Format: RFC 9110 §10.2.3.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<SystemTime> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u32>() {
        Ok(seconds) => SystemTime::now().checked_add(Duration::from_secs(seconds.into())),
        Err(_) => time(text),
    }
}

/// The time that a date in a header means.
fn time(text: &str) -> Option<SystemTime> {
    let seconds = u64::try_from(date::parse(text)?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Difference of clocks from which on it may be why tokens and signatures are refused.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(300);

/// What to add to a refusal by a server whose clock says another time than this machine's.
fn clock_note(headers: &HeaderMap) -> Option<String> {
    let (theirs, ours) = (time(headers.get(DATE)?.to_str().ok()?)?, SystemTime::now());
    let (difference, way) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let minutes = difference.as_secs() / 60;
    let note = format!(
        "(the clock of this machine is {minutes} minutes {way} the registry's: set it, then try again)"
    );
    (difference > CLOCK_DIFFERENCE).then_some(note)
}

/// The first error in an answer that is no success.
#[derive(Deserialize)]
pub(crate) struct Said {
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    message: String,
}

/// What the server says of its refusal, fit for a terminal.
pub(crate) async fn message(response: Response) -> String {
    said(response).await.map_or_else(String::new, |said| {
        clean(if said.message.is_empty() { &said.code } else { &said.message })
    })
}

/// What the server says of its refusal, if it says anything in the form of the specification.
pub(crate) async fn said(mut response: Response) -> Option<Said> {
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
    parse_said(&text)
}

/// Reads the body of a refusal.
pub(crate) fn parse_said(text: &[u8]) -> Option<Said> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Said>,
    }
    serde_json::from_slice::<Errors>(text).ok()?.errors.into_iter().next()
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
