//! A real registry that wants tokens, and a small server that gives them; certificates of a private authority.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/process.rs"]
mod process;
mod support;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use llb::image::media_type;
use llb::{Digest, Reference, base64};
use process::{Registry, Settings, tls};
use registry::{Client, ClientOptions, Error, HostOptions, Pushed};
use support::{Seen, Server, answer, chain, descriptor, manifest};
use tempfile::TempDir;

/// Runs `openssl` in a folder with something on its standard input; `None`, with a word on it, where it is not
/// installed.
fn openssl(folder: &Path, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(arguments);
    let started =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = started else {
        println!("SKIP: openssl is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

fn url_safe(bytes: &[u8]) -> String {
    base64::encode(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

/// A token for what was asked, as far as the asker may: all with the password, else to read `public/*`.
fn token(seen: &Seen, folder: &Path) -> Vec<u8> {
    let query = seen.line.split_once('?').map_or("", |(_, query)| query);
    let known = seen.header("authorization") == "Basic dXNlcjpzZWNyZXQ=";
    if !known && !seen.header("authorization").is_empty() {
        return answer("401 Unauthorized", &[], b"");
    }
    let access: Vec<_> = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("scope="))
        .map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","))
        .filter_map(|scope| {
            let mut parts = scope.split(':').map(str::to_owned);
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            let actions: Vec<String> = actions
                .split(',')
                .filter(|action| known || (*action == "pull" && name.starts_with("public/")))
                .map(str::to_owned)
                .collect();
            Some(serde_json::json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let certificate = fs_err::read_to_string(folder.join("cert.pem")).unwrap();
    let certificate: String =
        certificate.lines().filter(|line| !line.starts_with("-----")).collect();
    let head = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let claims = serde_json::json!({
        "iss": "issuer", "sub": "user", "aud": "service", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": "1", "access": access,
    });
    let text = format!(
        "{}.{}",
        url_safe(head.to_string().as_bytes()),
        url_safe(claims.to_string().as_bytes())
    );
    let signature =
        openssl(folder, &["dgst", "-sha256", "-sign", "key.pem"], text.as_bytes()).unwrap();
    let body = format!(r#"{{"token":"{text}.{}","expires_in":300}}"#, url_safe(&signature));
    answer("200 OK", &[], body.as_bytes())
}

/// A registry and the server that gives tokens for it.
struct Guarded {
    registry: Registry,
    tokens: Server,
    folder: TempDir,
}

impl Guarded {
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let arguments = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens -keyout key.pem -out cert.pem";
        let arguments: Vec<&str> = arguments.split(' ').collect();
        openssl(folder.path(), &arguments, b"")?;
        let place = folder.path().to_owned();
        let tokens = Server::start(move |seen, _| token(seen, &place));
        let auth = format!(
            "auth: {{token: {{realm: 'http://{}/token', service: service, issuer: issuer, rootcertbundle: '{}'}}}}\n",
            tokens.host,
            folder.path().join("cert.pem").display()
        );
        let registry =
            Registry::start(folder.path(), &Settings { more: auth, ..Settings::default() })?;
        Some(Self { registry, tokens, folder })
    }

    fn client(&self, password: Option<&str>) -> Client {
        let file = self.folder.path().join("config.json");
        let auth = password.map(|password| base64::encode(format!("user:{password}").as_bytes()));
        let text = match auth {
            Some(auth) => {
                format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, self.registry.host)
            }
            None => "{}".to_owned(),
        };
        fs_err::write(&file, text).unwrap();
        Client::new(ClientOptions { auth_files: vec![file], ..ClientOptions::default() })
    }

    fn name(&self, path: &str) -> Reference {
        Reference::parse(&format!("{}/{path}", self.registry.host)).unwrap()
    }

    fn asked(&self) -> usize {
        self.tokens.seen().len()
    }
}

fn push_blob(
    client: &Client,
    name: &Reference,
    bytes: &[u8],
    from: Option<&Reference>,
) -> Result<Pushed, Error> {
    let owned = bytes.to_vec();
    let source = move || Ok(Box::new(std::io::Cursor::new(owned.clone())) as Box<dyn Read + Send>);
    client.push_blob(name, &descriptor(bytes), source, from)
}

#[test]
fn one_token_for_each_scope_serves_a_whole_image() {
    let Some(guarded) = Guarded::start() else { return };
    let client = guarded.client(Some("secret"));
    let name = guarded.name("public/app:1");
    for blob in [&b"{}"[..], b"layer one", b"layer two"] {
        assert_eq!(push_blob(&client, &name, blob, None).unwrap(), Pushed::Uploaded);
    }
    client.push_manifest(&name, media_type::OCI_MANIFEST, &manifest()).unwrap();
    assert_eq!(guarded.asked(), 1, "one to push");
    assert_eq!(client.resolve(&name).unwrap().bytes, manifest());
    for _ in 0..2 {
        let mut read = Vec::new();
        client.blob(&name, &descriptor(b"layer one")).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, b"layer one");
    }
    assert_eq!(guarded.asked(), 2, "and one to pull");
    let other = guarded.name("team/other:1");
    assert_eq!(push_blob(&client, &other, b"layer one", Some(&name)).unwrap(), Pushed::Mounted);
    assert_eq!(guarded.asked(), 4, "one to push there, one to mount as well");
    let lines: Vec<String> = guarded.tokens.seen().into_iter().map(|seen| seen.line).collect();
    let scopes = [
        "scope=repository%3Apublic%2Fapp%3Apull%2Cpush",
        "scope=repository%3Apublic%2Fapp%3Apull",
        "scope=repository%3Ateam%2Fother%3Apull%2Cpush",
        "scope=repository%3Apublic%2Fapp%3Apull&scope=repository%3Ateam%2Fother%3Apull%2Cpush",
    ];
    for (line, scope) in lines.iter().zip(scopes) {
        assert!(line.contains(&format!("service=service&{scope}&")), "{line}: {scope}");
    }
}

#[test]
fn many_requests_at_once_share_a_token() {
    let Some(guarded) = Guarded::start() else { return };
    let client = guarded.client(Some("secret"));
    let name = guarded.name("team/app:1");
    std::thread::scope(|scope| {
        for number in 0..8_u8 {
            let (client, name) = (&client, &name);
            scope.spawn(move || push_blob(client, name, &[number; 1000], None).unwrap());
        }
    });
    assert_eq!(guarded.asked(), 1);
}

#[test]
fn who_has_no_password_may_read_what_is_public() {
    let Some(guarded) = Guarded::start() else { return };
    let name = guarded.name("public/app:1");
    let owner = guarded.client(Some("secret"));
    push_blob(&owner, &name, b"{}", None).unwrap();
    owner.push_manifest(&name, media_type::OCI_MANIFEST, &manifest()).unwrap();
    let anybody = guarded.client(None);
    assert_eq!(anybody.resolve(&name).unwrap().bytes, manifest());
    let error = push_blob(&anybody, &name, b"new", None).unwrap_err();
    let expect = format!(
        "{}@{}: push access denied, repository does not exist or may require authorization",
        name.name(),
        Digest::of(b"new")
    );
    assert!(error.to_string().starts_with(&expect), "{error}");
    let private = guarded.name("team/app:1");
    let error = anybody.resolve(&private).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{private}: pull access denied")), "{error}");
    let error = guarded.client(Some("wrong")).resolve(&private).unwrap_err().to_string();
    assert!(
        error.contains(&format!("GET http://{}/token answered 401", guarded.tokens.host)),
        "{error}"
    );
}

/// Makes an authority and a certificate of it that is good for so many days.
fn authority(folder: &Path, days: &str, address: &str) -> Option<()> {
    let run = |text: &str| openssl(folder, &text.split(' ').collect::<Vec<_>>(), b"").map(drop);
    run(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3 -subj /CN=authority -keyout ca.key -out ca.pem",
    )?;
    run(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry -keyout key.pem -out request.pem",
    )?;
    fs_err::write(folder.join("names"), format!("subjectAltName=IP:{address}\n")).unwrap();
    run(&format!(
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile names -out cert.pem"
    ))
}

/// What comes of asking a registry with such a certificate; whether the authority is trusted is up to the test.
fn ask_with_tls(days: &str, address: &str, trusted: bool) -> Option<Result<(), String>> {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path(), days, address)?;
    let at = |name: &str| folder.path().join(name);
    let http = tls(&at("cert.pem"), &at("key.pem"));
    let registry = Registry::start(folder.path(), &Settings { http, ..Settings::default() })?;
    let mut options = ClientOptions { retries: 0, ..ClientOptions::default() };
    // A loopback host is asked by plain HTTP first; this one answers that it wants TLS.
    options.hosts.insert(registry.host.clone(), HostOptions { insecure: Some(false) });
    if trusted {
        options.certificate_authorities.push(fs_err::read(at("ca.pem")).unwrap());
    }
    let client = Client::new(options);
    let name = Reference::parse(&format!("{}/team/app:1", registry.host)).unwrap();
    let pushed = push_blob(&client, &name, b"{}", None)
        .and_then(|_| client.push_manifest(&name, media_type::OCI_MANIFEST, &manifest()))
        .and_then(|_| client.resolve(&name));
    Some(pushed.map(drop).map_err(|error| chain(&error).replace(&registry.host, "[host]")))
}

#[test]
fn a_private_authority_is_trusted_when_it_is_given() {
    let Some(outcome) = ask_with_tls("2", "127.0.0.1", true) else { return };
    assert_eq!(outcome, Ok(()));
    let error = ask_with_tls("2", "127.0.0.1", false).unwrap().unwrap_err();
    let expect = "no trusted TLS connection to registry `[host]` at [host]: add its certificate authority to the \
                  system, or mark the registry insecure if it is: ";
    assert!(error.starts_with(expect), "{error}");
}

#[test]
fn a_certificate_that_has_expired_points_to_the_clock() {
    let Some(outcome) = ask_with_tls("-1", "127.0.0.1", true) else { return };
    let error = outcome.unwrap_err();
    let expect = "no trusted TLS connection to registry `[host]` at [host]: check the clock of this machine; if it is \
                  right, the certificate must be renewed: ";
    assert!(error.starts_with(expect), "{error}");
}

#[test]
fn a_certificate_for_another_name_is_told() {
    let Some(outcome) = ask_with_tls("2", "127.0.0.2", true) else { return };
    let error = outcome.unwrap_err();
    let expect = "no trusted TLS connection to registry `[host]` at [host]: ask the registry by a name that its \
                  certificate is for: ";
    assert!(error.starts_with(expect), "{error}");
}
