//! A writer on a thread of its own.

use std::io::{self, Write};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::BLOCK;

/// Hands what is written to it to another writer, block by block, on another thread.
///
/// Puts two slow stages of a pipeline (hashing a tar, compressing it) on two cores. The thread is made
/// when the first block is full, so a short stream costs none. [`finish`](Self::finish) must be called at
/// the end; dropped without it, what was written last may be lost.
#[derive(Debug)]
pub struct Background<W: Write + Send + 'static> {
    state: State<W>,
    block: Vec<u8>,
}

#[derive(Debug)]
enum State<W> {
    Here(W),
    Away(Away<W>),
    Failed,
}

/// A writer on its thread.
#[derive(Debug)]
struct Away<W> {
    blocks: Sender<Vec<u8>>,
    /// Blocks that have been written, to be filled again: memory that was never used before costs as much as hashing it.
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<io::Result<W>>,
}

impl<W: Write + Send + 'static> Background<W> {
    /// Wraps a writer.
    pub fn new(inner: W) -> Self {
        Self { state: State::Here(inner), block: Vec::new() }
    }

    /// Waits until all is written and returns the writer.
    ///
    /// # Errors
    /// When the writer failed.
    pub fn finish(mut self) -> io::Result<W> {
        if matches!(self.state, State::Away(_)) {
            self.hand_on()?;
        }
        match self.state {
            State::Here(mut inner) => {
                inner.write_all(&self.block)?;
                Ok(inner)
            }
            State::Away(away) => {
                drop(away.blocks);
                join(away.thread)
            }
            State::Failed => Err(failed()),
        }
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let away = match std::mem::replace(&mut self.state, State::Failed) {
            State::Here(inner) => start(inner)?,
            State::Away(away) => away,
            State::Failed => return Err(failed()),
        };
        let empty = away.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK));
        let block = std::mem::replace(&mut self.block, empty);
        if away.blocks.send(block).is_err() {
            return Err(join(away.thread).err().unwrap_or_else(failed));
        }
        self.state = State::Away(away);
        Ok(())
    }
}

fn start<W: Write + Send + 'static>(mut inner: W) -> io::Result<Away<W>> {
    let (blocks, received) = bounded::<Vec<u8>>(2);
    let (back, empty) = bounded(4);
    let thread = thread::Builder::new().name("writer".to_owned()).spawn(move || {
        let _span = crate::trace::span("write", || "what another thread hands on".to_owned());
        for mut block in received {
            inner.write_all(&block)?;
            block.clear();
            // Nobody may be left to fill it.
            let _ = back.try_send(block);
        }
        Ok(inner)
    })?;
    Ok(Away { blocks, empty, thread })
}

fn join<W>(thread: JoinHandle<io::Result<W>>) -> io::Result<W> {
    thread.join().unwrap_or_else(|_| Err(failed()))
}

fn failed() -> io::Error {
    io::Error::other("the background writer failed before")
}

impl<W: Write + Send + 'static> Write for Background<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() >= BLOCK {
            self.hand_on()?;
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Does nothing: blocks are handed on when they are full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
