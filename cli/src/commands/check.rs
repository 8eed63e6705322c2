//! `--check` and `--call`: questions about a Dockerfile that build nothing (`spec/cli-and-outputs.md` §8).

use std::sync::Arc;

use frontend::Build;
use llb::{SourceInfo, SourceRange};

use crate::report::{Exit, Failure, print, source_block};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// What do the build checks say?
    Check {
        /// Exit successfully whatever they say.
        ignore_status: bool,
    },
    /// Which stages are there?
    Targets,
}

impl Call {
    /// Reads `--check` and `--call`; `None` means: build.
    pub(crate) fn parse(check: bool, call: Option<&str>) -> Result<Option<Self>, Failure> {
        let Some(call) = call else {
            return Ok(check.then_some(Self::Check { ignore_status: false }));
        };
        let usage = |message: String| Failure::new(Exit::Usage, message);
        let mut fields = call.split(',');
        let method = fields.next().unwrap_or_default();
        let method = method.strip_prefix("type=").unwrap_or(method);
        let mut ignore_status = false;
        for field in fields {
            match field.split_once('=') {
                Some(("ignorestatus", value)) => ignore_status = matches!(value, "true" | "1"),
                Some(("format", "text")) => {}
                Some(("format", format)) => {
                    return Err(usage(format!("--call with format={format} is not supported yet")));
                }
                _ => {
                    return Err(usage(format!(
                        "invalid field `{field}` in --call: want format= or ignorestatus="
                    )));
                }
            }
        }
        match method {
            "build" | "" if check => Ok(Some(Self::Check { ignore_status })),
            "build" | "" => Ok(None),
            "check" | "lint" => Ok(Some(Self::Check { ignore_status })),
            "targets" => Ok(Some(Self::Targets)),
            "outline" | "subrequests.describe" => {
                Err(usage(format!("--call={method} is not supported yet")))
            }
            _ => Err(usage(format!(
                "unknown method `{method}` for --call: want build, check or targets"
            ))),
        }
    }
}

/// Prints the answer.
pub(crate) fn answer(
    call: Call,
    converted: Result<Build, Failure>,
    info: &Arc<SourceInfo>,
) -> Result<Exit, Failure> {
    let build = converted?;
    match call {
        Call::Targets => {
            print(format_args!("{:<20} DESCRIPTION", "TARGET"))?;
            for (index, stage) in build.stages.iter().enumerate() {
                let name = stage.name.clone().unwrap_or_else(|| index.to_string());
                let name = if stage.is_default { format!("{name} (default)") } else { name };
                print(format_args!(
                    "{name:<20} {}",
                    stage.description.as_deref().unwrap_or_default()
                ))?;
            }
            Ok(Exit::Done)
        }
        Call::Check { ignore_status } => {
            match build.warnings.len() {
                0 => print(format_args!("Check complete, no warnings found."))?,
                1 => print(format_args!("Check complete, 1 warning has been found!"))?,
                count => print(format_args!("Check complete, {count} warnings have been found!"))?,
            }
            for warning in &build.warnings {
                print(format_args!(
                    "\nWARNING: {} - {}\n{}\n",
                    warning.rule,
                    warning.rule.url(),
                    warning.message
                ))?;
                let (start, end) = (warning.lines.start, warning.lines.end);
                let block = source_block(&SourceRange { info: Arc::clone(info), start, end });
                print(format_args!("{}", block.trim_end()))?;
            }
            let clean = build.warnings.is_empty() || ignore_status;
            Ok(if clean { Exit::Done } else { Exit::Build })
        }
    }
}
