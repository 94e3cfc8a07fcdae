// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Strict JSON: what every reader of a document understands in the same way.
//!
//! Guarantees: one value, valid UTF-8 without a byte order mark, no key twice in an object at any depth, no
//! more than [`MAX_DEPTH`] levels. Keys are compared after their escapes are resolved. Errors name line and
//! column. Never: keeps values; memory is bounded by the keys of the objects that are open at one moment.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How deep objects and arrays may be nested.
pub(crate) const MAX_DEPTH: usize = 64;

/// The keys of an object.
pub(crate) type Keys<'a> = BTreeSet<Cow<'a, str>>;

/// Checks `text` and gives the keys of its outermost object; none if it is no object.
pub(crate) fn check(text: &str) -> Result<Keys<'_>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let keys = Strict { depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(keys)
}

/// Walks one value that lies `depth` levels deep.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Keys<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Keys<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Keys::new())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Keys::new())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Keys::new())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Keys::new())
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Keys::new())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Keys::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(Keys::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let inner = self.deeper()?;
        let mut keys = Keys::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!("key {key:?} is given twice")));
            }
            keys.insert(key);
            entries.next_value_seed(inner)?;
        }
        Ok(keys)
    }
}

/// A key, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// A `T` that is written as an object: a derived structure alone would also be read from an array.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(entries)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w275_a_key_given_twice_is_found_at_any_depth_and_through_escapes() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":[{"b":{},"b":0}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(
                check(text).unwrap_err().to_string().contains("is given twice at line 1 column"),
                "{text}"
            );
        }
        assert!(check(r#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#).is_ok());
    }

    #[test]
    fn w275_trailing_data_and_half_a_surrogate_are_refused() {
        assert!(check("{} {}").is_err());
        assert!(check("{}\n\t ").is_ok());
        assert!(check(r#"{"a":"\ud800"}"#).is_err());
        assert!(check("").is_err());
    }

    #[test]
    fn w275_w902_64_levels_are_read_and_65_are_not() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(check(&nested(64)).is_ok());
        assert!(check(&nested(65)).unwrap_err().to_string().starts_with("nested deeper than 64 levels"));
        let objects = |levels: usize| r#"{"a":"#.repeat(levels) + "1" + &"}".repeat(levels);
        assert!(check(&objects(64)).is_ok());
        assert!(check(&objects(65)).is_err());
    }

    #[test]
    fn the_keys_are_those_of_the_outermost_object() {
        assert_eq!(check(r#"{"a":{"c":1},"b":null}"#).unwrap(), Keys::from(["a".into(), "b".into()]));
        assert!(check("[1, -1, 1.5, true, null]").unwrap().is_empty());
    }
}
