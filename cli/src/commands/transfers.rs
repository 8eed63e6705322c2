//! How long transfers may take, and what the user sees of those of an export.

use std::sync::mpsc;
use std::time::Duration;

use llb::{Digest, Event, EventSink};
use registry::{Client, Transfer, Watch};

use crate::report::{Exit, Failure, tell};

/// Variable that sets the longest time for one transfer with all its tries.
pub(crate) const TIMEOUT: &str = "BRICKLAYER_TRANSFER_TIMEOUT";

/// Gives the client options what the environment says of transfers.
pub(crate) fn limit(options: &mut registry::ClientOptions) -> Result<(), Failure> {
    let value = std::env::var_os(TIMEOUT).unwrap_or_default();
    let text = value.to_string_lossy();
    if !text.is_empty() {
        options.transfer_timeout = parse(&text)?;
    }
    Ok(())
}

/// A time with a unit; nothing is no limit.
fn parse(text: &str) -> Result<Option<Duration>, Failure> {
    let bad = || {
        let text = format!(
            "${TIMEOUT}: invalid time `{text}`: want a number with a unit s, m or h, or 0 for no limit"
        );
        Failure::new(Exit::Usage, text)
    };
    let word = text.trim();
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let unit = match &word[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "" if number == 0 => 1,
        _ => return Err(bad()),
    };
    let seconds = number.checked_mul(unit).ok_or_else(bad)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// Tells what registries want the user to know, and which mirrors did not help.
pub(crate) fn tell_notices(client: &Client) {
    client.take_notices().iter().for_each(|notice| tell(format_args!("WARNING: {notice}")));
}

/// Does something with a client whose transfers are told as progress of `vertex`.
pub(crate) fn told<T>(
    client: &Client,
    events: &dyn EventSink,
    vertex: Digest,
    body: impl FnOnce(&Client) -> T,
) -> T {
    let (sender, transfers) = mpsc::channel::<Option<Transfer>>();
    std::thread::scope(|scope| {
        let _end = End(sender.clone());
        scope.spawn(move || {
            // Something in the client may keep the other end for a while, so the end is told.
            while let Ok(Some(transfer)) = transfers.recv() {
                events.send(Event::Status {
                    vertex,
                    id: format!("pushing {}", transfer.digest),
                    current: transfer.done,
                    total: transfer.total,
                    started: transfer.started,
                    completed: transfer.ended,
                });
            }
        });
        let watch = Watch::new(move |transfer| drop(sender.send(Some(transfer))));
        body(&client.with_watch(watch))
    })
}

/// Tells the thread that tells that there is nothing more, whatever happens.
struct End(mpsc::Sender<Option<Transfer>>);

impl Drop for End {
    fn drop(&mut self) {
        // A thread that is gone need not hear it.
        let _ = self.0.send(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [
            ("90s", Some(90)),
            (" 30m ", Some(1800)),
            ("2h", Some(7200)),
            ("0", None),
            ("0s", None),
        ] {
            assert_eq!(parse(text).unwrap(), seconds.map(Duration::from_secs), "{text}");
        }
        for text in ["90", "-1s", "s", "1d", "1.5h", "9999999999999999999h", "99999999999999999h"] {
            assert_eq!(
                parse(text).unwrap_err().message,
                format!(
                    "$BRICKLAYER_TRANSFER_TIMEOUT: invalid time `{text}`: want a number with a unit s, m or h, or 0 for no limit"
                )
            );
        }
    }
}
