//! Apple's `export.xml`, as a stream: an element is read, written as an element of a push, and forgotten.
//!
//! # What is read
//! `Record`s and `Workout`s. A `Correlation` (blood pressure, a meal) repeats records that stand at the top as well, so
//! what is inside it is passed over. Of a sample's metadata two things are sent: that a person typed it in, and its time
//! zone. Names of devices and the person's own data (`Me`) stay in the file: of a source's name only what is on a closed
//! list goes out, of a device its product type. `device` has an address in memory that is another in each export.
//!
//! # Time
//! A date has the offset of the phone when it exported, not of the sample. It is sent as `inferredOffset`, which counts
//! only where the sample has no zone of its own.
//!
//! # What is not XML's own
//! Apple's file has an internal DTD of elements and attributes: it is passed over, and nothing of it is ever resolved.
//! A file that declares an entity, or names an external DTD, or refers to an entity that is not one of XML's five, is
//! refused where that stands.

use std::io::{BufRead, Write as _};

use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use super::Failure;
use super::input::Input;
use super::piece::Pieces;
use crate::vendors::healthkit::{is_product_type, named, spelled};

/// The most bytes between two `<`: Apple's DTD has 8 KB, a record less than one.
const MARKUP_BYTES_MAX: usize = 1024 * 1024;
/// The most bytes that one record or workout may become.
const ELEMENT_BYTES_MAX: usize = 1024 * 1024;

/// Reads the file into pieces.
///
/// # Errors
/// Where it is no such file, from the place where it is not; where nobody takes the pieces.
pub(super) fn read<R: BufRead>(input: Input<R>, pieces: &mut Pieces<'_>) -> Result<(), Failure> {
    let mut reader = Reader::from_reader(input);
    let mut walk = Walk { pieces, path: Vec::new(), current: None, whole: false };
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        reader.get_mut().allow(MARKUP_BYTES_MAX);
        let event = match reader.read_event_into(&mut buffer) {
            Ok(event) => event,
            Err(quick_xml::Error::Io(error)) => return Err(reader.get_ref().unread(error.kind())),
            Err(_) => return Err(reader.get_ref().failure("not well-formed XML")),
        };
        if matches!(event, Event::Eof) {
            break;
        }
        walk.event(&event).map_err(|wrong| match wrong {
            Wrong::Here(why) => reader.get_ref().failure(why),
            Wrong::Failed(failure) => failure,
        })?;
    }
    if !walk.whole || !walk.path.is_empty() {
        return Err(reader.get_ref().failure("the file ends early"));
    }
    Ok(())
}

/// What went wrong: something of the file here, or the import itself.
enum Wrong {
    Here(&'static str),
    Failed(Failure),
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// An element that we know, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    HealthData,
    Record,
    Workout,
    Correlation,
    Metadata,
    Statistics,
    Other,
}

struct Walk<'p, 'f> {
    pieces: &'p mut Pieces<'f>,
    path: Vec<Name>,
    current: Option<Element>,
    /// Whether the root was closed.
    whole: bool,
}

/// A record or a workout, as far as it was read.
#[derive(Debug, Default)]
struct Element {
    is_workout: bool,
    kind: String,
    source: String,
    device: String,
    unit: Option<String>,
    start: String,
    end: String,
    value: Option<String>,
    distance: (Option<String>, Option<String>),
    energy: (Option<String>, Option<String>),
    user_entered: bool,
    zone: Option<String>,
    /// Of a workout: `{"type","unit","value"}`, with commas between them.
    values: Vec<u8>,
}

impl Walk<'_, '_> {
    fn event(&mut self, event: &Event<'_>) -> Result<(), Wrong> {
        match event {
            Event::Start(tag) => self.open(tag),
            Event::Empty(tag) => {
                self.open(tag)?;
                self.close()
            }
            Event::End(_) => self.close(),
            Event::DocType(text) => doctype(text),
            Event::GeneralRef(reference) => reference_is_xmls(reference),
            Event::Decl(declaration) => match declaration.encoding() {
                None => Ok(()),
                Some(Ok(name)) if name.eq_ignore_ascii_case("utf-8") => Ok(()),
                Some(_) => Err(Wrong::Here("an encoding other than UTF-8")),
            },
            _ => Ok(()),
        }
    }

