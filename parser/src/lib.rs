//! Turns Dockerfile text into a syntax tree in which every node has a span.
