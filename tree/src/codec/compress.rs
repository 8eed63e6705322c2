//! Compression in blocks, on as many threads as there are.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder;

use super::gzip::{self, Level};
use super::{BLOCK, Sha256};

/// Threads that one stream keeps busy at most; more would only cost memory.
const MAX_THREADS: usize = 8;
/// Bytes of input that one zstd worker takes at a time. Part of the format: changes the bytes.
const ZSTD_JOB: u32 = 2 << 20;

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not compressed.
    Plain,
    /// Gzip at a level of 0 to 12; 1 to 9 are about those of other tools.
    Gzip(u32),
    /// Zstandard at a level of 1 to 22.
    Zstd(i32),
}

impl Codec {
    /// Gzip at its default level.
    pub const GZIP: Self = Self::Gzip(6);
    /// Zstandard at its default level.
    pub const ZSTD: Self = Self::Zstd(3);
}

/// Compresses what is written to it; [`finish`](Self::finish) must be called at the end.
///
/// The compressed bytes are written to the inner writer by the calling thread, in order. Work is shared
/// with rayon's pool, and the calling thread takes part, so a pool that is busy only makes it slower.
#[derive(Debug)]
pub struct Compressor<W: Write> {
    engine: Engine<W>,
    block: Vec<u8>,
}

enum Engine<W: Write> {
    Plain(W),
    Gzip(Members<W>),
    /// Until there is more than a block: short inputs are done on this thread, without any worker.
    ZstdShort(W, i32),
    Zstd(Encoder<'static, W>),
    /// Left behind by an error while the engine was being exchanged.
    Broken,
}

impl<W: Write> fmt::Debug for Engine<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Gzip(_) => "Gzip",
            Self::ZstdShort(..) | Self::Zstd(_) => "Zstd",
            Self::Broken => "Broken",
        })
    }
}

impl<W: Write> Compressor<W> {
    /// Makes a compressor that writes to `inner`.
    ///
    /// # Errors
    /// When the codec has no such level.
    pub fn new(inner: W, codec: Codec) -> io::Result<Self> {
        Self::with_threads(inner, codec, None)
    }

    pub(super) fn with_threads(inner: W, codec: Codec, threads: Option<usize>) -> io::Result<Self> {
        let engine = match codec {
            Codec::Plain => Engine::Plain(inner),
            Codec::Gzip(level) => {
                Engine::Gzip(Members { threads, ..Members::new(inner, Level::new(level)?) })
            }
            Codec::Zstd(level) if (1..=22).contains(&level) => Engine::ZstdShort(inner, level),
            Codec::Zstd(level) => {
                let message = format!("unknown zstd level `{level}`");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        };
        Ok(Self { engine, block: Vec::new() })
    }

    /// Compresses what is left and returns the inner writer.
    ///
    /// # Errors
    /// When the inner writer fails.
    pub fn finish(mut self) -> io::Result<W> {
        match self.engine {
            Engine::Plain(inner) => Ok(inner),
            Engine::Gzip(mut members) => {
                if !self.block.is_empty() || members.pushed == 0 {
                    members.push(std::mem::take(&mut self.block), 0)?;
                }
                members.finish().map(|(inner, _)| inner)
            }
            Engine::ZstdShort(inner, level) => {
                let mut encoder = Encoder::new(inner, level)?;
                encoder.write_all(&self.block)?;
                encoder.finish()
            }
            Engine::Zstd(mut encoder) => {
                encoder.write_all(&self.block)?;
                encoder.finish()
            }
            Engine::Broken => Err(broken()),
        }
    }

    /// Hands on a full block; called only when more input follows, or the last block would not be
    /// known as such.
    fn hand_on(&mut self) -> io::Result<()> {
        if matches!(self.engine, Engine::ZstdShort(..))
            && let Engine::ZstdShort(inner, level) =
                std::mem::replace(&mut self.engine, Engine::Broken)
        {
            self.engine = Engine::Zstd(parallel_zstd(inner, level)?);
        }
        match &mut self.engine {
            Engine::Gzip(members) => {
                members.push(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)), 0)
            }
            Engine::Zstd(encoder) => {
                encoder.write_all(&self.block)?;
                self.block.clear();
                Ok(())
            }
            Engine::Plain(_) | Engine::ZstdShort(..) | Engine::Broken => Err(broken()),
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("the compressor failed before")
}

fn parallel_zstd<W: Write>(inner: W, level: i32) -> io::Result<Encoder<'static, W>> {
    // More than a block is there by now: the pool is worth asking.
    let workers = u32::try_from(rayon::current_num_threads().clamp(1, MAX_THREADS)).unwrap_or(1);
    let mut encoder = Encoder::new(inner, level)?;
    encoder.set_parameter(CParameter::NbWorkers(workers))?;
    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
    Ok(encoder)
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Engine::Plain(inner) = &mut self.engine {
            return inner.write(bytes);
        }
        if self.block.len() == BLOCK && !bytes.is_empty() {
            self.hand_on()?;
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Flushes only the inner writer: a block is not cut short.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.engine {
            Engine::Plain(inner) | Engine::ZstdShort(inner, _) => inner.flush(),
            Engine::Gzip(members) => members.inner.flush(),
            Engine::Zstd(encoder) => encoder.get_mut().flush(),
            Engine::Broken => Err(broken()),
        }
    }
}

