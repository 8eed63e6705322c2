//! The local image store: names, and what they stand for.
//!
//! An image is its configs and the layers under them, in the order of its platforms. Its id is the digest
//! of its config; with several platforms, the digest of the list of their configs. Layers need no blob:
//! one is made when the image is saved or pushed.
//!
//! Invariants:
//! - A name stands for one image; a name that moves leaves the image it stood for, unnamed.
//! - Layers and configs of an image are not pruned while it is there.

use std::time::SystemTime;

use llb::{Digest, Platform, Reference};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::error::CacheError;
use crate::layer::LayerId;
use crate::reference::Ref;
use crate::store::{Store, nanoseconds, time};

/// One platform of an image to be stored.
#[derive(Debug, Clone)]
pub struct NewVariant {
    /// For what it is.
    pub platform: Platform,
    /// The image config as it is hashed.
    pub config: Vec<u8>,
    /// Its layers.
    pub reference: Ref,
    /// The manifest as it was pushed or pulled, byte for byte, if it was.
    pub manifest: Option<Vec<u8>>,
}

/// An image to be stored.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// Its platforms, at least one.
    pub variants: Vec<NewVariant>,
    /// When it was made.
    pub created: SystemTime,
    /// The index as it was pushed or pulled, byte for byte, if there is one.
    pub index: Option<Vec<u8>>,
}

/// One platform of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// For what it is, as [`Platform`] is written.
    pub platform: String,
    /// Digest of its config, a blob of the store.
    pub config: Digest,
    /// Its layers, lowest first; [`Store::reference`] gives the chain.
    pub layers: Vec<LayerId>,
    /// The manifest as it was pushed or pulled.
    pub manifest: Option<Vec<u8>>,
}

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: Digest,
    /// Canonical full names, sorted; none for a dangling image.
    pub names: Vec<String>,
    /// When it was made.
    pub created: SystemTime,
    /// Its platforms.
    pub variants: Vec<Variant>,
    /// The index as it was pushed or pulled.
    pub index: Option<Vec<u8>>,
}

impl Image {
    /// Digest of what it was pushed or pulled as: its index, else its only manifest.
    pub fn digest(&self) -> Option<Digest> {
        match (&self.index, self.variants.as_slice()) {
            (Some(index), _) => Some(Digest::of(index)),
            (None, [only]) => only.manifest.as_deref().map(Digest::of),
            (None, _) => None,
        }
    }

    /// Whether something of it has this digest: itself, its index, a manifest or a config.
    fn has_digest(&self, digest: &Digest) -> bool {
        let is_of = |bytes: &[u8]| Digest::of(bytes) == *digest;
        self.id == *digest
            || self.index.as_deref().is_some_and(is_of)
            || self.variants.iter().any(|variant| {
                variant.config == *digest || variant.manifest.as_deref().is_some_and(is_of)
            })
    }
}

/// What [`Images::remove`] took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Names that no longer stand for anything.
    pub untagged: Vec<String>,
    /// The image, when it is gone; one with another name left stays.
    pub deleted: Option<Digest>,
}

/// The images of a store.
#[derive(Debug, Clone)]
pub struct Images(Store);

impl Store {
    /// The local image store.
    pub fn images(&self) -> Images {
        Images(self.clone())
    }
}

