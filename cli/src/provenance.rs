//! `--provenance` and `--attest`: an attestation of how an image was made.
//!
//! It has the names and digests of the Dockerfile, of the inputs, and of everything that was fetched. With `mode=max`
//! it also has the values of build arguments, the definition of every step and the text of the Dockerfile.
//! Values of secrets and credentials of URLs are left out.
//!
//! Format: SLSA provenance v1, with the build type of BuildKit; the older v0.2 is made of that.

use std::collections::BTreeSet;

use exporters::Attestation;
use frontend::{Build, MainContext, NoCache, Options};
use llb::op::{MountKind, NetworkMode, SourceOp};
use llb::url::redacted;
use llb::{Definition, Edge, Op, Platform, Reference, SourceInfo, Vertex};
use serde_json::{Map, Value, json};
use solver::Job;

use crate::args::BuildArgs;
use crate::guard;
use crate::report::{Exit, Failure};

const V1: &str = "https://slsa.dev/provenance/v1";
const V0_2: &str = "https://slsa.dev/provenance/v0.2";
const BUILD_TYPE: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
/// Where the layers are listed.
const LAYERS_IN_V1: &str = "/runDetails/metadata/buildkit_metadata/layers";
const LAYERS_IN_V0_2: &str = "/metadata/https:~1~1mobyproject.org~1buildkit@v1#metadata/layers";

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// Everything, or as little as is useful.
    max: bool,
    builder_id: String,
    /// Name of the file in a folder or tar.
    filename: String,
    reproducible: bool,
    /// In the shape of v0.2.
    is_v0_2: bool,
    /// Only beside images that are stored or pushed.
    pub(crate) inline_only: bool,
}

/// What is known of a build when it is done.
pub(crate) struct Facts<'a> {
    pub(crate) id: &'a str,
    pub(crate) build: &'a Build,
    pub(crate) options: &'a Options,
    pub(crate) info: &'a SourceInfo,
    pub(crate) began: jiff::Timestamp,
}

impl Provenance {
    /// Reads `--attest`, `--provenance` and `--sbom`; of each type the last counts. `None` is for saying nothing.
    ///
    /// # Errors
    /// When a value is none, or a bill of materials is asked for.
    pub(crate) fn parse(args: &BuildArgs) -> Result<Option<Self>, Failure> {
        let mut provenance = None;
        let mut sbom = None;
        for text in &args.attest {
            let fields = fields(text, "--attest")?;
            match fields.iter().find(|(key, _)| key == "type").map(|(_, value)| value.as_str()) {
                Some("provenance") => provenance = Some(fields),
                Some("sbom") => sbom = Some(("--attest=type=sbom", fields)),
                Some(other) => {
                    let near = llb::suggest::nearest(other, ["provenance", "sbom"]);
                    let message =
                        format!("unknown attestation type `{other}`: want provenance or sbom");
                    return Err(usage(message).did_you_mean(near));
                }
                None => return Err(usage(format!("type required for --attest `{text}`"))),
            }
        }
        if let Some(text) = &args.provenance {
            provenance = Some(fields(text, "--provenance")?);
        }
        if let Some(text) = &args.sbom {
            sbom = Some(("--sbom", fields(text, "--sbom")?));
        }
        if let Some((flag, _)) = sbom.filter(|(_, fields)| !is_off(fields)) {
            return Err(usage(format!("{flag} is not supported yet"))
                .hint("a bill of materials can be made of the image once it is built, by a scanner that reads OCI layouts"));
        }
        match provenance {
            Some(fields) if !is_off(&fields) => Self::of(&fields).map(Some),
            _ => Ok(None),
        }
    }

    /// All attributes at their defaults.
    pub(crate) fn with_mode(max: bool) -> Self {
        Self {
            max,
            builder_id: String::new(),
            filename: "provenance.json".to_owned(),
            reproducible: false,
            is_v0_2: false,
            inline_only: false,
        }
    }

    /// The same in the shape of v1.
    pub(crate) fn as_v1(&self) -> Self {
        Self { is_v0_2: false, ..self.clone() }
    }

