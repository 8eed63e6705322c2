//! The rules: their names, what each asks for and where it is explained.

use std::fmt;

/// Declares the rules with their name in a URL and what they ask for.
macro_rules! rules {
    (
        reference { $($name:ident, $slug:literal, $about:literal;)* }
        own { $($own:ident, $anchor:literal, $own_about:literal;)* }
    ) => {
        /// A build check.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $about] $name,)*
            $(#[doc = $own_about] $own,)*
        }

        impl Rule {
            /// All rules: those of the reference builder first, then the builder's own.
            pub const ALL: &'static [Self] = &[$(Self::$name,)* $(Self::$own,)*];

            /// Name by which `check=skip=…` and `check=experimental=…` know the rule.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    $(Self::$own => stringify!($own),)*
                }
            }

            /// What the rule asks for, in one sentence.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $about,)* $(Self::$own => $own_about,)* }
            }

            /// Where the rule is explained: a URL, or a place in this project's documentation.
            pub fn url(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("https://docs.docker.com/go/dockerfile/rule/", $slug, "/"),)*
                    $(Self::$own => concat!("docs/checks.md#", $anchor),)*
                }
            }

            /// Whether the rule is one that the reference builder does not have (the group `bricklayer`).
            pub fn is_own(self) -> bool {
                match self { $(Self::$name => false,)* $(Self::$own => true,)* }
            }
        }
    };
}

/// Name of all rules that the reference builder does not have.
pub(crate) const GROUP: &str = "bricklayer";

rules! {
reference {
    StageNameCasing, "stage-name-casing", "Stage names should be lowercase";
    FromAsCasing, "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword";
    NoEmptyContinuation, "no-empty-continuation", "Empty continuation lines will become errors in a future release";
    ConsistentInstructionCasing, "consistent-instruction-casing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)";
    DuplicateStageName, "duplicate-stage-name", "Stage names should be unique";
    ReservedStageName, "reserved-stage-name", "Reserved words should not be used as stage names";
    JSONArgsRecommended, "json-args-recommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    MaintainerDeprecated, "maintainer-deprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    UndefinedArgInFrom, "undefined-arg-in-from", "FROM command must use declared ARGs";
    UndefinedVar, "undefined-var", "Variables should be defined before their use";
    WorkdirRelativePath, "workdir-relative-path",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    MultipleInstructionsDisallowed, "multiple-instructions-disallowed",
        "Multiple instructions of the same type should not be used in the same stage";
    LegacyKeyValueFormat, "legacy-key-value-format",
        "Legacy key/value format with whitespace separator should not be used";
    InvalidBaseImagePlatform, "invalid-base-image-platform",
        "Base image platform does not match expected target platform";
    RedundantTargetPlatform, "redundant-target-platform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    SecretsUsedInArgOrEnv, "secrets-used-in-arg-or-env",
        "Sensitive data should not be used in the ARG or ENV commands";
    InvalidDefaultArgInFrom, "invalid-default-arg-in-from",
        "Default value for global ARG results in an empty or invalid base image name";
    FromPlatformFlagConstDisallowed, "from-platform-flag-const-disallowed",
        "FROM --platform flag should not use a constant value";
    CopyIgnoredFile, "copy-ignored-file", "Attempting to Copy file that is excluded by .dockerignore";
    ExposeProtoCasing, "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase";
    ExposeInvalidFormat, "expose-invalid-format",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
    InvalidDefinitionDescription, "invalid-definition-description",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.";
}
own {
    SecretValueInArgOrEnv, "secretvalueinargorenv",
        "Values that look like secrets should not be written into ARG or ENV";
    LatestImageTag, "latestimagetag", "Images should be named with a tag other than latest, or by digest";
    FinalStageRunsAsRoot, "finalstagerunsasroot", "Containers should not run as root";
    HealthcheckMissing, "healthcheckmissing",
        "The final stage should say how its containers are checked, or that they are not";
    PackageListsKept, "packagelistskept", "Package lists and caches should not stay in a layer of the image";
    WideCopyWithoutIgnoreFile, "widecopywithoutignorefile",
        "The whole context should not be copied without a .dockerignore";
    DownloadPipedToShell, "downloadpipedtoshell",
        "Downloaded scripts should be checked before they are run";
}
}

impl Rule {
    /// Whether the rule is off until it is asked for by name or by group.
    pub fn is_experimental(self) -> bool {
        self.is_own() || self == Self::InvalidDefinitionDescription
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
