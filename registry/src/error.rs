//! Why a registry did not give or take what was asked.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use thiserror::Error;

/// A cause from a library below.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// Why a registry did not give or take what was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no such thing.
    #[error("{what}: not found")]
    NotFound {
        /// The reference, or the blob and its repository.
        what: String,
        /// Whether the registry says that it does not even have the repository.
        lacks_repository: bool,
    },
    /// The registry wants credentials, or others than it got.
    #[error("{what}: {action} access denied, repository does not exist or may require authorization{}", Said(.message))]
    Unauthorized {
        /// The reference, or the blob and its repository.
        what: String,
        /// `pull` or `push`.
        action: &'static str,
        /// The registry's own words, if any.
        message: String,
        /// Which registry.
        host: String,
        /// The login that it was shown, if any: the user name, and the file that it is from.
        login: Option<String>,
    },
    /// The registry wants fewer requests.
    #[error("registry `{host}` limits the rate of requests{}{}: try again later, or log in for a higher limit", Until(.until), Said(.message))]
    RateLimited {
        /// Which registry.
        host: String,
        /// The registry's own words, if any.
        message: String,
        /// When it will answer again, if it said.
        until: Option<SystemTime>,
    },
    /// The registry is busy, and said when it will answer again.
    #[error("registry `{host}`: {asked}: {answer}{}: try again later", Until(&Some(*.until)))]
    Busy {
        /// Which registry.
        host: String,
        /// Method and URL.
        asked: String,
        /// What came back.
        answer: String,
        /// When it will answer again.
        until: SystemTime,
    },
    /// The registry does not take anything into this repository.
    #[error("{what}: registry `{host}` does not know this repository{}", Said(.message))]
    UnknownRepository {
        /// Which registry.
        host: String,
        /// The repository.
        what: String,
        /// The registry's own words, if any.
        message: String,
    },
    /// No connection could be made or kept.
    #[error("{asked}: cannot reach registry `{host}` at {address}: {reason}")]
    Unreachable {
        /// The registry, as in the reference.
        host: String,
        /// Host and port that were tried.
        address: String,
        /// Method and URL.
        asked: String,
        /// In a few words.
        reason: &'static str,
        /// What to do.
        hint: &'static str,
        /// What the system said, where it adds to the reason.
        #[source]
        source: Option<Cause>,
    },
    /// The registry's certificate is not trusted, or it does not speak TLS.
    #[error("no trusted TLS connection to registry `{host}` at {address}: {}", Advice(*.fault, .folder))]
    Tls {
        /// The registry, as in the reference.
        host: String,
        /// Host and port that were tried.
        address: String,
        /// What is the matter with the certificate.
        fault: TlsFault,
        /// Where a certificate authority for this registry alone may be put.
        folder: Option<PathBuf>,
        /// What is wrong.
        #[source]
        source: Cause,
    },
    /// The registry wants to see a certificate, or another than it saw.
    #[error("registry `{host}` at {address} {}", Shown(.shown, .folder))]
    ClientCertificate {
        /// The registry, as in the reference.
        host: String,
        /// Host and port that were tried.
        address: String,
        /// The file with the certificate that it saw.
        shown: Option<PathBuf>,
        /// Where one may be put.
        folder: Option<PathBuf>,
        /// What the registry said.
        #[source]
        source: Cause,
    },
    /// A file says that the registry must not be used.
    #[error("{what}: blocked by `{}`, line {line}", .path.display())]
    Blocked {
        /// The reference, or the registry.
        what: String,
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A file that says how registries are reached cannot be used.
    #[error("cannot use `{}`{}: {problem}", .path.display(), Line(.line))]
    Config {
        /// The file, or folder.
        path: PathBuf,
        /// From 1, if it is about one.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
    },
    /// None of the places where it may be gave it.
    #[error("{what}: none of {} places gave it{}", .tried.len(), Tried(.tried))]
    Everywhere {
        /// The reference.
        what: String,
        /// What went wrong at each, in the order in which they were asked.
        tried: Vec<String>,
        /// What went wrong at the last one.
        last: Box<Error>,
    },
    /// A stream ended wrong, and there is another place that may give it: it is worth asking again.
    #[error("{0}: another place is to be asked")]
    Elsewhere(Box<Error>),
    /// The bytes are not those that were asked for.
    #[error("{what}: registry sent wrong bytes: {problem}")]
    BadDigest {
        /// Which document or blob.
        what: String,
        /// Expected and actual digest or size.
        problem: String,
    },
    /// A document is larger than any honest one.
    #[error("{what}: larger than the limit of {limit} bytes")]
    TooLarge {
        /// Which document or blob.
        what: String,
        /// In bytes.
        limit: u64,
    },
    /// The registry answered what the protocol does not allow.
    #[error("registry `{host}`: {asked}: {answer}")]
    BadAnswer {
        /// Which registry.
        host: String,
        /// Method and URL.
        asked: String,
        /// What came back.
        answer: String,
        /// Status of the answer, when it is that which is wrong.
        status: Option<u16>,
    },
    /// An image exists, but not for this platform.
    #[error("{what}: no match for platform `{platform}` in manifest{}", Offered(.offered))]
    NoMatchingPlatform {
        /// The reference.
        what: String,
        /// What was wanted.
        platform: String,
        /// What there is.
        offered: Vec<String>,
    },
    /// The configured credentials could not be read.
    #[error("cannot read the credentials for registry `{host}`: {reason}")]
    Credentials {
        /// Which registry.
        host: String,
        /// What is wrong with the file or the helper.
        reason: String,
    },
    /// The bytes to upload could not be read.
    #[error("cannot read blob {what} for upload")]
    Source {
        /// Which blob, and the repository that it is for.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A reference that cannot be asked for in this way.
    #[error("{what}: {problem}")]
    Unusable {
        /// The reference.
        what: String,
        /// What does not fit.
        problem: String,
    },
    /// The client could not be set up.
    #[error("cannot set up the registry client")]
    Setup(#[source] Cause),
    /// [`Cancel`](crate::Cancel) was set.
    #[error("cancelled")]
    Cancelled,
    /// The deadline of the client passed, or a transfer took longer than one may.
    #[error("the transfer did not finish before its deadline")]
    DeadlineExceeded,
}

/// What is the matter with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// Nobody vouches for it.
    Trust,
    /// There is none: what answers does not speak TLS.
    Plain,
    /// It is not for the name that was asked.
    Name,
    /// It is not good at this time.
    Time,
}

impl Error {
    /// What counts of several: the error of the place that was asked last.
    pub fn decisive(&self) -> &Self {
        match self {
            Self::Everywhere { last, .. } => last.decisive(),
            Self::Elsewhere(error) => error.decisive(),
            other => other,
        }
    }

    /// Whether what was asked for may be had of another place, when it is asked for again.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Elsewhere(_))
    }

    /// Whether the cause is passing, so that the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self.decisive() {
            Self::Unreachable { .. } | Self::RateLimited { .. } | Self::Busy { .. } => true,
            Self::BadAnswer { status: Some(status), .. } => *status == 408 || *status >= 500,
            _ => false,
        }
    }

    /// The error and its causes on one line.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        text
    }

    /// As an error of a reader, which keeps `self` inside.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match self.decisive() {
            Self::BadDigest { .. } | Self::TooLarge { .. } | Self::BadAnswer { .. } => {
                io::ErrorKind::InvalidData
            }
            Self::NotFound { .. } => io::ErrorKind::NotFound,
            Self::Unauthorized { .. } => io::ErrorKind::PermissionDenied,
            Self::DeadlineExceeded => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

