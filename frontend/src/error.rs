//! Why a parsed Dockerfile could not become an LLB definition.

use std::fmt;

use llb::platform::InvalidPlatform;
use llb::reference::InvalidReference;
use miette::{Diagnostic, SourceSpan};
use parser::mount::MountError;
use thiserror::Error;

use crate::outcome::LineRange;
use crate::place::{InTrigger, TriggerId};
use crate::remote::git::InvalidGitRef;

/// A mistake and where in the Dockerfile it is.
#[derive(Debug, Diagnostic)]
pub struct FrontendError {
    /// What is wrong.
    pub kind: Box<ErrorKind>,
    /// Bytes of the Dockerfile to mark.
    #[label("{}", kind.label())]
    pub at: SourceSpan,
    /// Lines of the instruction.
    pub lines: LineRange,
    /// What to do about it.
    #[help]
    pub hint: Option<String>,
    /// The trigger that it is in, when it is not in the Dockerfile itself; `at` is its `FROM` then.
    pub trigger: Option<Box<InTrigger>>,
    /// The same by number, until the triggers are at hand.
    pub(crate) in_trigger: Option<Box<(TriggerId, Option<SourceSpan>)>>,
}

impl fmt::Display for FrontendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

/// The kind's message is this error's own, so the chain goes on with the kind's cause.
impl std::error::Error for FrontendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.kind)
    }
}

