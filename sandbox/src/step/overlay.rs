//! Layer folders merged by the kernel.
//!
//! Each folder is entered and named `.`, so names can be of any length and hold any character, and
//! the table of mounts that a step sees says nothing of where the builder keeps its layers.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, mount};
use rustix::process::{chdir, fchdir};

use super::filesystem::{self, Context};
use super::{During, Outcome};
use crate::tier::Tier;
use crate::wire::{Failure, FailureKind};

/// Plain layers: no files without data, no renamed directories, no index of hard links.
const OPTIONS: [(&str, &str); 3] = [("index", "off"), ("metacopy", "off"), ("redirect_dir", "off")];

/// The same where the kernel keeps its marks in `user.*` attributes: that renames no directory, and refuses to be
/// told so.
const OPTIONS_OF_USER: [(&str, &str); 2] = [("index", "off"), ("metacopy", "off")];

/// Has the kernel keep its marks in `user.*` attributes, which do not need the rights of the machine's root.
const USER_ATTRIBUTES: &str = "userxattr";

/// An overlay that is to be made.
pub(super) struct Overlay<'a> {
    /// Lowest first.
    pub(super) lowers: &'a [PathBuf],
    pub(super) writable: Option<(&'a Path, &'a Path)>,
    /// Whose rights it is made with.
    pub(super) tier: Tier,
}

impl Overlay<'_> {
    /// Makes the overlay and returns a detached mount of it.
    ///
    /// `scratch` is an attached file system in memory. It lends an empty folder where the kernel
    /// wants one layer more than there is. Changes the working directory.
    pub(super) fn mount(&self, scratch: &OwnedFd) -> Outcome<OwnedFd> {
        self.make(scratch).map_err(|failure| match Errno::from_raw_os_error(failure.errno) {
            // What it says of folders that it cannot stack, or when it has no overlays at all.
            Errno::INVAL | Errno::NODEV | Errno::NOTSUP | Errno::PERM | Errno::NOSYS => {
                Failure { kind: FailureKind::Overlay, ..failure }
            }
            _ => failure,
        })
    }

    fn make(&self, scratch: &OwnedFd) -> Outcome<OwnedFd> {
        let context = Context::new("overlay")?;
        let by_user = self.tier != Tier::Root;
        for (key, value) in options_of(by_user) {
            context.set(key, value)?;
        }
        if by_user {
            context.set_flag(USER_ATTRIBUTES)?;
        }
        let folders = self.folders(scratch)?;
        for folder in &folders {
            fchdir(&folder.fd).during(|| format!("enter `{}`", folder.path.display()))?;
            match context.try_set(folder.key, ".") {
                Ok(()) => {}
                // Kernels before 6.7 take all lower layers in one option.
                Err(Errno::INVAL) if folder.key == "lowerdir+" => {
                    return classic(&folders, self.writable.is_some(), by_user, scratch);
                }
                Err(errno) => {
                    return Err(errno).during(|| {
                        format!("use `{}` as a layer of an overlay", folder.path.display())
                    });
                }
            }
        }
        if self.writable.is_some() {
            // What a step syncs is of no use to anybody before the build has ended.
            context.set_if_known("volatile");
        }
        context.mount(MountAttrFlags::empty())
    }

    /// Opens all layers, the topmost first, as the kernel wants them.
    fn folders(&self, scratch: &OwnedFd) -> Outcome<Vec<Folder>> {
        let mut folders = Vec::with_capacity(self.lowers.len() + 3);
        for lower in self.lowers.iter().rev() {
            folders.push(Folder::open("lowerdir+", lower)?);
        }
        let least = if self.writable.is_some() { 1 } else { 2 };
        for number in folders.len()..least {
            folders.push(Folder::empty(number, scratch)?);
        }
        if let Some((upper, work)) = self.writable {
            folders.push(Folder::open("upperdir", upper)?);
            folders.push(Folder::open("workdir", work)?);
        }
        Ok(folders)
    }
}

fn options_of(user: bool) -> &'static [(&'static str, &'static str)] {
    if user { &OPTIONS_OF_USER } else { &OPTIONS }
}

/// A folder of an overlay and the option that it is the value of.
struct Folder {
    key: &'static str,
    path: PathBuf,
    fd: OwnedFd,
}

impl Folder {
    fn open(key: &'static str, path: &Path) -> Outcome<Self> {
        let fd = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .during(|| format!("open the layer folder `{}`", path.display()))?;
        Ok(Self { key, path: path.to_owned(), fd })
    }

    fn empty(number: usize, scratch: &OwnedFd) -> Outcome<Self> {
        let name = format!("empty{number}");
        let fd = match mkdirat(scratch, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {
                openat(scratch, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            }
            Err(errno) => Err(errno),
        };
        let fd = fd.during(|| "make an empty layer")?;
        Ok(Self { key: "lowerdir+", path: name.into(), fd })
    }
}

/// Makes the overlay with mount(2), whose options are one page of text.
///
/// Layers are named by their descriptors, so that a page holds some nine hundred of them.
fn classic(
    folders: &[Folder],
    writable: bool,
    by_user: bool,
    scratch: &OwnedFd,
) -> Outcome<OwnedFd> {
    let number = |folder: &Folder| folder.fd.as_raw_fd().to_string();
    let lowers: Vec<_> =
        folders.iter().filter(|folder| folder.key == "lowerdir+").map(number).collect();
    let mut options = vec![format!("lowerdir={}", lowers.join(":"))];
    options.extend(options_of(by_user).iter().map(|(key, value)| format!("{key}={value}")));
    for folder in folders.iter().filter(|folder| folder.key != "lowerdir+") {
        options.push(format!("{}={}", folder.key, number(folder)));
    }
    if writable {
        options.push("volatile".to_owned());
    }
    if by_user {
        options.push(USER_ATTRIBUTES.to_owned());
    }
    let options = std::ffi::CString::new(options.join(",")).unwrap_or_default();
    let action = || "make an overlay";

    const PLACE: &str = "overlay";
    match mkdirat(scratch, PLACE, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).during(action),
    }
    let place = || openat(scratch, PLACE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let bare = place().during(action)?;
    let target = format!("/proc/self/fd/{}", bare.as_raw_fd());
    chdir("/proc/self/fd").during(action)?;
    mount("overlay", &target, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .during(action)?;
    let mounted = place().during(action)?;
    let detached = filesystem::copy_of(mounted.as_fd()).during(action)?;
    filesystem::detach(&mounted).during(action)?;
    Ok(detached)
}
