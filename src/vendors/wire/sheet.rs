//! One item of a vendor's body on its way to a record: its times, its readings, its attributes.
//!
//! Most of a vendor's model is "a number at a path is this metric". That part stands in the vendor's
//! files as tables of [`Field`]s and [`Series`]; what walks them is here, and refuses a wrong type
//! wherever it stands: an object that is suddenly a number must not look like an object that is not
//! there.

use std::collections::BTreeMap;

use crate::error::Reject;
use crate::model::event::{Content, Merge, Op, Reading, flag};
use crate::model::metric::{self, Metric};
use crate::model::time::{Day, Micros, Moment, NotAMoment};
use crate::vendors::VendorRecord;
use crate::vendors::wire::json::At;

/// How far a time may lie after the receipt before it is flagged (`domain.md` §2.3 rule 7).
pub(crate) const SKEW_US: Micros = 15 * 60 * 1_000_000;
/// How far a local time read as UTC may lie ahead of the truth: the easternmost offset there is.
const EAST_US: Micros = 14 * 3600 * 1_000_000;
/// The longest id that is taken; vendors' are UUIDs or numbers.
const ID_BYTES_MAX: usize = 256;

/// What all items of one body share.
#[derive(Debug)]
pub(crate) struct Head {
    /// The maker in lower case.
    pub(crate) device_type: String,
    /// The way it came: `direct` or the aggregator's name.
    pub(crate) via: &'static str,
    /// The vendor's version, µs.
    pub(crate) version: Option<Micros>,
    /// When the door had the body, µs.
    pub(crate) received_at: Micros,
}

/// A time as the vendor wrote it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    /// The instant; where it is not known, the local time as if it were UTC.
    pub(crate) at_us: Micros,
    /// The offset, where it is known.
    pub(crate) offset_s: Option<i32>,
    /// Whether the instant is known.
    pub(crate) known: bool,
}

impl Time {
    /// Midnight of a day in nobody knows which zone.
    pub(crate) fn floating_midnight(day: Day) -> Self {
        Self { at_us: day.start_utc_us(), offset_s: None, known: false }
    }

    /// The person's date at this time, unless all that is known is UTC.
    pub(crate) fn local_date(&self) -> Option<Day> {
        if self.known {
            Moment { at_us: self.at_us, offset_s: self.offset_s }.local_date()
        } else {
            Some(Day::of_utc(self.at_us))
        }
    }

    /// The hour of the person's day at this time, unless all that is known is UTC.
    pub(crate) fn local_hour(&self) -> Option<i8> {
        let offset_s = if self.known { self.offset_s } else { Some(0) };
        Moment { at_us: self.at_us, offset_s }.local_hour()
    }
}

/// How an item's times are to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zone {
    /// Times are UTC, and say nothing about where the person was.
    pub(crate) utc: bool,
    /// The item's own offset, for samples that come without one.
    pub(crate) offset_s: Option<i32>,
}

impl Zone {
    /// A zone of which nothing is known.
    pub(crate) fn unknown() -> Self {
        Self { utc: false, offset_s: None }
    }

    /// Reads a time.
    pub(crate) fn read(self, at: &At<'_>) -> Result<Time, Reject> {
        let text = at.text()?;
        match Moment::parse(text) {
            Ok(moment) => {
                // Under UTC a zero offset is the notation, not the person's.
                let offset_s = moment.offset_s.filter(|offset| !(self.utc && *offset == 0));
                Ok(Time { at_us: moment.at_us, offset_s, known: true })
            }
            Err(NotAMoment::NoOffset) => self.local(text).ok_or_else(|| at.malformed(NOT_A_TIME)),
            Err(NotAMoment::Malformed) => Err(at.malformed(NOT_A_TIME)),
        }
    }

    fn local(self, text: &str) -> Option<Time> {
        let civil = Moment::parse(&format!("{text}Z")).ok()?.at_us;
        Some(match self.offset_s {
            _ if self.utc => Time { at_us: civil, offset_s: None, known: true },
            Some(offset) => Time {
                at_us: civil - i64::from(offset) * 1_000_000,
                offset_s: Some(offset),
                known: true,
            },
            None => Time { at_us: civil, offset_s: None, known: false },
        })
    }
}

