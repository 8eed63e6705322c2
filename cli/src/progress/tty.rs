//! Progress on a terminal: finished vertices scroll away, running ones are drawn below them.
//!
//! Lines are drawn by `indicatif` from this one thread, at most ten times a second.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use llb::event::VertexError;
use llb::{Digest, Event};

struct Running {
    bar: ProgressBar,
    name: String,
    started: SystemTime,
    last_line: String,
}

/// Shows events until the senders are gone.
pub(super) fn show(receiver: Receiver<Event>) {
    let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    let mut running: HashMap<Digest, Running> = HashMap::new();
    loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => take(event, &screen, &mut running),
            Err(RecvTimeoutError::Timeout) => {
                running.values().for_each(|shown| shown.bar.set_message(shown.text()))
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    running.values().for_each(|shown| shown.bar.finish_and_clear());
}

fn take(event: Event, screen: &MultiProgress, running: &mut HashMap<Digest, Running>) {
    match event {
        Event::VertexStarted { vertex, name, at, .. } => {
            let style = ProgressStyle::with_template("{wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = screen.add(ProgressBar::new_spinner().with_style(style));
            let shown = Running { bar, name, started: at, last_line: String::new() };
            shown.bar.set_message(shown.text());
            if let Some(before) = running.insert(vertex, shown) {
                before.bar.finish_and_clear();
            }
        }
        Event::VertexCompleted { vertex, cached, error, at } => {
            if let Some(shown) = running.remove(&vertex) {
                shown.bar.finish_and_clear();
                let took = at.duration_since(shown.started).unwrap_or_default().as_secs_f64();
                let line = match error {
                    None if cached => format!(" => CACHED {}", shown.name),
                    None => format!(" => {} {took:.1}s", shown.name),
                    Some(VertexError::Canceled) => format!(" => CANCELED {}", shown.name),
                    Some(VertexError::Failed(_)) => format!(" => ERROR {} {took:.1}s", shown.name),
                };
                // A terminal that cannot be written to is no reason to stop a build.
                let _ = screen.println(line);
            }
        }
        Event::Log { vertex, data, .. } => {
            if let Some(shown) = running.get_mut(&vertex) {
                let text = String::from_utf8_lossy(&data);
                if let Some(line) = text.lines().rfind(|line| !line.trim().is_empty()) {
                    shown.last_line = line.chars().filter(|c| !c.is_control()).collect();
                }
            }
        }
        Event::Status { vertex, id, current, total, .. } => {
            if let Some(shown) = running.get_mut(&vertex) {
                let amount = super::plain::bytes(current);
                shown.last_line = if total > 0 {
                    format!("{id} {amount} / {}", super::plain::bytes(total))
                } else {
                    format!("{id} {amount}")
                };
            }
        }
        Event::Warning { .. } | Event::Explained(_) => {}
    }
}

impl Running {
    fn text(&self) -> String {
        let took = self.started.elapsed().unwrap_or_default().as_secs_f64();
        if self.last_line.is_empty() {
            format!(" => {} {took:.1}s", self.name)
        } else {
            format!(" => {} {took:.1}s | {}", self.name, self.last_line)
        }
    }
}
