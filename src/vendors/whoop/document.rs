//! What WHOOP's API answers, as records: sleeps, recoveries, cycles, workouts, the body.
//!
//! # Decisions
//! - Only what is `SCORED` has values. `PENDING_SCORE` is a tentative record without readings, which
//!   the score comes to as its next revision; `UNSCORABLE` is final without readings; so neither is
//!   ever a zero.
//! - `updated_at` is the version.
//! - Times are UTC; `timezone_offset` is where the person was, `Z` being an offset of zero and not
//!   an unknown one. There is one for start and end, whatever the clocks did in the night.
//! - A sleep's day is the local date of its end. A recovery has no times: they are its sleep's,
//!   which stands in the same body. A cycle's day is the one on which the sleep that began it ended;
//!   where that sleep is not in the body, the day is not known. A cycle that only came along is then
//!   left out: it would take the day from what is known of it.
//! - A recovery on a page without its sleep is asked for again by itself; alone, it is refused. So
//!   nothing is asked for twice by what was asked for.
//! - A window of nights has all three as records: its sleeps, its recoveries and its cycles.
//! - While `user_calibrating`, a recovery score is none; the rest says so in an attribute.
//! - No metric, so not taken: sleep cycles, heart rate zones, altitude, percent recorded.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::error::{Path, Reject};
use crate::model::contract::header;
use crate::model::metric;
use crate::model::time::{Day, Micros, Moment, parse_offset};
use crate::vendors::history;
use crate::vendors::whoop::{sport, user};
use crate::vendors::wire::answer::{Stands, objects};
use crate::vendors::wire::json::{self, At};
use crate::vendors::wire::sheet::{Field, Head, Sheet, Time, Zone, boolean, field, number};
use crate::vendors::wire::unit;
use crate::vendors::{Item, Raw, VendorRecord, What};

/// Milliseconds, as their names say, in a second.
const MS_PER_S: f64 = 1_000.0;

const fn stage(name: &'static [&'static str], metric: &'static str) -> Field {
    field(name, metric).divisor(MS_PER_S)
}

const SLEEP: &[Field] = &[
    stage(&["stage_summary", "total_in_bed_time_milli"], "sleep_time_in_bed"),
    stage(&["stage_summary", "total_awake_time_milli"], "sleep_awake_duration"),
    stage(&["stage_summary", "total_light_sleep_time_milli"], "sleep_light_duration"),
    stage(&["stage_summary", "total_slow_wave_sleep_time_milli"], "sleep_deep_duration"),
    stage(&["stage_summary", "total_rem_sleep_time_milli"], "sleep_rem_duration"),
    field(&["stage_summary", "disturbance_count"], "whoop.disturbance_count"),
    field(&["respiratory_rate"], "respiratory_rate_sleep_avg"),
    field(&["sleep_efficiency_percentage"], "sleep_efficiency"),
    field(&["sleep_consistency_percentage"], "whoop.sleep_consistency"),
    field(&["sleep_performance_percentage"], "whoop.sleep_performance"),
];

/// What is slept; what has no data is neither slept nor waked through.
const ASLEEP: [&[&str]; 3] = [
    &["stage_summary", "total_light_sleep_time_milli"],
    &["stage_summary", "total_slow_wave_sleep_time_milli"],
    &["stage_summary", "total_rem_sleep_time_milli"],
];

/// What is needed; a nap takes from it, so its part is zero or less.
const NEEDED: [&[&str]; 4] = [
    &["sleep_needed", "baseline_milli"],
    &["sleep_needed", "need_from_sleep_debt_milli"],
    &["sleep_needed", "need_from_recent_strain_milli"],
    &["sleep_needed", "need_from_recent_nap_milli"],
];

/// `hrv_rmssd_milli` is in milliseconds: the suffix is the unit.
const RECOVERY: &[Field] = &[
    field(&["hrv_rmssd_milli"], "hrv_rmssd_sleep_avg").method("sleep_weighted"),
    field(&["resting_heart_rate"], "resting_heart_rate").method("sleep_weighted"),
    field(&["spo2_percentage"], "spo2_sleep_avg"),
    field(&["skin_temp_celsius"], "skin_temperature_sleep").method("wrist"),
];

const RECOVERY_SCORE: &[Field] = &[field(&["recovery_score"], "whoop.recovery_score")];

