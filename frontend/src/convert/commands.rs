//! Converts `CMD`, `ENTRYPOINT`, `HEALTHCHECK` and `SHELL`, which change only the config.

use std::time::Duration;

use llb::image;
use parser::{Command, Healthcheck, HealthcheckCommand};

use super::Converter;
use crate::error::FrontendError;
use crate::go_text;
use crate::lint::Rule;
use crate::place::Place;

impl Converter<'_, '_> {
    /// Sets the default command.
    pub(super) fn cmd(
        &mut self,
        place: Place,
        keyword: &str,
        command: &Command,
    ) -> Result<(), FrontendError> {
        self.report_repeated("CMD", keyword, place);
        let args = self.command_args(keyword, place, command);
        self.history(format!("CMD {}", go_text::quote_list(&args)), false);
        self.state.image.config.cmd = args;
        self.state.image.config.args_escaped = true;
        self.cmd_is_set = true;
        Ok(())
    }

    /// Sets the entry point; a default command from the base goes.
    pub(super) fn entrypoint(
        &mut self,
        place: Place,
        keyword: &str,
        command: &Command,
    ) -> Result<(), FrontendError> {
        self.report_repeated("ENTRYPOINT", keyword, place);
        let args = self.command_args(keyword, place, command);
        self.history(format!("ENTRYPOINT {}", go_text::quote_list(&args)), false);
        self.state.image.config.entrypoint = args;
        if !self.cmd_is_set {
            self.state.image.config.cmd.clear();
        }
        Ok(())
    }

    /// Sets how the container is checked.
    pub(super) fn healthcheck(
        &mut self,
        place: Place,
        keyword: &str,
        check: &Healthcheck,
    ) -> Result<(), FrontendError> {
        self.report_repeated("HEALTHCHECK", keyword, place);
        let check = match check {
            Healthcheck::None => {
                image::Healthcheck { test: vec!["NONE".to_owned()], ..Default::default() }
            }
            Healthcheck::Cmd(command) => healthcheck_config(command),
        };
        let shown = |nanoseconds: i64| go_text::duration(nanoseconds.unsigned_abs());
        self.history(
            format!(
                "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
                check.test.join(" "),
                shown(check.interval),
                shown(check.timeout),
                shown(check.start_period),
                shown(check.start_interval),
                check.retries,
            ),
            false,
        );
        self.state.image.config.healthcheck = Some(check);
        Ok(())
    }

    /// Sets the shell of the following shell forms.
    pub(super) fn shell(&mut self, shell: &[String]) -> Result<(), FrontendError> {
        self.state.image.config.shell = shell.to_vec();
        self.history(format!("SHELL [{}]", shell.join(" ")), false);
        Ok(())
    }

    fn command_args(&self, keyword: &str, place: Place, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(args) => args.clone(),
            Command::Shell(command) => {
                if self.state.image.config.shell.is_empty() {
                    self.cx.linter.report(Rule::JSONArgsRecommended, place.lines, || {
                        format!(
                            "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
                        )
                    });
                }
                self.with_shell(command.text.clone())
            }
        }
    }

    /// Reports an instruction of which only the last counts, at its earlier place.
    fn report_repeated(&mut self, instruction: &'static str, keyword: &str, place: Place) {
        let Some((_, earlier)) = self.seen.iter_mut().find(|(seen, _)| *seen == instruction) else {
            self.seen.push((instruction, place));
            return;
        };
        let earlier = std::mem::replace(earlier, place);
        self.cx.linter.report(Rule::MultipleInstructionsDisallowed, earlier.lines, || {
            format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            )
        });
    }
}

/// A check as the image config has it.
fn healthcheck_config(check: &HealthcheckCommand) -> image::Healthcheck {
    let mut test = Vec::new();
    match &check.command {
        Command::Exec(args) => {
            test.push("CMD".to_owned());
            test.extend_from_slice(args);
        }
        Command::Shell(command) => test.extend(["CMD-SHELL".to_owned(), command.text.clone()]),
    }
    let nanoseconds = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    image::Healthcheck {
        test,
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
        retries: i64::from(check.retries),
    }
}
