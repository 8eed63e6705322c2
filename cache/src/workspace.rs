//! Where a step writes: a fresh layer over those of its parent.
//!
//! ```text
//! ingest/<process>/<n>/fs      what the step changes, in overlay form
//! ingest/<process>/<m>/root    all that the step sees, where overlayfs cannot be used (see `tree`)
//! ingest/<process>/<m>         overlayfs's own
//! points                       a layer with empty files where every step has something mounted
//! ```
//!
//! There are two back ends, and which one is used shows only once a process needs the whole root: an
//! [overlay](WorkspaceKind::Overlay) of the layers below and `fs`, or a [plain tree](WorkspaceKind::PlainTree) that has
//! both, from which the changes are taken to `fs` afterwards. What is built without running anything costs the same
//! with both.
//!
//! [`Workspace::commit`] renames the folder to `layers/<id>`: the layer *is* `fs`.

mod tree;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use ::tree::draft::Draft;
use ::tree::layer::LayerDir;
use ::tree::stack::Stack;
use fs_err as fs;

use crate::error::{At, CacheError};
use crate::layer::{Aside, Layer, LayerMeta};
use crate::process::Process;
use crate::reference::Ref;
use crate::store::Store;
pub(crate) use tree::WaitingTree;
use tree::WorkingTree;

/// How a step sees what it builds upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkspaceKind {
    /// The kernel merges the layers.
    #[default]
    Overlay,
    /// The layers are copied together into one folder, which the steps of a chain change in place.
    PlainTree,
}

/// Files that every step has something mounted over.
const POINTS: [&str; 2] = ["etc/hosts", "etc/resolv.conf"];

/// What a process is to be given as its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceRoot {
    /// Folders to be merged by overlayfs.
    Overlay {
        /// Layer folders, lowest first.
        lowers: Vec<PathBuf>,
        /// The folder that takes the changes.
        upper: PathBuf,
        /// The folder that overlayfs needs beside it.
        work: PathBuf,
    },
    /// A folder to be changed in place.
    Dir(PathBuf),
}

/// A layer being made; dropped without [`commit`](Self::commit) it is gone.
#[derive(Debug)]
pub struct Workspace {
    store: Store,
    parent: Ref,
    folder: Aside,
    /// The folder that overlayfs needs beside it, once it was asked for.
    work: Option<Work>,
    /// Whether the root has places to mount on that no layer has.
    has_mount_points: bool,
    /// What a process is given as its root instead of layers.
    plain: Plain,
    /// Whether a step is to go on in the same tree.
    goes_on: bool,
}

/// A root that is a folder.
#[derive(Debug)]
enum Plain {
    /// Not asked for.
    No,
    /// A copy of a part, of which no layer is made.
    Part(PathBuf),
    /// The whole tree; it has what is in `fs` too, and is what counts.
    Whole(WorkingTree),
    /// The same, with what has changed taken to `fs`.
    Taken(WorkingTree),
}

impl Workspace {
    /// The folder that the layer will be. With a plain tree it gets the changes only at the end.
    pub fn upper(&self) -> LayerDir {
        LayerDir::encoded(self.folder.0.join("fs"), self.store.encoding())
    }

    /// Lays empty files under the layers, for what every step has mounted, so that none need be made in the layer.
    /// With a plain tree they are not there.
    #[must_use]
    pub fn with_mount_points(self) -> Self {
        Self { has_mount_points: true, ..self }
    }

    /// Notes that another step is to build upon the layer: a plain tree is kept for it.
    #[must_use]
    pub fn going_on(self, goes_on: bool) -> Self {
        Self { goes_on, ..self }
    }

    /// The folders below, lowest first, unpacked if need be.
    fn lowers(&self) -> Result<Vec<PathBuf>, CacheError> {
        let points = self.mount_points()?;
        let layers = self.parent.dirs()?;
        Ok(points.into_iter().chain(layers.iter().map(|layer| layer.path().to_owned())).collect())
    }

    fn mount_points(&self) -> Result<Option<PathBuf>, CacheError> {
        let wanted = self.has_mount_points && self.is_overlay();
        wanted.then(|| self.store.mount_points()).transpose()
    }

    fn is_overlay(&self) -> bool {
        matches!(self.plain, Plain::No) && self.store.workspace_kind() == WorkspaceKind::Overlay
    }