    fn open(&mut self, tag: &BytesStart<'_>) -> Result<(), Wrong> {
        let name = match tag.name().0 {
            "HealthData" => Name::HealthData,
            "Record" => Name::Record,
            "Workout" => Name::Workout,
            "Correlation" => Name::Correlation,
            "MetadataEntry" => Name::Metadata,
            "WorkoutStatistics" => Name::Statistics,
            _ => Name::Other,
        };
        match (self.path.as_slice(), name) {
            ([], Name::HealthData) => {}
            ([], _) => return Err(Wrong::Here("not an export of Apple Health")),
            ([_], Name::Record) => self.current = Some(element(tag, false)?),
            ([_], Name::Workout) => self.current = Some(element(tag, true)?),
            ([_], _) => {
                attributes(tag, |_, _| Ok(()))?;
                self.pieces.pass_over(passed_over(tag.name().0));
            }
            ([_, Name::Record | Name::Workout], Name::Metadata) => self.metadata(tag)?,
            ([_, Name::Workout], Name::Statistics) => self.statistics(tag)?,
            // What is not read is still held to the rules: an entity is refused wherever it stands.
            _ => attributes(tag, |_, _| Ok(()))?,
        }
        self.path.push(name);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Wrong> {
        self.path.pop();
        match self.path.len() {
            0 => self.whole = true,
            1 => {
                if let Some(element) = self.current.take() {
                    element.write(self.pieces)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn metadata(&mut self, tag: &BytesStart<'_>) -> Result<(), Wrong> {
        let (mut key, mut value) = (String::new(), String::new());
        attributes(tag, |name, text| {
            match name {
                "key" => text.clone_into(&mut key),
                "value" => text.clone_into(&mut value),
                _ => {}
            }
            Ok(())
        })?;
        if let Some(element) = &mut self.current {
            match key.as_str() {
                "HKWasUserEntered" => element.user_entered = value == "1",
                "HKTimeZone" => element.zone = Some(value),
                _ => {}
            }
        }
        Ok(())
    }

    fn statistics(&mut self, tag: &BytesStart<'_>) -> Result<(), Wrong> {
        let mut kind = String::new();
        let (mut unit, mut sum) = (None, None);
        let mut spread = Vec::new();
        attributes(tag, |name, text| {
            match name {
                "type" => text.clone_into(&mut kind),
                "unit" => unit = Some(text.to_owned()),
                "sum" => sum = Some(text.to_owned()),
                "average" | "minimum" | "maximum" => {
                    spread.push((name.to_owned(), text.to_owned()))
                }
                _ => {}
            }
            Ok(())
        })?;
        let Some(element) = &mut self.current else { return Ok(()) };
        let kind = kind.strip_prefix("HKQuantityTypeIdentifier").unwrap_or(&kind);
        if let Some(sum) = sum {
            element.measured(kind, &sum, unit.as_deref())?;
        }
        for (statistic, value) in spread {
            element.measured(&format!("{statistic}{kind}"), &value, unit.as_deref())?;
        }
        Ok(())
    }
}

/// What of a file is counted and not sent.
fn passed_over(name: &str) -> &'static str {
    match name {
        "ExportDate" => "ExportDate",
        "Me" => "Me",
        "Correlation" => "Correlation",
        "ActivitySummary" => "ActivitySummary",
        "ClinicalRecord" => "ClinicalRecord",
        "Audiogram" => "Audiogram",
        "VisionPrescription" => "VisionPrescription",
        _ => "other",
    }
}

/// Calls `with` for each attribute; its value with XML's own references resolved, and no others.
fn attributes(
    tag: &BytesStart<'_>,
    mut with: impl FnMut(&str, &str) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|_| Wrong::Here("an attribute that is none"))?;
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|_| Wrong::Here("a reference to an entity, or to no character"))?;
        with(attribute.key.0, &value)?;
    }
    Ok(())
}

/// A DTD declares elements and attributes, or the file is refused.
fn doctype(text: &str) -> Result<(), Wrong> {
    if text.contains("<!ENTITY") {
        return Err(Wrong::Here("a DTD that declares an entity"));
    }
    let before = text.split('[').next().unwrap_or_default();
    let external = before.split_whitespace().any(|word| word == "SYSTEM" || word == "PUBLIC");
    if external { Err(Wrong::Here("an external DTD")) } else { Ok(()) }
}

fn reference_is_xmls(reference: &BytesRef<'_>) -> Result<(), Wrong> {
    let character = matches!(reference.resolve_char_ref(), Ok(Some(_)));
    if character || ["lt", "gt", "amp", "apos", "quot"].contains(&&**reference) {
        return Ok(());
    }
    Err(Wrong::Here("a reference to an entity, or to no character"))
}

fn element(tag: &BytesStart<'_>, is_workout: bool) -> Result<Element, Wrong> {
    let mut element = Element { is_workout, ..Element::default() };
    attributes(tag, |name, text| {
        let owned = || Some(text.to_owned());
        match name {
            "type" | "workoutActivityType" => text.clone_into(&mut element.kind),
            "sourceName" => text.clone_into(&mut element.source),
            "device" => text.clone_into(&mut element.device),
            "unit" => element.unit = owned(),
            "startDate" => text.clone_into(&mut element.start),
            "endDate" => text.clone_into(&mut element.end),
            "value" => element.value = owned(),
            "totalDistance" => element.distance.0 = owned(),
            "totalDistanceUnit" => element.distance.1 = owned(),
            "totalEnergyBurned" => element.energy.0 = owned(),
            "totalEnergyBurnedUnit" => element.energy.1 = owned(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(element)
}

impl Element {
    /// One more figure of a workout.
    fn measured(&mut self, kind: &str, value: &str, unit: Option<&str>) -> Result<(), Wrong> {
        if self.values.len() > ELEMENT_BYTES_MAX {
            return Err(Wrong::Here("more in one place than is read"));
        }
        if !self.values.is_empty() {
            self.values.push(b',');
        }
        let mut one = Object::new(&mut self.values);
        one.text("type", kind);
        one.value("value", value);
        if let Some(unit) = unit {
            one.text("unit", unit);
        }
        one.end();
        Ok(())
    }

    /// This as an element of a push. Nothing is judged here: what is wrong with a value or a date is for who keeps the
    /// push to say, with its position.
    fn write(mut self, pieces: &mut Pieces<'_>) -> Result<(), Wrong> {
        if self.is_workout && self.values.is_empty() {
            self.totals()?;
        }
        let mut out = Vec::with_capacity(256);
        let mut object = Object::new(&mut out);
        object.text("type", &self.kind);
        if let Some(value) = &self.value {
            object.value("value", value);
        }
        if let Some(unit) = &self.unit {
            object.text("unit", unit);
        }
        let offset = object.moment("startDate", &self.start);
        object.moment("endDate", &self.end);
        if let Some(offset) = offset {
            object.text("inferredOffset", &offset);
        }
        self.source(&mut object);
        if self.user_entered || self.zone.is_some() {
            object.open("metadata");
            if self.user_entered {
                object.text("HKWasUserEntered", "1");
            }
            if let Some(zone) = &self.zone {
                object.text("HKTimeZone", zone);
            }
            object.end();
        }
        if !self.values.is_empty() {
            object.list("values", &self.values);
        }
        object.end();
        let array = if self.is_workout { "workouts" } else { "records" };
        pieces.count(&self.kind, Some(&self.start));
        Ok(pieces.add(array, &out)?)
    }

    /// What files of before iOS 16 say of a workout.
    fn totals(&mut self) -> Result<(), Wrong> {
        let on_foot = ["Walking", "Running", "Hiking"].iter().any(|name| self.kind.ends_with(name));
        let (energy, distance) =
            (std::mem::take(&mut self.energy), std::mem::take(&mut self.distance));
        if let (Some(energy), unit) = energy {
            self.measured("activeEnergyBurned", &energy, unit.as_deref())?;
        }
        if let ((Some(distance), unit), true) = (distance, on_foot) {
            self.measured("distanceWalkingRunning", &distance, unit.as_deref())?;
        }
        Ok(())
    }

    /// The product type, and of the name what is on a closed list.
    fn source(&self, object: &mut Object<'_>) {
        let named = named(&self.source);
        let hardware = self.device.split(", ").find_map(|part| part.strip_prefix("hardware:"));
        let hardware = hardware.map(|hardware| hardware.trim_end_matches('>'));
        let model = hardware.filter(|hardware| is_product_type(hardware)).or(named.device);
        object.open("source");
        if named.app.is_some() {
            object.text("name", &self.source.to_lowercase());
        }
        if let Some(model) = model {
            object.text("productType", model);
        }
        object.end();
    }
}

/// A JSON object that is being written.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Object<'o> {
    fn new(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.string(name);
        self.out.push(b':');
    }

    fn string(&mut self, text: &str) {
        // Memory takes all that is written.
        let written = serde_json::to_writer(&mut *self.out, text);
        debug_assert!(written.is_ok());
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.string(text);
    }

    /// A number as a number, and anything else as the text that it is.
    fn value(&mut self, name: &str, text: &str) {
        self.name(name);
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => {
                let written = write!(self.out, "{number}");
                debug_assert!(written.is_ok());
            }
            _ => self.string(text),
        }
    }

    /// A date as an instant; gives the offset that it was written with. One that is none is sent as it is.
    fn moment(&mut self, name: &str, text: &str) -> Option<String> {
        let moment = spelled(text).ok();
        let at = moment.and_then(|at| jiff::Timestamp::from_microsecond(at.at_us).ok());
        match at {
            Some(at) => self.text(name, &at.to_string()),
            None => self.text(name, text),
        }
        let offset_s = moment?.offset_s?;
        let (sign, minutes) = (if offset_s < 0 { '-' } else { '+' }, offset_s.abs() / 60);
        Some(format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60))
    }

    fn open(&mut self, name: &str) {
        self.name(name);
        self.out.push(b'{');
        self.first = true;
    }

    fn list(&mut self, name: &str, elements: &[u8]) {
        self.name(name);
        self.out.push(b'[');
        self.out.extend_from_slice(elements);
        self.out.push(b']');
    }

    /// Ends this object, or the one that was opened in it last.
    fn end(&mut self) {
        self.out.push(b'}');
        self.first = false;
    }
}
