//! Files behind URLs, for `ADD` and for contexts.
//!
//! A file comes through a task of the runtime and a bounded channel. When the connection breaks, the task asks
//! for the rest (`Range`, with `If-Range`); a server that sends all of it again is compared with what was
//! received before.
//!
//! Invariants:
//! - Bytes are kept as the server sends them: no `Content-Encoding` is undone.
//! - A reader that reaches its end has read every byte of one and the same file, as far as the server tells.
//! - Credentials in a URL go to its host only, and into no message.

pub(crate) mod date;
mod error;
mod reader;
mod request;

use std::sync::Arc;

use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED};
use reqwest::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};

use crate::{Client, client};
use reader::Transfer;
use request::Target;

pub use error::FetchError;
pub use reader::FileReader;

/// What a server told of a file, by which it can be asked whether it is still the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`, as sent.
    pub etag: Option<String>,
    /// `Last-Modified`, as sent.
    pub last_modified: Option<String>,
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Self { etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
    }

    /// Whether a server can be asked by them.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.modified().is_none()
    }

    /// `Last-Modified` in seconds since the epoch, if it is a date.
    pub fn modified(&self) -> Option<i64> {
        date::parse(self.last_modified.as_deref()?)
    }

    /// Headers that ask for the file only if it is another one.
    fn conditions(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let modified = self.last_modified.as_ref().filter(|_| self.modified().is_some());
        for (name, value) in [(IF_NONE_MATCH, self.etag.as_ref()), (IF_MODIFIED_SINCE, modified)] {
            headers.extend(value.and_then(|text| Some((name, HeaderValue::from_str(text).ok()?))));
        }
        headers
    }
}

impl Client {
    /// Asks for the file behind `url`; `None` when it is still the one that `known` is about. Returns as soon
    /// as the server has answered.
    ///
    /// # Errors
    /// When the file cannot be had. Later errors come from the reader, as [`std::io::Error`]s that hold a
    /// [`FetchError`].
    pub fn fetch(&self, url: &str, known: &Validators) -> Result<Option<FileReader>, FetchError> {
        let (core, cancel, deadline) = self.parts();
        let target = Target::new(Arc::clone(core.shared()), url)?;
        let setup = |error| FetchError::Setup(Arc::new(error));
        let runtime = core.runtime().map_err(setup)?;
        let asked = async { Ok(target.send(&known.conditions()).await) };
        let answer = runtime.block_on(client::limited(&cancel, deadline, asked));
        let response = answer.map_err(stopped)??;
        match response.status() {
            StatusCode::NOT_MODIFIED if !known.is_empty() => return Ok(None),
            status @ (StatusCode::NOT_MODIFIED
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::PARTIAL_CONTENT) => {
                return Err(FetchError::Status { status: status.as_u16() });
            }
            _ => {}
        }
        let validators = Validators::of(response.headers());
        let transfer = Transfer::new(target, response);
        let (reader, pieces) = FileReader::new(Arc::clone(core), validators, transfer.expected());
        runtime.spawn(async move {
            let work = async { Ok(transfer.run(&pieces).await) };
            let result = tokio::select! {
                result = client::limited(&cancel, deadline, work) => result.map_err(stopped).flatten(),
                () = pieces.closed() => Ok(()),
            };
            if let Err(error) = result {
                // The reader may be gone, and then nobody needs to know.
                let _ = pieces.send(Err(error)).await;
            }
        });
        Ok(Some(reader))
    }
}

/// Why work on a file was ended from outside.
fn stopped(error: crate::Error) -> FetchError {
    match error {
        crate::Error::DeadlineExceeded => FetchError::DeadlineExceeded,
        _ => FetchError::Cancelled,
    }
}
