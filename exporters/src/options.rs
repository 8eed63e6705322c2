//! Parses the values of `--output`.
//!
//! ```text
//! type=oci,dest=out.tar,compression=zstd     attributes, CSV-quoted
//! out                                        type=local,dest=out
//! -                                          type=tar,dest=-
//! ```

use std::fmt;
use std::path::PathBuf;

use llb::Reference;
use llb::image::Compression;
use tree::codec::Codec;

use crate::annotations::Annotations;
use crate::{ExportError, Stop};

/// Kinds of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The files, in a folder.
    Local,
    /// The files, in a tar archive.
    Tar,
    /// An OCI layout.
    Oci,
    /// A Docker archive.
    Docker,
    /// An image in the local store, in a registry, or both.
    Image,
    /// Nothing.
    CacheOnly,
}

/// Where bytes go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file or folder.
    Path(PathBuf),
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Kind.
    pub kind: Kind,
    /// Where to; `None` where the kind has a place of its own.
    pub dest: Option<Target>,
    /// Names given with the output; names given for the whole build count instead.
    pub names: Vec<Reference>,
    /// How the image is written.
    pub image: ImageOptions,
    /// Whether and how the image is pushed.
    pub push: PushOptions,
    /// Whether the image is put into the local store.
    pub store: bool,
    /// Whether an OCI layout or Docker archive is one file.
    pub tar: bool,
    /// The Docker context whose engine an image is loaded into; `None` for the one in use.
    pub context: Option<String>,
    /// Whether files of each platform have a folder of their own; `None` when there are several.
    pub platform_split: Option<bool>,
    /// Whether a folder loses what the result does not have.
    pub delete: bool,
    /// Before the names of files with attestations.
    pub attestation_prefix: String,
    /// Further names in the local store.
    pub naming: Naming,
    /// Whether layers are unpacked in the local store.
    pub unpack: bool,
}

/// Names that an image in the local store gets besides those that were given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Naming {
    /// `prefix@digest`.
    pub dangling_prefix: Option<Reference>,
    /// That one only if there is no other.
    pub dangling_if_unnamed: bool,
    /// `name@digest` for every name.
    pub canonical: bool,
}

/// How an image is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOptions {
    /// For layers that have no blob yet.
    pub compression: Codec,
    /// Whether gzip layers get a table of contents (eStargz).
    pub table: bool,
    /// Whether layers compressed otherwise are compressed again.
    pub force_compression: bool,
    /// Whether what is younger than the epoch in new layers gets its time.
    pub rewrite_timestamp: bool,
    /// Whether layers that nobody may hand on stay marked so, and are not pushed.
    pub prefer_nondist: bool,
    /// Whether attestations are written as OCI artifacts; `None` with OCI media types.
    pub oci_artifact: Option<bool>,
    /// OCI media types, or Docker's.
    pub oci_types: bool,
    /// Notes.
    pub annotations: Annotations,
    /// Instead of the epoch of the build, in seconds.
    pub source_date_epoch: Option<i64>,
    /// When to give up.
    pub stop: Stop,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            compression: Codec::GZIP,
            table: false,
            force_compression: false,
            rewrite_timestamp: false,
            prefer_nondist: false,
            oci_artifact: None,
            oci_types: true,
            annotations: Annotations::default(),
            source_date_epoch: None,
            stop: Stop::default(),
        }
    }
}

/// How an image is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PushOptions {
    /// Whether it is.
    pub enabled: bool,
    /// Plain HTTP or a certificate nobody vouches for is all right.
    pub insecure: bool,
    /// Only by digest, without a tag.
    pub by_digest: bool,
}

/// How the reference spells `dangling-name-empty-only`.
const MISSPELT: &str = "danging-name-empty-only";

