//! BuildKit's wire form of a definition.
