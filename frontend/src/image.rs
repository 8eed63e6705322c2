//! The image config of a stage, as instructions change it.

use llb::Platform;
use llb::image::{ContainerConfig, History, ImageConfig, RootFs};

/// Search path of an image that sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Comment of every history entry that an instruction makes.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// Config of an empty image.
pub(crate) fn empty(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig {
        config: ContainerConfig {
            env: vec![DEFAULT_PATH.to_owned()],
            working_dir: "/".to_owned(),
            ..ContainerConfig::default()
        },
        ..ImageConfig::default()
    };
    set_platform(&mut image, platform);
    image
}

/// Config of an image on top of `base`: history stays, layers and time go.
pub(crate) fn on_top_of(base: &ImageConfig) -> ImageConfig {
    ImageConfig { created: None, rootfs: RootFs::default(), ..base.clone() }
}

/// Adds the default search path unless there is one.
pub(crate) fn ensure_path(image: &mut ImageConfig, os: &str) {
    let has_path = image.config.env.iter().any(|line| crate::scope::split_line(line).0 == "PATH");
    if !has_path && os != "windows" {
        image.config.env.push(DEFAULT_PATH.to_owned());
    }
}

/// Platform that a config names.
pub(crate) fn platform_of(image: &ImageConfig) -> Platform {
    Platform {
        os: image.os.clone(),
        architecture: image.architecture.clone(),
        variant: image.variant.clone(),
        os_version: image.os_version.clone(),
        os_features: image.os_features.clone().unwrap_or_default(),
    }
}

/// Makes the config one for `platform`.
///
/// Variant and version of the same system are kept when `platform` has none.
pub(crate) fn set_platform(image: &mut ImageConfig, platform: &Platform) {
    let differs = image.os != platform.os || image.architecture != platform.architecture;
    if differs || !platform.variant.is_empty() {
        image.variant.clone_from(&platform.variant);
    }
    if differs || !platform.os_version.is_empty() {
        image.os_version.clone_from(&platform.os_version);
    }
    image.os.clone_from(&platform.os);
    image.architecture.clone_from(&platform.architecture);
}

/// Brings architecture and variant of the config into their normal form.
pub(crate) fn normalize_platform(image: &mut ImageConfig) {
    let normal = platform_of(image).normalized();
    image.architecture = normal.architecture;
    image.variant = normal.variant;
}

/// Adds a history entry; `layer` says whether the instruction made a layer.
pub(crate) fn add_history(image: &mut ImageConfig, created_by: String, layer: bool) {
    image.history.get_or_insert_default().push(History {
        created_by,
        comment: HISTORY_COMMENT.to_owned(),
        empty_layer: !layer,
        ..History::default()
    });
}
