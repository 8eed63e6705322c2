//! Images for real registries on loopback, and certificates.

#![allow(dead_code, reason = "not every test needs all of it")]

mod server;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use llb::image::{Descriptor, Manifest, media_type};
use llb::{Digest, Reference};
use registry::Client;
pub(crate) use server::{Server, Setup, start};
use tempfile::TempDir;

pub(crate) fn reference(name: &str) -> Reference {
    Reference::parse(name).unwrap()
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
}

pub(crate) const CONFIG: &[u8] =
    br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;

/// Pushes an image with one layer.
pub(crate) fn push_image(
    client: &Client,
    reference: &Reference,
    layer: &[u8],
) -> Result<Descriptor, registry::Error> {
    for (kind, bytes) in [(media_type::OCI_LAYER, layer), (media_type::OCI_CONFIG, CONFIG)] {
        let owned = bytes.to_vec();
        let source =
            move || Ok(Box::new(std::io::Cursor::new(owned.clone())) as Box<dyn Read + Send>);
        client.push_blob(reference, &descriptor(kind, bytes), source, None)?;
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.into(),
        artifact_type: None,
        config: descriptor(media_type::OCI_CONFIG, CONFIG),
        layers: Some(vec![descriptor(media_type::OCI_LAYER, layer)]),
        subject: None,
        annotations: None,
    };
    let bytes = serde_json::to_vec(&manifest).unwrap();
    client.push_manifest(reference, media_type::OCI_MANIFEST, &bytes)
}

/// An authority, and what it vouches for: `ca.pem`, `server.pem` and `server.key` for 127.0.0.1, `client.pem` and
/// `client.key`.
pub(crate) struct Certificates(TempDir);

impl Certificates {
    /// `None`, with a word on it, where `openssl` is not installed.
    pub(crate) fn make() -> Option<Self> {
        let made = Self(tempfile::tempdir().unwrap());
        let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let own = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test authority"];
        if !made.openssl(&[&["req", "-x509"], &new[..], &own].concat()) {
            println!("SKIP: openssl is not installed");
            return None;
        }
        for (name, more) in [("server", "subjectAltName=IP:127.0.0.1"), ("client", "")] {
            let file = |end: &str| format!("{name}.{end}");
            let subject = format!("/CN={name}");
            let out = ["-keyout", &file("key"), "-out", &file("pem"), "-subj", &subject];
            let more = [
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                if more.is_empty() { "extendedKeyUsage=clientAuth" } else { more },
            ];
            assert!(made.openssl(&[&["req", "-x509"], &new[..], &out, &more].concat()));
        }
        Some(made)
    }

    /// Puts another authority's name on the client certificate.
    pub(crate) fn rename(&self) {
        let own = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Other authority"];
        let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        assert!(self.openssl(&[&["req", "-x509"], &new[..], &own].concat()));
        let out = ["-keyout", "client.key", "-out", "client.pem", "-subj", "/CN=client"];
        let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "extendedKeyUsage=clientAuth"];
        assert!(self.openssl(&[&["req", "-x509"], &new[..], &out, &by].concat()));
    }

    /// Makes `old.pem`, a client certificate without extensions, which is of version 1.
    pub(crate) fn old_client(&self) {
        let request = ["req", "-new", "-key", "client.key", "-out", "old.csr", "-subj", "/CN=old"];
        assert!(self.openssl(&request));
        let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
        assert!(
            self.openssl(
                &[&["x509", "-req", "-in", "old.csr", "-out", "old.pem"], &by[..]].concat()
            )
        );
    }

    /// Makes `server.pem` as an authority of its own, good now, or only long ago.
    pub(crate) fn self_signed(&self, is_good: bool) {
        let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let key = ["-keyout", "server.key", "-subj", "/CN=self"];
        let name = "subjectAltName=IP:127.0.0.1";
        if is_good {
            let out = ["-out", "server.pem", "-days", "2", "-addext", name];
            assert!(self.openssl(&[&["req", "-x509"], &new[..], &key, &out].concat()));
            return;
        }
        assert!(self.openssl(&[&["req", "-new", "-out", "self.csr"], &new[..], &key].concat()));
        let config = format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\nserial=serial\ndefault_md=sha256\npolicy=p\n\
             [p]\ncommonName=supplied\n[e]\nbasicConstraints=CA:TRUE\n{name}\n"
        );
        for (file, text) in [("ca.cnf", &*config), ("index", ""), ("serial", "1000\n")] {
            fs_err::write(self.path().join(file), text).unwrap();
        }
        let by = ["ca", "-batch", "-config", "ca.cnf", "-selfsign", "-keyfile", "server.key"];
        let times = ["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"];
        let out = ["-in", "self.csr", "-out", "server.pem", "-extensions", "e", "-notext"];
        assert!(self.openssl(&[&by[..], &times, &out].concat()));
    }

    /// Copies a key there, encrypted.
    pub(crate) fn encrypt(&self, name: &str, to: &Path) {
        let to = to.display().to_string();
        let how = ["-topk8", "-passout", "pass:secret", "-out", &to];
        assert!(self.openssl(&[&["pkcs8", "-in", name], &how[..]].concat()));
    }

    fn openssl(&self, arguments: &[&str]) -> bool {
        let ran = Command::new("openssl").current_dir(self.path()).args(arguments).output();
        ran.is_ok_and(|output| output.status.success())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Copies a file there, making its folder.
    pub(crate) fn copy(&self, name: &str, to: &Path) {
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        fs_err::copy(self.path().join(name), to).unwrap();
    }
}

/// A request as a server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: HashMap<String, String>,
}

/// A server on loopback that answers what it is told to and notes what it is asked.
pub(crate) struct Fake {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    /// One that answers the same to everything: what comes after `HTTP/1.1 `.
    pub(crate) fn always(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut lines = reader.by_ref().lines().map_while(Result::ok);
                let Some(line) = lines.next() else { continue };
                let headers = lines
                    .take_while(|line| !line.is_empty())
                    .filter_map(|line| {
                        let (name, value) = line.split_once(": ")?;
                        Some((name.to_lowercase(), value.to_owned()))
                    })
                    .collect();
                let line = line.trim_end_matches(" HTTP/1.1").to_owned();
                log.lock().unwrap().push(Seen { line, headers });
                let head = "connection: close\r\ncontent-length: 0\r\n\r\n";
                let _ = write!(reader.get_mut(), "HTTP/1.1 {answer}\r\n{head}");
            }
        });
        Self { host, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

/// A host on loopback that nobody listens on.
pub(crate) fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// An error and its causes.
pub(crate) fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
