//! The strict reader of [`super::json`], element by element: for bodies that are too large to stand in memory as a tree.
//!
//! A vendor's file says which members of an object it knows ([`Members`]) and is called for each; strings are
//! borrowed from the body, what it does not know is passed over, and nothing is kept. The document is held to the same
//! rules as one that is read whole: UTF-8, no key twice, no U+0000, no deeper than
//! [`DEPTH_MAX`](super::json::DEPTH_MAX).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::json::{NUL, TWICE, deeper};

/// What stands at a member: a scalar with its value, anything else by its kind alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Scalar<'a> {
    /// No such member.
    #[default]
    Absent,
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number that is an integer of 64 bits.
    Integer(i64),
    /// Any other number; always finite.
    Float(f64),
    /// A string without U+0000.
    Text(Cow<'a, str>),
    /// An array or an object, passed over.
    Nested,
}

/// Whether what stood there was what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// It was.
    It,
    /// `null` stood there.
    Null,
    /// Something else stood there, and was passed over.
    Other,
}

/// An object that is read member by member.
pub trait Members<'de> {
    /// The number (below 32) of a member that is known.
    fn field(key: &str) -> Option<u8>;

    /// Reads the value of this member, which stands at this level.
    ///
    /// # Errors
    /// The reader's.
    fn member<A: MapAccess<'de>>(
        &mut self,
        field: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error>;

    /// Hears of a member that is not known; it has been passed over.
    fn unknown(&mut self) {}
}

/// An array that is read element by element.
pub trait Items<'de> {
    /// Reads the next element, which stands at this level; `false` where there is none.
    ///
    /// # Errors
    /// The reader's.
    fn item<A: SeqAccess<'de>>(&mut self, level: usize, list: &mut A) -> Result<bool, A::Error>;
}

/// Reads an object into `0` at level `1`.
pub struct Object<'m, M>(pub &'m mut M, pub usize);

/// Reads an array into `0` at level `1`.
pub struct List<'m, I>(pub &'m mut I, pub usize);

/// Reads a [`Scalar`] at this level.
pub struct AsScalar(pub usize);

/// Passes over a value at this level.
pub struct Skip(pub usize);

/// Visits what is not wanted, in one word for each kind.
macro_rules! other_scalars {
    ($null:expr, $value:expr) => {
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($null)
        }
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            if text.contains('\0') { Err(E::custom(NUL)) } else { Ok($value) }
        }
    };
}

macro_rules! seed {
    ([$($generic:tt)*] $seed:ty => $value:ty) => {
        impl<'de, $($generic)*> DeserializeSeed<'de> for $seed {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<$value, D::Error> {
                reader.deserialize_any(self)
            }
        }
    };
}

