//! Turns a finished result into an image or a file tree.
