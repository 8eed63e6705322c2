//! Turns a parsed Dockerfile into an LLB definition and an image config.
