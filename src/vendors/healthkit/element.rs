//! One element of a push as it stands in the body: its members, borrowed, and nothing judged yet.

use serde::de::{MapAccess, SeqAccess};
use serde_json::value::RawValue;

use crate::error::{Path, Reject};
use crate::vendors::wire::walk::{AsScalar, Items, Members, Met, Object, Scalar};

/// What a sample, a workout or a deletion has in any of its shapes.
///
/// What is not a scalar is kept as its text: sources and metadata are the same in thousands of samples of a push, and
/// the same text is read once.
#[derive(Debug, Default)]
pub(super) struct Element<'de> {
    pub(super) id: Scalar<'de>,
    pub(super) kind: Scalar<'de>,
    pub(super) value: Scalar<'de>,
    pub(super) stage: Scalar<'de>,
    pub(super) unit: Scalar<'de>,
    pub(super) start: Scalar<'de>,
    pub(super) end: Scalar<'de>,
    pub(super) zone: Scalar<'de>,
    pub(super) inferred: Scalar<'de>,
    pub(super) source: Option<&'de str>,
    pub(super) metadata: Option<&'de str>,
    /// Of a workout: what was measured over it.
    pub(super) values: Option<&'de str>,
    /// Of a workout of Health Auto Export: its name, start and end.
    pub(super) name: Scalar<'de>,
    pub(super) began: Scalar<'de>,
    pub(super) ended: Scalar<'de>,
    /// Of the same: `{"qty", "units"}`.
    pub(super) energy: Option<&'de str>,
    pub(super) distance: Option<&'de str>,
}

impl<'de> Members<'de> for Element<'de> {
    fn field(key: &str) -> Option<u8> {
        Some(match key {
            "id" => 0,
            "type" => 1,
            "value" => 2,
            "stage" => 3,
            "unit" => 4,
            "startDate" => 5,
            "endDate" => 6,
            "zoneOffset" => 7,
            "inferredOffset" => 8,
            "source" => 9,
            "metadata" => 10,
            "values" => 11,
            "name" => 12,
            "start" => 13,
            "end" => 14,
            "activeEnergy" => 15,
            "activeEnergyBurned" => 16,
            "distance" => 17,
            _ => return None,
        })
    }

    fn member<A: MapAccess<'de>>(
        &mut self,
        field: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let scalar = match field {
            0 => &mut self.id,
            1 => &mut self.kind,
            2 => &mut self.value,
            3 => &mut self.stage,
            4 => &mut self.unit,
            5 => &mut self.start,
            6 => &mut self.end,
            7 => &mut self.zone,
            8 => &mut self.inferred,
            12 => &mut self.name,
            13 => &mut self.began,
            14 => &mut self.ended,
            _ => {
                let text = map.next_value::<&'de RawValue>()?.get();
                let kept = match field {
                    9 => &mut self.source,
                    10 => &mut self.metadata,
                    11 => &mut self.values,
                    17 => &mut self.distance,
                    _ => &mut self.energy,
                };
                *kept = (text != "null").then_some(text);
                return Ok(());
            }
        };
        *scalar = map.next_value_seed(AsScalar(level))?;
        Ok(())
    }
}

/// An array of elements: each is read and handed over before the next one is.
pub(super) struct Each<F>(pub(super) F);

impl<'de, F: FnMut(bool, &Element<'de>)> Items<'de> for Each<F> {
    fn item<A: SeqAccess<'de>>(&mut self, level: usize, list: &mut A) -> Result<bool, A::Error> {
        let mut element = Element::default();
        let Some(met) = list.next_element_seed(Object(&mut element, level))? else {
            return Ok(false);
        };
        (self.0)(met == Met::It, &element);
        Ok(true)
    }
}

/// An array of texts: each element as it stands in the body.
pub(super) struct EachText<F>(pub(super) F);

impl<'de, F: FnMut(&'de str)> Items<'de> for EachText<F> {
    fn item<A: SeqAccess<'de>>(&mut self, _: usize, list: &mut A) -> Result<bool, A::Error> {
        let Some(raw) = list.next_element::<&'de RawValue>()? else { return Ok(false) };
        (self.0)(raw.get());
        Ok(true)
    }
}

/// A member that must be there, as text.
///
/// # Errors
/// `payload_malformed` at the member.
pub(super) fn text<'s>(scalar: &'s Scalar<'_>, name: &'static str) -> Result<&'s str, Reject> {
    match scalar {
        Scalar::Text(text) => Ok(text),
        other if other.is_there() => Err(malformed(name, "not a string")),
        _ => Err(malformed(name, "a required field is absent")),
    }
}

/// What is not as the contract says, at this member.
pub(super) fn malformed(name: &'static str, why: &'static str) -> Reject {
    Reject::malformed(Path::root().key(name), why)
}

/// What is well-formed and cannot be right, at this member.
pub(super) fn invalid(name: &'static str, why: &'static str) -> Reject {
    Reject::invalid(Path::root().key(name), why)
}