/// The registry's own words after a separator, or nothing.
struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": server message: {}", self.0) }
    }
}

/// What to do about a certificate.
struct Advice<'a>(TlsFault, &'a Option<PathBuf>);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            TlsFault::Trust => write!(
                f,
                "add its certificate authority to the system{}, or mark the registry insecure if it is",
                InFolder(self.1, "ca.crt")
            ),
            TlsFault::Plain => {
                f.write_str("what answers does not speak TLS: mark the registry insecure if it is")
            }
            TlsFault::Name => f.write_str("ask the registry by a name that its certificate is for"),
            TlsFault::Time => f.write_str(
                "check the clock of this machine; if it is right, the certificate must be renewed",
            ),
        }
    }
}

/// The file that a certificate may be put into.
struct InFolder<'a>(&'a Option<PathBuf>, &'a str);

impl fmt::Display for InFolder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(folder) => write!(f, " or as `{}`", folder.join(self.1).display()),
            None => Ok(()),
        }
    }
}

/// What a registry did with a certificate, or without.
struct Shown<'a>(&'a Option<PathBuf>, &'a Option<PathBuf>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(Some(shown), _) => write!(f, "refused the certificate `{}`", shown.display()),
            Self(None, Some(folder)) => {
                let folder = folder.display();
                write!(f, "wants a certificate: put `client.cert` and `client.key` into `{folder}`")
            }
            Self(None, None) => f.write_str("wants a certificate"),
        }
    }
}

/// A line of a file, if it is known.
struct Line<'a>(&'a Option<usize>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}

/// What went wrong at each place.
struct Tried<'a>(&'a [String]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = ": ";
        for (number, text) in self.0.iter().enumerate() {
            write!(f, "{separator}({}) {text}", number + 1)?;
            separator = "; ";
        }
        Ok(())
    }
}

/// How long a rate limit holds, as far as known.
struct Until<'a>(&'a Option<SystemTime>);

impl fmt::Display for Until<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(until) => {
                let left = until.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
                let seconds = left.as_secs_f64().ceil();
                write!(f, " for {seconds} more seconds")?;
                // A moment needs no date.
                match jiff::Timestamp::try_from(*until) {
                    Ok(time) if seconds >= 60.0 => {
                        write!(f, ", until {}", time.strftime("%F %T UTC"))
                    }
                    _ => Ok(()),
                }
            }
            None => Ok(()),
        }
    }
}

/// The platforms there are, after a separator.
struct Offered<'a>(&'a [String]);

impl fmt::Display for Offered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": it has {}", self.0.join(", ")) }
    }
}
