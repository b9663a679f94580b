//! A strict reader of JSON that can name any place and never quotes a value.
//!
//! Every vendor file, and the door's key reader, read bodies through it, so that no two readers see different
//! things in one body. Strict means: UTF-8 without a byte order mark, no key twice in one object (parsers differ in
//! which one they keep), no U+0000 in a string (Postgres takes none), no more than [`DEPTH_MAX`] levels, nothing
//! after the document. Absent and `null` are told apart only where a caller asks.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::{Path, Reject};

/// The deepest nesting that is read; the deepest vendor body we know has 9 levels.
pub const DEPTH_MAX: usize = 64;

/// A JSON document, borrowing its strings from the body where they have no escapes.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
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
    /// An array.
    List(Vec<Json<'a>>),
    /// An object, in the order of the body; no key twice.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// Reads a body.
///
/// # Errors
/// One reject of kind `payload_malformed` with a byte position, whatever is wrong.
pub fn parse(body: &[u8]) -> Result<Json<'_>, Reject> {
    document(body, Level(0))
}

/// Reads a body by what `seed` makes of it, which holds it to the same rules ([`super::walk`]).
///
/// # Errors
/// As [`parse`].
pub fn document<'de, S: DeserializeSeed<'de>>(
    body: &'de [u8],
    seed: S,
) -> Result<S::Value, Reject> {
    let malformed = |why, position| Reject { position, ..Reject::malformed(Path::root(), why) };
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed("not UTF-8", Some(error.valid_up_to())))?;
    if text.starts_with('\u{feff}') {
        return Err(malformed("a byte order mark", Some(0)));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let refused = |error: &serde_json::Error| malformed(why(error), position(text, error));
    let read = seed.deserialize(&mut reader).map_err(|error| refused(&error))?;
    reader.end().map_err(|error| refused(&error))?;
    Ok(read)
}

pub(super) const TWICE: &str = "a key stands twice in an object";
pub(super) const NUL: &str = "U+0000 in a string";
const DEEP: &str = "nested too deep";

/// The level below this one, where there may be one.
pub(super) fn deeper<E: serde::de::Error>(level: usize) -> Result<usize, E> {
    if level < DEPTH_MAX { Ok(level + 1) } else { Err(E::custom(DEEP)) }
}

/// Our words for a reader's error: its own text may quote the body, so only ours, or its category, get out.
fn why(error: &serde_json::Error) -> &'static str {
    let text = error.to_string();
    [TWICE, NUL, DEEP].into_iter().find(|ours| text.starts_with(ours)).unwrap_or_else(|| {
        if text.starts_with("recursion limit") {
            DEEP
        } else if error.is_eof() {
            "the JSON document ends early"
        } else {
            "not a JSON document"
        }
    })
}

/// The byte position of a reader's line and column.
fn position(text: &str, error: &serde_json::Error) -> Option<usize> {
    let before: usize =
        text.split_inclusive('\n').take(error.line().checked_sub(1)?).map(str::len).sum();
    Some(before + error.column().saturating_sub(1))
}

struct Level(usize);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Json<'de>, D::Error> {
        reader.deserialize_any(self)
    }
}