const NOT_A_TIME: &str = "not a date and time";

/// Calls `found` with what stands at this path, if anything does.
pub(crate) fn visit(
    here: &At<'_>,
    path: &[&'static str],
    found: &mut dyn FnMut(&At<'_>) -> Result<(), Reject>,
) -> Result<(), Reject> {
    let Some((key, rest)) = path.split_first() else { return found(here) };
    match here.object()?.get(key) {
        Some(next) => visit(&next, rest, found),
        None => Ok(()),
    }
}

/// The number at this path.
pub(crate) fn number(here: &At<'_>, path: &[&'static str]) -> Result<Option<f64>, Reject> {
    let mut out = None;
    visit(here, path, &mut |at| at.number().map(|value| out = Some(value)))?;
    Ok(out)
}

/// The integer at this path.
pub(crate) fn integer(here: &At<'_>, path: &[&'static str]) -> Result<Option<i64>, Reject> {
    let mut out = None;
    visit(here, path, &mut |at| at.integer().map(|value| out = Some(value)))?;
    Ok(out)
}

/// The text at this path.
pub(crate) fn text(here: &At<'_>, path: &[&'static str]) -> Result<Option<String>, Reject> {
    let mut out = None;
    visit(here, path, &mut |at| at.text().map(|value| out = Some(value.to_owned())))?;
    Ok(out)
}

/// The truth value at this path.
pub(crate) fn boolean(here: &At<'_>, path: &[&'static str]) -> Result<Option<bool>, Reject> {
    let mut out = None;
    visit(here, path, &mut |at| at.boolean().map(|value| out = Some(value)))?;
    Ok(out)
}

/// An id at this place: a text that is not empty and not endless.
pub(crate) fn id(at: &At<'_>) -> Result<String, Reject> {
    let text = at.text()?;
    if text.is_empty() {
        return Err(at.malformed("an id is empty"));
    }
    if text.len() > ID_BYTES_MAX {
        return Err(at.malformed("an id is longer than 256 bytes"));
    }
    Ok(text.to_owned())
}

/// A number at a path that is a metric, over the whole of the item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) path: &'static [&'static str],
    pub(crate) metric: &'static str,
    pub(crate) method: Option<&'static str>,
    pub(crate) context: Option<&'static str>,
    pub(crate) divisor: f64,
}

/// A field in its canonical unit, without method or context.
pub(crate) const fn field(path: &'static [&'static str], metric: &'static str) -> Field {
    Field { path, metric, method: None, context: None, divisor: 1.0 }
}

impl Field {
    pub(crate) const fn method(mut self, method: &'static str) -> Self {
        self.method = Some(method);
        self
    }

    pub(crate) const fn context(mut self, context: &'static str) -> Self {
        self.context = Some(context);
        self
    }

    /// How many of the vendor's unit make one of the canonical unit.
    pub(crate) const fn divisor(mut self, divisor: f64) -> Self {
        self.divisor = divisor;
        self
    }
}

/// A list at a path whose elements each have a time and a number that is a metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    pub(crate) path: &'static [&'static str],
    pub(crate) time: &'static str,
    pub(crate) value: &'static str,
    pub(crate) metric: &'static str,
    pub(crate) method: Option<&'static str>,
    pub(crate) context: Option<&'static str>,
    pub(crate) divisor: f64,
}

/// A series by `timestamp` in its canonical unit, without method or context.
pub(crate) const fn series(
    path: &'static [&'static str],
    value: &'static str,
    metric: &'static str,
) -> Series {
    Series { path, time: "timestamp", value, metric, method: None, context: None, divisor: 1.0 }
}

