//! What Oura's API answers, as records.
//!
//! # Decisions
//! - A document names no user: it is of the one by whose consent it was fetched.
//! - It has no version either: the receipt time, which was read before the request went out, stands
//!   in.
//! - `day` is Oura's and never computed anew: a nap that ended at 18:20 is the next day's.
//! - A sleep whose type is `deleted` or `rest` is gone, however it came to be so.
//! - The temperature and the readiness that a sleep carries are the ones of `daily_readiness`, where
//!   they are taken from: one night does not give two.
//! - Null and absent are not zero, and zero is a value.
//! - A day of more heart rates than are asked for is what came, and a dead letter for what did not.
//! - Tags, their texts, moods of one's own and labels stay in the raw topic, as does what the
//!   vocabulary has no metric for: movement, MET by the minute, contributors other than readiness'.

use std::collections::BTreeMap;

use crate::error::{Path, Reject};
use crate::model::contract::header;
use crate::model::event::{Content, Merge, Op, Reading, flag};
use crate::model::id::sample_id;
use crate::model::metric::{self, Metric};
use crate::model::time::{Day, Micros};
use crate::vendors::history;
use crate::vendors::oura::{day, id, session};
use crate::vendors::wire::answer::objects;
use crate::vendors::wire::json::{self, At, Json};
use crate::vendors::wire::sheet::{Head, SKEW_US, Sheet, Time, Zone, number};
use crate::vendors::wire::{thin, unit};
use crate::vendors::{Item, Raw, VendorRecord, What};