fn checked<E: serde::de::Error>(text: Cow<'_, str>) -> Result<Cow<'_, str>, E> {
    if text.contains('\0') { Err(E::custom(NUL)) } else { Ok(text) }
}

impl<'de> Visitor<'de> for Level {
    type Value = Json<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        #[expect(clippy::as_conversions, reason = "beyond i64 a number is as near as a float is")]
        Ok(i64::try_from(value).map_or(Json::Float(value as f64), Json::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        checked(Cow::Borrowed(text)).map(Json::Text)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Json<'de>, E> {
        checked(Cow::Owned(text.to_owned())).map(Json::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let level = deeper(self.0)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Level(level))? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json<'de>, A::Error> {
        let level = deeper(self.0)?;
        let mut object: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        while let Some(Json::Text(key)) = members.next_key_seed(Level(level))? {
            let value = members.next_value_seed(Level(level))?;
            object.push((key, value));
        }
        if has_twice(&object) {
            return Err(A::Error::custom(TWICE));
        }
        Ok(Json::Object(object))
    }
}

/// Whether a key stands twice. Few keys are compared with each other; many are sorted first, or a hostile object would
/// cost its square.
fn has_twice(object: &[(Cow<'_, str>, Json<'_>)]) -> bool {
    if object.len() <= 16 {
        let mut rest = object;
        while let Some(((key, _), behind)) = rest.split_first() {
            if behind.iter().any(|(other, _)| other == key) {
                return true;
            }
            rest = behind;
        }
        return false;
    }
    let mut keys: Vec<&str> = object.iter().map(|(key, _)| key.as_ref()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair.first() == pair.last())
}

impl Json<'_> {
    /// The document, as a place to read from.
    #[must_use]
    pub fn root(&self) -> At<'_> {
        At { json: self, parent: None, step: Step::Root }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Root,
    Key(&'static str),
    Index(usize),
    Unnamed,
}

/// A place in a document. It knows its path, and spells it only when something is wrong there.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    json: &'a Json<'a>,
    parent: Option<&'a At<'a>>,
    step: Step,
}

impl<'a> At<'a> {
    /// What stands here.
    #[must_use]
    pub fn json(&self) -> &'a Json<'a> {
        self.json
    }

    /// The member of this name; absent and `null` are both `None`. On anything but an object: `None`.
    #[must_use]
    pub fn get(&'a self, key: &'static str) -> Option<At<'a>> {
        self.member(key).filter(|at| !matches!(at.json, Json::Null))
    }

    /// The member of this name, `null` included.
    #[must_use]
    pub fn member(&'a self, key: &'static str) -> Option<At<'a>> {
        let Json::Object(members) = self.json else { return None };
        let (_, json) = members.iter().find(|(name, _)| name == key)?;
        Some(At { json, parent: Some(self), step: Step::Key(key) })
    }

    /// The member of this name, which must be there.
    ///
    /// # Errors
    /// `payload_malformed` at the member's path where it is absent or `null`.
    pub fn need(&'a self, key: &'static str) -> Result<At<'a>, Reject> {
        self.get(key)
            .ok_or_else(|| Reject::malformed(self.path().key(key), "a required field is absent"))
    }

    /// The elements of an array.
    ///
    /// # Errors
    /// `payload_malformed` where this is no array.
    pub fn items(&'a self) -> Result<impl Iterator<Item = At<'a>>, Reject> {
        let Json::List(list) = self.json else {
            return Err(self.malformed("not an array"));
        };
        Ok(list.iter().enumerate().map(|(index, json)| At {
            json,
            parent: Some(self),
            step: Step::Index(index),
        }))
    }

    /// The members of an object with their keys, for maps whose keys are data.
    ///
    /// # Errors
    /// `payload_malformed` where this is no object.
    pub fn members(&'a self) -> Result<impl Iterator<Item = (&'a str, At<'a>)>, Reject> {
        let Json::Object(members) = self.json else {
            return Err(self.malformed("not an object"));
        };
        Ok(members.iter().map(|(key, json)| {
            (key.as_ref(), At { json, parent: Some(self), step: Step::Unnamed })
        }))
    }

    /// This as an object, which it must be.
    ///
    /// # Errors
    /// `payload_malformed` where it is none.
    pub fn object(&'a self) -> Result<&'a At<'a>, Reject> {
        match self.json {
            Json::Object(_) => Ok(self),
            _ => Err(self.malformed("not an object")),
        }
    }

    /// This as text.
    ///
    /// # Errors
    /// `payload_malformed` where it is none.
    pub fn text(&self) -> Result<&'a str, Reject> {
        match self.json {
            Json::Text(text) => Ok(text),
            _ => Err(self.malformed("not a string")),
        }
    }

    /// This as a finite number; integers and floats alike.
    ///
    /// # Errors
    /// `payload_malformed` where it is none.
    pub fn number(&self) -> Result<f64, Reject> {
        match self.json {
            #[expect(clippy::as_conversions, reason = "an integer of a vendor as a measured value")]
            Json::Integer(value) => Ok(*value as f64),
            Json::Float(value) => Ok(*value),
            _ => Err(self.malformed("not a number")),
        }
    }

    /// This as an integer; `4.0` is one, because some vendors' SDKs print floats.
    ///
    /// # Errors
    /// `payload_malformed` where it is none.
    pub fn integer(&self) -> Result<i64, Reject> {
        match self.json {
            Json::Integer(value) => Ok(*value),
            #[expect(clippy::as_conversions, reason = "checked to be whole and within 2^53")]
            Json::Float(value) if value.fract() == 0.0 && value.abs() < 9.0e15 => Ok(*value as i64),
            _ => Err(self.malformed("not an integer")),
        }
    }

    /// This as a truth value.
    ///
    /// # Errors
    /// `payload_malformed` where it is none.
    pub fn boolean(&self) -> Result<bool, Reject> {
        match self.json {
            Json::Bool(value) => Ok(*value),
            _ => Err(self.malformed("not a boolean")),
        }
    }

    /// The path to here.
    #[must_use]
    pub fn path(&self) -> Path {
        let parent = self.parent.map_or_else(Path::root, At::path);
        match self.step {
            Step::Root => parent,
            Step::Key(key) => parent.key(key),
            Step::Index(index) => parent.at(index),
            Step::Unnamed => parent.unnamed(),
        }
    }

    /// A reject of this place: not what the contract says.
    #[must_use]
    pub fn malformed(&self, why: &'static str) -> Reject {
        Reject::malformed(self.path(), why)
    }

    /// A reject of this place: well-formed, and cannot be right.
    #[must_use]
    pub fn invalid(&self, why: &'static str) -> Reject {
        Reject::invalid(self.path(), why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_itself() {
        let json = parse(br#"{"data":[{"a":1},{"a":"x","n":null}]}"#).expect("JSON");
        let root = json.root();
        let data = root.need("data").expect("there");
        let second = data.items().expect("a list").nth(1).expect("two");
        assert_eq!(second.need("a").expect("there").number().unwrap_err().at.as_str(), "data[1].a");
        assert!(second.get("n").is_none());
        assert!(second.member("n").is_some());
        assert_eq!(second.need("n").unwrap_err().why, "a required field is absent");
    }

    #[test]
    fn what_is_not_strict_is_refused_without_a_quote() {
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        let cases: [(&[u8], &str); 10] = [
            (b"", "the JSON document ends early"),
            (b"{\"a\":1", "the JSON document ends early"),
            (b"{\"secret\":1,\"secret\":2}", TWICE),
            (b"[\"a\\u0000b\"]", NUL),
            (b"\xef\xbb\xbf{}", "a byte order mark"),
            (b"{\"a\":\"\xff\"}", "not UTF-8"),
            (b"[NaN]", "not a JSON document"),
            (b"[1e999]", "not a JSON document"),
            (b"{} jane.doe@example.com", "not a JSON document"),
            (deep.as_bytes(), DEEP),
        ];
        for (body, why) in cases {
            let reject = parse(body).expect_err("refused");
            assert_eq!(reject.why, why);
            assert_eq!(reject.at, Path::root());
        }
    }

    #[test]
    fn numbers_are_what_they_say() {
        let json = parse(b"[7902.0, 7902, 18446744073709551615, -0.12, 1.5]").expect("JSON");
        let root = json.root();
        let all: Vec<_> = root.items().expect("a list").collect();
        assert_eq!(all[0].integer(), Ok(7902));
        assert_eq!(all[1].number(), Ok(7902.0));
        assert!(all[2].integer().is_err(), "more than 64 bits is not guessed at");
        assert!(all[4].integer().is_err());
    }
}
