//! The language of the system: what stands in topics, rows and events. Pure, and it imports nothing of ours but
//! [`crate::error`].
//!
//! One type per station of the journey, each made in one place: a request becomes a [`record::Record`] at the
//! ingress, normalise makes [`event::NormalisedRecord`]s of it, decide makes an [`state::Outcome`] of a batch of
//! those, and emit makes records of that again. Past the edge nothing is "not yet checked".

/// Writes a type as its name and reads it back, in JSON and in Avro alike: an Avro enum would break old readers
/// with its first new symbol, and a uuid's own serde form is 16 raw bytes in Avro.
macro_rules! as_text {
    ($type:ty, $what:literal) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl ::serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, out: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        out.write_str($what)
                    }
                    fn visit_str<E: ::serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        <$type>::parse(text).ok_or_else(|| E::custom(concat!("not ", $what)))
                    }
                }
                from.deserialize_str(Text)
            }
        }
    };
}

/// Writes and reads a record by the position of its fields where the form is Avro, and by their names where people
/// read it. By name the library looks each field up in the schema, which costs more than the value. The type derives
/// serde's traits with `remote = "Self"`; its fields stand in the schema's order, which the goldens hold.
macro_rules! by_position {
    ($type:ident $(as $name:literal)? { $($field:ident: $kind:ty),+ $(,)? }) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                #[derive(::serde::Serialize)]
                $(#[serde(rename = $name)])?
                struct $type<'a>($(&'a $kind),+);
                if out.is_human_readable() {
                    return Self::serialize(self, out);
                }
                ::serde::Serialize::serialize(&$type($(&self.$field),+), out)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                #[derive(::serde::Deserialize)]
                $(#[serde(rename = $name)])?
                struct $type($($kind),+);
                if from.is_human_readable() {
                    return Self::deserialize(from);
                }
                let $type($($field),+) = ::serde::Deserialize::deserialize(from)?;
                Ok(Self { $($field),+ })
            }
        }
    };
}

pub mod avro;
pub mod connection;
pub mod contract;
pub mod event;
pub mod id;
pub mod metric;
pub mod outbox;
pub mod record;
pub mod sample;
pub mod state;
pub mod time;
pub mod trigger;
