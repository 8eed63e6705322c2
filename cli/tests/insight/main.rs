//! What a build tells of itself: progress for programs, traces, and why steps ran.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod explain;
mod rawjson;
mod trace;