impl Kind {
    /// Name as in `type=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Tar => "tar",
            Self::Oci => "oci",
            Self::Docker => "docker",
            Self::Image => "image",
            Self::CacheOnly => "cacheonly",
        }
    }

    /// Attributes that this kind knows.
    fn attributes(self) -> &'static [&'static str] {
        match self {
            Self::Local => {
                &["attestation-prefix", "dest", "mode", "platform-split", "source-date-epoch"]
            }
            Self::Tar => &["attestation-prefix", "dest", "platform-split", "source-date-epoch"],
            Self::Oci => &[
                "annotation",
                "compression",
                "compression-level",
                "dest",
                "force-compression",
                "name",
                "oci-artifact",
                "oci-mediatypes",
                "prefer-nondist-layers",
                "rewrite-timestamp",
                "source-date-epoch",
                "tar",
            ],
            Self::Docker => &[
                "annotation",
                "compression",
                "compression-level",
                "context",
                "dest",
                "force-compression",
                "name",
                "oci-artifact",
                "oci-mediatypes",
                "prefer-nondist-layers",
                "rewrite-timestamp",
                "source-date-epoch",
                "tar",
            ],
            Self::Image => &[
                "annotation",
                "attestation-inline",
                "compression",
                "compression-level",
                MISSPELT,
                "dangling-name-empty-only",
                "dangling-name-prefix",
                "force-compression",
                "name",
                "name-canonical",
                "oci-artifact",
                "oci-mediatypes",
                "prefer-nondist-layers",
                "push",
                "push-by-digest",
                "registry.insecure",
                "rewrite-timestamp",
                "source-date-epoch",
                "store",
                "unpack",
            ],
            Self::CacheOnly => &[],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Output {
    /// An output of this kind with every attribute at its default.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            dest: None,
            names: Vec::new(),
            image: ImageOptions::default(),
            push: PushOptions::default(),
            store: true,
            tar: true,
            context: None,
            platform_split: None,
            delete: false,
            attestation_prefix: String::new(),
            naming: Naming::default(),
            unpack: false,
        }
    }

    /// Parses the value of `--output`.
    ///
    /// # Errors
    /// When the type or an attribute is unknown or not supported, or a value is wrong.
    pub fn parse(text: &str) -> Result<Self, ExportError> {
        let bad = |reason: String| ExportError::InvalidOutput { text: text.to_owned(), reason };
        let fields = split_csv(text).ok_or_else(|| bad("unbalanced quotes".to_owned()))?;
        if let [bare] = fields.as_slice()
            && !bare.is_empty()
            && !bare.contains('=')
        {
            let kind = if bare == "-" { Kind::Tar } else { Kind::Local };
            return Ok(Self { dest: Some(target(bare)), ..Self::new(kind) });
        }
        let mut attributes = Vec::new();
        for field in &fields {
            let (name, value) =
                field.split_once('=').ok_or_else(|| bad(format!("`{field}` has no value")))?;
            attributes.push((name.trim().to_ascii_lowercase(), value));
        }
        let kind = attributes.iter().rfind(|(name, _)| name == "type");
        let (_, kind) = kind.ok_or_else(|| bad("type is required".to_owned()))?;
        let mut output = match *kind {
            "local" => Self::new(Kind::Local),
            "tar" => Self::new(Kind::Tar),
            "oci" => Self::new(Kind::Oci),
            "docker" => Self::new(Kind::Docker),
            "image" => Self::new(Kind::Image),
            // Ready for a registry only; what it stores is a by-product that nothing asked for.
            "registry" => Self {
                push: PushOptions { enabled: true, ..PushOptions::default() },
                store: false,
                ..Self::new(Kind::Image)
            },
            "cacheonly" => Self::new(Kind::CacheOnly),
            other => {
                let kinds = ["local", "tar", "oci", "docker", "image", "registry", "cacheonly"];
                let near = llb::suggest::question(llb::suggest::nearest(other, kinds));
                let kinds = "local, tar, oci, docker, image, registry or cacheonly";
                return Err(bad(format!("unknown type `{other}`{near}, want {kinds}")));
            }
        };
        let mut raw = RawValues::default();
        for (name, value) in attributes.iter().filter(|(name, _)| name != "type") {
            output.set(name, value, &mut raw)?;
        }
        output.finish(raw)?;
        Ok(output)
    }

    /// Takes one attribute.
    fn set(&mut self, name: &str, value: &str, raw: &mut RawValues) -> Result<(), ExportError> {
        let known = self.kind.attributes();
        if known.contains(&"annotation")
            && let Some(annotation) = Annotations::parse_attribute(name, value)
        {
            self.image.annotations.0.push(annotation?);
            return Ok(());
        }
        if !known.contains(&name) {
            // One that the reference misspells is taken, but not offered.
            let offered = known.iter().copied().filter(|name| *name != MISSPELT);
            let offered: Vec<&str> = offered.collect();
            let near = llb::suggest::question(llb::suggest::nearest(name, offered.iter().copied()));
            let valid = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
            let (kind, name) = (self.kind, name.to_owned());
            return Err(ExportError::UnknownAttribute { kind, name, near, valid });
        }
        match name {
            "dest" => self.dest = Some(value).filter(|value| !value.is_empty()).map(target),
            "name" => {
                raw.names = value
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .map(Into::into)
                    .collect()
            }
            "compression" => raw.compression = Some(value.to_owned()),
            "compression-level" => raw.level = Some(value.to_owned()),
            "force-compression" => self.image.force_compression = boolean(name, value)?,
            "oci-mediatypes" => self.image.oci_types = boolean(name, value)?,
            "source-date-epoch" => self.image.source_date_epoch = epoch(name, value)?,
            "push" => self.push.enabled = boolean(name, value)?,
            "push-by-digest" => self.push.by_digest = boolean(name, value)?,
            "registry.insecure" => self.push.insecure = boolean(name, value)?,
            "store" => self.store = boolean(name, value)?,
            "tar" => self.tar = boolean(name, value)?,
            "context" => self.context = Some(value.to_owned()).filter(|name| !name.is_empty()),
            "platform-split" => self.platform_split = Some(boolean(name, value)?),
            "mode" => self.delete = mode(value)?,
            "attestation-prefix" if value.contains('/') => {
                let (name, reason) = (name.to_owned(), "want no `/` in it".to_owned());
                return Err(ExportError::InvalidValue { name, reason });
            }
            "attestation-prefix" => value.clone_into(&mut self.attestation_prefix),
            "dangling-name-prefix" => {
                let prefix = Some(value).filter(|name| !name.is_empty());
                self.naming.dangling_prefix =
                    prefix.map(|name| parse_name(name, true)).transpose()?;
            }
            MISSPELT | "dangling-name-empty-only" => {
                self.naming.dangling_if_unnamed = boolean(name, value)?;
            }
            "name-canonical" => self.naming.canonical = boolean(name, value)?,
            "unpack" => self.unpack = boolean(name, value)?,
            "rewrite-timestamp" => self.image.rewrite_timestamp = boolean(name, value)?,
            "prefer-nondist-layers" => self.image.prefer_nondist = boolean(name, value)?,
            "oci-artifact" => self.image.oci_artifact = Some(boolean(name, value)?),
            _ => without_effect(name, value)?,
        }
        Ok(())
    }

    /// Takes what depends on more than one attribute, and checks the whole.
    fn finish(&mut self, raw: RawValues) -> Result<(), ExportError> {
        (self.image.compression, self.image.table) = raw.codec()?;
        self.check_conflicts()?;
        for name in raw.names {
            self.names.push(parse_name(&name, self.push.by_digest)?);
        }
        match (self.kind, &self.dest) {
            (Kind::Local, None) => {
                return Err(ExportError::Destination("dest is required for local exporter"));
            }
            (Kind::Local, Some(Target::Stdout)) => {
                return Err(ExportError::Destination("dest cannot be stdout for local exporter"));
            }
            (Kind::Oci | Kind::Docker, None | Some(Target::Stdout)) if !self.tar => {
                return Err(ExportError::Destination("dest is required with tar=false"));
            }
            (Kind::Tar | Kind::Oci, None) => self.dest = Some(Target::Stdout),
            _ => {}
        }
        Ok(())
    }

    fn check_conflicts(&self) -> Result<(), ExportError> {
        let image = &self.image;
        let conflicts = [
            (image.table && !image.oci_types, "compression=estargz", "oci-mediatypes=false"),
            (
                image.oci_artifact == Some(true) && !image.oci_types,
                "oci-artifact=true",
                "oci-mediatypes=false",
            ),
            (image.rewrite_timestamp && self.unpack, "rewrite-timestamp=true", "unpack=true"),
            (self.unpack && !self.store, "unpack=true", "store=false"),
            (self.context.is_some() && self.dest.is_some(), "context", "dest"),
        ];
        match conflicts.into_iter().find(|(both, ..)| *both) {
            Some((_, one, other)) => Err(ExportError::Conflict { one, other }),
            None => Ok(()),
        }
    }
}