seed!([M: Members<'de>] Object<'_, M> => Met);
seed!([I: Items<'de>] List<'_, I> => Met);
seed!([] AsScalar => Scalar<'de>);
seed!([] Skip => ());

impl<'de, M: Members<'de>> Visitor<'de> for Object<'_, M> {
    type Value = Met;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    other_scalars!(Met::Null, Met::Other);

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Met, A::Error> {
        Skip(self.1).visit_seq(items).map(|()| Met::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Met, A::Error> {
        let level = deeper(self.1)?;
        let mut known = 0_u32;
        let mut unknown = Vec::new();
        while let Some(key) = map.next_key_seed(Key(PhantomData::<M>))? {
            match key {
                Named::Known(field) => {
                    let bit = 1_u32.checked_shl(u32::from(field)).unwrap_or(0);
                    if known & bit != 0 {
                        return Err(A::Error::custom(TWICE));
                    }
                    known |= bit;
                    self.0.member(field, level, &mut map)?;
                }
                Named::Unknown(key) => {
                    unknown.push(key);
                    map.next_value_seed(Skip(level))?;
                    self.0.unknown();
                }
            }
        }
        once(unknown).map(|()| Met::It)
    }
}

impl<'de, I: Items<'de>> Visitor<'de> for List<'_, I> {
    type Value = Met;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    other_scalars!(Met::Null, Met::Other);

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Met, A::Error> {
        let level = deeper(self.1)?;
        while self.0.item(level, &mut items)? {}
        Ok(Met::It)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Met, A::Error> {
        Skip(self.1).visit_map(map).map(|()| Met::Other)
    }
}

impl<'de> Visitor<'de> for Skip {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    other_scalars!((), ());

    fn visit_borrowed_str<E>(self, _: &'de str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let level = deeper(self.0)?;
        while items.next_element_seed(Skip(level))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let level = deeper(self.0)?;
        let mut keys = Vec::new();
        while let Some(Scalar::Text(key)) = map.next_key_seed(AsScalar(level))? {
            keys.push(key);
            map.next_value_seed(Skip(level))?;
        }
        once(keys)
    }
}

/// Refuses a key that stands twice.
fn once<E: serde::de::Error>(mut keys: Vec<Cow<'_, str>>) -> Result<(), E> {
    keys.sort_unstable();
    let twice = keys.windows(2).any(|pair| pair.first() == pair.last());
    if twice { Err(E::custom(TWICE)) } else { Ok(()) }
}

impl<'de> Visitor<'de> for AsScalar {
    type Value = Scalar<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
        #[expect(clippy::as_conversions, reason = "beyond i64 a number is as near as a float is")]
        Ok(i64::try_from(value).map_or(Scalar::Float(value as f64), Scalar::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(value))
    }

    // U+0000 stands in JSON only as an escape, so what is borrowed has none.
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Scalar<'de>, E> {
        if text.contains('\0') {
            return Err(E::custom(NUL));
        }
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Scalar<'de>, A::Error> {
        Skip(self.0).visit_seq(items).map(|()| Scalar::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalar<'de>, A::Error> {
        Skip(self.0).visit_map(map).map(|()| Scalar::Nested)
    }
}

/// A member's name: the number of one that is known, or the text.
enum Named<'de> {
    Known(u8),
    Unknown(Cow<'de, str>),
}

struct Key<M>(PhantomData<M>);

impl<'de, M: Members<'de>> DeserializeSeed<'de> for Key<M> {
    type Value = Named<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Named<'de>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de, M: Members<'de>> Visitor<'de> for Key<M> {
    type Value = Named<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Named<'de>, E> {
        Ok(M::field(text).map_or(Named::Unknown(Cow::Borrowed(text)), Named::Known))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Named<'de>, E> {
        if text.contains('\0') {
            return Err(E::custom(NUL));
        }
        let unknown = || Named::Unknown(Cow::Owned(text.to_owned()));
        Ok(M::field(text).map_or_else(unknown, Named::Known))
    }
}

impl<'a> Scalar<'a> {
    /// Whether there is something: neither absent nor `null`.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        !matches!(self, Self::Absent | Self::Null)
    }

    /// The text, where it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text as it stands in the body, where it is one without escapes.
    #[must_use]
    pub const fn borrowed(&self) -> Option<&'a str> {
        match self {
            Self::Text(Cow::Borrowed(text)) => Some(text),
            _ => None,
        }
    }

    /// The number, integer or not, where it is one.
    #[must_use]
    pub const fn number(&self) -> Option<f64> {
        match self {
            #[expect(clippy::as_conversions, reason = "an integer of a vendor as a measured value")]
            Self::Integer(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The integer, where it is one; `4.0` is one, because some vendors' SDKs print floats.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            #[expect(clippy::as_conversions, reason = "checked to be whole and within 2^53")]
            Self::Float(value) if value.fract() == 0.0 && value.abs() < 9.0e15 => {
                Some(*value as i64)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::wire::json;

    /// Reads `{"list": [scalar, …], "one": scalar}`.
    #[derive(Default, Debug)]
    struct Sheet<'de> {
        list: Vec<Scalar<'de>>,
        is_list: Option<Met>,
        one: Scalar<'de>,
    }

    impl<'de> Items<'de> for Vec<Scalar<'de>> {
        fn item<A: SeqAccess<'de>>(
            &mut self,
            level: usize,
            list: &mut A,
        ) -> Result<bool, A::Error> {
            let next = list.next_element_seed(AsScalar(level))?;
            let there = next.is_some();
            self.extend(next);
            Ok(there)
        }
    }

    impl<'de> Members<'de> for Sheet<'de> {
        fn field(key: &str) -> Option<u8> {
            ["list", "one"].iter().zip(0_u8..).find(|(name, _)| **name == key).map(|(_, at)| at)
        }

        fn member<A: MapAccess<'de>>(
            &mut self,
            field: u8,
            level: usize,
            map: &mut A,
        ) -> Result<(), A::Error> {
            if field == 0 {
                self.is_list = Some(map.next_value_seed(List(&mut self.list, level))?);
            } else {
                self.one = map.next_value_seed(AsScalar(level))?;
            }
            Ok(())
        }
    }

    fn read(body: &str) -> Result<Sheet<'_>, &'static str> {
        let mut sheet = Sheet::default();
        match json::document(body.as_bytes(), Object(&mut sheet, 0)) {
            Ok(Met::It) => Ok(sheet),
            Ok(_) => Err("no object"),
            Err(reject) => Err(reject.why),
        }
    }

    #[test]
    fn what_is_known_is_read_and_the_rest_passed_over() {
        let body = r#"{"x":{"a":[1,{"b":null}]},"list":[1,-2.5,"ä","a\nb",null,true,[1],{"k":1}],
                       "one":18446744073709551615,"y":"\u00e4"}"#;
        let sheet = read(body).expect("an object");
        assert_eq!(sheet.is_list, Some(Met::It));
        assert_eq!(sheet.list.iter().filter_map(Scalar::number).collect::<Vec<_>>(), [1.0, -2.5]);
        assert_eq!(sheet.list[2].borrowed(), Some("ä"));
        assert_eq!((sheet.list[3].borrowed(), sheet.list[3].text()), (None, Some("a\nb")));
        assert!(!sheet.list[4].is_there());
        assert_eq!(sheet.list[6..], [Scalar::Nested, Scalar::Nested]);
        assert!(sheet.one.number().is_some() && sheet.one.integer().is_none());
        assert_eq!(read("{}").expect("an object").one, Scalar::Absent);
        let list = |body| read(body).expect("an object").is_list;
        assert_eq!(list(r#"{"list":{"a":1}}"#), Some(Met::Other));
        assert_eq!((list(r#"{"list":null}"#), list("{}")), (Some(Met::Null), None));
        assert_eq!(read("[1]").err(), Some("no object"));
    }

    #[test]
    fn it_is_as_strict_as_the_reader_of_trees() {
        let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
        for body in [
            r#"{"one":1,"one":2}"#,
            r#"{"x":1,"x":2}"#,
            r#"{"x":{"a":1,"a":1}}"#,
            r#"{"list":[{"a":1,"b":1,"a":1}]}"#,
            r#"{"one":"a\u0000"}"#,
            r#"{"x":"a\u0000"}"#,
            r#"{"a\u0000":1}"#,
            r#"{"list":["a\u0000"]}"#,
            r#"{"one":1e999}"#,
            r#"{"x":1e999}"#,
            r#"{"one":1} {}"#,
            r#"{"one":1"#,
            &deep,
        ] {
            let tree = json::parse(body.as_bytes()).expect_err("refused");
            assert_eq!(read(body).err(), Some(tree.why), "{body}");
        }
    }
}
