//! Speaks the OCI distribution protocol: resolves names, pulls and pushes verified byte streams. Also gets
//! files behind plain URLs.
//!
//! The outside is blocking and may be called from many threads at once; the inside is asynchronous, on
//! one small runtime per [`Client`] that is made at the first request.
//!
//! ```text
//! client   names, options, the blocking facade        pull, push   blobs and manifests
//! session  one request: retries, auth, redirects      auth         challenges, tokens, credentials
//! config   files about mirrors and certificates       place        mirrors, then the registry itself
//! download  a blob's bytes, in ranges              upload       a blob's bytes, whole or in chunks
//! fetch    files behind URLs
//! transport  proxies, one hop, what went wrong     manifest     documents and platform choice
//! tls      whom to trust, what to show
//! ```
//!
//! Invariants:
//! - Bytes that are asked for by digest are returned only if they have that digest; a stream says so with
//!   an error where its end would be.
//! - Credentials go only to the registry they are configured for and to the token server it names; they are
//!   dropped when a redirect leaves the host.
//! - Whatever a server answers ends in a result within the read timeout per read, and never in a panic.
//!
//! None of the blocking functions may be called from inside another asynchronous runtime.
//!
//! Format: OCI distribution specification 1.1; the token protocol of the Docker registry.

mod auth;
mod cancel;
mod challenge;
mod client;
mod config;
mod credential;
mod download;
mod error;
mod fetch;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod guard;
mod login;
mod manifest;
mod notice;
mod options;
mod place;
mod progress;
mod proxy;
mod pull;
mod push;
mod session;
mod tls;
mod transport;
mod upload;

pub use auth::basic_authorization;
pub use cancel::Cancel;
pub use client::Client;
pub use config::{ConfigPaths, config_paths};
pub use credential::{auth_files, docker_config_path, login_file};
pub use error::{Error, TlsFault};
pub use fetch::{FetchError, FileReader, Validators};
pub use login::{LoginError, registry_of, remove_login, save_login};
pub use manifest::{Document, LARGEST_DOCUMENT, ResolvedImage};
pub use options::{ClientOptions, HostOptions};
pub use progress::{Transfer, Watch};
pub use pull::BlobReader;
pub use push::Pushed;
pub use upload::growing::{Growing, Grown};
