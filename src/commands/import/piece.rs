//! Pieces: a file of any size as pushes of a bounded one, each a whole push of its own.
//!
//! Where a piece ends depends on the file alone, so that the same file gives the same pieces, and an import that
//! stopped can go on behind the last one that was accepted.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::value::RawValue;

use super::Failure;
use crate::vendors::wire::gzip;

/// The most bytes of a piece before it is packed, and of one element. Below what the ingress takes unpacked, because a
/// piece that packs too well is sent plain.
pub(super) const PIECE_BYTES: usize = 8 * 1024 * 1024;
/// What stands in a piece around its elements, at most.
const AROUND_BYTES: usize = 4096;
/// How many types are counted by name.
const TYPES_MAX: usize = 400;

/// The arrays of a push that elements of a file go to, as they are called there.
pub(super) const ARRAYS: [&str; 10] = [
    "records",
    "sleep",
    "workouts",
    "deleted",
    "stateOfMind",
    "medications",
    "symptoms",
    "cycleTracking",
    "ecg",
    "heartRateNotifications",
];

/// A push, ready to be sent.
#[derive(Debug)]
pub(super) struct Piece {
    /// Counted from 1.
    pub(super) number: u64,
    /// The elements in it.
    pub(super) samples: u64,
    /// The body, as it is sent.
    pub(super) body: Vec<u8>,
    /// Whether that is gzip.
    pub(super) packed: bool,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Elements in all pieces.
    pub(super) samples: u64,
    /// Pieces.
    pub(super) pieces: u64,
    /// Elements by type.
    pub(super) types: BTreeMap<String, u64>,
    /// The first and the last day of them, as the file writes days.
    pub(super) days: Option<(String, String)>,
    /// What the file has and no push has, by its name.
    pub(super) not_read: BTreeMap<&'static str, u64>,
    /// Elements that are too large for a piece.
    pub(super) too_large: u64,
}

/// Where pieces go.
pub(super) type Give<'f> = &'f mut dyn FnMut(Piece) -> Result<(), Failure>;

/// Elements on their way into pieces.
pub(super) struct Pieces<'f> {
    give: Give<'f>,
    /// Whether they will be sent; what is only counted need not be packed.
    sent: bool,
    arrays: [Vec<u8>; ARRAYS.len()],
    metrics: Vec<u8>,
    /// Whether the last series of `metrics` is open.
    open: bool,
    samples: u64,
    bytes: usize,
    tally: Tally,
}

impl<'f> Pieces<'f> {
    /// Pieces that go to `give`; `sent` says whether they are sent from there.
    pub(super) fn new(sent: bool, give: Give<'f>) -> Self {
        Self {
            give,
            sent,
            arrays: std::array::from_fn(|_| Vec::new()),
            metrics: Vec::new(),
            open: false,
            samples: 0,
            bytes: 0,
            tally: Tally::default(),
        }
    }

    /// Adds an element (JSON) to an array of [`ARRAYS`].
    ///
    /// # Errors
    /// Where a piece is full and nobody takes it.
    pub(super) fn add(&mut self, array: &str, element: &[u8]) -> Result<(), Failure> {
        if !self.room(element.len())? {
            return Ok(());
        }
        let place = ARRAYS.iter().position(|name| *name == array);
        if let Some(list) = place.and_then(|place| self.arrays.get_mut(place)) {
            if !list.is_empty() {
                list.push(b',');
            }
            list.extend_from_slice(element);
        }
        Ok(())
    }