    /// What it was made over.
    pub fn parent(&self) -> &Ref {
        &self.parent
    }

    /// What a process is given as its root, in the kind that the store uses by now.
    ///
    /// # Errors
    /// When a layer below cannot be unpacked or the tree not copied.
    pub fn root(&mut self) -> Result<WorkspaceRoot, CacheError> {
        if self.is_overlay() {
            return self.overlay();
        }
        if let Plain::Whole(tree) = &self.plain {
            return Ok(WorkspaceRoot::Dir(tree.root(&self.store).path().to_owned()));
        }
        let tree = WorkingTree::over(&self.store, &self.parent)?;
        tree.graft(&self.store, self.upper())?;
        tree.settle(&self.store);
        let root = tree.root(&self.store).path().to_owned();
        self.plain = Plain::Whole(tree);
        Ok(WorkspaceRoot::Dir(root))
    }

    fn overlay(&mut self) -> Result<WorkspaceRoot, CacheError> {
        Ok(WorkspaceRoot::Overlay {
            lowers: self.lowers()?,
            upper: self.upper().path().to_owned(),
            work: self.work()?,
        })
    }

    /// As [`root`](Self::root), for one of whom only `path`, without symlinks in it, is looked at. With a plain tree
    /// it is copied, and what is written there gets into no layer.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub fn root_with(&mut self, path: &Path) -> Result<WorkspaceRoot, CacheError> {
        if self.is_overlay() {
            return self.overlay();
        }
        if let Plain::Part(part) = &self.plain {
            return Ok(WorkspaceRoot::Dir(part.clone()));
        }
        let part = self.copy_part(path)?;
        self.plain = Plain::Part(part.clone());
        Ok(WorkspaceRoot::Dir(part))
    }

    fn copy_part(&self, path: &Path) -> Result<PathBuf, CacheError> {
        let part = self.folder.0.join("part");
        // An attempt that failed may have left something.
        crate::removal::remove_tree(&part).at(&part)?;
        make_folder(&part)?;
        let (merged, encoding) = (self.parent.stack()?.push(self.upper()), self.store.encoding());
        let into = LayerDir::encoded(part.clone(), encoding);
        ::tree::draft::copy_tree(&merged, path, &into, encoding)
            .map_err(|error| CacheError::io(&part, std::io::Error::other(error)))?;
        Ok(part)
    }

    /// Builds the layer without mounting anything.
    ///
    /// # Errors
    /// When a layer below has no folder and cannot be unpacked.
    pub fn draft(&self) -> Result<Draft, CacheError> {
        let (lower, upper) = if let Plain::Whole(tree) = &self.plain {
            (Stack::empty(), tree.root(&self.store))
        } else {
            let points = self.mount_points()?;
            let points = points.map(|path| LayerDir::finished(path, self.store.encoding()).into());
            (Stack::new(points.into_iter().chain(self.parent.files()?).collect()), self.upper())
        };
        Ok(Draft::new(lower, upper, self.store.encoding()))
    }

    /// What the layer will be, once nothing writes to it any more.
    ///
    /// # Errors
    /// When the changes cannot be told from the rest.
    pub fn changes(&mut self) -> Result<LayerDir, CacheError> {
        self.plain = match std::mem::replace(&mut self.plain, Plain::No) {
            Plain::Whole(mut tree) => {
                let upper = self.folder.0.join("fs");
                // What was drafted before there was a tree is in the tree.
                crate::removal::remove_tree(&upper).at(&upper)?;
                make_folder(&upper)?;
                tree.extract(&self.store, &self.upper(), self.goes_on)?;
                Plain::Taken(tree)
            }
            other => other,
        };
        Ok(self.upper())
    }

    /// Makes the folder a layer of the store.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn commit(self, meta: &LayerMeta) -> Result<Layer, CacheError> {
        let store = self.store.clone();
        let layer = self.commit_later(meta)?;
        store.settle()?;
        Ok(layer)
    }

    /// As [`commit`](Self::commit), but noted in the transaction of whatever is written next, such as the result that
    /// has the layer, or by [`Store::settle`].
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn commit_later(mut self, meta: &LayerMeta) -> Result<Layer, CacheError> {
        let _span = ::tree::trace::span("keep layer", || meta.description.clone());
        self.changes()?;
        let Self { store, folder, parent, plain, goes_on, .. } = self;
        let layer = store.add_layer(folder, parent, meta)?;
        if let (Plain::Taken(tree), true) = (plain, goes_on) {
            tree.wait(&store, layer.clone());
        }
        Ok(layer)
    }

    /// Keeps the folder where it is, for a look at what a failed step left, until the store is closed.
    pub fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.folder.0)
    }

    /// The folder that overlayfs needs beside it, made when first asked for; or a place for what is wanted only until
    /// the layer is done.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn work(&mut self) -> Result<PathBuf, CacheError> {
        if let Some(work) = &self.work {
            return Ok(work.path.clone());
        }
        let process = self.store.0.process()?;
        let ready = process.ahead().works.pop();
        let path = match ready {
            Some(path) => path,
            None => made_work(&process)?,
        };
        Ok(self.work.insert(Work { path, process }).path.clone())
    }
}