/// How a document of a type is read.
type Read = fn(&Head, &At<'_>) -> Result<VendorRecord, Reject>;

/// How the documents of a type become records.
enum Kind {
    /// Each is one.
    Each(Read),
    /// Each is a sample.
    Samples,
    /// They say nothing that is measured.
    Unmeasured,
}

fn kind(record_type: &str) -> Option<Kind> {
    Some(match record_type {
        "sleep" => Kind::Each(session::sleep),
        "workout" => Kind::Each(session::workout),
        "session" => Kind::Each(session::moment),
        "daily_sleep" => Kind::Each(day::sleep),
        "daily_readiness" => Kind::Each(day::readiness),
        "daily_activity" => Kind::Each(day::activity),
        "daily_spo2" => Kind::Each(day::saturation),
        "daily_stress" => Kind::Each(day::stress),
        "daily_resilience" => Kind::Each(day::resilience),
        "daily_cardiovascular_age" => Kind::Each(day::vessels),
        "vo2_max" => Kind::Each(day::vo2_max),
        "personal_info" => Kind::Each(profile),
        "heartrate" => Kind::Samples,
        "tag" | "enhanced_tag" | "sleep_time" | "rest_mode_period" | "ring_configuration" => {
            Kind::Unmeasured
        }
        _ => return None,
    })
}

/// What a body says that was fetched for this type of record.
pub(super) fn read(raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
    let Some(kind) = kind(history::of(record_type).unwrap_or(record_type)) else {
        return Err(Reject::invalid(Path::root(), "no type of record of this vendor"));
    };
    let json = json::parse(raw.body)?;
    let root = json.root();
    let user = raw.headers.text(header::VENDOR_USER);
    let (mut items, mut after) = (Vec::new(), 0);
    let mut samples = Samples::default();
    objects(&root, "data", &mut |index, _, at| {
        after = index.saturating_add(1);
        let head = Head {
            device_type: "oura".to_owned(),
            via: "direct",
            version: None,
            received_at: raw.received_at,
        };
        let what = match kind {
            Kind::Each(read) => record(read(&head, at)).map(Some),
            Kind::Samples => {
                samples.take(&head, user.unwrap_or_default(), index, at).map(|()| None)
            }
            Kind::Unmeasured => Ok(Some(What::Ignored("a type that measures nothing"))),
        };
        let what = what.unwrap_or_else(|bad| Some(What::Bad(bad)));
        items.extend(what.map(|what| (index, what)));
    })?;
    items.extend(samples.buckets());
    if matches!(kind, Kind::Samples) && goes_on(&root)? {
        let bad = root.invalid("more pages than are asked for");
        items.push((after, What::Bad(bad)));
    }
    items.sort_by_key(|(index, _)| *index);
    let item = |(index, what)| Item { index, vendor_user: user.map(str::to_owned), what };
    Ok(items.into_iter().map(item).collect())
}

/// Whether the last page names another, which nobody asked for ([`super::api`]). What it has is not here, and that is said.
fn goes_on(root: &At<'_>) -> Result<bool, Reject> {
    if !matches!(root.json(), Json::List(_)) {
        return Ok(root.get("next_token").is_some());
    }
    Ok(root.items()?.last().is_some_and(|page| page.get("next_token").is_some()))
}

fn record(read: Result<VendorRecord, Reject>) -> Result<What, Reject> {
    read.map(|record| What::Record(Box::new(record)))
}

/// A record that is gone.
pub(super) fn gone(record_type: &str, record_id: String) -> VendorRecord {
    thin::tombstone("oura", record_type, record_id)
}

/// The id of a document.
pub(super) fn key(at: &At<'_>) -> Result<String, Reject> {
    id(&at.object()?.need("id")?).map(str::to_owned)
}

/// The day that Oura gave it.
pub(super) fn day_of(at: &At<'_>) -> Result<Day, Reject> {
    let day = at.object()?.need("day")?;
    Day::parse(day.text()?).ok_or_else(|| day.malformed("not a date"))
}

/// Start and end under these names, in the person's own time.
pub(super) fn times(
    at: &At<'_>,
    start: &'static str,
    end: &'static str,
) -> Result<(Time, Option<Time>), Reject> {
    let start = Zone::unknown().read(&at.object()?.need(start)?)?;
    let end_at = at.need(end)?;
    let end = Zone::unknown().read(&end_at)?;
    if end.at_us < start.at_us {
        return Err(end_at.invalid("an end before its start"));
    }
    Ok((start, Some(end)))
}

/// One of these words at this name; `unlisted` for one that Oura has added since.
pub(super) fn word(
    at: &At<'_>,
    name: &'static str,
    words: &[&'static str],
) -> Result<Option<&'static str>, Reject> {
    let Some(found) = at.get(name) else { return Ok(None) };
    let found = found.text()?;
    Ok(Some(words.iter().find(|word| **word == found).copied().unwrap_or("unlisted")))
}

/// The same as an attribute.
pub(super) fn attribute(
    sheet: &mut Sheet<'_>,
    at: &At<'_>,
    (theirs, ours): (&'static str, &'static str),
    words: &[&'static str],
) -> Result<(), Reject> {
    if let Some(word) = word(at, theirs, words)? {
        sheet.attribute(ours, word);
    }
    Ok(())
}

/// The longest interval of a series that is believed, seconds.
const INTERVAL_S_MAX: i64 = 86_400;

/// A series `{interval, items, timestamp}` under this name: the nth item is n intervals after the time, and a null is a
/// gap. The last interval may go on beyond the end of what it is in.
pub(super) fn series(
    sheet: &mut Sheet<'_>,
    at: &At<'_>,
    name: &'static str,
    (metric, context): (&str, &str),
) -> Result<(), Reject> {
    let (Some(series), Some(metric)) = (at.get(name), metric::find(metric)) else { return Ok(()) };
    let interval_at = series.object()?.need("interval")?;
    let interval_s = interval_at.integer()?;
    let window_s = i32::try_from(interval_s).ok();
    let (Some(window_s), true) = (window_s, (1..=INTERVAL_S_MAX).contains(&interval_s)) else {
        return Err(interval_at.invalid("no length of an interval"));
    };
    let first = sheet.zone.read(&series.need("timestamp")?)?;
    let items = series.need("items")?;
    for (item, nth) in items.items()?.zip(0_i64..) {
        if matches!(item.json(), Json::Null) {
            continue;
        }
        let start_at = first.at_us.saturating_add(nth.saturating_mul(interval_s * 1_000_000));
        let reading = sheet.reading(metric, item.number()?, start_at, None);
        sheet.content.readings.push(Reading {
            window_s: Some(window_s),
            context: Some(context.to_owned()),
            ..reading
        });
    }
    Ok(())
}

/// What a person's profile says of the body, as of when it was asked for: it has no time of its own.
fn profile(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    let mut sheet = Sheet::timeless(head, "personal_info", "personal_info".to_owned());
    for (path, name, spelling) in [("height", "body_height", "m"), ("weight", "body_weight", "kg")]
    {
        let Some(metric) = metric::find(name) else { continue };
        let conversion = unit::conversion(metric.unit.unwrap_or_default(), spelling);
        if let (Some(value), Some(conversion)) = (number(at, &[path])?, conversion) {
            sheet.add(metric, conversion.apply(value), None, None);
        }
    }
    Ok(sheet.finish())
}

/// Heart rates by UTC day: each day is one bucket of samples that gather.
#[derive(Default)]
struct Samples {
    days: BTreeMap<Day, Bucket>,
}

/// The samples of one day by their time, and the position of the first.
struct Bucket {
    first: i32,
    readings: BTreeMap<Micros, Reading>,
}

const CONTEXTS: [&str; 6] = ["awake", "workout", "rest", "sleep", "live", "session"];

impl Samples {
    /// Takes a sample in. Of two at one moment the later in the body counts, as of two bodies.
    fn take(&mut self, head: &Head, user: &str, index: i32, at: &At<'_>) -> Result<(), Reject> {
        let Some(metric) = metric::find("heart_rate") else { return Ok(()) };
        let time = at.object()?.need("timestamp")?;
        let time = Zone { utc: true, ..Zone::unknown() }.read(&time)?;
        let value = at.need("bpm")?.number()?;
        let context = word(at, "source", &CONTEXTS)?.filter(|word| *word != "unlisted");
        let reading = sample(metric, value, time.at_us, user);
        let mut reading = Reading { context: context.map(str::to_owned), ..reading };
        if time.at_us > head.received_at.saturating_add(SKEW_US) {
            reading.flags.push(flag::CLOCK_SKEW.to_owned());
        }
        let day = self.days.entry(Day::of_utc(time.at_us));
        let bucket = day.or_insert_with(|| Bucket { first: index, readings: BTreeMap::new() });
        bucket.readings.insert(time.at_us, reading);
        Ok(())
    }

    /// The days as records, each at the position of its first sample.
    fn buckets(self) -> impl Iterator<Item = (i32, What)> {
        self.days.into_iter().map(|(day, bucket)| {
            let first = bucket.first;
            (first, What::Record(Box::new(bucket.record(day))))
        })
    }
}

/// A sample; its id is of its moment, because Oura gives none.
fn sample(metric: &'static Metric, value: f64, at_us: Micros, user: &str) -> Reading {
    let mut reading = metric.reading(value, at_us, None);
    reading.flags.push(flag::DERIVED_ID.to_owned());
    let id = sample_id(user, metric.name, at_us, "oura");
    Reading { sample_id: Some(id.to_string()), ..reading }
}

impl Bucket {
    fn record(self, day: Day) -> VendorRecord {
        // What is dated in the future is kept, but does not say when the bucket was.
        let skewed = |reading: &Reading| reading.flags.iter().any(|name| name == flag::CLOCK_SKEW);
        let all = self.readings.values().all(skewed);
        let dated = || self.readings.values().filter(|reading| all || !skewed(reading));
        let (start_at, end_at) = (
            dated().map(|reading| reading.start_at).next(),
            dated().map(|reading| reading.start_at).next_back(),
        );
        VendorRecord {
            device_type: "oura".to_owned(),
            via: "direct",
            record_type: "samples.heart_rate".to_owned(),
            record_id: format!("{day}|oura"),
            merge: Merge::Union,
            op: Op::Upsert,
            version: None,
            content: Content {
                start_at,
                end_at,
                offset_provenance: "unknown".to_owned(),
                state: "final".to_owned(),
                flags: all.then(|| flag::CLOCK_SKEW.to_owned()).into_iter().collect(),
                readings: self.readings.into_values().collect(),
                ..Content::default()
            },
        }
    }
}
