//! `build images`.

use std::path::Path;
use std::time::SystemTime;

use cache::{Image, Store};
use llb::Reference;
use serde_json::json;

use crate::commands::facts::{NONE, config, shown_id, size, timestamp};
use crate::commands::listing::ago;
use crate::commands::rows::{Field, Format, Row};
use crate::commands::{RootArg, image_failure, store_failure};
use crate::progress::bytes;
use crate::report::{Exit, Failure, chain, print};

/// List the images of the local store
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build images --filter dangling=true --format '{{.ID}} {{.Size}}'

Filters: dangling=true|false, label=KEY[=VALUE], reference=PATTERN, before=IMAGE, since=IMAGE, until=24h or a time.
Fields: .Repository .Tag .Digest .ID .CreatedSince .CreatedAt .Size .Platforms")]
pub(crate) struct ImagesArgs {
    #[command(flatten)]
    root: RootArg,
    /// Show all images, as is done anyway: there are no intermediate ones
    #[arg(short, long)]
    all: bool,
    /// Show the digests that images were pushed or pulled with
    #[arg(long)]
    digests: bool,
    /// Only some, `KEY=VALUE`; several of one key widen the choice for label and reference, others narrow it
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// table, json (one object per line) or a template such as '{{.ID}} {{.Repository}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Only print image ids
    #[arg(short, long)]
    quiet: bool,
    /// Only images with a name like this, `repository[:tag]`, which may have `*` and `?`
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
}

const FIELDS: &[Field] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Platforms", "PLATFORMS"),
];

const TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const WITH_DIGESTS: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

/// Prints one line for each name of each image.
pub(crate) fn run(args: &ImagesArgs) -> Result<Exit, Failure> {
    let table = if args.digests { WITH_DIGESTS } else { TABLE };
    let format = Format::parse(args.format.as_deref(), table, FIELDS)?;
    let texts = args.filter.iter().flat_map(|text| text.split(','));
    let filters = texts.map(Filter::parse).collect::<Result<Vec<_>, _>>()?;
    let engine = args.root.engine()?;
    let store = engine.store();
    let images = store.images().list().map_err(|error| store_failure(&error, chain(&error)))?;
    let filters = Filters::new(store, &filters, args.pattern.as_deref())?;
    let mut rows = Vec::new();
    let mut ids = Vec::new();
    for image in &images {
        if !filters.accept(store, image)? {
            continue;
        }
        let names: Vec<Name> =
            names(image).into_iter().filter(|name| filters.accept_name(name)).collect();
        if names.is_empty() {
            continue;
        }
        ids.push(image.id);
        if !args.quiet {
            let size = size(store, image)?;
            rows.extend(names.iter().map(|name| row(image, name, size, args.no_trunc)));
        }
    }
    if args.quiet {
        let shown = |id| print(format_args!("{}", shown_id(id, args.no_trunc)));
        ids.iter().try_for_each(shown)?;
        return Ok(Exit::Done);
    }
    format.print(&rows)?;
    Ok(Exit::Done)
}

/// A name of an image, as people write its parts.
struct Name {
    repository: String,
    tag: String,
    digest: String,
}

/// The names of an image, or one that is none.
fn names(image: &Image) -> Vec<Name> {
    let none = || NONE.to_owned();
    let digest = || image.digest().map_or_else(none, |digest| digest.to_string());
    if image.names.is_empty() {
        return vec![Name { repository: none(), tag: none(), digest: digest() }];
    }
    let split = |name: &String| match Reference::parse_as_is(name) {
        Ok(reference) => Name {
            repository: reference.familiar_name(),
            tag: reference.tag().map_or_else(none, str::to_owned),
            digest: reference.digest().map_or_else(digest, |digest| digest.to_string()),
        },
        Err(_) => Name { repository: name.clone(), tag: none(), digest: digest() },
    };
    image.names.iter().map(split).collect()
}

fn row(image: &Image, name: &Name, size: u64, whole: bool) -> Row {
    let platforms: Vec<&str> =
        image.variants.iter().map(|variant| variant.platform.as_str()).collect();
    let created = timestamp(image.created);
    Row {
        shown: json!({
            "Repository": name.repository, "Tag": name.tag, "Digest": name.digest,
            "ID": shown_id(&image.id, whole), "CreatedSince": ago(image.created), "CreatedAt": created,
            "Size": bytes(size), "Platforms": platforms.join(","),
        }),
        json: json!({
            "Repository": name.repository, "Tag": name.tag, "Digest": name.digest,
            "ID": image.id.to_string(), "CreatedAt": created, "Size": size, "Platforms": platforms,
        }),
    }
}

/// One `--filter`.
enum Filter {
    Dangling(bool),
    Label(String, Option<String>),
    Reference(String),
    Before(String),
    Since(String),
    Until(SystemTime),
}

