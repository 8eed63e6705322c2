//! Converts `EXPOSE`, `MAINTAINER`, `STOPSIGNAL`, `USER` and `VOLUME`, which change only the config.

use llb::image::Empty;
use parser::Word;

use super::{Converter, ENTRY_SIZE};
use crate::error::{ErrorKind, FrontendError};
use crate::lint::Rule;
use crate::lint::image::UserInstruction;
use crate::place::Place;
use crate::{expand, ports, signal};

impl Converter<'_, '_> {
    /// Names the ports a container listens on.
    pub(super) fn expose(&mut self, place: Place, words: &[Word]) -> Result<(), FrontendError> {
        let mut sorted: Vec<&Word> = words.iter().collect();
        sorted.sort_by(|a, b| a.text.cmp(&b.text));
        let exposed: Vec<_> = sorted.into_iter().map(|word| self.ports(place, word)).collect();
        let exposed = self.all(exposed)?.concat();
        self.history(format!("EXPOSE [{}]", exposed.join(" ")), false);
        let known = &mut self.state.image.config.exposed_ports;
        known.extend(exposed.into_iter().map(|port| (port, Empty {})));
        Ok(())
    }

    /// The ports of one word.
    fn ports(&self, place: Place, word: &Word) -> Result<Vec<String>, FrontendError> {
        let expanded =
            expand::several(&word.text, self.cx.escape(), &self.state.env, self.cx.budget)
                .map_err(|error| place.error_at(word.span, error.into()))?;
        self.report_unset(place, &expanded.unset);
        let mut exposed = Vec::new();
        for spec in expanded.words {
            let ports = ports::parse(&spec)
                .map_err(|message| place.error_at(word.span, ErrorKind::Port(message)))?;
            if ports.has_mapping {
                self.cx.linter.report(Rule::ExposeInvalidFormat, place.lines, || {
                    format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{spec}'")
                });
            }
            if ports.has_capitals {
                self.cx.linter.report(Rule::ExposeProtoCasing, place.lines, || {
                    format!("Defined protocol '{spec}' in EXPOSE instruction should be lowercase")
                });
            }
            let size = ports.ports.iter().map(|port| port.len() + ENTRY_SIZE).sum();
            if self.cx.budget.keep(size).is_err() {
                return Err(place.error_at(word.span, ErrorKind::TooLarge));
            }
            exposed.extend(ports.ports);
        }
        Ok(exposed)
    }

    /// Names the author.
    pub(super) fn maintainer(&mut self, word: &Word) -> Result<(), FrontendError> {
        self.state.image.author.clone_from(&word.text);
        self.history(format!("MAINTAINER {}", word.text), false);
        Ok(())
    }

    /// Sets the signal that stops a container.
    pub(super) fn stopsignal(&mut self, place: Place, word: &Word) -> Result<(), FrontendError> {
        let signal = self.expand(place, word)?;
        if !signal::is_signal(&signal) {
            return Err(place.error_at(word.span, ErrorKind::InvalidSignal { signal }));
        }
        self.history(format!("STOPSIGNAL {signal}"), false);
        self.state.image.config.stop_signal = signal;
        Ok(())
    }

    /// Sets the user of the following steps and of a container.
    pub(super) fn user(&mut self, place: Place, word: &Word) -> Result<(), FrontendError> {
        let user = self.expand(place, word)?;
        self.history(format!("USER {user}"), false);
        self.state.image.config.user = user;
        let is_checked = self.cx.linter.is_on(Rule::FinalStageRunsAsRoot);
        self.state.user = Some(UserInstruction { lines: place.lines, is_checked });
        Ok(())
    }

    /// Names paths whose content lives outside the container.
    pub(super) fn volume(&mut self, place: Place, words: &[Word]) -> Result<(), FrontendError> {
        let volume = |word: &Word| {
            let volume = self.expand(place, word)?.trim().to_owned();
            if volume.is_empty() {
                return Err(place.error_at(word.span, ErrorKind::EmptyVolume));
            }
            Ok(volume)
        };
        let volumes: Vec<_> = words.iter().map(volume).collect();
        let volumes = self.all(volumes)?;
        self.history(format!("VOLUME [{}]", volumes.join(" ")), false);
        let known = &mut self.state.image.config.volumes;
        known.extend(volumes.into_iter().map(|volume| (volume, Empty {})));
        Ok(())
    }
}
