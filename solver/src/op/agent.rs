//! Forwarding of an ssh agent to a step.
//!
//! The step talks to a socket of the builder's. What passes is a list of keys and signatures, each a request and its
//! answer; a request for anything else, such as to add or remove keys, is refused.
//!
//! Protocol: draft-miller-ssh-agent. A message is its length as a big-endian `u32`, then a type and a body.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// Requests that pass: the list of keys, and a signature.
const PASSED: [u8; 2] = [11, 13];

/// The answer to all others.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// Longest message, in bytes.
const MAX_MESSAGE: u32 = 256 << 10;

/// Connections at the same time.
const MAX_CONNECTIONS: usize = 64;

/// A socket that is served until this is dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    path: PathBuf,
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Serves `upstream`, the socket of an agent, at a new socket in `folder`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn start(
        upstream: PathBuf,
        folder: &Path,
        (uid, gid): (u32, u32),
        mode: u32,
    ) -> io::Result<Self> {
        let path = folder.join("agent");
        // The address of a socket is short, so the folder is named by a descriptor.
        let opened = fs_err::File::open(folder)?;
        let listener =
            UnixListener::bind(format!("/proc/self/fd/{}/agent", opened.file().as_raw_fd()))?;
        listener.set_nonblocking(true)?;
        super::own(&path, (uid, gid))?;
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode & 0o7777))?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || serve(&listener, &stopped, &upstream))?;
        Ok(Self { path, stop: Some(stop), thread: Some(thread) })
    }

    /// Where the socket is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs_err::remove_file(&self.path);
    }
}

/// Takes connections until the other end of `stopped` is closed. A connection ends with the step, which has the
/// other end of it.
fn serve(listener: &UnixListener, stopped: &OwnedFd, upstream: &Path) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        let Ok((client, _)) = listener.accept() else { continue };
        if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS || client.set_nonblocking(false).is_err()
        {
            continue;
        }
        let (upstream, open) = (upstream.to_owned(), Arc::clone(&open));
        open.fetch_add(1, Ordering::Relaxed);
        let counted = Arc::clone(&open);
        let spawned = std::thread::Builder::new().name("ssh-agent".to_owned()).spawn(move || {
            // Whatever goes wrong, the step sees its connection end.
            let _ = UnixStream::connect(&upstream).and_then(|agent| pass(client, agent));
            open.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            counted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Passes requests and answers until the client has no more.
fn pass(mut client: impl Read + Write, mut agent: impl Read + Write) -> io::Result<()> {
    while let Some(request) = message(&mut client)? {
        if !request.get(4).is_some_and(|kind| PASSED.contains(kind)) {
            client.write_all(&FAILURE)?;
            continue;
        }
        agent.write_all(&request)?;
        let answer = message(&mut agent)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        client.write_all(&answer)?;
    }
    Ok(())
}

/// Reads one message, its length included; `None` at the end.
fn message(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let size = u32::from_be_bytes(length);
    if size > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; 4 + size as usize];
    message[..4].copy_from_slice(&length);
    from.read_exact(&mut message[4..])?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client with requests to read and a place for answers; or an agent the other way round.
    struct Peer {
        says: io::Cursor<Vec<u8>>,
        hears: Vec<u8>,
    }

    impl Peer {
        fn new(says: &[u8]) -> Self {
            Self { says: io::Cursor::new(says.to_vec()), hears: Vec::new() }
        }
    }

    impl Read for &mut Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for &mut Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.hears.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn keys_are_listed_and_used_but_never_changed() {
        let list = [0, 0, 0, 1, 11];
        let remove_all = [0, 0, 0, 1, 19];
        let sign = [0, 0, 0, 2, 13, 7];
        let nothing = [0, 0, 0, 0];
        let mut client = Peer::new(&[&list[..], &remove_all, &nothing, &sign].concat());
        let (keys, signature) = ([0, 0, 0, 2, 12, 1], [0, 0, 0, 2, 14, 2]);
        let mut agent = Peer::new(&[keys, signature].concat());
        pass(&mut client, &mut agent).unwrap();
        assert_eq!(agent.hears, [&list[..], &sign].concat());
        assert_eq!(client.hears, [&keys[..], &FAILURE, &FAILURE, &signature].concat());
    }

    #[test]
    fn bad_messages_end_the_connection() {
        for bad in [&[0, 0, 0, 9, 11][..], &[255, 255, 255, 255, 11]] {
            let (mut client, mut agent) = (Peer::new(bad), Peer::new(&[]));
            assert!(pass(&mut client, &mut agent).is_err());
            assert!(agent.hears.is_empty() && client.hears.is_empty());
        }
    }
}