const CYCLE: &[Field] = &[
    field(&["strain"], "whoop.strain").context("cycle"),
    field(&["average_heart_rate"], "heart_rate_daily_avg"),
    field(&["max_heart_rate"], "heart_rate_daily_max"),
];

const WORKOUT: &[Field] = &[
    field(&["strain"], "whoop.strain").context("workout"),
    field(&["average_heart_rate"], "heart_rate").method("mean").context("workout"),
    field(&["max_heart_rate"], "heart_rate").method("max").context("workout"),
];

const ON_FOOT: &[Field] =
    &[field(&["distance_meter"], "distance_walk_run").method("total").context("workout")];

/// What a body says that was fetched for this type of record.
pub(super) fn read(raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
    let known =
        ["sleep", "recovery", "cycle", "workout", "body", "window.nights", "window.workout"];
    let known = known.into_iter().find(|name| *name == record_type);
    let Some(asked) = known.map(|name| history::of(name).unwrap_or(name)) else {
        return Err(Reject::invalid(Path::root(), "no type of record of this vendor"));
    };
    let json = json::parse(raw.body)?;
    let root = json.root();
    let body = Body { raw, asked, nights: nights(&root)? };
    let (mut items, mut found, mut alone) = (Vec::new(), false, false);
    objects(&root, "records", &mut |index, stands, at| {
        found |= shape(asked, at) == asked;
        alone |= stands == Stands::Alone;
        let (vendor_user, what) = match body.whose(at) {
            Ok(user) => (user, body.what(stands, at).unwrap_or_else(|bad| Some(What::Bad(bad)))),
            Err(bad) => (None, Some(What::Bad(bad))),
        };
        items.extend(what.map(|what| Item { index, vendor_user, what }));
    })?;
    let bad = |item: &Item| matches!(item.what, What::Bad(_));
    // A page may be empty of what was asked for, an answer of its own may not.
    if alone && !found && !items.iter().any(bad) {
        return Err(Reject::malformed(Path::root(), "the record that was asked for is not in it"));
    }
    Ok(items)
}

/// What an object is: what was asked for, or what comes along with it.
fn shape(asked: &'static str, at: &At<'_>) -> &'static str {
    let has = |name| at.member(name).is_some();
    match asked {
        "recovery" | "nights" if has("sleep_id") => "recovery",
        "recovery" | "cycle" | "nights" if has("nap") => "sleep",
        "recovery" | "nights" => "cycle",
        _ => asked,
    }
}

/// A sleep as far as others go by it.
#[derive(Clone, Copy, Debug)]
struct Night {
    start: Time,
    end: Option<Time>,
    cycle: Option<i64>,
    is_nap: bool,
}

/// The sleeps of a body by their ids. One that cannot be read is bad where it is read as an item.
fn nights(root: &At<'_>) -> Result<BTreeMap<Uuid, Night>, Reject> {
    let mut nights = BTreeMap::new();
    objects(root, "records", &mut |_, _, at| {
        if at.member("nap").is_some()
            && let Ok((id, night)) = night(at)
        {
            nights.insert(id, night);
        }
    })?;
    Ok(nights)
}

fn night(at: &At<'_>) -> Result<(Uuid, Night), Reject> {
    let (start, end) = times(at)?;
    let cycle = at.get("cycle_id").map(|at| at.integer()).transpose()?;
    let is_nap = at.need("nap")?.boolean()?;
    Ok((uuid(&at.object()?.need("id")?)?, Night { start, end, cycle, is_nap }))
}

/// A body on its way to items.
struct Body<'a> {
    raw: &'a Raw<'a>,
    asked: &'static str,
    nights: BTreeMap<Uuid, Night>,
}