    fn of(fields: &[(String, String)]) -> Result<Self, Failure> {
        let mut provenance = Self::with_mode(true);
        for (key, value) in fields {
            let boolean = || {
                truth(value).ok_or_else(|| {
                    usage(format!("invalid `{key}={value}` of provenance: want true or false"))
                })
            };
            match key.as_str() {
                "type" | "disabled" => {}
                "mode" => {
                    provenance.max = match value.as_str() {
                        "max" => true,
                        "min" => false,
                        _ => {
                            return Err(usage(format!(
                                "invalid `mode={value}` of provenance: want min or max"
                            )));
                        }
                    }
                }
                "builder-id" => provenance.builder_id.clone_from(value),
                "filename" if !value.is_empty() && !value.contains('/') => {
                    provenance.filename.clone_from(value);
                }
                "filename" => {
                    return Err(usage(format!(
                        "invalid `filename={value}` of provenance: want a name without `/`"
                    )));
                }
                "reproducible" => provenance.reproducible = boolean()?,
                "inline-only" => provenance.inline_only = boolean()?,
                "version" => {
                    provenance.is_v0_2 = match value.as_str() {
                        "v1" => false,
                        "v0.2" => true,
                        _ => {
                            return Err(usage(format!(
                                "invalid `version={value}` of provenance: want v1 or v0.2"
                            )));
                        }
                    }
                }
                other => {
                    let known = [
                        "mode",
                        "builder-id",
                        "filename",
                        "reproducible",
                        "inline-only",
                        "version",
                        "disabled",
                    ];
                    let near = llb::suggest::nearest(other, known);
                    let message = format!(
                        "unknown attribute `{other}` of provenance: want {}",
                        known.join(", ")
                    );
                    return Err(usage(message).did_you_mean(near));
                }
            }
        }
        Ok(provenance)
    }

    /// One attestation for each platform.
    pub(crate) fn attestations(&self, job: &Job, facts: &Facts<'_>) -> Vec<Attestation> {
        let targets = facts.build.targets.iter().enumerate();
        let one = |(platform, target): (usize, &frontend::Target)| {
            let (mut predicate, step) = self.predicate(job, facts, target.result);
            guard::redact_json(&mut predicate);
            let (predicate_type, layers, predicate) = match self.is_v0_2 {
                true => (V0_2, LAYERS_IN_V0_2, v0_2(&predicate)),
                false => (V1, LAYERS_IN_V1, predicate),
            };
            Attestation {
                platform,
                predicate_type: predicate_type.to_owned(),
                predicate,
                layers_at: step.map(|step| (layers.to_owned(), format!("{step}:0"))),
                file: self.filename.clone(),
            }
        };
        targets.map(one).collect()
    }

    /// The predicate, and the name of the step that makes the result, where steps are listed.
    fn predicate(
        &self,
        job: &Job,
        facts: &Facts<'_>,
        result: Option<Edge>,
    ) -> (Value, Option<String>) {
        let definition = &facts.build.definition;
        let used = Used::of(job, &reachable(definition, result));
        let is_complete = used.locals.is_empty() && !used.has_network;
        let mut internal = json!({ "builderPlatform": facts.options.build_platform.to_string() });
        let mut metadata = json!({
            "invocationId": facts.id,
            "startedOn": facts.began.to_string(),
            "finishedOn": jiff::Timestamp::now().to_string(),
            "buildkit_hermetic": is_complete,
            "buildkit_completeness": { "request": self.max, "resolvedDependencies": is_complete },
            "buildkit_reproducible": self.reproducible,
        });
        let mut top = None;
        if self.max {
            let steps = Steps::of(definition, result);
            metadata["buildkit_metadata"] = json!({
                "source": { "infos": [source_info(facts.info)], "locations": steps.locations },
                "layers": {},
            });
            internal["buildConfig"] =
                json!({ "llbDefinition": steps.definition, "digestMapping": steps.digests });
            top = steps.top;
        }
        let predicate = json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "configSource": config_source(facts, &used.materials),
                    "request": self.request(facts, &used),
                },
                "internalParameters": internal,
                "resolvedDependencies": used.materials,
            },
            "runDetails": { "builder": { "id": self.builder_id }, "metadata": metadata },
        });
        (predicate, top)
    }

    /// What was asked for.
    fn request(&self, facts: &Facts<'_>, used: &Used) -> Value {
        let mut request = json!({ "frontend": "dockerfile.v0" });
        let mut args = Map::new();
        if let Some(target) = &facts.options.target {
            args.insert("target".to_owned(), target.clone().into());
        }
        if facts.options.no_cache == NoCache::All {
            args.insert("no-cache".to_owned(), "".into());
        }
        if self.max {
            let given = facts.options.build_args.iter();
            args.extend(given.map(|(name, value)| (format!("build-arg:{name}"), shown(value))));
            let labels = facts.options.labels.iter();
            args.extend(labels.map(|(name, value)| (format!("label:{name}"), shown(value))));
            for (key, ids) in [("secrets", &used.secrets), ("ssh", &used.agents)] {
                let id = |(id, optional): &(String, bool)| match optional {
                    true => json!({ "id": id, "optional": true }),
                    false => json!({ "id": id }),
                };
                if !ids.is_empty() {
                    request[key] = ids.iter().map(id).collect();
                }
            }
        }
        if !args.is_empty() {
            request["args"] = args.into();
        }
        if !used.locals.is_empty() {
            request["locals"] = used.locals.iter().map(|name| json!({ "name": name })).collect();
        }
        request
    }
}

