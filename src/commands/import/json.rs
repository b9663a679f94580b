//! A JSON of Health Auto Export, or a push of our own shape that is too large for one request, as a stream.
//!
//! Elements go through as they stand in the file, byte for byte; what is around them is written anew.

use std::cell::RefCell;
use std::io::{BufRead, Read};

use serde::de::{DeserializeSeed as _, Error as _, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::Failure;
use super::input::Input;
use super::piece::{ARRAYS, PIECE_BYTES, Pieces, head};
use crate::vendors::wire::json;
use crate::vendors::wire::walk::{AsScalar, Items, List, Members, Met, Object, Scalar};

/// Reads the file into pieces.
///
/// # Errors
/// Where it is no such file; where nobody takes the pieces.
pub(super) fn read<R: BufRead>(input: Input<R>, pieces: &mut Pieces<'_>) -> Result<(), Failure> {
    let bounded = Bounded(RefCell::new(input));
    bounded.allow();
    let mut reader = serde_json::Deserializer::from_reader(&bounded);
    let mut root = Root { bounded: &bounded, pieces, failure: None, arrays: 0 };
    let read = Object(&mut root, 0).deserialize(&mut reader).and_then(|met| {
        reader.end()?;
        Ok(met)
    });
    let Root { failure, arrays, .. } = root;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let here = bounded.0.borrow();
    match read {
        Ok(Met::It) if arrays > 0 => Ok(()),
        Ok(_) => Err(here.failure("no push: there are no arrays of samples in `data`")),
        Err(error) => Err(match error.io_error_kind() {
            Some(kind) => here.unread(kind),
            None if error.is_eof() => here.failure("the file ends early"),
            None => here.failure("not a JSON document, or a key stands twice in it"),
        }),
    }
}

/// The input, in the hands of the reader and of who says what the next element may take.
struct Bounded<R>(RefCell<Input<R>>);

impl<R: BufRead> Bounded<R> {
    fn allow(&self) {
        self.0.borrow_mut().allow(PIECE_BYTES);
    }
}

impl<R: BufRead> Read for &Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().read(into)
    }
}

/// The document.
struct Root<'r, 'p, 'f, R> {
    bounded: &'r Bounded<R>,
    pieces: &'p mut Pieces<'f>,
    failure: Option<Failure>,
    /// How many arrays of ours were met.
    arrays: usize,
}

impl<R: BufRead> Root<'_, '_, '_, R> {
    /// Keeps why nobody takes the pieces, because a reader's error cannot carry it.
    fn stop<E: serde::de::Error>(&mut self, done: Result<(), Failure>) -> Result<(), E> {
        self.bounded.allow();
        done.map_err(|failure| {
            self.failure = Some(failure);
            E::custom("stopped")
        })
    }
}

impl<'de, R: BufRead> Members<'de> for Root<'_, '_, '_, R> {
    fn field(key: &str) -> Option<u8> {
        (key == "data").then_some(0)
    }

    fn member<A: MapAccess<'de>>(
        &mut self,
        _: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        map.next_value_seed(Object(&mut Arrays(self), level)).map(|_| ())
    }

    fn unknown(&mut self) {
        self.bounded.allow();
    }
}

/// The members of `data`.
struct Arrays<'a, 'r, 'p, 'f, R>(&'a mut Root<'r, 'p, 'f, R>);

impl<'de, R: BufRead> Members<'de> for Arrays<'_, '_, '_, '_, R> {
    fn field(key: &str) -> Option<u8> {
        let mut names = ARRAYS.iter().copied().chain(["metrics"]).zip(0..);
        names.find(|(name, _)| *name == key).map(|(_, at)| at)
    }

    fn member<A: MapAccess<'de>>(
        &mut self,
        field: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let root = &mut *self.0;
        let met = match ARRAYS.get(usize::from(field)) {
            Some(array) => map.next_value_seed(List(&mut Elements { root, array }, level))?,
            None => map.next_value_seed(List(&mut Metrics(root), level))?,
        };
        self.0.arrays += usize::from(met == Met::It);
        Ok(())
    }

    fn unknown(&mut self) {
        self.0.bounded.allow();
    }
}

/// The elements of an array.
struct Elements<'a, 'r, 'p, 'f, R> {
    root: &'a mut Root<'r, 'p, 'f, R>,
    array: &'static str,
}

impl<'de, R: BufRead> Items<'de> for Elements<'_, '_, '_, '_, R> {
    fn item<A: SeqAccess<'de>>(&mut self, _: usize, list: &mut A) -> Result<bool, A::Error> {
        let Some(element) = list.next_element::<Box<RawValue>>()? else { return Ok(false) };
        let text = element.get();
        let peeked = Peek::of(text);
        let kind = peeked.kind.text().unwrap_or(self.array);
        self.root.pieces.count(kind, peeked.at());
        let added = self.root.pieces.add(self.array, text.as_bytes());
        self.root.stop(added)?;
        Ok(true)
    }
}

