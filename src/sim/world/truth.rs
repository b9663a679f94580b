//! The ledger of the truth: what each vendor knows, version by version, in our vocabulary. It holds no token.
//!
//! The lines of versions are a matter of the seed alone. What faults made impossible depends on when the system
//! asked, so excuses stand behind them, each with its reason.

use serde::{Deserialize, Serialize};

use crate::model::metric;
use crate::model::time::{Day, Micros};

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// The first: what the ledger is of.
    World {
        /// The seed.
        seed: u64,
        /// How many people.
        people: u32,
        /// The first simulated day.
        first: String,
        /// How many days.
        days: u32,
        /// The vendors.
        vendors: Vec<String>,
        /// The faults with their shares.
        faults: String,
    },
    /// A record in one version.
    Version(Box<Truth>),
    /// Why a record may be without its last version.
    Excuse(Excuse),
    /// Since when nothing of a person can be fetched.
    End(End),
}

/// A record in one version, as its vendor knows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// The vendor, as in paths.
    pub vendor: String,
    /// The vendor's id of the person.
    pub vendor_user: String,
    /// Our user.
    pub user: String,
    /// Our name of the record's type.
    pub record_type: String,
    /// The vendor's id of the record, or its natural key.
    pub record_id: String,
    /// Which version, from 1.
    pub order: u32,
    /// Since when it is so, in simulated time, µs.
    pub at: Micros,
    /// Whether the vendor says so: a version that nobody is told of need not be known.
    pub told: bool,
    /// Whether it is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// `tentative` or `final`; absent where it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The night or day that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    /// Its start, µs; absent where the vendor gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Micros>,
    /// Its end, µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Micros>,
    /// The offset at its start, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_offset_s: Option<i32>,
    /// The offset at its end, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_offset_s: Option<i32>,
    /// Whether it is a nap, where the vendor says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nap: Option<bool>,
    /// Single values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
    /// Series of samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Series>,
    /// Intervals of one symbol each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intervals: Vec<Interval>,
}

/// A value in the canonical unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// The metric.
    pub metric: String,
    /// The value.
    pub value: f64,
    /// The metric's unit; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// How it was made, where that changes what it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// Samples at a fixed distance; absent ones are gaps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The metric.
    pub metric: String,
    /// Its unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The time of the first, µs.
    pub start: Micros,
    /// How far apart they are, seconds.
    pub every_s: i32,
    /// The values.
    pub values: Vec<Option<f64>>,
}

/// A symbol that holds for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The metric.
    pub metric: String,
    /// The symbol.
    pub symbol: String,
    /// From, µs.
    pub start: Micros,
    /// Until, µs.
    pub end: Micros,
}

/// Since when nothing of a person can be fetched: there is no token to be had any more.
///
/// What was served by then may be missing nevertheless: a record can take several calls, and a call can be answered by
/// one of the vendor's faults. So what is missing is explained by it where it came about at most a day before, and only
/// where a dead letter says that its person's records were given up for the want of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The vendor.
    pub vendor: String,
    /// The vendor's id of the person.
    pub vendor_user: String,
    /// Since when, in simulated time, µs.
    pub at: Micros,
    /// The reason.
    pub reason: String,
}

/// Why a record may be without its last version, or without any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excuse {
    /// The vendor.
    pub vendor: String,
    /// The vendor's id of the person.
    pub vendor_user: String,
    /// Our name of the record's type.
    pub record_type: String,
    /// The vendor's id of the record.
    pub record_id: String,
    /// From which version on.
    pub order: u32,
    /// The reason.
    pub reason: String,
}

impl Truth {
    /// Adds a value with the unit that the vocabulary has for it.
    pub fn value(&mut self, metric: &str, value: f64) {
        self.values.push(Value {
            metric: metric.to_owned(),
            value,
            unit: unit(metric),
            method: None,
        });
    }

    /// The same of a metric whose method matters.
    pub fn made(&mut self, metric: &str, value: f64, method: &str) {
        self.value(metric, value);
        if let Some(last) = self.values.last_mut() {
            last.method = Some(method.to_owned());
        }
    }

    /// Adds samples that begin at this time and are so many seconds apart.
    pub fn sampled(
        &mut self,
        metric: &str,
        (start, every_s): (Micros, i32),
        values: &[Option<i32>],
    ) {
        self.series.push(Series {
            metric: metric.to_owned(),
            unit: unit(metric),
            start,
            every_s,
            values: values.iter().map(|value| value.map(f64::from)).collect(),
        });
    }

    /// Gives it a time and a day.
    pub fn during(&mut self, start: (Micros, i32), end: Option<(Micros, i32)>, day: Day) {
        self.start = Some(start.0);
        self.start_offset_s = Some(start.1);
        self.end = end.map(|(at, _)| at);
        self.end_offset_s = end.map(|(_, offset)| offset);
        self.day = Some(day.to_string());
    }

    /// Whether it says all that another version says: not when it came about, and not whether anybody was told. A zone that
    /// the other does not name is not looked at.
    #[must_use]
    pub fn says_as(&self, other: &Self) -> bool {
        let bare = |truth: &Self| Self {
            order: 0,
            at: 0,
            told: false,
            start_offset_s: truth.start_offset_s.filter(|_| other.start_offset_s.is_some()),
            end_offset_s: truth.end_offset_s.filter(|_| other.end_offset_s.is_some()),
            ..truth.clone()
        };
        bare(self) == bare(other)
    }
}

/// The unit that the vocabulary has for a metric.
#[must_use]
pub fn unit(metric: &str) -> Option<String> {
    metric::find(metric).and_then(|metric| metric.unit).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_names_no_zone_says_no_more_than_one_that_does() {
        let silent = Truth { record_type: "samples.heart_rate".to_owned(), ..Truth::default() };
        let zoned = Truth { order: 3, start_offset_s: Some(3_600), ..silent.clone() };
        let other = Truth { start_offset_s: Some(7_200), ..zoned.clone() };
        assert!(zoned.says_as(&silent) && zoned.says_as(&zoned));
        assert!(!silent.says_as(&zoned) && !other.says_as(&zoned));
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let mut truth = Truth { record_type: "sleep".to_owned(), order: 2, ..Truth::default() };
        truth.made("hrv_rmssd_sleep_avg", 47.318, "sleep_weighted");
        truth.during((1, 3_600), Some((2, 7_200)), Day(20_541));
        let line = Line::Version(Box::new(truth.clone()));
        let text = serde_json::to_string(&line).expect("JSON");
        assert!(text.starts_with(r#"{"line":"version","vendor":"#), "{text}");
        assert!(!text.contains("gone"), "what is not said is not written");
        assert_eq!(serde_json::from_str::<Line>(&text).expect("a line"), line);
        let later = Truth { order: 3, at: 9, told: true, ..truth.clone() };
        assert!(later.says_as(&truth));
        assert!(!Truth { gone: true, ..truth.clone() }.says_as(&truth));
        assert_eq!(truth.values[0].unit.as_deref(), Some("ms"));
    }
}