impl Images {
    /// Stores an image under `names`, which may be none, and returns its id.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn put(&self, image: &NewImage, names: &[Reference]) -> Result<Digest, CacheError> {
        let inner = &self.0.0;
        let mut configs = Vec::with_capacity(image.variants.len());
        for variant in &image.variants {
            configs.push(self.0.put_blob_later(&variant.config)?);
        }
        let id = image_id(&configs);
        let boot = inner.boot()?;
        inner.write(|transaction| {
            let sql = "INSERT INTO image (id, created, index_bytes, boot) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO
                UPDATE SET created = excluded.created, index_bytes = excluded.index_bytes, boot = excluded.boot, synced = 0";
            let created = nanoseconds(image.created);
            transaction.execute(sql, params![id.as_bytes(), created, image.index, boot])?;
            transaction.execute("DELETE FROM variant WHERE image = ?1", [id.as_bytes()])?;
            for (position, (variant, config)) in image.variants.iter().zip(&configs).enumerate() {
                add_variant(transaction, &id, position, variant, config)?;
            }
            names.iter().try_for_each(|name| set_name(transaction, &name.to_string(), &id))
        })?;
        Ok(id)
    }

    /// Gives an image one more name; an image that had it loses it.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn tag(&self, image: &str, name: &Reference) -> Result<(), CacheError> {
        let id = self.find(image)?;
        self.0.0.write(|transaction| set_name(transaction, &name.to_string(), &id))
    }

    /// All images, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn list(&self) -> Result<Vec<Image>, CacheError> {
        self.0.0.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT id FROM image ORDER BY created DESC, id")?;
            let ids: Vec<[u8; 32]> =
                statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let images = ids.into_iter().map(|id| read_image(db, &Digest::from_bytes(id)));
            images.filter_map(Result::transpose).collect()
        })
    }

    /// The image with a name (familiar or full), or an id or a prefix of one.
    ///
    /// # Errors
    /// When there is none, or the prefix fits several.
    pub fn get(&self, name: &str) -> Result<Image, CacheError> {
        let id = self.find(name)?;
        self.0
            .0
            .read(|db| read_image(db, &id))?
            .ok_or_else(|| CacheError::UnknownImage(name.to_owned()))
    }

    /// The image a reference stands for.
    ///
    /// # Errors
    /// When the database fails.
    pub fn by_name(&self, name: &Reference) -> Result<Option<Image>, CacheError> {
        self.0.0.read(|db| match named(db, &name.to_string())? {
            Some(id) => read_image(db, &id),
            None => Ok(None),
        })
    }

    /// The index or manifest with this digest, if an image was pushed or pulled as it.
    ///
    /// # Errors
    /// When the database fails.
    pub fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        let mut documents = self.list()?.into_iter().flat_map(|image| {
            image.variants.into_iter().filter_map(|variant| variant.manifest).chain(image.index)
        });
        Ok(documents.find(|bytes| Digest::of(bytes) == *digest))
    }

    /// Takes a name away, and with its last name the image; or, given an id, the image with its only name.
    /// `force` takes an image given by its id away with all its names. Layers stay until the next prune.
    ///
    /// # Errors
    /// When there is no such image, the prefix fits several, or the image has several names and `force` is
    /// not given.
    pub fn remove(&self, name: &str, force: bool) -> Result<Removed, CacheError> {
        self.0.with_reserve(|| self.remove_once(name, force))
    }

    fn remove_once(&self, name: &str, force: bool) -> Result<Removed, CacheError> {
        let id = self.find(name)?;
        let full = Reference::parse(name).ok().map(|name| name.to_string());
        self.0.0.write_files(|transaction, path| {
            let at = |source| CacheError::database(path, source);
            let names = read_names(transaction, &id).map_err(at)?;
            let untagged: Vec<String> = match full.filter(|full| names.contains(full)) {
                Some(full) => vec![full],
                None if names.len() > 1 && !force => {
                    return Err(CacheError::ImageInUse { id, names });
                }
                None => names.clone(),
            };
            for name in &untagged {
                transaction
                    .execute("DELETE FROM image_name WHERE name = ?1", [name])
                    .map_err(at)?;
            }
            let deleted = untagged.len() == names.len();
            if deleted {
                transaction
                    .execute("DELETE FROM variant WHERE image = ?1", [id.as_bytes()])
                    .map_err(at)?;
                transaction
                    .execute("DELETE FROM image WHERE id = ?1", [id.as_bytes()])
                    .map_err(at)?;
            }
            Ok(Removed { untagged, deleted: deleted.then_some(id) })
        })
    }

    /// Frees what an image that was removed alone kept: layers and blobs that no image, result of a build or process
    /// leads to. Returns how many bytes that were, in real blocks.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn free_unused(&self) -> Result<u64, CacheError> {
        self.0.relieve(0)
    }

    /// Notes how an image was pushed: its index, if there is one, and the manifests of configs.
    ///
    /// # Errors
    /// When the database fails.
    pub fn set_documents<'d>(
        &self,
        image: &Digest,
        index: Option<&[u8]>,
        mut manifests: impl Iterator<Item = (Digest, &'d [u8])>,
    ) -> Result<(), CacheError> {
        self.0.0.write(|transaction| {
            let sql = "UPDATE image SET index_bytes = ?2 WHERE id = ?1";
            transaction.execute(sql, params![image.as_bytes(), index])?;
            let sql = "UPDATE variant SET manifest = ?3 WHERE image = ?1 AND config = ?2";
            manifests.try_for_each(|(config, manifest)| {
                let values = params![image.as_bytes(), config.as_bytes(), manifest];
                transaction.execute(sql, values).map(drop)
            })
        })
    }

    /// The chain of a variant's layers.
    ///
    /// # Errors
    /// When a layer was lost.
    pub fn reference(&self, variant: &Variant) -> Result<Ref, CacheError> {
        self.0
            .reference(&variant.layers)?
            .ok_or_else(|| CacheError::LayerGone(variant.config.to_string()))
    }

    /// The config of a variant, as it is hashed.
    ///
    /// # Errors
    /// When the blob was lost.
    pub fn config(&self, variant: &Variant) -> Result<Vec<u8>, CacheError> {
        let blob = self.0.blob(&variant.config)?;
        blob.ok_or_else(|| CacheError::UnknownImage(variant.config.to_string()))?.read()
    }

    fn find(&self, name: &str) -> Result<Digest, CacheError> {
        if let Ok(reference) = Reference::parse(name)
            && let Some(id) = self.0.0.read(|db| named(db, &reference.to_string()))?
        {
            return Ok(id);
        }
        if let Ok(reference) = Reference::parse_as_is(name)
            && let Some(digest) = reference.digest()
            && let Some(id) = self.with_digest(&reference, &digest)?
        {
            return Ok(id);
        }
        let unknown = || CacheError::UnknownImage(name.to_owned());
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.is_empty()
            || prefix.len() > 64
            || !prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(unknown());
        }
        let fitting: Vec<[u8; 32]> = self.0.0.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT id FROM image WHERE lower(hex(id)) GLOB ?1 || '*'")?;
            statement.query_map([prefix], |row| row.get(0))?.collect()
        })?;
        match fitting.as_slice() {
            [] => Err(unknown()),
            [id] => Ok(Digest::from_bytes(*id)),
            more => Err(CacheError::AmbiguousImage { prefix: name.to_owned(), count: more.len() }),
        }
    }

    /// The image that has a name in the repository of `reference`, and something with this digest.
    fn with_digest(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Option<Digest>, CacheError> {
        let repository = reference.name();
        let is_named = |image: &Image| {
            let names = image.names.iter().filter_map(|name| Reference::parse_as_is(name).ok());
            names.map(|name| name.name()).any(|name| name == repository)
        };
        let images = self.list()?;
        let found = images.iter().find(|image| image.has_digest(digest) && is_named(image));
        Ok(found.map(|image| image.id))
    }
}

