//! The program `docker-registry` as a process of a test, for the tests of every crate that speaks to a registry.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part, and fails by panicking"
)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `user` with the password `secret`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// What a registry is started with; the default is plain HTTP for everybody.
#[derive(Default)]
pub(crate) struct Settings {
    /// Asks for the password `secret` of `user`.
    pub(crate) password: bool,
    /// Further fields of `http`: `, tls: {…}`.
    pub(crate) http: String,
    /// Further lines of the file.
    pub(crate) more: String,
}

/// A registry on loopback that ends with the test.
pub(crate) struct Registry {
    process: Child,
    /// Address and port: `127.0.0.1:40000`.
    pub(crate) host: String,
}

impl Registry {
    /// Starts a plain one, as [`start`](Self::start).
    pub(crate) fn start_in(folder: &Path) -> Option<Self> {
        Self::start(folder, &Settings::default())
    }

    /// Starts one that keeps its settings and its `data` in `folder`; `None`, with a word on it, where the program is
    /// not installed.
    pub(crate) fn start(folder: &Path, settings: &Settings) -> Option<Self> {
        fs_err::create_dir_all(folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let at = |name: &str| folder.join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}'{}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n{}",
            settings.http,
            at("data"),
            settings.more
        );
        if settings.password {
            fs_err::write(at("htpasswd"), HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n", at("htpasswd"));
        }
        fs_err::write(at("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.args(["serve", &at("config.yml")]).stdin(Stdio::null());
        let Ok(process) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            println!("SKIP: docker-registry is not installed");
            return None;
        };
        let registry = Self { process, host };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The fields of `http` that make a registry speak TLS, with these files.
pub(crate) fn tls(certificate: &Path, key: &Path) -> String {
    format!(", tls: {{certificate: '{}', key: '{}'}}", certificate.display(), key.display())
}