/// A predicate of SLSA v1 in the shape of v0.2.
pub(crate) fn v0_2(predicate: &Value) -> Value {
    let build = &predicate["buildDefinition"];
    let external = &build["externalParameters"];
    let metadata = &predicate["runDetails"]["metadata"];
    let mut config_source = external["configSource"].clone();
    if let Value::Object(source) = &mut config_source
        && let Some(path) = source.remove("path")
    {
        source.insert("entryPoint".to_owned(), path);
    }
    let mut older = json!({
        "builder": predicate["runDetails"]["builder"],
        "buildType": "https://mobyproject.org/buildkit@v1",
        "materials": build["resolvedDependencies"],
        "invocation": {
            "configSource": config_source,
            "parameters": external["request"],
            "environment": { "platform": build["internalParameters"]["builderPlatform"] },
        },
        "metadata": {
            "buildInvocationID": metadata["invocationId"],
            "buildStartedOn": metadata["startedOn"],
            "buildFinishedOn": metadata["finishedOn"],
            "completeness": {
                "parameters": metadata["buildkit_completeness"]["request"],
                "environment": true,
                "materials": metadata["buildkit_completeness"]["resolvedDependencies"],
            },
            "reproducible": metadata["buildkit_reproducible"],
            "https://mobyproject.org/buildkit@v1#hermetic": metadata["buildkit_hermetic"],
        },
    });
    if let Some(config) = build["internalParameters"].get("buildConfig") {
        older["buildConfig"] = config.clone();
        older["metadata"]["https://mobyproject.org/buildkit@v1#metadata"] =
            metadata["buildkit_metadata"].clone();
    }
    older
}

/// What the steps of a result use.
#[derive(Default)]
struct Used {
    materials: Vec<Value>,
    /// Names of folders.
    locals: BTreeSet<String>,
    /// Names of secrets, and whether the step runs without.
    secrets: BTreeSet<(String, bool)>,
    agents: BTreeSet<(String, bool)>,
    has_network: bool,
}

impl Used {
    fn of(job: &Job, vertices: &[&Vertex]) -> Self {
        let mut used = Self::default();
        for vertex in vertices {
            match &vertex.op {
                Op::Source(source) => match source.identifier.strip_prefix("local://") {
                    Some(name) => used.locals.extend([name.to_owned()]),
                    None => {
                        used.materials.extend(material(job, source, vertex.platform.as_ref()));
                    }
                },
                Op::Exec(exec) => {
                    used.has_network |= exec.network != NetworkMode::None;
                    for mount in &exec.mounts {
                        match &mount.kind {
                            MountKind::Secret(it) => {
                                used.secrets.extend([(it.id.clone(), it.optional)])
                            }
                            MountKind::Ssh(it) => {
                                used.agents.extend([(it.id.clone(), it.optional)])
                            }
                            _ => {}
                        }
                    }
                    let secrets = exec.secret_env.iter();
                    used.secrets.extend(secrets.map(|it| (it.id.clone(), it.optional)));
                }
                _ => {}
            }
        }
        used.materials.sort_by_key(|one| one["uri"].as_str().map(str::to_owned));
        used.materials.dedup();
        used
    }
}

