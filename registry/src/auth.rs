//! Authorization: what a registry challenged for, and the tokens got so far.
//!
//! Nothing is sent before a registry asks for it. From then on each request carries what was asked for:
//! user and password, or a token for its scopes, which is kept until shortly before it expires.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use llb::Reference;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::Error;
use crate::challenge::{self, Challenge};
use crate::credential::{self, Credential, Login};
use crate::options::is_private_to_machine;
use crate::session::{Host, Shared, clean, message, retry_after, secret_header};
use crate::transport::{Request, answered, bad_answer, bad_status};

/// Largest answer of a token server, in bytes.
const LARGEST_TOKEN: usize = 1 << 20;

/// Lifetime of a token whose server does not say (token specification).
const DEFAULT_LIFETIME: u64 = 60;

/// What a request may do: sorted `repository:name:actions`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scopes(Vec<String>);

impl Scopes {
    /// To read from the repository.
    pub(crate) fn pull(repository: &Reference) -> Self {
        Self(vec![format!("repository:{}:pull", repository.repository())])
    }

    /// To write to the repository, and to mount from another.
    pub(crate) fn push(repository: &Reference, mount_from: Option<&Reference>) -> Self {
        let mut scopes = vec![format!("repository:{}:pull,push", repository.repository())];
        scopes.extend(mount_from.map(|from| format!("repository:{}:pull", from.repository())));
        scopes.sort();
        Self(scopes)
    }

    /// Nothing but to be known.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// The repository that it is mainly about; empty for none.
    fn repository(&self) -> &str {
        let main = self.0.iter().find(|scope| scope.ends_with(",push")).or(self.0.first());
        main.and_then(|scope| scope.split(':').nth(1)).unwrap_or_default()
    }

    /// For messages: `log in`, `pull` or `push`.
    pub(crate) fn action(&self) -> &'static str {
        if self.0.is_empty() {
            return "log in";
        }
        if self.0.iter().any(|scope| scope.ends_with(",push")) { "push" } else { "pull" }
    }
}

/// What one registry wants and was given.
#[derive(Debug, Default)]
pub(crate) struct Auth(Mutex<State>);

impl Auth {
    /// The login that requests for `scopes` showed, as it may be told.
    pub(crate) async fn login(&self, scopes: &Scopes) -> Option<String> {
        let state = self.0.lock().await;
        state.credentials.get(scopes.repository())?.as_ref().map(Login::shown)
    }
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    /// By repository, each looked up once.
    credentials: HashMap<String, Option<Login>>,
    tokens: HashMap<Scopes, Token>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("challenge", &self.challenge).finish_non_exhaustive()
    }
}

/// A token, ready to be shown.
pub(crate) struct Token {
    header: HeaderValue,
    expires: Instant,
}