const KEYS: [&str; 6] = ["dangling", "label", "reference", "before", "since", "until"];

impl Filter {
    fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |message: String| Failure::new(Exit::Usage, message);
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if !KEYS.contains(&key) {
            let failure = bad(format!("unknown filter `{text}`: want one of {}", KEYS.join(", ")));
            return Err(failure.did_you_mean(llb::suggest::nearest(key, KEYS)));
        }
        if value.is_empty() {
            return Err(bad(format!("the filter `{text}` has no value: want {key}=VALUE")));
        }
        Ok(match key {
            "dangling" => match value {
                "true" | "1" => Self::Dangling(true),
                "false" | "0" => Self::Dangling(false),
                _ => {
                    return Err(bad(format!(
                        "invalid value of the filter `{text}`: want true or false"
                    )));
                }
            },
            "label" => match value.split_once('=') {
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            },
            "reference" => Self::Reference(value.to_owned()),
            "before" => Self::Before(value.to_owned()),
            "since" => Self::Since(value.to_owned()),
            _ => Self::Until(until(value)?),
        })
    }
}

/// A time, or one that is so long ago.
fn until(text: &str) -> Result<SystemTime, Failure> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.into());
    }
    if let Ok(seconds) = text.parse::<i64>() {
        let time = jiff::Timestamp::from_second(seconds);
        return time
            .map(SystemTime::from)
            .map_err(|error| Failure::new(Exit::Usage, format!("invalid time `{text}`: {error}")));
    }
    let filter = cache::Filter::parse(&[format!("until={text}")])
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let now = SystemTime::now();
    Ok(filter.until.and_then(|age| now.checked_sub(age)).unwrap_or(now))
}

/// All filters, with the times of the images that they name.
struct Filters<'a> {
    all: &'a [Filter],
    patterns: Vec<&'a str>,
    before: Option<SystemTime>,
    since: Option<SystemTime>,
}

impl<'a> Filters<'a> {
    fn new(store: &Store, all: &'a [Filter], pattern: Option<&'a str>) -> Result<Self, Failure> {
        let made = |name: &String| {
            let image = store.images().get(name);
            image.map(|image| image.created).map_err(|error| image_failure(&error, name))
        };
        let (mut before, mut since): (Option<SystemTime>, Option<SystemTime>) = (None, None);
        let mut patterns: Vec<&str> = Vec::new();
        for filter in all {
            match filter {
                Filter::Before(name) => {
                    let time = made(name)?;
                    before = Some(before.map_or(time, |other| other.min(time)));
                }
                Filter::Until(time) => {
                    before = Some(before.map_or(*time, |other| other.min(*time)));
                }
                Filter::Since(name) => since = since.max(Some(made(name)?)),
                Filter::Reference(pattern) => patterns.push(pattern),
                Filter::Dangling(_) | Filter::Label(..) => {}
            }
        }
        patterns.extend(pattern);
        for pattern in &patterns {
            tree::pattern::glob_match(pattern, Path::new(""))
                .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        }
        Ok(Self { all, patterns, before, since })
    }

    fn accept(&self, store: &Store, image: &Image) -> Result<bool, Failure> {
        if self.before.is_some_and(|time| image.created >= time)
            || self.since.is_some_and(|time| image.created <= time)
        {
            return Ok(false);
        }
        for filter in self.all {
            let accepts = match filter {
                Filter::Dangling(wanted) => *wanted == image.names.is_empty(),
                Filter::Label(name, value) => has_label(store, image, name, value.as_deref())?,
                _ => true,
            };
            if !accepts {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn accept_name(&self, name: &Name) -> bool {
        let is_like = |pattern: &&str| {
            let tagged = format!("{}:{}", name.repository, name.tag);
            let fits =
                |text: &str| tree::pattern::glob_match(pattern, Path::new(text)).unwrap_or(false);
            fits(&name.repository) || fits(&tagged) || is_same(pattern, name)
        };
        self.patterns.is_empty() || (name.repository != NONE && self.patterns.iter().any(is_like))
    }
}

/// Whether a whole name is meant, which may have its host and the part that is implied.
fn is_same(text: &str, name: &Name) -> bool {
    Reference::parse_as_is(text).is_ok_and(|reference| {
        reference.familiar_name() == name.repository
            && reference.tag().is_none_or(|tag| tag == name.tag)
            && reference.digest().is_none_or(|digest| digest.to_string() == name.digest)
    })
}

fn has_label(
    store: &Store,
    image: &Image,
    name: &str,
    value: Option<&str>,
) -> Result<bool, Failure> {
    for variant in &image.variants {
        let (_, config) = config(store, variant, &image.id.to_string())?;
        let found = config.config.labels.get(name);
        if found.is_some_and(|found| value.is_none_or(|value| value == found)) {
            return Ok(true);
        }
    }
    Ok(false)
}
