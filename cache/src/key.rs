//! Cache keys: opaque 32 bytes, made by a typed, length-framed, versioned encoding hashed with BLAKE3.
//!
//! Every field is written as a tag byte, its length as 8 bytes little endian, and its bytes, so that no
//! two lists of fields have the same encoding. The first field is the name and version of the encoding
//! (`file.v1`): bump the version whenever the same fields come to mean a different result.

use std::fmt;

/// Name of a cached thing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Builds a [`Key`] field by field. The order of the calls counts.
#[derive(Debug, Clone)]
#[must_use]
pub struct KeyBuilder {
    hasher: blake3::Hasher,
}

impl KeyBuilder {
    /// Starts a key of the encoding `name`, such as `file.v1`.
    pub fn new(name: &str) -> Self {
        Self { hasher: blake3::Hasher::new() }.frame(b'n', name.as_bytes())
    }

    fn frame(mut self, tag: u8, bytes: &[u8]) -> Self {
        self.hasher.update(&[tag]);
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
        self
    }

    /// Adds text.
    pub fn str(self, text: &str) -> Self {
        self.frame(b's', text.as_bytes())
    }

    /// Adds bytes.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.frame(b'b', bytes)
    }

    /// Adds a number.
    pub fn u64(self, value: u64) -> Self {
        self.frame(b'u', &value.to_le_bytes())
    }

    /// Adds a number that may be negative.
    pub fn i64(self, value: i64) -> Self {
        self.frame(b'i', &value.to_le_bytes())
    }

    /// Adds a fact.
    pub fn bool(self, value: bool) -> Self {
        self.frame(b't', &[u8::from(value)])
    }

    /// Adds another key.
    pub fn key(self, key: &Key) -> Self {
        self.frame(b'k', &key.0)
    }

    /// Adds a value that may be absent; absence differs from every value.
    pub fn option<T>(self, value: Option<T>, add: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            None => self.frame(b'o', &[0]),
            Some(value) => add(self.frame(b'o', &[1]), value),
        }
    }

    /// Adds a list: its length, then each item as `add` writes it.
    pub fn list<T>(
        mut self,
        items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        mut add: impl FnMut(Self, T) -> Self,
    ) -> Self {
        let items = items.into_iter();
        self = self.frame(b'l', &(items.len() as u64).to_le_bytes());
        for item in items {
            self = add(self, item);
        }
        self
    }

    /// Adds a list of texts.
    pub fn strs<S: AsRef<str>>(self, items: &[S]) -> Self {
        self.list(items, |key, item| key.str(item.as_ref()))
    }

    /// The key.
    pub fn finish(self) -> Key {
        Key(*self.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Field {
        Str(String),
        Bytes(Vec<u8>),
        U64(u64),
        I64(i64),
        Bool(bool),
        Option(Option<String>),
        List(Vec<String>),
    }

    fn any_field() -> impl Strategy<Value = Field> {
        prop_oneof![
            "[ab]{0,3}".prop_map(Field::Str),
            vec(0u8..3, 0..3).prop_map(Field::Bytes),
            (0u64..3).prop_map(Field::U64),
            (-1i64..2).prop_map(Field::I64),
            any::<bool>().prop_map(Field::Bool),
            proptest::option::of("[ab]{0,2}").prop_map(Field::Option),
            vec("[ab]{0,2}", 0..3).prop_map(Field::List),
        ]
    }

    fn key(name: &str, fields: &[Field]) -> Key {
        let add = |key: KeyBuilder, field: &Field| match field {
            Field::Str(text) => key.str(text),
            Field::Bytes(bytes) => key.bytes(bytes),
            Field::U64(value) => key.u64(*value),
            Field::I64(value) => key.i64(*value),
            Field::Bool(value) => key.bool(*value),
            Field::Option(value) => key.option(value.as_deref(), KeyBuilder::str),
            Field::List(items) => key.strs(items),
        };
        fields.iter().fold(KeyBuilder::new(name), add).finish()
    }

    proptest! {
        /// However the same bytes are split into fields, and whichever field changes, the key differs.
        #[test]
        fn keys_are_equal_exactly_when_the_fields_are(
            a in vec(any_field(), 0..5), b in vec(any_field(), 0..5), change in any_field(), at in 0usize..5,
        ) {
            prop_assert_eq!(key("a.v1", &a) == key("a.v1", &b), a == b);
            prop_assert_ne!(key("a.v1", &a), key("a.v2", &a));
            if let Some(old) = a.get(at).cloned() {
                let mut changed = a.clone();
                changed[at] = change.clone();
                prop_assert_eq!(key("a.v1", &a) == key("a.v1", &changed), old == change);
            }
        }
    }
}