/// The steps of a definition as attestations list them.
#[derive(Default)]
struct Steps {
    definition: Vec<Value>,
    digests: Map<String, Value>,
    locations: Map<String, Value>,
    top: Option<String>,
}

impl Steps {
    fn of(definition: &Definition, result: Option<Edge>) -> Self {
        let mut definition = definition.clone();
        definition.result = result.or(definition.result);
        let lines = llb::pb::definition_json(&definition);
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut steps = Self::default();
        for (number, line) in parsed.enumerate() {
            let id = format!("step{number}");
            let mut op = line["Op"].clone();
            let inputs: Vec<Value> = op["inputs"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|input| {
                    let digest = input["digest"].as_str().unwrap_or_default();
                    let step =
                        steps.digests.get(digest).and_then(Value::as_str).unwrap_or_default();
                    format!("{step}:{}", input["index"].as_u64().unwrap_or(0)).into()
                })
                .collect();
            if let Value::Object(op) = &mut op {
                op.remove("inputs");
            }
            redact(&mut op);
            if op["Op"].as_object().is_none_or(Map::is_empty) {
                steps.top = inputs
                    .first()
                    .and_then(Value::as_str)
                    .and_then(|input| Some(input.split_once(':')?.0.to_owned()));
            }
            if let Some(digest) = line["Digest"].as_str() {
                steps.digests.insert(digest.to_owned(), id.clone().into());
            }
            if let Some(source) = line["Source"].as_array() {
                let range = |place: &Value| {
                    json!({
                        "start": { "line": place["start"] }, "end": { "line": place["end"] }
                    })
                };
                let ranges: Vec<Value> = source.iter().map(range).collect();
                steps.locations.insert(id.clone(), json!({ "locations": [{ "ranges": ranges }] }));
            }
            steps.definition.push(json!({ "id": id, "op": op, "inputs": inputs }));
        }
        steps
    }
}

/// Everything that a result is made of.
fn reachable(definition: &Definition, result: Option<Edge>) -> Vec<&Vertex> {
    let mut wanted = vec![false; definition.vertices().len()];
    if let Some(result) = result {
        wanted[result.vertex] = true;
    }
    // Inputs come before what uses them.
    for number in
        (0..wanted.len()).rev().filter(|number| result.is_some_and(|edge| *number <= edge.vertex))
    {
        if wanted[number] {
            definition.vertex(number).inputs.iter().for_each(|input| wanted[input.vertex] = true);
        }
    }
    definition
        .vertices()
        .iter()
        .zip(wanted)
        .filter_map(|(vertex, is)| is.then_some(vertex))
        .collect()
}

/// Something that was brought from elsewhere, with its hash.
fn material(job: &Job, source: &SourceOp, platform: Option<&Platform>) -> Option<Value> {
    let (scheme, name) = source.identifier.split_once("://")?;
    if let ("docker-image" | "oci-layout", Ok(reference)) = (scheme, Reference::parse_as_is(name)) {
        let kind = if scheme == "oci-layout" { "oci" } else { "docker" };
        let digest = reference.digest();
        let version = match (reference.tag(), &digest) {
            (Some(tag), _) => format!("@{tag}"),
            (None, Some(digest)) => format!("@{digest}"),
            (None, None) => String::new(),
        };
        let platform = platform
            .map(|platform| format!("?platform={}", platform.to_string().replace('/', "%2F")))
            .unwrap_or_default();
        let name = reference.familiar_name().replace(':', "%3A");
        let mut material = json!({ "uri": format!("pkg:{kind}/{name}{version}{platform}") });
        if let Some(digest) = digest {
            material["digest"] = json!({ "sha256": digest.hex() });
        }
        return Some(material);
    }
    let uri = match scheme {
        "archive" => return None,
        "git" => {
            let place = source.attrs.get("git.fullurl").map_or(name, String::as_str);
            let part = name.split_once('#').map(|(_, part)| format!("#{part}")).unwrap_or_default();
            redacted(place.split('#').next().unwrap_or(place)).into_owned() + &part
        }
        _ => redacted(&source.identifier).into_owned(),
    };
    let mut material = json!({ "uri": uri });
    // What cannot be asked now was not brought either.
    if let Ok(Some((kind, hash))) = job.source_hash(source) {
        material["digest"] = json!({ kind: hash });
    }
    Some(material)
}

