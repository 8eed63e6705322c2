//! Repositories made with git, served on loopback by git's own CGI program or as plain files.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;

/// How a server answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// The `Authorization` header without which there is no answer.
    pub(crate) header: Option<String>,
    /// Files are sent as they are, without git.
    pub(crate) is_dumb: bool,
    /// Only the oldest protocol is spoken, in which a server says what it gives.
    pub(crate) is_old: bool,
    /// Where everybody is sent on to.
    pub(crate) redirect: Option<String>,
    /// The connection is held, and nothing answered.
    pub(crate) is_silent: bool,
}

/// A server of all repositories in a folder.
pub(crate) struct Server {
    address: SocketAddr,
    folder: PathBuf,
    rules: Arc<Mutex<Rules>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves the folder for as long as the test runs.
    pub(crate) fn start(folder: &Path, rules: Rules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            folder: folder.to_owned(),
            rules: Arc::new(Mutex::new(rules)),
            requests: Arc::default(),
        };
        let (folder, rules) = (server.folder.clone(), Arc::clone(&server.rules));
        let requests = Arc::clone(&server.requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, rules) = (folder.clone(), Arc::clone(&rules));
                let requests = Arc::clone(&requests);
                std::thread::spawn(move || {
                    let rules = rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    // A client that goes away early is the client's business.
                    let _ = answer(&stream, &folder, &rules, &requests);
                });
            }
        });
        server
    }

    /// Address of a repository.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Changes how it answers from now on.
    pub(crate) fn set(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// What was asked since the last call: method, path and `Authorization` header.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn answer(
    mut stream: &TcpStream,
    folder: &Path,
    rules: &Rules,
    requests: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let Some(request) = read_request(stream)? else { return Ok(()) };
    let header = request.header("authorization").unwrap_or("-").to_owned();
    let line = format!("{} {} {header}", request.method, request.path);
    requests.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    if rules.is_silent {
        // Until the client gives up.
        let _ = stream.read(&mut [0]);
        return Ok(());
    }
    if let Some(to) = &rules.redirect {
        let to = format!("{to}{}?{}", request.path, request.query);
        return send(stream, "301 Moved Permanently", &[("Location", &to)], b"");
    }
    if rules.header.as_ref().is_some_and(|wanted| *wanted != header) {
        let ask = [("WWW-Authenticate", "Basic realm=\"git\"")];
        return send(stream, "401 Unauthorized", &ask, b"");
    }
    if rules.is_dumb {
        let path = folder.join(request.path.trim_start_matches('/'));
        return match fs::read(path) {
            Ok(bytes) => send(stream, "200 OK", &[("Content-Type", "text/plain")], &bytes),
            Err(_) => send(stream, "404 Not Found", &[], b""),
        };
    }
    let output = backend(&request, folder, rules)?;
    let split = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(0);
    let (head, body) = output.split_at(split);
    let head = String::from_utf8_lossy(head).into_owned();
    let fields: Vec<(&str, &str)> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let status =
        fields.iter().find(|(key, _)| *key == "Status").map_or("200 OK", |(_, value)| value);
    send(stream, status, &fields, body.get(4..).unwrap_or_default())
}

fn backend(request: &Request, folder: &Path, rules: &Rules) -> std::io::Result<Vec<u8>> {
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", &request.path)
        .env("QUERY_STRING", &request.query)
        .env("REQUEST_METHOD", &request.method)
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    for (name, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "HTTP_GIT_PROTOCOL"),
    ] {
        if let Some(value) = request.header(name)
            && !(rules.is_old && name == "git-protocol")
        {
            command.env(variable, value);
        }
    }
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    let body = request.body.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&body));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(output.stdout)
}

fn read_request(stream: &TcpStream) -> std::io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((key, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((key.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if request.header("expect").is_some() {
        let mut stream = stream;
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            request.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = request.header("content-length") {
        request.body = vec![0; length.parse().unwrap_or(0)];
        let mut body = std::mem::take(&mut request.body);
        reader.read_exact(&mut body)?;
        request.body = body;
    }
    Ok(Some(request))
}

fn send(
    mut stream: &TcpStream,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<()> {
    let mut head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (key, value) in
        headers.iter().filter(|(key, _)| !["Status", "Content-Length"].contains(key))
    {
        head += &format!("{key}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)
}

/// A repository with files, and its bare copy, which is served.
pub(crate) struct Repository {
    pub(crate) tree: PathBuf,
    pub(crate) bare: PathBuf,
}

impl Repository {
    /// Makes `NAME.git` in a folder, with one commit of these files on the branch `main`.
    pub(crate) fn new(folder: &Path, name: &str, files: &[(&str, &str)]) -> Self {
        let tree = folder.join(format!("{name}.tree"));
        let bare = folder.join(format!("{name}.git"));
        fs::create_dir_all(&tree).unwrap();
        let repository = Self { tree, bare };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        fs::create_dir_all(repository.bare.parent().unwrap()).unwrap();
        let bare = repository.bare.to_str().unwrap().to_owned();
        repository.git(&["init", "--quiet", "--bare", "--initial-branch=main", &bare]);
        repository.commit(files);
        repository
    }

    /// Commits files and publishes all branches and tags; returns the id.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            let path = self.tree.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=change"]);
        self.publish();
        self.git(&["rev-parse", "HEAD"])
    }

    /// Publishes what there is.
    pub(crate) fn publish(&self) {
        let bare = self.bare.to_str().unwrap();
        self.git(&["push", "--quiet", "--force", "--all", bare]);
        self.git(&["push", "--quiet", "--force", "--tags", bare]);
    }

    /// Runs git in the tree; returns what it printed.
    #[track_caller]
    pub(crate) fn git(&self, words: &[&str]) -> String {
        git(&self.tree, words)
    }
}

/// Runs git in a folder, with settings of its own.
#[track_caller]
pub(crate) fn git(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "protocol.file.allow=always", "-c", "core.protectNTFS=false"]).args(words);
    for (name, value) in [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "a"),
        ("GIT_AUTHOR_EMAIL", "a@example.org"),
        ("GIT_AUTHOR_DATE", "1000000000 +0000"),
        ("GIT_COMMITTER_NAME", "c"),
        ("GIT_COMMITTER_EMAIL", "c@example.org"),
        ("GIT_COMMITTER_DATE", "1000000000 +0000"),
    ] {
        command.env(name, value);
    }
    let output = command.current_dir(folder).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "git {words:?}:\n{out}{err}");
    out.trim().to_owned()
}
