//! Why a file behind a URL could not be had.

use std::error::Error as StdError;
use std::sync::Arc;

use thiserror::Error;

/// A cause that several who wait for one file are told.
pub(super) type SharedCause = Arc<dyn StdError + Send + Sync>;

/// Why a file behind a URL could not be had. Says nothing of the URL, which may hold credentials.
#[derive(Debug, Clone, Error)]
pub enum FetchError {
    /// The text is no URL that can be asked.
    #[error("the URL is malformed: {problem}")]
    Url {
        /// What is wrong with it.
        problem: String,
    },
    /// No connection could be made or kept.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// Host and port that were tried.
        address: String,
        /// In a few words.
        reason: &'static str,
        /// What to do.
        hint: &'static str,
        /// What the system said, where it adds to the reason.
        #[source]
        source: Option<SharedCause>,
    },
    /// The server's certificate is not trusted, or it does not speak TLS.
    #[error("no trusted TLS connection to {address}")]
    Tls {
        /// Host and port that were tried.
        address: String,
        /// What is wrong.
        #[source]
        source: SharedCause,
    },
    /// The server answered with a status that is no success.
    #[error("invalid response status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// The server led to where no file can be taken from.
    #[error("{problem}")]
    Redirect {
        /// What it did.
        problem: String,
    },
    /// The connection broke while the file came, and the rest could not be had either.
    #[error("the download broke off after {received}{} bytes", of(*.expected))]
    BrokenOff {
        /// Bytes received.
        received: u64,
        /// Bytes that the server had promised.
        expected: Option<u64>,
        /// What the last try gave.
        #[source]
        source: Option<Arc<FetchError>>,
    },
    /// After an interruption the server had another file.
    #[error("the file changed while it was downloaded")]
    Changed,
    /// The client could not be set up.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] SharedCause),
    /// [`Cancel`](crate::Cancel) was set.
    #[error("canceled")]
    Cancelled,
    /// The deadline of the client passed.
    #[error("the download did not finish before the deadline")]
    DeadlineExceeded,
}

fn of(expected: Option<u64>) -> String {
    expected.map_or_else(String::new, |expected| format!(" of {expected}"))
}

impl FetchError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { hint, .. } => Some(hint),
            Self::Tls { .. } => {
                Some("add the certificate authority of the server to those of the system")
            }
            Self::Status { status: 401 | 403 } => {
                Some("the server wants credentials, or others than it got")
            }
            Self::Status { status: 404 | 410 } => Some("check the URL: there is no such file"),
            Self::Status { status: 429 } => {
                Some("the server wants fewer requests: try again later")
            }
            Self::Status { status: 500.. } => Some("the server has a problem: try again later"),
            Self::BrokenOff { .. } | Self::Changed => {
                Some("try again; if it happens each time, the server sends less than it promises")
            }
            _ => None,
        }
    }
}