/// What can be wrong. The wording is that of the reference builder where it has one.
#[derive(Debug, Error)]
pub enum ErrorKind {
    /// No `FROM`.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// `--target` names no stage.
    #[error("target stage \"{name}\" could not be found")]
    UnknownTarget {
        /// The name.
        name: String,
    },
    /// `FROM` is empty once variables are replaced.
    #[error("base name ({written}) should not be blank")]
    BlankBase {
        /// As written.
        written: String,
    },
    /// `FROM --platform` is empty once variables are replaced.
    #[error("empty platform value from expression {written}")]
    EmptyPlatform {
        /// As written.
        written: String,
    },
    /// `FROM --platform` is no platform.
    #[error("failed to parse platform {written}")]
    InvalidPlatform {
        /// As written.
        written: String,
        /// Why not.
        #[source]
        source: InvalidPlatform,
    },
    /// A base that is neither a stage nor a valid image reference.
    #[error("failed to parse stage name \"{name}\"")]
    InvalidImageName {
        /// The name.
        name: String,
        /// Why not.
        #[source]
        source: InvalidReference,
    },
    /// The same for upper-case letters.
    #[error(
        "failed to parse stage name \"{name}\": invalid reference format: repository name \
         ({repository}) must be lowercase"
    )]
    UppercaseImageName {
        /// The name.
        name: String,
        /// Its path, with `library/` where that is implied.
        repository: String,
    },
    /// A variable in `--from`.
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG \
         from global scope as a workaround"
    )]
    VariableInFrom,
    /// The file comes to more than one that somebody has written.
    #[error("what all instructions come to together is too large")]
    TooLarge,
    /// A word that cannot be expanded.
    #[error("failed to process {}: {reason}", crate::go_text::quote(.word))]
    Expansion {
        /// The whole word.
        word: String,
        /// Why not.
        reason: String,
    },
    /// `COPY --from=N` with no such stage.
    #[error("invalid stage index {index}")]
    InvalidStageIndex {
        /// The index.
        index: String,
    },
    /// `COPY --from` a stage that comes later.
    #[error(
        "cannot copy from stage \"{from}\", it needs to be defined before current stage \"{current}\""
    )]
    CopyFromLaterStage {
        /// The later stage.
        from: String,
        /// The stage of the instruction.
        current: String,
    },
    /// `RUN --mount=from=` a stage that comes later.
    #[error(
        "cannot mount from stage \"{from}\" to \"{target}\", stage needs to be defined before current command"
    )]
    MountFromLaterStage {
        /// The later stage.
        from: String,
        /// Where it was to be mounted.
        target: String,
    },
    /// A named context that is a stage which is not there.
    #[error("build context \"{context}\" is stage \"{stage}\", which the Dockerfile does not have")]
    UnknownContextStage {
        /// Name of the context.
        context: String,
        /// Name of the stage.
        stage: String,
    },
    /// Stages that need each other.
    #[error("circular dependency detected on stage: {stage}")]
    CircularStages {
        /// One of them.
        stage: String,
    },
    /// A kind of source that this builder cannot fetch yet.
    #[error("{what} is not supported yet: `{url}`")]
    Unsupported {
        /// What is not supported.
        what: &'static str,
        /// What was asked for.
        url: String,
    },
    /// A trigger that is not exactly one valid instruction.
    #[error("invalid ONBUILD trigger `{trigger}` of {base}: {reason}")]
    InvalidTrigger {
        /// The trigger.
        trigger: String,
        /// Where it comes from: an image or a stage.
        base: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `--chmod` with a bad value.
    #[error(
        "invalid chmod parameter: '{value}'. it should be octal string and between 0 and 07777"
    )]
    InvalidChmod {
        /// The value.
        value: String,
    },
    /// `--checksum` with more than one source.
    #[error("checksum can't be specified for multiple sources")]
    ChecksumForSeveral,
    /// `--checksum` for something that is not fetched.
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumForLocal,
    /// `--checksum` that is no digest.
    #[error("invalid checksum `{value}`: want sha256:<64 hexadecimal digits>")]
    InvalidChecksum {
        /// The value.
        value: String,
    },
    /// `COPY` of a URL.
    #[error("source can't be a URL for COPY")]
    UrlForCopy,
    /// `COPY` of a git repository.
    #[error("source can't be a git ref for COPY")]
    GitForCopy,
    /// A git ref that is wrong.
    #[error(transparent)]
    GitRef(#[from] InvalidGitRef),
    /// `--link` with an owner by name.
    #[error(
        "user name `{owner}` can not be looked up with --link: the copied layer does not see the stage's files"
    )]
    NamedOwnerWithLink {
        /// The owner.
        owner: String,
    },
    /// A mistake in `--mount`.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A mount over the whole file system of the step.
    #[error("invalid mount target \"{target}\"")]
    InvalidMountTarget {
        /// The target.
        target: String,
    },
    /// A secret without a name.
    #[error("invalid secret mount. one of source, target required")]
    UnnamedSecret,
    /// A mistake in `--device`.
    #[error("unexpected key '{key}' in '{field}'")]
    UnexpectedDeviceKey {
        /// The key.
        key: String,
        /// The field it is in.
        field: String,
    },
    /// A right that was not granted.
    #[error("{right} is not allowed")]
    NotAllowed {
        /// The right.
        right: String,
    },
    /// `RUN []`.
    #[error("arguments are required")]
    NoArguments,
    /// A bad port.
    #[error("{0}")]
    Port(String),
    /// A bad signal.
    #[error("Invalid signal: {signal}")]
    InvalidSignal {
        /// The signal.
        signal: String,
    },
    /// `VOLUME` with an empty path.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// A name that is empty once variables are replaced.
    #[error("{instruction} names can not be blank")]
    BlankName {
        /// The instruction.
        instruction: &'static str,
    },
    /// Something wrong with a `check=` directive.
    #[error("failed to parse check options: invalid check option \"{option}\"")]
    InvalidCheckOption {
        /// The option.
        option: String,
    },
    /// Build checks found something and are to fail the build.
    #[error("lint violation found for rules: {rules}")]
    LintViolation {
        /// Names of the rules.
        rules: String,
    },
    /// `SOURCE_DATE_EPOCH` that is no number of seconds.
    #[error("invalid SOURCE_DATE_EPOCH: `{value}`")]
    InvalidEpoch {
        /// The value.
        value: String,
    },
    /// `BUILDKIT_DISABLE_FILEOP`.
    #[error("build-arg BUILDKIT_DISABLE_FILEOP is no longer supported")]
    FileOpDisabled,
}

