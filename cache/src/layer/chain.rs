//! Chains of layers in the database: what a layer was made over, and the layers of a result, lowest first.
//!
//! ```text
//! id…      (16 bytes each)  every layer
//! 1 · id   (17 bytes)       a layer and all that it was made over, as nearly every chain is
//! ```
//!
//! With the second form the rows of a long chain are no longer than those of a short one.

use rusqlite::{Connection, OptionalExtension};

use super::{Layer, LayerId};
use crate::reference::Ref;

/// Layers in a chain at most; more are damage.
const MOST: usize = 1 << 20;

/// A chain as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chain {
    /// These layers.
    Listed(Vec<LayerId>),
    /// A layer and all that it was made over.
    Whole(LayerId),
}

impl Chain {
    pub(crate) fn of(reference: &Ref) -> Self {
        let ids = |layers: &[Layer]| layers.iter().map(Layer::id).collect();
        match reference.layers() {
            [below @ .., top] if !below.is_empty() && top.below().layers() == below => {
                Self::Whole(top.id())
            }
            layers => Self::Listed(ids(layers)),
        }
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        match self {
            Self::Listed(ids) => LayerId::pack(ids.iter().copied()),
            Self::Whole(top) => [&[1], &top.0[..]].concat(),
        }
    }

    /// A chain packed by [`pack`](Self::pack); a damaged tail is ignored.
    pub(crate) fn unpack(bytes: &[u8]) -> Self {
        match bytes.strip_prefix(&[1]).map(TryInto::try_into) {
            Some(Ok(top)) => Self::Whole(LayerId(top)),
            _ => Self::Listed(LayerId::unpack(bytes)),
        }
    }

    /// The layers that it names itself.
    pub(crate) fn named(self) -> Vec<LayerId> {
        match self {
            Self::Listed(ids) => ids,
            Self::Whole(top) => vec![top],
        }
    }

    /// All layers, lowest first; `None` when the rows of some are gone.
    pub(crate) fn ids(self, db: &Connection) -> rusqlite::Result<Option<Vec<LayerId>>> {
        let mut next = match self {
            Self::Listed(ids) => return Ok(Some(ids)),
            Self::Whole(top) => top,
        };
        let mut statement = db.prepare_cached("SELECT parents FROM layer WHERE id = ?1")?;
        let mut ids = Vec::new();
        while ids.len() < MOST {
            ids.push(next);
            let row = statement.query_row([next.0], |row| row.get::<_, Vec<u8>>(0)).optional()?;
            match row.as_deref().map(Self::unpack) {
                Some(Self::Whole(below)) => next = below,
                Some(Self::Listed(below)) => {
                    ids.extend(below.into_iter().rev());
                    ids.reverse();
                    return Ok(Some(ids));
                }
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_come_back_as_they_were() {
        let id = |number: u8| LayerId([number; 16]);
        for chain in [
            Chain::Listed(Vec::new()),
            Chain::Listed(vec![id(1)]),
            Chain::Listed(vec![id(1), id(2)]),
            Chain::Whole(id(1)),
        ] {
            assert_eq!(Chain::unpack(&chain.pack()), chain);
        }
    }
}
