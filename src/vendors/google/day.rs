//! Points without a name, by days: all that was sampled or counted of a type on a UTC day is one record, and so are the
//! values of a civil day.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Reject;
use crate::model::metric::{self, Metric};
use crate::model::time::{Day, Micros};
use crate::vendors::VendorRecord;
use crate::vendors::google::point::{self, Origin, amount_at};
use crate::vendors::google::types::{Daily, Type};
use crate::vendors::wire::json::At;
use crate::vendors::wire::sheet::{Field, Head, SKEW_US, Sheet, Time, Zone};

/// How long after a date ends in UTC it still lasts somewhere.
const WEST_US: Micros = 12 * 3_600 * 1_000_000;

/// What was measured at a time, or over a while.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) start: Time,
    pub(super) end: Option<Time>,
    /// Each value with its metric.
    pub(super) values: Vec<(&'static Metric, &'static Field, f64)>,
    pub(super) origin: Origin,
    /// What tells its source from others.
    pub(super) source: String,
}

/// A UTC day of a type.
#[derive(Debug, Default)]
struct Bucket {
    /// The position of its first point.
    first: i32,
    points: Vec<Measured>,
}

/// The days of a type, as its points come.
#[derive(Debug, Default)]
pub(super) struct Days(BTreeMap<Day, Bucket>);

impl Days {
    /// Takes a point in.
    pub(super) fn take(&mut self, index: i32, day: Day, point: Measured) {
        let bucket = self.0.entry(day);
        let bucket = bucket.or_insert_with(|| Bucket { first: index, points: Vec::new() });
        bucket.points.push(point);
    }

    /// The days as records, each at the position of its first point.
    pub(super) fn records(self, head: &Head, kind: &Type) -> Vec<(i32, VendorRecord)> {
        let record =
            |(day, bucket): (Day, Bucket)| Some((bucket.first, bucket.record(head, kind, day)?));
        self.0.into_iter().filter_map(record).collect()
    }
}

impl Bucket {
    /// One list gives the newest point first, and another may not: their order says nothing.
    fn record(mut self, head: &Head, kind: &Type, day: Day) -> Option<VendorRecord> {
        let last = |point: &Measured| point.end.unwrap_or(point.start);
        let numbers = |point: &Measured| -> Vec<u64> {
            point.values.iter().map(|(.., value)| value.to_bits()).collect()
        };
        self.points.sort_by_cached_key(|point| {
            (point.start.at_us, last(point).at_us, numbers(point), point.source.clone())
        });
        // What is dated in the future is kept, but does not say when the day was.
        let late = |point: &&Measured| last(point).at_us > head.received_at.saturating_add(SKEW_US);
        let all = self.points.iter().all(|point| late(&point));
        let dated = || self.points.iter().filter(|point| all || !late(point));
        let first = dated().next()?.start;
        let end = dated().map(last).max_by_key(|time| time.at_us)?;
        let times = (first, Some(end));
        let mut sheet = Sheet::new(head, kind.record_type, day.to_string(), Zone::unknown(), times);
        if first.local_date() == end.local_date() {
            sheet.belongs(first.local_date(), "civil_midnight");
        }
        let origins: BTreeSet<Origin> = self.points.iter().map(|point| point.origin).collect();
        if let (Some(origin), 1) = (origins.first(), origins.len()) {
            point::tell(&mut sheet, *origin);
        }
        let sources: BTreeSet<&str> = self.points.iter().map(|point| &*point.source).collect();
        sheet.attribute("sources", sources.len().to_string());
        for point in &self.points {
            let times = (point.start.at_us, point.end.map(|end| end.at_us));
            for (metric, field, value) in &point.values {
                sheet.add_at(metric, *value, times, field.method, field.context);
            }
        }
        Some(sheet.finish())
    }
}

/// A civil day.
pub(super) fn daily(
    head: &Head,
    (kind, of): (&Type, Daily),
    day: Day,
    (point, data): (&At<'_>, &At<'_>),
    fields: &'static [Field],
) -> Result<VendorRecord, Reject> {
    let times = (Time::floating_midnight(day), Some(Time::floating_midnight(day.next())));
    let mut sheet = Sheet::of_day(head, kind.record_type, day, Zone::unknown(), times);
    point::tell(&mut sheet, point::origin(point)?);
    let ends = day.next().start_utc_us().saturating_add(WEST_US);
    if of == Daily::Day && head.received_at < ends {
        "tentative".clone_into(&mut sheet.content.state);
    }
    point::fields(&mut sheet, data, fields)?;
    if sheet.content.readings.is_empty() {
        return Err(data.malformed("a day without a value"));
    }
    deviation(&mut sheet, data)?;
    if let Some(bound) = amount_at(data, &["lowerBoundPercentage"])? {
        sheet.attribute("lower_bound_percentage", bound.to_string());
    }
    Ok(sheet.finish())
}

/// How far a night's temperature was from the usual one, where that is known. What Google calls a relative deviation is
/// the spread of thirty nights, and is none of this one.
fn deviation(sheet: &mut Sheet<'_>, data: &At<'_>) -> Result<(), Reject> {
    let night = amount_at(data, &["nightlyTemperatureCelsius"])?;
    let usual = amount_at(data, &["baselineTemperatureCelsius"])?;
    if let (Some(night), Some(usual), Some(metric)) =
        (night, usual, metric::find("skin_temperature_deviation"))
    {
        // To nine decimals, as all that is computed: 34.1 − 33.8 is 0.3.
        sheet.add(metric, ((night - usual) * 1e9).round() / 1e9, Some("baseline"), None);
    }
    Ok(())
}