/// A folder of overlayfs, removed when nobody waits for it.
#[derive(Debug)]
struct Work {
    path: PathBuf,
    process: Arc<Process>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.process.give_up(std::mem::take(&mut self.path));
    }
}

impl Store {
    /// A place to make a layer over `parent`. Nothing of `parent` is unpacked yet.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn workspace(&self, parent: &Ref) -> Result<Workspace, CacheError> {
        let process = self.0.process()?;
        let ready = process.ahead().layers.pop();
        let folder = match ready {
            Some(path) => Aside(path),
            None => made_layer(&process)?,
        };
        Ok(Workspace {
            store: self.clone(),
            parent: parent.clone(),
            folder,
            work: None,
            has_mount_points: false,
            plain: Plain::No,
            goes_on: false,
        })
    }

    /// Makes the folders of a workspace in which a step will run, for a caller who has nothing else to do. What is never
    /// asked for goes with the store.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make_workspace_ahead(&self) -> Result<(), CacheError> {
        let process = self.0.process()?;
        let mut layer = made_layer(&process)?;
        process.ahead().layers.push(std::mem::take(&mut layer.0));
        if self.workspace_kind() == WorkspaceKind::Overlay {
            let work = made_work(&process)?;
            process.ahead().works.push(work);
        }
        Ok(())
    }

    /// A layer folder with empty files where every step has something mounted.
    fn mount_points(&self) -> Result<PathBuf, CacheError> {
        let folder = self.0.path("points");
        if self.0.has_points.get().is_none() {
            if !POINTS.iter().all(|name| folder.join(name).is_file()) {
                let aside = Aside(self.0.process()?.fresh());
                make_folder(&aside.0)?;
                make_folder(&aside.0.join("etc"))?;
                for name in POINTS {
                    let path = aside.0.join(name);
                    fs::File::create(&path).at(&path)?;
                }
                match fs::rename(&aside.0, &folder) {
                    Ok(()) => {}
                    // Another process was faster.
                    Err(_) if POINTS.iter().all(|name| folder.join(name).is_file()) => {}
                    // A power cut may have left a part.
                    Err(_) => {
                        self.0.discard(&folder)?;
                        fs::rename(&aside.0, &folder).at(&folder)?;
                    }
                }
            }
            let _ = self.0.has_points.set(());
        }
        Ok(folder)
    }

    /// How steps see what they build upon.
    pub fn workspace_kind(&self) -> WorkspaceKind {
        *self.0.workspaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how steps see what they build upon, for roots that are asked for from now on; returns what
    /// it was before.
    pub fn set_workspace_kind(&self, kind: WorkspaceKind) -> WorkspaceKind {
        let mut slot = self.0.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut slot, kind)
    }
}

/// Makes the folder of a layer.
fn made_layer(process: &Process) -> Result<Aside, CacheError> {
    let folder = Aside(process.fresh());
    for name in ["", "fs"] {
        make_folder(&folder.0.join(name))?;
    }
    Ok(folder)
}

fn made_work(process: &Process) -> Result<PathBuf, CacheError> {
    let path = process.fresh();
    make_folder(&path)?;
    Ok(path)
}

/// Makes a folder with the mode of a root directory, whatever the umask.
pub(crate) fn make_folder(path: &Path) -> Result<(), CacheError> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir(path).at(path)?;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).at(path)
}
