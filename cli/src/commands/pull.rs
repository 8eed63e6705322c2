//! `build pull`.

use exporters::import::pull;
use llb::{Platform, Reference};
use registry::HostOptions;
use solver::Engine;

use crate::commands::facts::platforms_of;
use crate::commands::load::import_failure;
use crate::commands::tidy::{self, Limits};
use crate::commands::transfers::tell_notices;
use crate::commands::{RootArg, op_failure};
use crate::report::{Exit, Failure, print, tell};

/// Bring an image of a registry into the local store
#[derive(Debug, clap::Parser)]
#[command(
    after_help = "Example: build pull --platform linux/amd64,linux/arm64 registry.example.com/team/app:1.0"
)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    root: RootArg,
    /// Allow plain HTTP and certificates that nobody vouches for
    #[arg(long)]
    insecure: bool,
    /// Platforms to pull [default: that of this machine]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',', env = "DOCKER_DEFAULT_PLATFORM")]
    platform: Vec<String>,
    /// Only print the name
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image, with a tag or a digest
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Pulls the image and prints what it is.
pub(crate) fn run(args: &PullArgs) -> Result<Exit, Failure> {
    let name = Reference::parse(&args.image).map_err(|error| {
        Failure::new(Exit::Usage, format!("invalid name \"{}\": {error}", args.image))
    })?;
    let mut platforms = platforms_of(&args.platform)?;
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    let limits = Limits::from_environment()?;
    let mut options = args.root.options()?;
    if args.insecure {
        options.registry.hosts.insert(name.host().to_owned(), HostOptions { insecure: Some(true) });
    }
    let engine = Engine::open(options).map_err(|error| op_failure(&error))?;
    let told = |digest: &llb::Digest| {
        if !args.quiet {
            tell(format_args!("{}: Pull complete", &digest.hex()[..12]));
        }
    };
    let pulled = pull(engine.registry(), engine.store(), &name, &platforms, &told);
    if !args.quiet {
        tell_notices(engine.registry());
    }
    let pulled = pulled.map_err(|error| import_failure(&error))?;
    tidy::if_due(&engine, &limits);
    if !args.quiet {
        print(format_args!("Digest: {}", pulled.digest))?;
        let status =
            if pulled.up_to_date { "Image is up to date" } else { "Downloaded newer image" };
        print(format_args!("Status: {status} for {}", name.familiar()))?;
    }
    print(format_args!("{name}"))?;
    Ok(Exit::Done)
}