    /// Adds an element (JSON) to the series of `metrics` that has this head: `{"name":…,"units":…`.
    ///
    /// # Errors
    /// As [`Pieces::add`].
    pub(super) fn add_to_series(&mut self, head: &[u8], element: &[u8]) -> Result<(), Failure> {
        if !self.room(element.len().saturating_add(head.len()))? {
            return Ok(());
        }
        if self.open {
            self.metrics.push(b',');
        } else {
            if !self.metrics.is_empty() {
                self.metrics.push(b',');
            }
            self.metrics.extend_from_slice(head);
            self.metrics.extend_from_slice(br#","data":["#);
            self.open = true;
        }
        self.metrics.extend_from_slice(element);
        Ok(())
    }

    /// What comes next in `metrics` is of another series.
    pub(super) fn close_series(&mut self) {
        if std::mem::take(&mut self.open) {
            self.metrics.extend_from_slice(b"]}");
        }
    }

    /// Counts an element by its type and its day, `2026-03-29…`.
    pub(super) fn count(&mut self, kind: &str, at: Option<&str>) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_known = !kind.is_empty() && kind.len() <= 100 && kind.bytes().all(plain);
        // A name from a file is printed to a terminal, so it is an identifier or it is not printed.
        let kind = if is_known { kind } else { "other" };
        let full = self.tally.types.len() >= TYPES_MAX && !self.tally.types.contains_key(kind);
        let kind = if full { "other" } else { kind };
        match self.tally.types.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                self.tally.types.insert(kind.to_owned(), 1);
            }
        }
        let Some(day) = at.and_then(|at| at.get(..10)) else { return };
        if !day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return;
        }
        let (first, last) = self.tally.days.get_or_insert_with(|| (day.to_owned(), day.to_owned()));
        if day < first.as_str() {
            day.clone_into(first);
        }
        if day > last.as_str() {
            day.clone_into(last);
        }
    }

    /// Counts what no push has.
    pub(super) fn pass_over(&mut self, what: &'static str) {
        *self.tally.not_read.entry(what).or_default() += 1;
    }

    /// Makes room for an element; `false` where no piece has so much.
    fn room(&mut self, bytes: usize) -> Result<bool, Failure> {
        let bytes = bytes.saturating_add(1);
        if bytes > PIECE_BYTES - AROUND_BYTES {
            self.tally.too_large += 1;
            return Ok(false);
        }
        if self.bytes.saturating_add(bytes) > PIECE_BYTES - AROUND_BYTES {
            self.flush()?;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.samples += 1;
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.samples == 0 {
            return Ok(());
        }
        self.close_series();
        let mut body = Vec::with_capacity(self.bytes.saturating_add(AROUND_BYTES));
        body.extend_from_slice(br#"{"provider":"apple-import","data":{"#);
        let mut first = true;
        let all = ARRAYS.iter().copied().zip(&mut self.arrays);
        for (name, list) in all.chain([("metrics", &mut self.metrics)]) {
            if list.is_empty() {
                continue;
            }
            let comma = if std::mem::take(&mut first) { "" } else { "," };
            body.extend_from_slice(format!(r#"{comma}"{name}":["#).as_bytes());
            body.append(list);
            body.push(b']');
        }
        body.extend_from_slice(b"}}");
        self.tally.pieces += 1;
        self.tally.samples += self.samples;
        let (body, packed) = if self.sent { pack(body) } else { (body, false) };
        let (number, samples) = (self.tally.pieces, std::mem::take(&mut self.samples));
        self.bytes = 0;
        (self.give)(Piece { number, samples, body, packed })
    }

    /// The last piece; what there was in all, and whether that was taken.
    pub(super) fn end(mut self) -> (Tally, Result<(), Failure>) {
        let flushed = self.flush();
        (self.tally, flushed)
    }
}

/// A body packed, where that is smaller and the receiver will unpack it: samples without ids pack so well that they
/// would pass for a bomb, and those are sent as they are.
fn pack(body: Vec<u8>) -> (Vec<u8>, bool) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = encoder.write_all(&body).and_then(|()| encoder.finish());
    match packed {
        Ok(packed)
            if packed.len() < body.len()
                && body.len() <= packed.len().saturating_mul(gzip::RATIO_MAX) =>
        {
            (packed, true)
        }
        _ => (body, false),
    }
}

/// The head of a series, from the texts of its name and units as they stand in the file.
pub(super) fn head(name: &RawValue, units: Option<&RawValue>) -> Vec<u8> {
    let units = units.map(|units| format!(r#","units":{units}"#)).unwrap_or_default();
    format!(r#"{{"name":{name}{units}"#).into_bytes()
}