/// Values that only make sense together.
#[derive(Default)]
struct RawValues {
    names: Vec<String>,
    compression: Option<String>,
    level: Option<String>,
}

impl RawValues {
    /// How layers are compressed, and whether with a table of contents.
    fn codec(&self) -> Result<(Codec, bool), ExportError> {
        let table = self.compression.as_deref() == Some("estargz");
        let compression = match self.compression.as_deref() {
            None | Some("" | "gzip" | "estargz") => Compression::Gzip,
            Some("uncompressed") => Compression::Uncompressed,
            Some("zstd") => Compression::Zstd,
            Some(other) => {
                let kinds = ["uncompressed", "gzip", "zstd", "estargz"];
                let near = llb::suggest::question(llb::suggest::nearest(other, kinds));
                let reason =
                    format!("want uncompressed, gzip, zstd or estargz, not `{other}`{near}");
                return Err(ExportError::InvalidValue { name: "compression".to_owned(), reason });
            }
        };
        let level: Option<i32> =
            self.level.as_deref().map(|level| number("compression-level", level)).transpose()?;
        let out_of_range = |range: &str| ExportError::InvalidValue {
            name: "compression-level".to_owned(),
            reason: format!("want a number within {range}"),
        };
        let codec = match (compression, level) {
            (Compression::Uncompressed, _) => Codec::Plain,
            (Compression::Gzip, None) => Codec::GZIP,
            (Compression::Gzip, Some(level)) => match u32::try_from(level) {
                Ok(level @ 0..=9) => Codec::Gzip(level),
                _ => return Err(out_of_range("0-9")),
            },
            // 0 is the default of the library.
            (Compression::Zstd, None | Some(0)) => Codec::ZSTD,
            (Compression::Zstd, Some(level @ 1..=22)) => Codec::Zstd(level),
            (Compression::Zstd, Some(_)) => return Err(out_of_range("0-22")),
        };
        Ok((codec, table))
    }
}

