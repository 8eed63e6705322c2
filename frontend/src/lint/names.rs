//! Rules about names: secrets in variables, reserved stage names.

pub(crate) use llb::variable::looks_secret;

/// Stage names that mean something else.
pub(crate) const RESERVED_STAGES: &[&str] = &["context", "scratch"];