/// Calls `found` with every sample of a list that has both its time and its value.
pub(crate) fn samples(
    here: &At<'_>,
    zone: Zone,
    series: &Series,
    found: &mut dyn FnMut(&At<'_>, Time, f64) -> Result<(), Reject>,
) -> Result<(), Reject> {
    visit(here, series.path, &mut |list| {
        for sample in list.items()? {
            let sample = sample.object()?;
            let (time, value) = (sample.get(series.time), sample.get(series.value));
            let time = time.map(|at| zone.read(&at)).transpose()?;
            let value = value.map(|at| at.number()).transpose()?;
            if let (Some(time), Some(value)) = (time, value) {
                found(sample, time, value)?;
            }
        }
        Ok(())
    })
}

/// A record in the making.
#[derive(Debug)]
pub(crate) struct Sheet<'a> {
    pub(crate) head: &'a Head,
    pub(crate) record_type: &'static str,
    pub(crate) record_id: String,
    pub(crate) op: Op,
    pub(crate) zone: Zone,
    pub(crate) start: Time,
    pub(crate) end: Option<Time>,
    /// Whether the item is a day: its end then lies in the future while the day lasts, which is no
    /// skew.
    whole_day: bool,
    pub(crate) content: Content,
}

impl<'a> Sheet<'a> {
    /// A record over this time.
    pub(crate) fn new(
        head: &'a Head,
        record_type: &'static str,
        record_id: String,
        zone: Zone,
        (start, end): (Time, Option<Time>),
    ) -> Self {
        let mut sheet = Self {
            head,
            record_type,
            record_id,
            op: Op::Upsert,
            zone: Zone { offset_s: zone.offset_s.or(start.offset_s), ..zone },
            start,
            end,
            whole_day: false,
            content: empty(),
        };
        sheet.tell_times();
        sheet
    }

    /// A record of a whole day, keyed by its date.
    pub(crate) fn of_day(
        head: &'a Head,
        record_type: &'static str,
        day: Day,
        zone: Zone,
        times: (Time, Option<Time>),
    ) -> Self {
        let mut sheet = Self::new(head, record_type, day.to_string(), zone, times);
        sheet.whole_day = true;
        sheet.belongs(Some(day), "vendor_day");
        sheet.content.flags.retain(|name| name != flag::CLOCK_SKEW);
        if sheet.is_late(sheet.start.at_us) {
            sheet.content.flags.push(flag::CLOCK_SKEW.to_owned());
        }
        sheet
    }

    /// A record of no time at all.
    pub(crate) fn timeless(head: &'a Head, record_type: &'static str, record_id: String) -> Self {
        let start = Time { at_us: head.received_at, offset_s: None, known: true };
        let zone = Zone::unknown();
        let mut sheet = Self::new(head, record_type, record_id, zone, (start, None));
        sheet.content = empty();
        sheet
    }

    fn tell_times(&mut self) {
        let (start, end) = (self.start, self.end);
        let known = start.known && end.is_none_or(|end| end.known);
        let content = &mut self.content;
        if known {
            content.start_at = Some(start.at_us);
            content.end_at = end.map(|end| end.at_us);
        } else {
            content.flags.push(flag::FLOATING_TIME.to_owned());
        }
        content.start_offset_s = start.offset_s;
        content.end_offset_s = end.and_then(|end| end.offset_s);
        if content.start_offset_s.is_some() || content.end_offset_s.is_some() {
            content.offset_provenance = "vendor".to_owned();
        }
        if let (Some(from), Some(to)) = (content.start_offset_s, content.end_offset_s)
            && from != to
        {
            content.flags.push(flag::OFFSET_CHANGE.to_owned());
        }
        if self.is_late(end.unwrap_or(start).at_us) {
            self.content.flags.push(flag::CLOCK_SKEW.to_owned());
        }
    }

    /// The day it belongs to, and by which rule.
    pub(crate) fn belongs(&mut self, day: Option<Day>, rule: &str) {
        self.content.local_date = day.map(|day| day.0);
        self.content.day_rule = day.map(|_| rule.to_owned());
    }

    /// An attribute of the closed vocabulary. `value` is ours or a number, never a text of the
    /// payload.
    pub(crate) fn attribute(&mut self, name: &'static str, value: impl Into<String>) {
        self.content.attributes.insert(name.to_owned(), value.into());
    }

    pub(crate) fn is_late(&self, at_us: Micros) -> bool {
        let ahead = if self.start.known { SKEW_US } else { SKEW_US + EAST_US };
        at_us > self.head.received_at.saturating_add(ahead)
    }

    /// A reading over this time, flagged where it must be.
    pub(crate) fn reading(
        &self,
        metric: &'static Metric,
        value: f64,
        start_at: Micros,
        end_at: Option<Micros>,
    ) -> Reading {
        let mut reading = metric.reading(value, start_at, end_at);
        self.flag_late(&mut reading);
        reading
    }

