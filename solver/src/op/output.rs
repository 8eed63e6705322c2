//! Runs a process and passes on what it writes.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Mutex;
use std::time::SystemTime;

use llb::event::Event;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use sandbox::{Exit, Spec};

use crate::error::OpError;
use crate::guard;
use crate::solve::Solve;

/// Lines kept for the report of a failure.
const TAIL_LINES: usize = 200;

/// Longest line kept for the report, in bytes.
const TAIL_LINE: usize = 4096;

/// Runs `spec` to its end; `log` gets its last lines.
pub(crate) fn run(
    solve: &Solve<'_>,
    vertex: usize,
    spec: &Spec,
    log: &mut Vec<String>,
) -> Result<Exit, OpError> {
    let sandbox = solve.job.engine.sandbox()?;
    let name = || solve.definition.vertex(vertex).metadata.name.clone();
    let _span = tree::trace::span("process", name);
    let digest = solve.shown(vertex);
    let tail = Mutex::new(Tail::default());
    let pipe = || {
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| OpError::Io {
            action: "make a pipe for",
            path: "the output of a step".into(),
            source: errno.into(),
        })
    };
    let ((out_read, out_write), (err_read, err_write)) = (pipe()?, pipe()?);
    let exit = std::thread::scope(|scope| {
        let tail = &tail;
        let read = move || {
            let show = |stream, data: Vec<u8>| {
                if data.is_empty() {
                    return;
                }
                if let Ok(mut tail) = tail.lock() {
                    tail.take(stream, &data);
                }
                let at = SystemTime::now();
                solve.job.events.send(Event::Log { vertex: digest, stream, data, at });
            };
            let mut redactors = [guard::redactor(solve), guard::redactor(solve)];
            read_both([File::from(out_read), File::from(err_read)], |stream, data| {
                match &mut redactors[usize::from(stream == 2)] {
                    Some(redactor) => show(stream, redactor.take(&data)),
                    None => show(stream, data),
                }
            });
            for (stream, redactor) in (1..).zip(&mut redactors) {
                redactor.iter_mut().for_each(|redactor| show(stream, redactor.end()));
            }
        };
        sandbox.run_and(spec, out_write, err_write, &solve.job.cancel, || {
            scope.spawn(read);
            solve.meanwhile(vertex);
        })
    });
    if let Ok(tail) = tail.into_inner() {
        log.extend(tail.into_lines());
    }
    Ok(exit?)
}

/// Reads both outputs of a step, 1 and 2, until both have ended.
fn read_both(pipes: [File; 2], mut take: impl FnMut(u8, Vec<u8>)) {
    let mut open: Vec<(u8, File)> = (1..).zip(pipes).collect();
    let mut buffer = Vec::with_capacity(32 << 10);
    while !open.is_empty() {
        let mut ready: Vec<PollFd<'_>> =
            open.iter().map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)).collect();
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let ready: Vec<bool> = ready.iter().map(|pipe| !pipe.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        open.retain_mut(|(stream, pipe)| {
            if ready.next() != Some(true) {
                return true;
            }
            buffer.clear();
            match rustix::io::read(pipe, spare_capacity(&mut buffer)) {
                Ok(1..) => take(*stream, buffer.clone()),
                Err(Errno::INTR) => {}
                _ => return false,
            }
            true
        });
    }
}

/// The last lines of both streams, in the order in which they came.
#[derive(Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    partial: [Vec<u8>; 2],
}

impl Tail {
    fn take(&mut self, stream: u8, data: &[u8]) {
        let which = usize::from(stream == 2);
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            let line = &mut self.partial[which];
            let room = TAIL_LINE.saturating_sub(line.len());
            line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(line);
                self.push(line);
            }
        }
    }

    fn push(&mut self, line: Vec<u8>) {
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn into_lines(mut self) -> Vec<String> {
        for which in 0..2 {
            let rest = std::mem::take(&mut self.partial[which]);
            if !rest.is_empty() {
                self.push(rest);
            }
        }
        let text = |line: Vec<u8>| {
            String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()
        };
        self.lines.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_last_whole_lines_and_the_rest() {
        let mut tail = Tail::default();
        for number in 0..300 {
            tail.take(1, format!("line {number}\nx").as_bytes());
            tail.take(1, b"y\n");
        }
        tail.take(2, b"end without newline");
        let lines = tail.into_lines();
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(lines[TAIL_LINES - 2..], ["xy", "end without newline"]);
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut tail = Tail::default();
        tail.take(1, &vec![b'a'; 1 << 20]);
        assert_eq!(tail.into_lines(), ["a".repeat(TAIL_LINE)]);
    }
}
