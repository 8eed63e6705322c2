//! Runs an LLB definition: each vertex at most once, from cache where its key matches.
