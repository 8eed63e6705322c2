//! "Use at most so much, leave at least so much free": when the store is tidied up without being asked.
//!
//! Whether there is anything to do is estimated in microseconds, from what was measured last and what builds have
//! written and the file system has lost since; measuring and removing are for a time when nobody waits. A build that is about to fill the disk is
//! another matter: [`SpaceWatch`] looks at the file system while it runs.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, Row, params};

use super::{Freed, Need, PruneOptions};
use crate::error::CacheError;
use crate::lock::{Lock, Mode};
use crate::space::FileSystem;
use crate::store::{Inner, Store, now};

/// After this time the store is measured, and synced, whatever the estimate says.
const STALE: Duration = Duration::from_secs(600);

/// Fewer bytes than this are not worth a word to the next build.
const MENTIONED: u64 = 64 << 10;

/// How often a running build looks at the disk.
const LOOK: Duration = Duration::from_millis(100);

/// How long it waits after it found nothing to remove.
const REST: Duration = Duration::from_secs(5);

/// Limits of a store, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcLimits {
    /// The store takes at most this.
    pub max_used: u64,
    /// The file system has at least this free.
    pub min_free: u64,
    /// The store may take this whatever is free.
    pub reserved: u64,
}

impl GcLimits {
    /// What holds where nothing else was asked for: at most 80 % of the file system and 100 GB, at least 20 % free,
    /// but 10 % or 10 GB for the store in any case.
    pub fn of(disk: &FileSystem) -> Self {
        const GB: u64 = 1_000_000_000;
        let size = disk.size();
        Self {
            max_used: (size / 5 * 4).min(100 * GB),
            min_free: size / 5,
            reserved: (size / 10).min(10 * GB),
        }
    }

    /// Bytes too many in a store that takes `used` where `free` are left.
    pub fn excess(&self, used: u64, free: u64) -> u64 {
        let missing = self.min_free.saturating_sub(free);
        let keep = self.max_used.min(used.saturating_sub(missing)).max(self.reserved);
        used.saturating_sub(keep)
    }
}

impl Store {
    /// Whether [`tidy`](Self::tidy) may have something to do. Costs microseconds.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn is_due(&self, limits: &GcLimits) -> Result<bool, CacheError> {
        let inner = &self.0;
        let free = FileSystem::of(&inner.root)?.free();
        let Some(noted) = inner.noted()? else {
            inner.note(0, free, now())?;
            return Ok(false);
        };
        let age = now().saturating_sub(noted.at);
        if age < 0 || age > STALE.as_nanos() as i64 {
            return Ok(true);
        }
        // Others on the same disk may have removed as much as the store has grown.
        let grown = noted.free.saturating_sub(free).max(noted.grown);
        Ok(limits.excess(noted.used.saturating_add(grown), free) > 0)
    }

    /// Brings the store within its limits, and syncs it, after whoever prunes by now; `None` when another process waits
    /// to do just that.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn tidy(&self, limits: &GcLimits) -> Result<Option<Freed>, CacheError> {
        let place = |name| self.0.lock_place("store", name);
        let Some(next) = Lock::attempt(&place("prune-next"), Mode::Exclusive)? else {
            return Ok(None);
        };
        let _turn = Lock::wait(&place("prune"), Mode::Exclusive)?;
        // Whoever comes from now on may have made what is not going to be measured here.
        drop(next);
        if !self.is_due(limits)? {
            return Ok(Some(Freed::default()));
        }
        let options = PruneOptions {
            max_used_space: Some(limits.max_used),
            min_free_space: Some(limits.min_free),
            reserved_space: Some(limits.reserved),
            ..PruneOptions::default()
        };
        self.prune_in_turn(&options, Need::Options).map(Some)
    }

    /// Keeps an eye on the disk for as long as the value lives, and removes the least recently used before the disk
    /// is full.
    pub fn watch_space(&self) -> SpaceWatch {
        let (stop, stopped) = channel();
        let store = Arc::downgrade(&self.0);
        // It may be in the middle of something when the build ends: nobody waits for it then, as for a dead process.
        let _ = std::thread::Builder::new().name("space".to_owned()).spawn(move || {
            let mut rest_until = Instant::now();
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                note_if_full(&store);
                if Instant::now() >= rest_until && !look(&store) {
                    rest_until = Instant::now() + REST;
                }
            }
        });
        // Without it the disk is looked at when it is full.
        SpaceWatch { _stop: stop }
    }

    /// Whether the disk is full, or was seen full since an instant by a [watch](Self::watch_space).
    pub fn was_full_since(&self, instant: SystemTime) -> bool {
        let inner = &self.0;
        let nanoseconds = instant.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        i128::from(inner.full_at.load(Ordering::Relaxed)) >= nanoseconds.cast_signed()
            || FileSystem::of(&inner.root).is_ok_and(|disk| disk.is_full())
    }
}

