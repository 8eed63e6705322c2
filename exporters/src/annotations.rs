//! Annotations of manifests, indexes and their descriptors.

use std::collections::BTreeMap;

use llb::Platform;

use crate::ExportError;

/// What an annotation is written into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnnotationTarget {
    /// The manifest of a platform.
    Manifest,
    /// The descriptor of a platform's manifest.
    ManifestDescriptor,
    /// The index.
    Index,
    /// The descriptor of the index.
    IndexDescriptor,
}

/// One note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What it is written into.
    pub target: AnnotationTarget,
    /// For which platform only; `None` for all.
    pub platform: Option<Platform>,
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// All notes for an image; of two with one key the later one counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations(pub Vec<Annotation>);

impl Annotations {
    /// Parses the value of `--annotation`: `[type[platform],…:]key=value`.
    ///
    /// # Errors
    /// When a type or platform is unknown or there is no `=`.
    pub fn parse_flag(text: &str) -> Result<Self, ExportError> {
        let bad = |reason: String| ExportError::InvalidAnnotation { text: text.to_owned(), reason };
        let (key, value) = text.split_once('=').ok_or_else(|| bad("want key=value".to_owned()))?;
        let (types, key) = key.split_once(':').unwrap_or(("manifest", key));
        let parse = |kind| parse_target(kind).map_err(bad);
        let targets = types.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
        let annotation = |(target, platform)| Annotation {
            target,
            platform,
            key: key.to_owned(),
            value: value.to_owned(),
        };
        Ok(Self(targets.into_iter().map(annotation).collect()))
    }

    /// Parses an output attribute `annotation[-type][platform].key=value`; `None` when it is another one.
    pub(crate) fn parse_attribute(
        name: &str,
        value: &str,
    ) -> Option<Result<Annotation, ExportError>> {
        let (kind, key) = name.strip_prefix("annotation")?.split_once('.')?;
        let kind = match kind.strip_prefix('-') {
            Some(kind) => kind.to_owned(),
            None if kind.is_empty() || kind.starts_with('[') => format!("manifest{kind}"),
            None => return None,
        };
        let bad =
            |reason| ExportError::InvalidAnnotation { text: format!("{name}={value}"), reason };
        Some(parse_target(&kind).map_err(bad).map(|(target, platform)| Annotation {
            target,
            platform,
            key: key.to_owned(),
            value: value.to_owned(),
        }))
    }

    /// Notes for this target, for this platform.
    pub(crate) fn of(
        &self,
        target: AnnotationTarget,
        platform: Option<&Platform>,
    ) -> BTreeMap<String, String> {
        let wanted = |annotation: &&Annotation| {
            annotation.target == target
                && annotation.platform.as_ref().is_none_or(|only| Some(only) == platform)
        };
        self.0
            .iter()
            .filter(wanted)
            .map(|annotation| (annotation.key.clone(), annotation.value.clone()))
            .collect()
    }

    /// Whether any note has this target.
    pub(crate) fn has(&self, target: AnnotationTarget) -> bool {
        self.0.iter().any(|annotation| annotation.target == target)
    }
}

/// Parses `type[platform]`.
fn parse_target(text: &str) -> Result<(AnnotationTarget, Option<Platform>), String> {
    let (kind, platform) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((kind, platform)) => {
            (kind, Some(Platform::parse(platform).map_err(|error| error.to_string())?))
        }
        None => (text, None),
    };
    let target = match kind {
        "manifest" => AnnotationTarget::Manifest,
        "manifest-descriptor" => AnnotationTarget::ManifestDescriptor,
        "index" => AnnotationTarget::Index,
        "index-descriptor" => AnnotationTarget::IndexDescriptor,
        _ => {
            return Err(format!(
                "unknown type `{kind}`, want manifest, manifest-descriptor, index or index-descriptor"
            ));
        }
    };
    Ok((target, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let actual = match Annotations::parse_flag(text) {
            Err(error) => error.to_string(),
            Ok(Annotations(list)) => {
                let show = |a: &Annotation| {
                    let platform = a
                        .platform
                        .as_ref()
                        .map(|platform| format!("[{platform}]"))
                        .unwrap_or_default();
                    format!("{:?}{platform} {}={}", a.target, a.key, a.value)
                };
                list.iter().map(show).collect::<Vec<_>>().join("; ")
            }
        };
        assert_eq!(actual, expect, "input: {text:?}");
    }

    #[test]
    fn flag_forms() {
        check("a=b", "Manifest a=b");
        check("a=b=c:d", "Manifest a=b=c:d");
        check("index:a=", "Index a=");
        check("index,manifest[linux/x86_64]:a=b", "Index a=b; Manifest[linux/amd64] a=b");
        check("a", "invalid annotation `a`: want key=value");
        check(
            "x:a=b",
            "invalid annotation `x:a=b`: unknown type `x`, want manifest, manifest-descriptor, index or index-descriptor",
        );
    }

    #[test]
    fn a_note_for_one_platform_is_not_given_to_others() {
        let notes = Annotations::parse_flag("manifest[linux/arm64]:a=b").unwrap();
        let of = |platform: &str| {
            notes.of(AnnotationTarget::Manifest, Some(&Platform::parse(platform).unwrap()))
        };
        assert_eq!((of("linux/arm64").len(), of("linux/amd64").len()), (1, 0));
    }
}
