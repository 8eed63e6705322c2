//! One directory of one layer, whatever form the layer has.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::layer::{self, LayerDir, Names, Whiteouts};
use crate::owner::Keeper;
use crate::packed::{Node, Packed};
use crate::{FileData, Metadata, walk};

/// How a folder keeps what its file system cannot say.
#[derive(Debug, Clone)]
pub(crate) struct Keeping {
    pub(crate) whiteouts: Whiteouts,
    pub(crate) keeper: Keeper,
}

impl Keeping {
    pub(crate) fn of(layer: &LayerDir) -> Self {
        Self { whiteouts: layer.whiteouts(), keeper: layer.keeper().clone() }
    }
}

/// A directory of a layer.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// In an unpacked layer; with the names in it, where they are known.
    Folder(Arc<OwnedFd>, Keeping, Option<Names>),
    /// In a packed one.
    Packed(Packed, Node),
}

impl Part {
    /// Metadata of a name, a symlink's own for a symlink; a deletion has some too.
    pub(crate) fn metadata(&self, name: &OsStr) -> io::Result<Option<Metadata>> {
        match self {
            Self::Folder(_, _, Some(names)) if !names.contains(name) => Ok(None),
            Self::Folder(fd, keeping, _) => match walk::metadata(fd.as_fd(), name)? {
                Some(found) => keeping.keeper.refine(fd.as_fd(), name, found).map(Some),
                None => Ok(None),
            },
            Self::Packed(packed, node) => {
                Ok(packed.child(*node, name).map(|child| packed.metadata(child)))
            }
        }
    }

    /// Whether a name says that the layers below have lost it.
    pub(crate) fn is_whiteout(&self, name: &OsStr, metadata: &Metadata) -> io::Result<bool> {
        match self {
            Self::Folder(fd, ..) => layer::is_whiteout(fd.as_fd(), name, metadata),
            Self::Packed(..) => Ok(false),
        }
    }

    /// The directory of a name; `None` when the name is no directory.
    pub(crate) fn dir(&self, name: &OsStr) -> io::Result<Option<Self>> {
        match self {
            Self::Folder(_, _, Some(names)) if !names.contains(name) => Ok(None),
            Self::Folder(fd, keeping, _) => {
                let found = walk::open_dir(fd.as_fd(), name)?;
                Ok(found.map(|found| Self::Folder(Arc::new(found), keeping.clone(), None)))
            }
            Self::Packed(packed, node) => {
                let found = packed.child(*node, name).filter(|child| packed.is_dir(*child));
                Ok(found.map(|child| Self::Packed(packed.clone(), child)))
            }
        }
    }

    /// Whether the directory hides what the layers below have in it.
    pub(crate) fn is_opaque(&self) -> io::Result<bool> {
        match self {
            Self::Folder(fd, keeping, _) => layer::is_opaque(fd.as_fd(), keeping.whiteouts),
            Self::Packed(..) => Ok(false),
        }
    }

    /// Metadata of the directory itself.
    pub(crate) fn own_metadata(&self) -> io::Result<Metadata> {
        match self {
            Self::Folder(fd, keeping, _) => {
                let found = walk::metadata_of(fd.as_fd())?;
                keeping.keeper.refine(fd.as_fd(), OsStr::new(""), found)
            }
            Self::Packed(packed, node) => Ok(packed.metadata(*node)),
        }
    }

    /// Extended attributes of the directory itself.
    pub(crate) fn own_xattrs(&self) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        match self {
            Self::Folder(fd, ..) => walk::xattrs(fd.as_fd(), OsStr::new("")),
            Self::Packed(packed, node) => Ok(packed.known_xattrs(*node).to_vec()),
        }
    }

    /// Names in the directory, in no order.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        match self {
            Self::Folder(fd, ..) => {
                Ok(walk::names(fd.as_fd())?.into_iter().map(|(name, _)| name).collect())
            }
            Self::Packed(packed, node) => {
                Ok(packed.children(*node).map(|child| packed.name(child).to_owned()).collect())
            }
        }
    }

    /// Bytes of a regular file.
    pub(crate) fn open(&self, name: &OsStr) -> io::Result<FileData> {
        match self {
            Self::Folder(fd, ..) => walk::open_file(fd.as_fd(), name).map(FileData::whole),
            Self::Packed(packed, node) => packed.open(packed_child(packed, *node, name)?),
        }
    }

    /// Target of a symlink.
    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<PathBuf> {
        match self {
            Self::Folder(fd, ..) => walk::read_link(fd.as_fd(), name),
            Self::Packed(packed, node) => packed.read_link(packed_child(packed, *node, name)?),
        }
    }

    /// Extended attributes of a name, sorted by name; the store's own are left out.
    pub(crate) fn xattrs(&self, name: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        match self {
            Self::Folder(fd, ..) => walk::xattrs(fd.as_fd(), name),
            Self::Packed(packed, node) => packed.xattrs(packed_child(packed, *node, name)?),
        }
    }

    /// One extended attribute of the directory itself.
    pub(crate) fn own_xattr(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Folder(fd, ..) => walk::xattr(fd.as_fd(), OsStr::new(""), key),
            Self::Packed(packed, node) => {
                let mut found = packed.known_xattrs(*node).iter().filter(|(name, _)| name == key);
                Ok(found.next().map(|(_, value)| value.clone()))
            }
        }
    }

    /// Descriptors that it keeps open.
    pub(crate) fn descriptors(&self) -> usize {
        usize::from(matches!(self, Self::Folder(..)))
    }
}

fn packed_child(packed: &Packed, node: Node, name: &OsStr) -> io::Result<Node> {
    packed.child(node, name).ok_or_else(|| io::ErrorKind::NotFound.into())
}