impl ErrorKind {
    /// What to say about the marked part, in a few words; empty when the message says it all.
    pub fn label(&self) -> &'static str {
        match self {
            Self::BlankBase { .. }
            | Self::EmptyPlatform { .. }
            | Self::EmptyVolume
            | Self::BlankName { .. } => "empty once variables are replaced",
            Self::InvalidPlatform { .. } => "not a platform",
            Self::InvalidImageName { .. } | Self::UppercaseImageName { .. } => {
                "neither a stage nor a valid image name"
            }
            Self::VariableInFrom => "has a variable in it",
            Self::TooLarge => "from here on",
            Self::Expansion { .. } => "cannot be expanded",
            Self::InvalidStageIndex { .. } => "no stage has this number",
            Self::CopyFromLaterStage { .. } | Self::MountFromLaterStage { .. } => "a later stage",
            Self::CircularStages { .. } => "this stage needs itself",
            Self::Unsupported { .. } => "not supported yet",
            Self::InvalidTrigger { .. } => "not a valid instruction",
            Self::InvalidChmod { .. } => "not a mode",
            Self::ChecksumForSeveral => "there are several sources",
            Self::ChecksumForLocal => "the source is not downloaded",
            Self::InvalidChecksum { .. } => "not a digest",
            Self::UrlForCopy => "a URL",
            Self::GitForCopy => "a git repository",
            Self::NamedOwnerWithLink { .. } => "has a name in it",
            Self::Mount(_) | Self::InvalidMountTarget { .. } => "in this mount",
            Self::UnnamedSecret => "neither id nor target",
            Self::UnexpectedDeviceKey { .. } => "in this device",
            Self::NotAllowed { .. } => "needs a right that was not granted",
            Self::NoArguments => "no command",
            Self::Port(_) => "not a port",
            Self::InvalidSignal { .. } => "not a signal",
            Self::InvalidCheckOption { .. } => "in these options",
            Self::InvalidEpoch { .. } => "gives no time",
            Self::UnknownContextStage { .. } => "stands for that stage",
            Self::GitRef(_) => "in this address",
            Self::NoStages
            | Self::UnknownTarget { .. }
            | Self::LintViolation { .. }
            | Self::FileOpDisabled => "",
        }
    }

    /// What to do about it, when that is always the same.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoStages => "add `FROM <image>`",
            Self::InvalidPlatform { .. } => "write os/arch or os/arch/variant, such as linux/arm64",
            Self::EmptyPlatform { .. } => {
                "declare the ARG before the first FROM, and give it a default"
            }
            Self::TooLarge => "large values are repeated by every step and stage that uses them",
            Self::InvalidStageIndex { .. } => {
                "stages are numbered from 0 in the order of their FROM; a name says more"
            }
            Self::CopyFromLaterStage { .. } | Self::MountFromLaterStage { .. } => {
                "move that stage up, before the one that uses it"
            }
            Self::CircularStages { .. } => "a stage can only use stages that do not use it",
            Self::InvalidChmod { .. } => "write octal digits such as 0755, or a change such as u+x",
            Self::ChecksumForSeveral => "give each source an ADD of its own",
            Self::ChecksumForLocal => {
                "leave --checksum out: what is in the context is known anyway"
            }
            Self::UrlForCopy | Self::GitForCopy => "ADD downloads what a URL names",
            Self::Mount(error) => return error.hint(),
            Self::InvalidMountTarget { .. } => "name a folder below `/`",
            Self::UnnamedSecret => "add id=NAME",
            Self::NoArguments => "put a program in the array: RUN [\"program\", \"argument\"]",
            Self::Port(_) => "write port, port/tcp, port/udp, port/sctp or first-last",
            Self::InvalidSignal { .. } => "use a name such as SIGTERM, or a number",
            Self::InvalidCheckOption { .. } => {
                "the options are skip=, experimental= and error=, with `;` between them"
            }
            Self::LintViolation { .. } => "`--check` shows what was found",
            Self::FileOpDisabled => "leave that build-arg out",
            _ => return None,
        })
    }
}