/// The series of `metrics`.
struct Metrics<'a, 'r, 'p, 'f, R>(&'a mut Root<'r, 'p, 'f, R>);

impl<'de, R: BufRead> Items<'de> for Metrics<'_, '_, '_, '_, R> {
    fn item<A: SeqAccess<'de>>(&mut self, level: usize, list: &mut A) -> Result<bool, A::Error> {
        let mut series = Series { root: &mut *self.0, name: None, units: None, late: None };
        let Some(met) = list.next_element_seed(Object(&mut series, level))? else {
            return Ok(false);
        };
        let Series { name, units, late, .. } = series;
        // Its samples stood before its name and waited for it.
        if let (Met::It, Some(name), Some(late)) = (met, name, late) {
            let head = head(&name, units.as_deref());
            let mut samples = Samples { root: &mut *self.0, kind: plain(&name), head };
            let read = json::document(late.get().as_bytes(), List(&mut samples, 0));
            if let Some(failure) = self.0.failure.take() {
                self.0.stop(Err(failure))?;
            }
            read.map_err(|_| A::Error::custom("a list"))?;
        }
        self.0.pieces.close_series();
        Ok(true)
    }
}

/// One series.
struct Series<'a, 'r, 'p, 'f, R> {
    root: &'a mut Root<'r, 'p, 'f, R>,
    name: Option<Box<RawValue>>,
    units: Option<Box<RawValue>>,
    late: Option<Box<RawValue>>,
}

impl<'de, R: BufRead> Members<'de> for Series<'_, '_, '_, '_, R> {
    fn field(key: &str) -> Option<u8> {
        ["name", "units", "data"].iter().zip(0..).find(|(name, _)| **name == key).map(|(_, at)| at)
    }

    fn member<A: MapAccess<'de>>(
        &mut self,
        field: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match (field, &self.name, &self.units) {
            (0, ..) => self.name = Some(map.next_value()?),
            (1, ..) => self.units = Some(map.next_value()?),
            (_, Some(name), Some(units)) => {
                let head = head(name, Some(units));
                let kind = plain(name);
                let mut samples = Samples { root: &mut *self.root, kind, head };
                map.next_value_seed(List(&mut samples, level))?;
            }
            _ => self.late = Some(map.next_value()?),
        }
        Ok(())
    }
}

/// The samples of a series.
struct Samples<'a, 'r, 'p, 'f, R> {
    root: &'a mut Root<'r, 'p, 'f, R>,
    kind: String,
    head: Vec<u8>,
}

impl<'de, R: BufRead> Items<'de> for Samples<'_, '_, '_, '_, R> {
    fn item<A: SeqAccess<'de>>(&mut self, _: usize, list: &mut A) -> Result<bool, A::Error> {
        let Some(element) = list.next_element::<Box<RawValue>>()? else { return Ok(false) };
        let text = element.get();
        self.root.pieces.count(&self.kind, Peek::of(text).at());
        let added = self.root.pieces.add_to_series(&self.head, text.as_bytes());
        self.root.stop(added)?;
        Ok(true)
    }
}

/// The name of a series without its quotes.
fn plain(name: &RawValue) -> String {
    name.get().trim_matches('"').to_owned()
}

/// What an element is counted by.
#[derive(Default)]
struct Peek<'t> {
    kind: Scalar<'t>,
    dates: [Scalar<'t>; 3],
}

impl<'t> Peek<'t> {
    fn of(text: &'t str) -> Self {
        let mut peek = Self::default();
        // What cannot be read is for who keeps the push to reject.
        let read = json::document(text.as_bytes(), Object(&mut peek, 0));
        if read.is_ok() { peek } else { Self::default() }
    }

    fn at(&self) -> Option<&str> {
        self.dates.iter().find_map(Scalar::text)
    }
}

impl<'de> Members<'de> for Peek<'de> {
    fn field(key: &str) -> Option<u8> {
        let names = ["type", "startDate", "date", "start"];
        names.iter().zip(0..).find(|(name, _)| **name == key).map(|(_, at)| at)
    }

    fn member<A: MapAccess<'de>>(
        &mut self,
        field: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let value = map.next_value_seed(AsScalar(level))?;
        match usize::from(field).checked_sub(1).and_then(|at| self.dates.get_mut(at)) {
            Some(date) => *date = value,
            None => self.kind = value,
        }
        Ok(())
    }
}