/// Gzip members on their way, in order.
pub(super) struct Members<W> {
    inner: W,
    level: Level,
    jobs: VecDeque<Arc<Job>>,
    /// Threads to use instead of those there are; the pool is not even asked before there is a second
    /// block, for that would start it.
    threads: Option<usize>,
    pushed: usize,
    written: Vec<Member>,
}

/// What is known of a member that has been written.
#[derive(Debug)]
pub(super) struct Member {
    /// Where it begins.
    pub(super) begin: u64,
    /// Where it ends.
    pub(super) end: u64,
    /// Hash of the first of its uncompressed bytes, if it was asked for.
    pub(super) hash: Option<[u8; 32]>,
}

impl<W: Write> Members<W> {
    pub(super) fn new(inner: W, level: Level) -> Self {
        let (jobs, written) = (VecDeque::new(), Vec::new());
        Self { inner, level, jobs, threads: None, pushed: 0, written }
    }

    /// Blocks handed on so far.
    pub(super) fn pushed(&self) -> usize {
        self.pushed
    }

    /// Writes what is left; returns the inner writer, and all members.
    pub(super) fn finish(mut self) -> io::Result<(W, Vec<Member>)> {
        self.drain(0)?;
        Ok((self.inner, self.written))
    }

    /// Hands on a block; its first `hashed` bytes are hashed by whoever compresses it.
    pub(super) fn push(&mut self, block: Vec<u8>, hashed: usize) -> io::Result<()> {
        let job = Arc::new(Job {
            state: Mutex::new(State::Waiting(block)),
            done: Condvar::new(),
            level: self.level,
            hashed,
        });
        self.pushed += 1;
        self.jobs.push_back(job);
        // A lone block is done by `drain`, on this thread.
        if self.pushed == 1 {
            return Ok(());
        }
        let threads = self.threads.unwrap_or_else(|| rayon::current_num_threads().min(MAX_THREADS));
        if threads > 1 {
            let new = if self.pushed == 2 { 0 } else { self.jobs.len() - 1 };
            for job in self.jobs.range(new..) {
                let job = Arc::clone(job);
                rayon::spawn(move || job.run());
            }
        }
        self.drain(threads)
    }

    /// Writes finished members until at most `keep` are under way.
    fn drain(&mut self, keep: usize) -> io::Result<()> {
        while self.jobs.len() > keep {
            let Some(job) = self.jobs.pop_front() else { break };
            let Packed { member, hash } = job.take()?;
            self.inner.write_all(&member)?;
            let begin = self.written.last().map_or(0, |member| member.end);
            self.written.push(Member { begin, end: begin + member.len() as u64, hash });
        }
        Ok(())
    }
}

/// One block; run by whoever comes first, a thread of the pool or the one that waits for it.
struct Job {
    state: Mutex<State>,
    done: Condvar,
    level: Level,
    hashed: usize,
}

enum State {
    Waiting(Vec<u8>),
    Running,
    Done(io::Result<Packed>),
}

/// A block, compressed.
struct Packed {
    member: Vec<u8>,
    hash: Option<[u8; 32]>,
}

impl Job {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let block = {
            let mut state = self.lock();
            if !matches!(*state, State::Waiting(_)) {
                return;
            }
            match std::mem::replace(&mut *state, State::Running) {
                State::Waiting(block) => block,
                _ => return,
            }
        };
        let span = crate::trace::span("compress", || "block".to_owned());
        let hash = (self.hashed > 0).then(|| Sha256::digest(&block[..self.hashed]));
        let packed = gzip::member(self.level, &block).map(|member| Packed { member, hash });
        drop(span);
        *self.lock() = State::Done(packed);
        self.done.notify_all();
    }

    fn take(&self) -> io::Result<Packed> {
        self.run();
        let mut state = self.lock();
        loop {
            match std::mem::replace(&mut *state, State::Running) {
                State::Done(result) => return result,
                other => *state = other,
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