/// Answer of a token server.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Shared {
    /// The `Authorization` that `host` is known to want for `scopes`.
    pub(crate) async fn authorization(
        &self,
        host: &Host,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, Error> {
        let mut state = host.auth.0.lock().await;
        self.current(host, &mut state, scopes).await
    }

    /// Learns from an answer 401. `shown` is what the request carried. `None` when there is nothing better
    /// to show.
    pub(crate) async fn answer_challenge(
        &self,
        host: &Host,
        scopes: &Scopes,
        response: &Response,
        shown: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Error> {
        let offers = response.headers().get_all(WWW_AUTHENTICATE);
        let offers: Vec<_> = offers
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        // A token tells less than a password, so it is preferred.
        let is_bearer = |offer: &&Challenge| matches!(offer, Challenge::Bearer { .. });
        let Some(offer) = offers.iter().find(is_bearer).or(offers.first()) else { return Ok(None) };
        let mut state = host.auth.0.lock().await;
        state.challenge = Some(offer.clone());
        // Another request may have got a new token in the meantime.
        if state.tokens.get(scopes).is_some_and(|token| Some(&token.header) == shown) {
            state.tokens.remove(scopes);
        }
        let header = self.current(host, &mut state, scopes).await?;
        Ok(header.filter(|header| Some(header) != shown))
    }

    async fn current(
        &self,
        host: &Host,
        state: &mut State,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, Error> {
        let Some(challenge) = state.challenge.clone() else { return Ok(None) };
        let repository = scopes.repository();
        let login = match (&self.given, state.credentials.get(repository)) {
            (Some(given), _) => Some(Login { credential: given.clone(), from: None }),
            (None, Some(known)) => known.clone(),
            (None, None) => {
                let files = &self.options.auth_files;
                let found = credential::find(files, &host.name, repository).await?;
                state.credentials.insert(repository.to_owned(), found.clone());
                found
            }
        };
        let credential = login.as_ref().map(|login| &login.credential);
        if let Some(Credential::Registry(token)) = credential {
            return Ok(secret_header(&format!("Bearer {token}")));
        }
        match challenge {
            Challenge::Basic => Ok(match credential {
                Some(Credential::Password(user, password)) => basic(user, password),
                _ => None,
            }),
            Challenge::Bearer { realm, service, scope } => {
                let fresh = |token: &&Token| token.expires > Instant::now();
                if let Some(token) = state.tokens.get(scopes).filter(fresh) {
                    return Ok(Some(token.header.clone()));
                }
                let token = self
                    .fetch_token(host, &realm, &service, &scope, scopes, login.as_ref())
                    .await?;
                let header = token.header.clone();
                state.tokens.insert(scopes.clone(), token);
                Ok(Some(header))
            }
        }
    }

    async fn fetch_token(
        &self,
        host: &Host,
        realm: &str,
        service: &str,
        scope: &str,
        scopes: &Scopes,
        login: Option<&Login>,
    ) -> Result<Token, Error> {
        let credential = login.map(|login| &login.credential);
        let request =
            token_request(realm, service, scope, scopes, credential, &self.options.user_agent);
        let mut request = request.map_err(|answer| Error::BadAnswer {
            host: host.name.clone(),
            asked: format!("token from `{}`", clean(realm)),
            answer,
            status: None,
        })?;
        let own = self.is_own(host, &request.url);
        if let Some(problem) = refused_realm(&host.name, &request.url).filter(|_| !own) {
            return Err(bad_answer(&host.name, &request, problem.to_owned()));
        }
        self.trust(host, &mut request);
        let mut attempt = 0;
        loop {
            let error = match self.token_once(host, &request, scopes, login).await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let Some(pause) = self.pause(&error, attempt) else { return Err(error) };
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn token_once(
        &self,
        host: &Host,
        request: &Request,
        scopes: &Scopes,
        login: Option<&Login>,
    ) -> Result<Token, Error> {
        let answer = self.transport.send(&host.name, request.clone(), &self.options).await;
        let mut response = answer.map_err(|error| host.advise(error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS => {
                let until = retry_after(response.headers());
                let message = message(response).await;
                return Err(Error::RateLimited { host: host.name.clone(), message, until });
            }
            status if [400, 401, 403].contains(&status.as_u16()) => {
                let said = message(response).await;
                let message = format!("{} {}", request.asked(), answered(status, &said));
                return Err(Error::Unauthorized {
                    what: host.name.clone(),
                    action: scopes.action(),
                    message,
                    host: host.name.clone(),
                    login: login.map(Login::shown),
                });
            }
            status => return Err(bad_status(&host.name, request, status, "")),
        }
        let bad = |problem: &str| bad_answer(&host.name, request, problem.to_owned());
        let body =
            crate::pull::read_body(&mut response, LARGEST_TOKEN, self.options.read_timeout).await;
        let body = body
            .map_err(|problem| problem.into_error(&host.name, request, "token", LARGEST_TOKEN))?;
        token_in(&body).map_err(bad)
    }
}

/// Reads the answer of a token server; what is wrong with it otherwise.
pub(crate) fn token_in(body: &[u8]) -> Result<Token, &'static str> {
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| "answered no token")?;
    let text = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if text.is_empty() {
        return Err("answered no token");
    }
    let header = secret_header(&format!("Bearer {text}")).ok_or("answered a malformed token")?;
    // A token that is about to expire would be refused on its way; a year is as good as for ever.
    let lifetime =
        answer.expires_in.unwrap_or(DEFAULT_LIFETIME).clamp(DEFAULT_LIFETIME, 365 * 86_400);
    Ok(Token { header, expires: Instant::now() + Duration::from_secs(lifetime - lifetime / 10) })
}

/// Why a token server that is not the registry itself is not asked.
fn refused_realm(registry: &str, realm: &Url) -> Option<&'static str> {
    let server = realm.host_str().unwrap_or_default();
    if is_private_to_machine(server) {
        let elsewhere = !is_private_to_machine(registry);
        return elsewhere
            .then_some("is a token server on this machine, not the registry's: it is not asked");
    }
    (realm.scheme() != "https")
        .then_some("is a token server on another host without TLS: it is not asked")
}

/// The request for a token: GET, or POST with an identity token. What is wrong with the realm otherwise.
fn token_request(
    realm: &str,
    service: &str,
    scope: &str,
    scopes: &Scopes,
    credential: Option<&Credential>,
    client: &str,
) -> Result<Request, String> {
    let mut url = Url::parse(realm).map_err(|_| "is no address of a token server".to_owned())?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err("is no address of a token server".to_owned());
    }
    let mut wanted = scopes.0.clone();
    wanted.extend(
        Some(scope.to_owned()).filter(|scope| !scope.is_empty() && !scopes.0.contains(scope)),
    );
    if let Some(Credential::Identity(token)) = credential {
        let mut form = Url::parse("form:").map_err(|error| error.to_string())?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service)
            .append_pair("client_id", client)
            .append_pair("scope", &wanted.join(" "))
            .append_pair("refresh_token", token);
        let mut request = Request::new(Method::POST, url);
        request
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        request.body = Some(form.query().unwrap_or_default().as_bytes().to_vec());
        return Ok(request);
    }
    {
        let mut query = url.query_pairs_mut();
        if !service.is_empty() {
            query.append_pair("service", service);
        }
        query.extend_pairs(wanted.iter().map(|scope| ("scope", scope)));
        query.append_pair("client_id", client);
    }
    let mut request = Request::new(Method::GET, url);
    if let Some(Credential::Password(user, password)) = credential {
        request.headers.extend(basic(user, password).map(|value| (AUTHORIZATION, value)));
    }
    Ok(request)
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    secret_header(&basic_authorization(user, password))
}

