//! `build load`.

use std::io::IsTerminal;
use std::path::PathBuf;

use exporters::import::{ImportError, Input, load};

use crate::commands::facts::platforms_of;
use crate::commands::tidy::{self, Limits};
use crate::commands::{RootArg, registry_failure, state_is_full, store_failure};
use crate::report::{Exit, Failure, chain, print};

/// Bring the images of an archive or an OCI layout into the local store
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build load -i app.tar

Read are archives of `docker save`, of `podman save` in both formats and of `build save`, tars and folders of OCI layouts; \
archives may be compressed with gzip, zstd, xz or bzip2. An archive that is damaged leaves nothing.")]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    root: RootArg,
    /// File or folder to read [default: standard input]
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Load only these of an image's platforms
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<String>,
    /// Only print the ids of the images
    #[arg(short, long)]
    quiet: bool,
    /// An archive that lacks its `-i`
    #[arg(hide = true, value_name = "PATH")]
    misplaced: Option<PathBuf>,
}

/// Reads the archive and prints what came of it.
pub(crate) fn run(args: &LoadArgs) -> Result<Exit, Failure> {
    if let Some(path) = &args.misplaced {
        let message = format!("`{}` is no option", path.display());
        return Err(Failure::new(Exit::Usage, message).hint("an archive is read with -i PATH"));
    }
    let input = match &args.input {
        Some(path) if path.as_os_str() != "-" => Input::Path(path.clone()),
        _ if std::io::stdin().is_terminal() => {
            return Err(Failure::new(Exit::Usage, "an archive is not read from a terminal")
                .hint("give -i FILE or redirect the input"));
        }
        _ => Input::Stream(Box::new(std::io::stdin())),
    };
    let platforms = platforms_of(&args.platform)?;
    let limits = Limits::from_environment()?;
    let engine = args.root.engine()?;
    let images = load(engine.store(), input, &platforms).map_err(|error| import_failure(&error))?;
    tidy::if_due(&engine, &limits);
    for image in images {
        if args.quiet {
            print(format_args!("{}", image.id))?;
        } else if image.names.is_empty() {
            print(format_args!("Loaded image ID: {}", image.id))?;
        } else {
            for name in &image.names {
                print(format_args!("Loaded image: {}", name.familiar()))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Wording and exit code of an image that could not be brought into the store.
pub(crate) fn import_failure(error: &ImportError) -> Failure {
    let message = chain(error);
    match error {
        ImportError::Cache(error) => store_failure(error, message),
        ImportError::Registry(error) => registry_failure(error, message),
        ImportError::Write { path, .. } => match cache::FileSystem::of(path) {
            Ok(disk) if super::is_disk_full(error) => state_is_full(message, &disk),
            _ => Failure::new(Exit::Machine, message),
        },
        ImportError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::new(Exit::Usage, message)
        }
        ImportError::TooOld { .. } => Failure::new(Exit::Build, message)
            .hint("load it into a newer Docker, and save it there once more"),
        ImportError::NoImages { .. } => Failure::new(Exit::Build, message)
            .hint("`build load` reads what `docker save` and `build save` write; an archive of files is a build context"),
        ImportError::Platform { .. } => {
            Failure::new(Exit::Build, message).hint("choose one of these with --platform")
        }
        ImportError::Missing { .. } | ImportError::Digest { .. } | ImportError::Size { .. } => {
            Failure::new(Exit::Build, message).hint("the archive is damaged or not whole: nothing was loaded; save it once more")
        }
        _ => Failure::new(Exit::Build, message),
    }
}