impl Body<'_> {
    /// Whose an object is: its own user, who must be the one that was asked for; or that one.
    fn whose(&self, at: &At<'_>) -> Result<Option<String>, Reject> {
        let asked = self.raw.headers.text(header::VENDOR_USER);
        let Some(named) = at.object()?.get("user_id") else { return Ok(asked.map(str::to_owned)) };
        let own = user(at)?;
        match asked {
            Some(asked) if asked != own => Err(named.invalid("not the user that was asked for")),
            _ => Ok(Some(own)),
        }
    }

    /// What an object is; nothing of a sleep that only came along, nor of such a cycle of no known day.
    fn what(&self, stands: Stands, at: &At<'_>) -> Result<Option<What>, Reject> {
        let head = Head {
            device_type: "whoop".to_owned(),
            via: "direct",
            version: at.get("updated_at").map(|at| instant(&at)).transpose()?,
            received_at: self.raw.received_at,
        };
        let record = match shape(self.asked, at) {
            "sleep" if !["sleep", "nights"].contains(&self.asked) => {
                return night(at).map(|_| None);
            }
            "sleep" => sleep(&head, at)?,
            "recovery" => return self.recovery(&head, stands, at).map(Some),
            "cycle" => {
                let cycle = self.cycle(&head, at)?;
                if self.asked != "cycle" && cycle.content.local_date.is_none() {
                    return Ok(None);
                }
                cycle
            }
            "workout" => workout(&head, at)?,
            _ => measured(&head, at)?,
        };
        Ok(Some(What::Record(Box::new(record))))
    }

    fn recovery(&self, head: &Head, stands: Stands, at: &At<'_>) -> Result<What, Reject> {
        let sleep_at = at.need("sleep_id")?;
        let sleep = uuid(&sleep_at)?;
        let record_id = format!("recovery:{sleep}");
        let Some(night) = self.nights.get(&sleep) else {
            if stands == Stands::Paged {
                return Ok(What::Fetch { record_type: "recovery", record_id });
            }
            return Err(sleep_at.invalid("its sleep is not in the document"));
        };
        let times = (night.start, night.end);
        let mut sheet = Sheet::new(head, "recovery", record_id, Zone::unknown(), times);
        sheet.belongs(day_of(night), "sleep_end");
        let Some(score) = score(&mut sheet, at)? else { return Ok(finished(sheet)) };
        let calibrating = boolean(&score, &["user_calibrating"])?;
        if let Some(calibrating) = calibrating {
            sheet.attribute("user_calibrating", calibrating.to_string());
        }
        sheet.fields(&score, RECOVERY)?;
        if calibrating != Some(true) {
            sheet.fields(&score, RECOVERY_SCORE)?;
        }
        Ok(finished(sheet))
    }

    fn cycle(&self, head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
        let id_at = at.need("id")?;
        let id = id_at.integer()?;
        if id <= 0 {
            return Err(id_at.malformed("not an id"));
        }
        let times = times(at)?;
        let mut sheet = Sheet::new(head, "cycle", id.to_string(), Zone::unknown(), times);
        let slept = self.nights.values().filter(|night| night.cycle == Some(id) && !night.is_nap);
        let first = slept.min_by_key(|night| night.start.at_us);
        sheet.belongs(first.and_then(day_of), "whoop_cycle");
        if let Some(score) = score(&mut sheet, at)? {
            sheet.fields(&score, CYCLE)?;
            energy(&mut sheet, &score, "energy_total_daily", None)?;
        }
        open(&mut sheet);
        Ok(sheet.finish())
    }
}

fn finished(sheet: Sheet<'_>) -> What {
    What::Record(Box::new(sheet.finish()))
}

fn day_of(night: &Night) -> Option<Day> {
    night.end.and_then(|end| end.local_date())
}

fn sleep(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    let (id, night) = night(at)?;
    let times = (night.start, night.end);
    let mut sheet = Sheet::new(head, "sleep", id.to_string(), Zone::unknown(), times);
    sheet.belongs(day_of(&night), "sleep_end");
    sheet.attribute("is_nap", night.is_nap.to_string());
    if let Some(score) = score(&mut sheet, at)? {
        sheet.lasted("sleep_session");
        sheet.fields(&score, SLEEP)?;
        for (parts, name) in
            [(ASLEEP.as_slice(), "sleep_total_duration"), (NEEDED.as_slice(), "sleep_need")]
        {
            if let (Some(sum), Some(metric)) = (sum(&score, parts)?, metric::find(name)) {
                sheet.add(metric, sum / MS_PER_S, None, None);
            }
        }
    }
    open(&mut sheet);
    Ok(sheet.finish())
}

/// The sum of these; nothing where one is not there, for the others would be another sum.
fn sum(score: &At<'_>, parts: &[&[&'static str]]) -> Result<Option<f64>, Reject> {
    let mut sum = Some(0.0);
    for part in parts {
        let value = number(score, part)?;
        sum = sum.zip(value).map(|(sum, value)| sum + value);
    }
    Ok(sum)
}

