//! Named contexts and what the names in a Dockerfile refer to.

use llb::op::SourceOp;
use llb::reference::InvalidReference;
use llb::{Platform, Reference};
use parser::Span;

use crate::context::Context;
use crate::error::{ErrorKind, FrontendError};
use crate::options::{MainContext, NamedContext, Options};
use crate::outcome::ImageLocation;
use crate::place::Place;
use crate::remote::{git, http};

/// Where a name is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamePlace {
    /// The instruction.
    pub(crate) place: Place,
    /// The name in it.
    pub(crate) span: Span,
}

impl NamePlace {
    fn error(self, kind: ErrorKind) -> FrontendError {
        self.place.error_at(self.span, kind)
    }
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Located {
    /// A folder.
    Local {
        /// Name of the context.
        context: String,
        /// Name of the local source.
        source: String,
    },
    /// A repository, or a file behind a URL.
    Source {
        /// Name of the context.
        context: String,
        /// URL as given.
        url: String,
        /// What brings it.
        source: SourceOp,
    },
    /// An image.
    Image {
        /// Name of the context that it comes from, if it does.
        context: Option<String>,
        /// Where it is.
        location: ImageLocation,
    },
}

/// The context that replaces `name` on `platform`, with its name.
///
/// A context for just this platform (`name::os/arch`) goes before one for all.
pub(crate) fn find(
    options: &Options,
    name: &str,
    platform: &Platform,
) -> Option<(String, NamedContext)> {
    let wanted = normalized(name);
    let platform = platform.to_string();
    let mut for_all = None;
    for (key, context) in &options.contexts {
        let (key_name, key_platform) = key
            .split_once("::")
            .map_or((key.as_str(), None), |(name, platform)| (name, Some(platform)));
        if normalized(key_name) != wanted {
            continue;
        }
        match key_platform {
            Some(only) if only == platform => return Some((key.clone(), context.clone())),
            Some(_) => {}
            None => for_all = Some((key.clone(), context.clone())),
        }
    }
    for_all
}

/// What the base `name` stands for: a named context, else an image.
///
/// # Errors
/// When it is no valid name, or a context that cannot be used.
pub(crate) fn locate(
    cx: &Context<'_>,
    name: &str,
    platform: &Platform,
    at: NamePlace,
) -> Result<Located, FrontendError> {
    match find(cx.options, name, platform) {
        Some((context_name, context)) => locate_context(context_name, context, at),
        None => Ok(Located::Image { context: None, location: registry_image(name, at)? }),
    }
}

/// What a named context stands for.
///
/// # Errors
/// When its reference or the URL of its repository is none.
pub(crate) fn locate_context(
    name: String,
    context: NamedContext,
    at: NamePlace,
) -> Result<Located, FrontendError> {
    match context {
        NamedContext::Local { name: source } => Ok(Located::Local { context: name, source }),
        NamedContext::OciLayout { path, tag, digest } => {
            let tag =
                if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
            let location = ImageLocation::OciLayout { context: name.clone(), path, tag, digest };
            Ok(Located::Image { context: Some(name), location })
        }
        NamedContext::Image { reference } => {
            Ok(Located::Image { context: Some(name), location: registry_image(&reference, at)? })
        }
        // Such a context has become a stage when the plan was made.
        NamedContext::Stage { name: stage } => {
            Err(at.error(ErrorKind::UnknownContextStage { context: name, stage }))
        }
        NamedContext::Git { url } => {
            let source = git::named_context(&url).map_err(|error| at.error(error.into()))?;
            Ok(Located::Source { context: name, url, source })
        }
        NamedContext::Http { url } => {
            let source = http::source(&url, MainContext::FILE_NAME, None);
            Ok(Located::Source { context: name, url, source })
        }
    }
}

/// The image that a reference names.
fn registry_image(name: &str, at: NamePlace) -> Result<ImageLocation, FrontendError> {
    match Reference::parse(name) {
        Ok(reference) => Ok(ImageLocation::Registry(reference.to_string())),
        Err(InvalidReference::Uppercase { repository }) => {
            let name = name.to_owned();
            Err(at.error(ErrorKind::UppercaseImageName { name, repository }))
        }
        Err(source) => Err(at.error(ErrorKind::InvalidImageName { name: name.to_owned(), source })),
    }
}

/// The familiar form of an image name without `:latest`; other names stay.
fn normalized(name: &str) -> String {
    let familiar =
        Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar());
    familiar.strip_suffix(":latest").map(str::to_owned).unwrap_or(familiar)
}