/// Remembers that the disk is full, if it is.
fn note_if_full(store: &Weak<Inner>) {
    if let Some(inner) = store.upgrade()
        && FileSystem::of(&inner.root).is_ok_and(|disk| disk.is_full())
    {
        inner.full_at.store(now(), Ordering::Relaxed);
    }
}

/// What was measured last, in bytes, and when.
struct Noted {
    used: u64,
    free: u64,
    at: i64,
    /// Bytes written since.
    grown: u64,
}

impl Noted {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let bytes = |column| row.get(column).map(i64::cast_unsigned);
        Ok(Self { used: bytes(0)?, free: bytes(1)?, at: row.get(2)?, grown: bytes(3)? })
    }
}

/// Removes something if the disk is nearly full; false when that did not help.
fn look(store: &Weak<Inner>) -> bool {
    let Some(inner) = store.upgrade() else { return true };
    let Ok(disk) = FileSystem::of(&inner.root) else { return false };
    let low = (disk.size() / 20).min(512 << 20);
    if disk.free() >= low {
        return true;
    }
    // Who prunes already is not waited for, and what cannot be done now is told where the space is needed.
    let Ok(Some(_turn)) = Lock::attempt(&inner.lock_place("store", "prune"), Mode::Exclusive)
    else {
        return true;
    };
    let need = Need::Bytes(2 * low - disk.free());
    let freed = Store(inner).prune_in_turn(&PruneOptions::default(), need);
    freed.is_ok_and(|freed| freed.bytes > 0)
}

/// The eye that is kept on the disk.
#[derive(Debug)]
pub struct SpaceWatch {
    _stop: Sender<()>,
}

impl Inner {
    /// Notes that something of so many bytes has been added.
    pub(crate) fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was measured last, and what has been written since, by this process too.
    fn noted(&self) -> Result<Option<Noted>, CacheError> {
        if self.written.load(Ordering::Relaxed) < MENTIONED {
            let sql = "SELECT used, free, at, grown FROM gc";
            return self.read(|db| db.query_row(sql, [], Noted::read).optional());
        }
        let written = self.written.swap(0, Ordering::Relaxed).cast_signed();
        self.write(|transaction| {
            let sql = "UPDATE gc SET grown = grown + ?1 RETURNING used, free, at, grown";
            transaction.query_row(sql, [written], Noted::read).optional()
        })
    }

    /// Notes what the store takes by now.
    pub(super) fn note_usage(&self) -> Result<(), CacheError> {
        let used = self.census()?.usage().total();
        self.note(used, FileSystem::of(&self.root)?.free(), now())
    }

    fn note(&self, used: u64, free: u64, at: i64) -> Result<(), CacheError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM gc", [])?;
            let values = params![used.cast_signed(), free.cast_signed(), at];
            transaction
                .execute("INSERT INTO gc (used, free, at) VALUES (?1, ?2, ?3)", values)
                .map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_keeps_both_limits_and_what_is_reserved() {
        let limits = GcLimits { max_used: 100, min_free: 50, reserved: 10 };
        for (used, free, excess) in [
            (100, 50, 0),
            (101, 50, 1),
            (80, 40, 10),
            (150, 0, 50),
            (130, 0, 50),
            (55, 0, 45),
            (10, 0, 0),
            (5, 0, 0),
        ] {
            assert_eq!(limits.excess(used, free), excess, "{used} used, {free} free");
        }
    }
}