fn workout(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    let id = uuid(&at.need("id")?)?;
    let times = times(at)?;
    let mut sheet = Sheet::new(head, "workout", id.to_string(), Zone::unknown(), times);
    sheet.belongs(times.0.local_date(), "civil_midnight");
    let kind = at.get("sport_name").map(|at| at.text().map(sport::name)).transpose()?;
    if let Some(kind) = kind {
        sheet.attribute("sport", kind);
    }
    if let Some(score) = score(&mut sheet, at)? {
        sheet.lasted("workout_session");
        sheet.fields(&score, WORKOUT)?;
        energy(&mut sheet, &score, "energy_active", Some("workout"))?;
        if kind.is_some_and(sport::is_on_foot) {
            sheet.fields(&score, ON_FOOT)?;
        }
    }
    open(&mut sheet);
    Ok(sheet.finish())
}

/// What a person's profile says of the body, as of when it was asked for: it has no time of its own.
fn measured(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    let mut sheet = Sheet::timeless(head, "body", "body".to_owned());
    for (path, name, spelling) in
        [("height_meter", "body_height", "m"), ("weight_kilogram", "body_weight", "kg")]
    {
        converted(&mut sheet, at, path, (name, spelling), None)?;
    }
    if sheet.content.readings.is_empty() {
        return Err(at.malformed("neither height nor weight"));
    }
    Ok(sheet.finish())
}

/// Energy, which WHOOP gives in kilojoules.
fn energy(
    sheet: &mut Sheet<'_>,
    score: &At<'_>,
    name: &str,
    context: Option<&str>,
) -> Result<(), Reject> {
    converted(sheet, score, "kilojoule", (name, "kJ"), context)
}

/// A value in this spelling of a unit as this metric. Of a workout it is a total.
fn converted(
    sheet: &mut Sheet<'_>,
    at: &At<'_>,
    path: &'static str,
    (name, spelling): (&str, &str),
    context: Option<&str>,
) -> Result<(), Reject> {
    let Some(metric) = metric::find(name) else { return Ok(()) };
    let conversion = unit::conversion(metric.unit.unwrap_or_default(), spelling);
    if let (Some(value), Some(conversion)) = (number(at, &[path])?, conversion) {
        let method = context.map(|_| "total");
        sheet.add(metric, conversion.apply(value), method, context);
    }
    Ok(())
}

/// The score of an object, where it has one; how it stands with it is an attribute.
fn score<'a>(sheet: &mut Sheet<'_>, at: &'a At<'a>) -> Result<Option<At<'a>>, Reject> {
    let state = match at.need("score_state")?.text()? {
        "SCORED" => "scored",
        "PENDING_SCORE" => "pending",
        "UNSCORABLE" => "unscorable",
        _ => "unlisted",
    };
    sheet.attribute("score_state", state);
    if state == "pending" || state == "unlisted" {
        "tentative".clone_into(&mut sheet.content.state);
    }
    if state != "scored" {
        return Ok(None);
    }
    let score = at.need("score")?;
    score.object()?;
    Ok(Some(score))
}

/// What has no end yet is tentative.
fn open(sheet: &mut Sheet<'_>) {
    if sheet.end.is_none() {
        "tentative".clone_into(&mut sheet.content.state);
    }
}

/// Start and end with the offset that they share; what still runs has no end.
fn times(at: &At<'_>) -> Result<(Time, Option<Time>), Reject> {
    let zone = at.object()?.need("timezone_offset")?;
    let offset_s = match zone.text()? {
        "Z" => 0,
        text => parse_offset(text).ok_or_else(|| zone.malformed("not an offset from UTC"))?,
    };
    let time = |at_us| Time { at_us, offset_s: Some(offset_s), known: true };
    let start = instant(&at.need("start")?)?;
    let Some(end_at) = at.get("end") else { return Ok((time(start), None)) };
    let end = instant(&end_at)?;
    if end < start {
        return Err(end_at.invalid("an end before its start"));
    }
    Ok((time(start), Some(time(end))))
}

fn instant(at: &At<'_>) -> Result<Micros, Reject> {
    let moment = Moment::parse(at.text()?).map_err(|_| at.malformed("not a date and time"))?;
    Ok(moment.at_us)
}

fn uuid(at: &At<'_>) -> Result<Uuid, Reject> {
    Uuid::try_parse(at.text()?).map_err(|_| at.malformed("not a UUID"))
}