    fn flag_late(&self, reading: &mut Reading) {
        let is_the_day = self.whole_day && reading.end_at == self.end.map(|end| end.at_us);
        let measured =
            if is_the_day { reading.start_at } else { reading.end_at.unwrap_or(reading.start_at) };
        if self.is_late(measured) {
            reading.flags.push(flag::CLOCK_SKEW.to_owned());
        }
    }

    fn push(&mut self, reading: Reading, method: Option<&str>, context: Option<&str>) {
        self.content.readings.push(Reading {
            method: method.map(str::to_owned),
            context: context.map(str::to_owned),
            ..reading
        });
    }

    /// Adds a value over the whole of the item.
    pub(crate) fn add(
        &mut self,
        metric: &'static Metric,
        value: f64,
        method: Option<&str>,
        context: Option<&str>,
    ) {
        let end_at = self.end.map(|end| end.at_us);
        let reading = self.reading(metric, value, self.start.at_us, end_at);
        self.push(reading, method, context);
    }

    /// Adds how long it lasted, as this metric; nothing of what has not ended.
    pub(crate) fn lasted(&mut self, name: &str) {
        if let (Some(metric), Some(end)) = (metric::find(name), self.end) {
            self.add(metric, seconds(self.start.at_us, end.at_us), None, None);
        }
    }

    /// Adds a value at or over a time of its own.
    pub(crate) fn add_at(
        &mut self,
        metric: &'static Metric,
        value: f64,
        (start_at, end_at): (Micros, Option<Micros>),
        method: Option<&str>,
        context: Option<&str>,
    ) {
        let reading = self.reading(metric, value, start_at, end_at);
        self.push(reading, method, context);
    }

    /// Adds a symbol over a time of its own, where the metric has it.
    pub(crate) fn add_symbol(
        &mut self,
        metric: &'static Metric,
        symbol: &str,
        (start_at, end_at): (Micros, Option<Micros>),
        method: Option<&str>,
    ) {
        if let Some(mut reading) = metric.symbol(symbol, start_at, end_at) {
            self.flag_late(&mut reading);
            self.push(reading, method, None);
        }
    }

    /// Reads these fields.
    pub(crate) fn fields(&mut self, item: &At<'_>, fields: &[Field]) -> Result<(), Reject> {
        for field in fields {
            let value = number(item, field.path)?;
            if let (Some(value), Some(metric)) = (value, metric::find(field.metric)) {
                self.add(metric, value / field.divisor, field.method, field.context);
            }
        }
        Ok(())
    }

    /// Reads these series.
    pub(crate) fn series(&mut self, item: &At<'_>, all: &[Series]) -> Result<(), Reject> {
        for series in all {
            let Some(metric) = metric::find(series.metric) else { continue };
            samples(item, self.zone, series, &mut |_, time, value| {
                let value = value / series.divisor;
                let times = (time.at_us, None);
                self.add_at(metric, value, times, series.method, series.context);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A record of another type with this item's key and times, and nothing in it.
    pub(crate) fn bare(&self, record_type: &'static str) -> VendorRecord {
        let content = Content {
            attributes: BTreeMap::new(),
            app: None,
            device_model: None,
            recording_method: None,
            readings: Vec::new(),
            ..self.content.clone()
        };
        VendorRecord {
            device_type: self.head.device_type.clone(),
            via: self.head.via,
            record_type: record_type.to_owned(),
            record_id: self.record_id.clone(),
            merge: Merge::Replace,
            op: self.op,
            version: self.head.version,
            content,
        }
    }

    /// The record.
    pub(crate) fn finish(self) -> VendorRecord {
        let record = self.bare(self.record_type);
        VendorRecord { content: self.content, ..record }
    }
}

/// The seconds between two instants.
fn seconds(from: Micros, to: Micros) -> f64 {
    let seconds = to.saturating_sub(from) / 1_000_000;
    f64::from(i32::try_from(seconds).unwrap_or(i32::MAX))
}

fn empty() -> Content {
    Content {
        offset_provenance: "unknown".to_owned(),
        state: "final".to_owned(),
        ..Content::default()
    }
}