/// Value of an `Authorization` header by user name and password (RFC 7617).
pub fn basic_authorization(user: &str, password: &str) -> String {
    format!("Basic {}", llb::base64::encode(format!("{user}:{password}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_token_servers_are_asked() {
        let refused =
            |registry: &str, realm: &str| refused_realm(registry, &realm.parse().unwrap());
        let (plain, machine) = (Some("without TLS"), Some("on this machine"));
        for (registry, realm, expect) in [
            ("r.example", "https://auth.example/token", None),
            ("r.example", "http://auth.example/token", plain),
            ("127.0.0.1:5000", "http://auth.example/token", plain),
            ("127.0.0.1:5000", "http://127.0.0.1:5001/token", None),
            ("r.example", "http://127.0.0.1:5001/token", machine),
            ("r.example", "https://localhost/token", machine),
            ("r.example", "http://169.254.169.254/latest", machine),
        ] {
            let problem = refused(registry, realm);
            assert_eq!(problem.is_some(), expect.is_some(), "{registry} {realm}: {problem:?}");
            assert!(problem.unwrap_or_default().contains(expect.unwrap_or_default()));
        }
    }

    #[test]
    fn token_requests_name_service_and_all_scopes() {
        let (to, from) =
            (Reference::parse("h.io/a/b").unwrap(), Reference::parse("h.io/c").unwrap());
        let scopes = Scopes::push(&to, Some(&from));
        let challenged = "repository:a/b:pull,push";
        let request =
            token_request("https://t.io/token?x=1", "h.io", challenged, &scopes, None, "me")
                .unwrap();
        let expect = "https://t.io/token?x=1&service=h.io&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull&client_id=me";
        assert_eq!(request.url.as_str(), expect);
        let identity = Credential::Identity("i&d".into());
        let request =
            token_request("https://t.io/token", "s", "", &scopes, Some(&identity), "me").unwrap();
        let body = String::from_utf8(request.body.unwrap()).unwrap();
        assert!(request.method == Method::POST && body.contains("refresh_token=i%26d"), "{body}");
        assert!(token_request("file:///x", "s", "", &scopes, None, "me").is_err());
    }
}
