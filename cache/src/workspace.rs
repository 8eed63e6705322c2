//! Where a step writes: a fresh upper folder over the layers of its parent.
//!
//! ```text
//! ingest/<process>/<n>/fs      what the step changes, in overlay form
//! ingest/<process>/<n>/work    overlayfs's own
//! ```
//!
//! [`Workspace::commit`] renames the folder to `layers/<id>`: the layer *is* the upper folder.

use std::path::{Path, PathBuf};

use fs_err as fs;
use tree::draft::Draft;
use tree::layer::LayerDir;

use crate::error::{At, CacheError};
use crate::layer::{Aside, Layer, LayerMeta};
use crate::reference::Ref;
use crate::store::Store;

/// A layer being made; dropped without [`commit`](Self::commit) it is gone.
#[derive(Debug)]
pub struct Workspace {
    store: Store,
    parent: Ref,
    folder: Aside,
}

impl Workspace {
    /// The folder that takes the changes.
    pub fn upper(&self) -> LayerDir {
        LayerDir::encoded(self.folder.0.join("fs"), self.store.encoding())
    }

    /// The folder that overlayfs needs beside it.
    pub fn work(&self) -> PathBuf {
        self.folder.0.join("work")
    }

    /// The folders below, lowest first, unpacked if need be.
    ///
    /// # Errors
    /// When a layer's folder cannot be made.
    pub fn lowers(&self) -> Result<Vec<LayerDir>, CacheError> {
        self.parent.dirs()
    }

    /// What it was made over.
    pub fn parent(&self) -> &Ref {
        &self.parent
    }

    /// Builds the layer without mounting anything.
    ///
    /// # Errors
    /// When a layer below has no folder and cannot be unpacked.
    pub fn draft(&self) -> Result<Draft, CacheError> {
        Ok(Draft::new(self.parent.stack()?, self.upper(), self.store.encoding()))
    }

    /// Makes the folder a layer of the store.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn commit(self, meta: &LayerMeta) -> Result<Layer, CacheError> {
        let work = self.work();
        crate::removal::remove_tree(&work).at(&work)?;
        self.store.add_layer(&self.folder, self.parent.layers().to_vec(), meta)
    }

    /// Keeps the folder where it is, for a look at what a failed step left, until the store is closed.
    pub fn keep(self) -> PathBuf {
        let mut folder = self.folder;
        std::mem::take(&mut folder.0)
    }
}

impl Store {
    /// A place to make a layer over `parent`. Nothing of `parent` is unpacked yet.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn workspace(&self, parent: &Ref) -> Result<Workspace, CacheError> {
        let folder = Aside(self.0.process()?.fresh());
        for name in ["", "fs", "work"] {
            make_folder(&folder.0.join(name))?;
        }
        Ok(Workspace { store: self.clone(), parent: parent.clone(), folder })
    }
}

/// Makes a folder with the mode of a root directory, whatever the umask.
pub(crate) fn make_folder(path: &Path) -> Result<(), CacheError> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir(path).at(path)?;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).at(path)
}
