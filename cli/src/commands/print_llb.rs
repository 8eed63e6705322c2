//! `--print-llb`: prints the definition of the build and builds nothing.
//!
//! - `json`: what `buildctl debug dump-llb` prints, one op a line (see [`llb::pb::definition_json`]).
//! - `binary`: the bytes of BuildKit's `pb.Definition`, for `buildctl build` and other engines.
//!
//! A definition has one result, so a build for several platforms has as many definitions; it is refused.

use std::io::{ErrorKind, IsTerminal, Write as _};

use frontend::Build;

use crate::args::BuildArgs;
use crate::report::{Exit, Failure, print};

/// How a definition is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line of JSON for each op.
    Json,
    /// Protobuf bytes.
    Binary,
}

impl Form {
    /// Reads `--print-llb`; `None` means: build.
    pub(crate) fn parse(args: &BuildArgs) -> Result<Option<Self>, Failure> {
        let usage = |message: String| Failure::new(Exit::Usage, message);
        let Some(text) = args.print_llb.as_deref() else { return Ok(None) };
        if args.check || args.call.is_some() {
            return Err(usage("--print-llb cannot be used with --check or --call".to_owned()));
        }
        if args.platform.len() > 1 {
            return Err(usage("--print-llb prints the definition of one platform".to_owned())
                .hint("give one --platform, and run the command once for each"));
        }
        match text {
            "json" => Ok(Some(Self::Json)),
            "binary" if std::io::stdout().is_terminal() => {
                Err(usage("a binary definition is not written to a terminal".to_owned())
                    .hint("redirect the output, or use --print-llb=json"))
            }
            "binary" => Ok(Some(Self::Binary)),
            other => {
                let near = llb::suggest::nearest(other, ["json", "binary"]);
                let message =
                    format!("unknown form `{other}` for --print-llb: want json or binary");
                Err(usage(message).did_you_mean(near))
            }
        }
    }

    /// Prints the definition of a build.
    pub(crate) fn print(self, build: &Build) -> Result<Exit, Failure> {
        match self {
            Self::Json => {
                for line in llb::pb::definition_json(&build.definition) {
                    print(format_args!("{line}"))?;
                }
            }
            Self::Binary => {
                let mut out = std::io::stdout().lock();
                let bytes = llb::pb::encode_definition(&build.definition);
                match out.write_all(&bytes).and_then(|()| out.flush()) {
                    Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                        let message = format!("cannot write to standard output: {error}");
                        return Err(Failure::new(Exit::Machine, message));
                    }
                    _ => {}
                }
            }
        }
        Ok(Exit::Done)
    }
}