/// A name of an image, with or without the tag `latest` where it has none.
fn parse_name(name: &str, as_is: bool) -> Result<Reference, ExportError> {
    let parse = if as_is { Reference::parse_as_is } else { Reference::parse };
    parse(name).map_err(|source| ExportError::InvalidName { name: name.to_owned(), source })
}

/// Accepts attributes of the reference with the one value that means what happens anyway.
fn without_effect(name: &str, value: &str) -> Result<(), ExportError> {
    let harmless = match name {
        // Attestations are always listed where the image is.
        "attestation-inline" => boolean(name, value)?,
        _ => value.is_empty() || boolean(name, value).is_ok_and(|on| !on),
    };
    if harmless { Ok(()) } else { Err(ExportError::Unsupported(format!("`{name}={value}`"))) }
}

/// Whether a folder loses what the result does not have.
fn mode(value: &str) -> Result<bool, ExportError> {
    match value {
        "" | "copy" => Ok(false),
        "delete" => Ok(true),
        _ => {
            let near = llb::suggest::question(llb::suggest::nearest(value, ["copy", "delete"]));
            let reason = format!("want copy or delete, not `{value}`{near}");
            Err(ExportError::InvalidValue { name: "mode".to_owned(), reason })
        }
    }
}

fn target(text: &str) -> Target {
    match text {
        "-" | "/dev/stdout" => Target::Stdout,
        _ => Target::Path(text.into()),
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, ExportError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => {
            let reason = format!("want true or false, not `{value}`");
            Err(ExportError::InvalidValue { name: name.to_owned(), reason })
        }
    }
}

