//! What Terra's items share beyond [`crate::vendors::wire::sheet`]: enums by number, running totals,
//! devices, Terra's own scores.

use crate::error::Reject;
use crate::model::event::{Op, Reading};
use crate::model::metric::{self, Metric};
use crate::vendors::VendorRecord;
use crate::vendors::wire::json::At;
pub(super) use crate::vendors::wire::sheet::{
    Field, Head, Series, Sheet, Time, Zone, boolean, field, id, integer, number, samples, series,
    text, visit,
};

impl Head {
    /// The metric of this name in the maker's namespace (`oura.sleep_score`), where the vocabulary
    /// has one.
    ///
    /// A score of a maker without a metric is not invented: it stays in the raw topic.
    pub(super) fn own(&self, name: &str) -> Option<&'static Metric> {
        let maker = if self.device_type == "eight" { "eight_sleep" } else { &self.device_type };
        metric::find(&format!("{maker}.{name}"))
    }
}

impl Zone {
    /// Reads `metadata.timestamp_localization`; absent is local, as Terra says.
    pub(super) fn of(metadata: &At<'_>) -> Result<Self, Reject> {
        let utc = integer(metadata, &["timestamp_localization"])? == Some(0);
        Ok(Self { utc, offset_s: None })
    }
}

/// The name of an enum's value at this path: ours, from this list; `unlisted` for a number that is
/// not in it.
pub(super) fn named(
    here: &At<'_>,
    path: &[&'static str],
    names: &[(i64, &'static str)],
) -> Result<Option<&'static str>, Reject> {
    Ok(integer(here, path)?.map(|code| name_of(code, names)))
}

/// The name of an enum's value; `unlisted` for one that Terra has added since.
pub(super) fn name_of(code: i64, names: &[(i64, &'static str)]) -> &'static str {
    names.iter().find(|(known, _)| *known == code).map_or("unlisted", |(_, name)| *name)
}

/// One of Terra's own scores: the field of `data_enrichment`, the record's type, the metric, the
/// method.
pub(super) type Score = (&'static str, &'static str, &'static str, Option<&'static str>);

impl Sheet<'_> {
    /// Reads a series of Terra's running totals as what came to it between one sample and the next.
    ///
    /// The first total counts from the item's start; a total that falls (the device was reset) only
    /// begins anew.
    pub(super) fn running_total(&mut self, item: &At<'_>, series: &Series) -> Result<(), Reject> {
        let Some(metric) = metric::find(series.metric) else { return Ok(()) };
        let mut totals = Vec::new();
        samples(item, self.zone, series, &mut |_, time, value| {
            totals.push((time.at_us, value));
            Ok(())
        })?;
        totals.sort_by_key(|(at_us, _)| *at_us);
        let mut last = (self.start.at_us, 0.0);
        for (at_us, total) in totals {
            let (before_us, before) = last;
            if at_us > before_us && total >= before {
                let times = (before_us, Some(at_us));
                self.add_at(metric, total - before, times, series.method, series.context);
            }
            last = (at_us, total);
        }
        Ok(())
    }

    /// Reads what is known of the device, as far as its owner cannot have chosen it.
    ///
    /// A name can be a person's ("Jane's watch"), so of `name` only an app's bundle id is taken,
    /// which is how the phone's health stores fill it; the model is the hardware version, where
    /// that looks like one.
    pub(super) fn device(&mut self, item: &At<'_>) -> Result<(), Reject> {
        self.content.app = text(item, &["device_data", "name"])?.filter(|name| is_bundle_id(name));
        self.content.device_model =
            text(item, &["device_data", "hardware_version"])?.filter(|model| is_model(model));
        Ok(())
    }

    /// Terra's own scores of the item, each a record of its own and only where it is not null, so
    /// that a null that comes later erases nothing. Where the item is deleted, so is every score
    /// that it may have had.
    pub(super) fn scores(&self, item: &At<'_>, all: &[Score]) -> Result<Vec<VendorRecord>, Reject> {
        let mut records = Vec::new();
        for (key, record_type, metric, method) in all {
            let value = number(item, &["data_enrichment", key])?;
            match (self.op, value, metric::find(metric)) {
                (Op::Delete, ..) => records.push(self.bare(record_type)),
                (Op::Upsert, Some(value), Some(metric)) => {
                    records.push(self.score(record_type, metric, value, *method));
                }
                (Op::Upsert, ..) => {}
            }
        }
        Ok(records)
    }

    fn score(
        &self,
        record_type: &'static str,
        metric: &'static Metric,
        value: f64,
        method: Option<&str>,
    ) -> VendorRecord {
        let mut record = self.bare(record_type);
        let end_at = self.end.map(|end| end.at_us);
        record.content.readings = vec![Reading {
            method: method.map(str::to_owned),
            ..self.reading(metric, value, self.start.at_us, end_at)
        }];
        record
    }
}

/// `com.example.app`: lower-case parts with two dots or more.
fn is_bundle_id(name: &str) -> bool {
    name.len() <= 128
        && name.split('.').count() >= 3
        && name.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        })
}

/// `iPhone14,2`, `gen3`, `1.2.0`: one short word with a digit in it.
fn is_model(model: &str) -> bool {
    model.len() <= 32
        && model.bytes().any(|b| b.is_ascii_digit())
        && model.bytes().all(|b| b.is_ascii_alphanumeric() || b",._-".contains(&b))
}