/// Where the Dockerfile comes from.
fn config_source(facts: &Facts<'_>, materials: &[Value]) -> Value {
    let mut source = json!({ "path": facts.info.filename });
    if let MainContext::Git { url } = &facts.options.context {
        let url = redacted(url).into_owned();
        let place = url.split(['#', '?']).next().unwrap_or(&url).to_owned();
        let found = materials.iter().find(|one| {
            one["uri"].as_str().is_some_and(|uri| uri.split('#').next() == Some(&place))
        });
        source["uri"] = url.into();
        if let Some(digest) = found.and_then(|one| one.get("digest")) {
            source["digest"] = digest.clone();
        }
    }
    source
}

fn source_info(info: &SourceInfo) -> Value {
    let text = guard::redact(&info.text);
    json!({
        "filename": info.filename,
        "language": "Dockerfile",
        "data": llb::base64::encode(redacted(&text).as_bytes()),
    })
}

fn shown(text: &str) -> Value {
    redacted(text).into_owned().into()
}

/// Hides the credentials of URLs.
fn redact(value: &mut Value) {
    match value {
        Value::String(text) => *text = redacted(text).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(redact),
        Value::Object(map) => map.values_mut().for_each(redact),
        _ => {}
    }
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message)
}

/// The attributes of a flag, of which a lone truth value is one.
fn fields(text: &str, flag: &str) -> Result<Vec<(String, String)>, Failure> {
    if let Some(on) = truth(text) {
        return Ok(vec![("disabled".to_owned(), (!on).to_string())]);
    }
    let field = |field: &str| {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| usage(format!("invalid {flag} `{text}`: `{field}` has no value")))?;
        Ok((key.trim().to_ascii_lowercase(), value.to_owned()))
    };
    text.split(',').map(field).collect()
}

fn is_off(fields: &[(String, String)]) -> bool {
    let last = fields.iter().rfind(|(key, _)| key == "disabled");
    last.is_some_and(|(_, value)| truth(value).unwrap_or(false))
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "" | "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[track_caller]
    fn parse(words: &[&str]) -> Result<Option<Provenance>, String> {
        let words = ["build"].iter().chain(words).chain(&["."]);
        Provenance::parse(&BuildArgs::try_parse_from(words).unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn the_last_of_a_type_counts() {
        let is_max = |words: &[&str]| parse(words).unwrap().map(|it| it.max);
        assert_eq!(is_max(&[]), None);
        assert_eq!(is_max(&["--provenance"]), Some(true));
        assert_eq!(is_max(&["--provenance=mode=min"]), Some(false));
        assert_eq!(is_max(&["--attest=type=provenance,mode=min", "--provenance=false"]), None);
        assert_eq!(is_max(&["--attest=type=provenance,disabled=true"]), None);
        assert_eq!(
            is_max(&["--attest=type=provenance", "--attest=type=sbom,disabled=true"]),
            Some(true)
        );
    }

    #[test]
    fn mistakes_are_named() {
        let error = |word| parse(&[word]).unwrap_err();
        assert_eq!(error("--sbom"), "--sbom is not supported yet");
        assert_eq!(error("--attest=type=sbom"), "--attest=type=sbom is not supported yet");
        assert_eq!(error("--attest=mode=min"), "type required for --attest `mode=min`");
        assert_eq!(
            error("--attest=type=sbon"),
            "unknown attestation type `sbon`: want provenance or sbom"
        );
        assert_eq!(
            error("--provenance=mode=mid"),
            "invalid `mode=mid` of provenance: want min or max"
        );
        assert_eq!(
            error("--provenance=version=v2"),
            "invalid `version=v2` of provenance: want v1 or v0.2"
        );
        assert_eq!(
            error("--provenance=maybe"),
            "invalid --provenance `maybe`: `maybe` has no value"
        );
        assert_eq!(
            error("--provenance=filename=a/b"),
            "invalid `filename=a/b` of provenance: want a name without `/`"
        );
    }
}