/// Seconds since the epoch; none for an empty value.
fn epoch(name: &str, value: &str) -> Result<Option<i64>, ExportError> {
    if value.is_empty() {
        return Ok(None);
    }
    let seconds: i64 = number(name, value)?;
    let reason = "want a time before the year 10000".to_owned();
    let too_far = |_| ExportError::InvalidValue { name: name.to_owned(), reason };
    jiff::Timestamp::from_second(seconds).map_err(too_far)?;
    Ok(Some(seconds))
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, ExportError> {
    value.parse().map_err(|_| ExportError::InvalidValue {
        name: name.to_owned(),
        reason: format!("want a whole number, not `{value}`"),
    })
}

/// Splits one CSV record: `"a,b"` is one field, `""` in it a quote. `None` when quotes do not fit.
fn split_csv(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![];
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (part, after) = quoted.split_once('"')?;
                field.push_str(part);
                match after.strip_prefix('"') {
                    Some(after) => {
                        field.push('"');
                        quoted = after;
                    }
                    None => {
                        rest = after;
                        break;
                    }
                }
            }
            if !rest.is_empty() && !rest.starts_with(',') {
                return None;
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            if field.contains('"') {
                return None;
            }
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Some(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Output) {
        match Output::parse(text) {
            Ok(output) => assert_eq!(output, expect, "input: {text:?}"),
            Err(error) => panic!("{text:?}: {error}"),
        }
    }

    #[track_caller]
    fn check_error(text: &str, expect: &str) {
        let error = Output::parse(text).expect_err(text);
        let source = std::error::Error::source(&error)
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        assert_eq!(format!("{error}{source}"), expect, "input: {text:?}");
    }

    fn path(text: &str) -> Option<Target> {
        Some(Target::Path(text.into()))
    }

    #[test]
    fn short_forms() {
        check("out", Output { dest: path("out"), ..Output::new(Kind::Local) });
        check("-", Output { dest: Some(Target::Stdout), ..Output::new(Kind::Tar) });
        check("type=oci", Output { dest: Some(Target::Stdout), ..Output::new(Kind::Oci) });
        check("type=docker", Output::new(Kind::Docker));
        check("type=cacheonly", Output::new(Kind::CacheOnly));
        let push = PushOptions { enabled: true, ..PushOptions::default() };
        check("type=registry", Output { push, store: false, ..Output::new(Kind::Image) });
    }

    #[test]
    fn attributes_are_taken_in_any_case_and_order() {
        let names =
            ["a:1", "localhost:5000/b"].map(|name| Reference::parse(name).unwrap()).to_vec();
        let image = ImageOptions {
            compression: Codec::Zstd(19),
            force_compression: true,
            oci_types: false,
            source_date_epoch: Some(7),
            ..ImageOptions::default()
        };
        check(
            "Compression-Level=19,\"name=a:1,localhost:5000/b\",dest=x,type=oci,compression=zstd,force-compression=true,oci-mediatypes=0,source-date-epoch=7,tar=false",
            Output { dest: path("x"), names, image, tar: false, ..Output::new(Kind::Oci) },
        );
    }

    #[test]
    fn annotations_are_taken() {
        let output =
            Output::parse("type=image,annotation-index[linux/amd64].a.b=c=d,annotation.e=f")
                .unwrap();
        let keys: Vec<_> =
            output.image.annotations.0.iter().map(|a| (a.key.as_str(), a.value.as_str())).collect();
        assert_eq!(keys, [("a.b", "c=d"), ("e", "f")]);
    }

    #[test]
    fn mistakes_are_named() {
        check_error(
            "type=foo",
            "invalid output `type=foo`: unknown type `foo`, want local, tar, oci, docker, image, registry or cacheonly",
        );
        check_error(
            "type=dokcer",
            "invalid output `type=dokcer`: unknown type `dokcer` (did you mean docker?), want local, tar, oci, docker, image, registry or cacheonly",
        );
        check_error("dest=x", "invalid output `dest=x`: type is required");
        check_error("type=oci,x", "invalid output `type=oci,x`: `x` has no value");
        check_error("type=oci,\"x", "invalid output `type=oci,\"x`: unbalanced quotes");
        check_error(
            "type=tar,push=true",
            "unknown attribute `push` of output type tar, want attestation-prefix, dest, platform-split, source-date-epoch",
        );
        check_error(
            "type=cacheonly,dest=x",
            "unknown attribute `dest` of output type cacheonly, want none",
        );
        let error = Output::parse("type=image,danglin-name-empty-only=1").unwrap_err().to_string();
        assert!(error.contains("(did you mean dangling-name-empty-only?)"), "{error}");
        assert!(!error.contains("danging"), "{error}");
        check_error(
            "type=image,push=maybe",
            "invalid value of `push`: want true or false, not `maybe`",
        );
        check_error(
            "type=image,compression=lz4",
            "invalid value of `compression`: want uncompressed, gzip, zstd or estargz, not `lz4`",
        );
        check_error(
            "type=image,compression-level=10",
            "invalid value of `compression-level`: want a number within 0-9",
        );
        check_error("type=image,name=X", "invalid name `X`: repository name must be lowercase");
        check_error(
            "type=image,compression=etsargz",
            "invalid value of `compression`: want uncompressed, gzip, zstd or estargz, not `etsargz` (did you mean estargz?)",
        );
        check_error(
            "type=local,dest=x,mode=deleet",
            "invalid value of `mode`: want copy or delete, not `deleet` (did you mean delete?)",
        );
        check_error(
            "type=local,dset=x",
            "unknown attribute `dset` of output type local (did you mean dest?), want attestation-prefix, dest, mode, platform-split, source-date-epoch",
        );
        check_error(
            "type=docker,dest=x,context=c",
            "exporter option \"context\" conflicts with \"dest\"",
        );
        check_error(
            "type=local,dest=x,source-date-epoch=9999999999999",
            "invalid value of `source-date-epoch`: want a time before the year 10000",
        );
        check_error("type=local", "dest is required for local exporter");
        check_error("type=local,dest=-", "dest cannot be stdout for local exporter");
        check_error("type=oci,tar=false", "dest is required with tar=false");
        check_error("type=local,dest=", "dest is required for local exporter");
        check_error("type=local,dest=/dev/stdout", "dest cannot be stdout for local exporter");
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (text, one, other) in [
            (
                "compression=estargz,oci-mediatypes=false",
                "compression=estargz",
                "oci-mediatypes=false",
            ),
            ("oci-artifact=true,oci-mediatypes=false", "oci-artifact=true", "oci-mediatypes=false"),
            ("rewrite-timestamp=true,unpack=true", "rewrite-timestamp=true", "unpack=true"),
            ("store=false,unpack=true", "unpack=true", "store=false"),
        ] {
            let expect = format!("exporter option \"{one}\" conflicts with \"{other}\"");
            check_error(&format!("type=image,{text}"), &expect);
        }
    }

    #[test]
    fn csv_fields() {
        let split = |text| split_csv(text).map(|fields| fields.join("|"));
        assert_eq!(split(r#"a,"b,""c""",,d"#).as_deref(), Some(r#"a|b,"c"||d"#));
        assert_eq!(split(r#"a"b"#), None);
        assert_eq!(split(r#""a"b"#), None);
        assert_eq!(split(""), Some(String::new()));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_accepted_or_refused(text in "(type=(oci|image|local),)?[a-z\\[\\]\"=,.:/-]{0,30}") {
            let _ = Output::parse(&text);
            let _ = Annotations::parse_flag(&text);
        }
    }
}