fn image_id(configs: &[Digest]) -> Digest {
    match configs {
        [config] => *config,
        _ => {
            let list: Vec<String> = configs.iter().map(Digest::to_string).collect();
            Digest::of(list.join("\n").as_bytes())
        }
    }
}

fn add_variant(
    transaction: &Transaction<'_>,
    image: &Digest,
    position: usize,
    variant: &NewVariant,
    config: &Digest,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO variant (image, position, platform, config, layers, manifest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let layers = LayerId::pack(variant.reference.layers().iter().map(crate::layer::Layer::id));
    let platform = variant.platform.to_string();
    let values = params![
        image.as_bytes(),
        position as i64,
        platform,
        config.as_bytes(),
        layers,
        variant.manifest
    ];
    transaction.execute(sql, values).map(drop)
}

fn set_name(transaction: &Transaction<'_>, name: &str, image: &Digest) -> rusqlite::Result<()> {
    let sql = "INSERT INTO image_name (name, image) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET image = excluded.image";
    transaction.execute(sql, params![name, image.as_bytes()]).map(drop)
}

fn named(db: &Connection, name: &str) -> rusqlite::Result<Option<Digest>> {
    db.prepare_cached("SELECT image FROM image_name WHERE name = ?1")?
        .query_row([name], |row| Ok(Digest::from_bytes(row.get(0)?)))
        .optional()
}

fn read_names(db: &Connection, image: &Digest) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached("SELECT name FROM image_name WHERE image = ?1 ORDER BY name")?
        .query_map([image.as_bytes()], |row| row.get(0))?
        .collect()
}

fn read_image(db: &Connection, id: &Digest) -> rusqlite::Result<Option<Image>> {
    let row = db
        .prepare_cached("SELECT created, index_bytes FROM image WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((created, index)) = row else { return Ok(None) };
    let sql =
        "SELECT platform, config, layers, manifest FROM variant WHERE image = ?1 ORDER BY position";
    let variants = db
        .prepare_cached(sql)?
        .query_map([id.as_bytes()], |row| {
            Ok(Variant {
                platform: row.get(0)?,
                config: Digest::from_bytes(row.get(1)?),
                layers: LayerId::unpack(&row.get::<_, Vec<u8>>(2)?),
                manifest: row.get(3)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(Some(Image { id: *id, names: read_names(db, id)?, created: time(created), variants, index }))
}
