//! Dexcom as it is played: nothing is sent, and glucose is had by who asks, hours late.
//!
//! Written from its contract alone. A value stands every five minutes, under an id of its own. A phone brings them some
//! hours at a time, now and then those of a morning days later, and smoothing changes values that were already given:
//! the id stays. None is deleted. Where a sensor measures no further there is a record without a value.
//!
//! What is true of a person is told day by day in UTC, because times without a zone are compared with UTC: a version is
//! what a day's list has when another upload has come. People wear a sensor on the last days of the world alone; two
//! hundred and eighty-eight values a day are enough of them.

use serde_json::json;

use super::dice::{Draw, Seed};
use super::fault::Fault;
use super::person::offset_at;
use super::place::{HOUR, MINUTE, SECOND, local, utc};
use super::player::{Ask, Delivery, House, Listed, Player, Shelf, Wanted};
use super::quota::Limit;
use super::story::{Account, Made, Notice, Telling, Version};
use super::truth::{Series, Truth, unit};
use crate::model::time::{Day, Micros};

/// Dexcom.
pub static PLAYER: Dexcom = Dexcom;

/// See the module.
#[derive(Debug)]
pub struct Dexcom;

/// What stands before everything that is asked for.
const PATH: &str = "/v3/users/self/";
/// How many days a sensor is worn.
const WORN: usize = 8;
/// How far apart values are, seconds.
const EVERY_S: i32 = 300;
/// How many of them a day has, and a quarter of one: what a phone brings at once.
const SLOTS: usize = 288;
const QUARTER: usize = SLOTS / 4;
/// The most days of a call.
const WINDOW_DAYS: i32 = 30;
/// What a sensor measures, mg/dL.
const MEASURED: std::ops::RangeInclusive<i32> = 40..=400;
/// mg/dL of a mmol/L.
const MG_OF_MMOL: f64 = 18.0156;

impl Player for Dexcom {
    fn name(&self) -> &'static str {
        "dexcom"
    }

    fn vendor_user(&self, seed: Seed) -> String {
        seed.of("user", 0).uuid()
    }

    fn records(&self, telling: &Telling<'_>) -> Vec<Made> {
        let sensor = Sensor::new(telling);
        let first = telling.life.first().map_or(0, |lived| Day::of_utc(lived.noon).0);
        let days = telling.life.len();
        let worn = (0_i32..).take(days).skip(days.saturating_sub(WORN));
        worn.map(|nth| sensor.day(telling, Day(first.saturating_add(nth)))).collect()
    }

    fn notice(&self, _seed: Seed, _account: &Account, _version: &Version) -> Option<String> {
        None
    }

    fn delivery(&self, _notice: &Notice, _secret: &str, _now_us: Micros) -> Delivery {
        Delivery { path: "/webhooks/dexcom".to_owned(), headers: Vec::new() }
    }

    fn house(&self) -> House {
        House {
            api: "",
            token: "/v2/oauth2/token",
            limits: &[Limit { window_s: 3_600, calls: 60_000 }],
            token_s: 7_200,
            rotates: true,
        }
    }

    fn asks(&self, ask: &Ask, path: &str) -> Wanted {
        match path.strip_prefix(PATH) {
            _ if ask.method != "GET" => Wanted::Nothing(405),
            Some("egvs" | "dataRange") => Wanted::List,
            _ => Wanted::Nothing(404),
        }
    }

    /// The values between two times, the later ones first; or from when to when there are any.
    fn list(&self, shelf: &Shelf<'_>, path: &str, ask: &Ask) -> Option<Listed> {
        let user = shelf.entries.iter().find_map(|(_, entry)| entry.versions.first());
        let user = user.map(|version| version.truth.vendor_user.clone());
        let mut found = Vec::new();
        let mut shown = Vec::new();
        let (from, to) = match path.strip_prefix(PATH)? {
            "dataRange" => (String::new(), "9".to_owned()),
            _ => between(ask)?,
        };
        for one in shelf.now() {
            let before = found.len();
            let lines = one.document.lines().filter_map(|line| Some((time(line)?, line)));
            found.extend(lines.filter(|(at, _)| (&*from..&*to).contains(at)));
            if found.len() > before {
                shown.push((one.place, one.version.truth.order));
            }
        }
        found.sort_by(|(one, _), (other, _)| other.cmp(one));
        if path.ends_with("dataRange") {
            let bounds = found.last().zip(found.first());
            let range = bounds.map(|((first, _), (last, _))| {
                json!({ "start": { "systemTime": first }, "end": { "systemTime": last } })
            });
            let body = json!({
                "recordType": "dataRange", "recordVersion": "3.0", "userId": user,
                "calibrations": null, "egvs": range, "events": null,
            });
            return Some(Listed { body: body.to_string(), shown: Vec::new() });
        }
        let records: Vec<&str> = found.into_iter().map(|(_, line)| line).collect();
        let user = user.map(|user| format!(r#""userId":"{user}","#)).unwrap_or_default();
        let body = format!(
            r#"{{"recordType":"egv","recordVersion":"3.0",{user}"records":[{}]}}"#,
            records.join(",")
        );
        Some(Listed { body, shown })
    }
}

/// From when to when is asked for, as texts of the form of [`time`]: not more than [`WINDOW_DAYS`].
fn between(ask: &Ask) -> Option<(String, String)> {
    let bound = |name| {
        let text = ask.parameter(name)?;
        let day = Day::parse(text.get(..10)?)?;
        (text.len() == "2026-03-29T00:00:00".len()).then_some((day, text))
    };
    let ((first, from), (last, to)) = (bound("startDate")?, bound("endDate")?);
    (first <= last && last.0 - first.0 <= WINDOW_DAYS).then_some((from, to))
}

/// The time of a record's line, without its zone.
fn time(line: &str) -> Option<&str> {
    let (_, behind) = line.split_once(r#""systemTime":""#)?;
    behind.get(.."2026-03-29T00:00:00".len())
}

/// What a person wears, and what shows it.
struct Sensor {
    seed: Seed,
    /// How long after midnight in UTC the first value of a day is, seconds.
    phase_s: i32,
    /// Shown by a receiver: it knows no offsets, and its clock is not right to the second.
    receiver: bool,
    /// Shown in mmol/L.
    molar: bool,
    /// How high a meal takes it, mg/dL.
    height: i32,
}

/// What stands at a moment.
struct Value {
    /// mg/dL, or tenths of mmol/L; absent where it is none.
    value: Option<i32>,
    status: Option<&'static str>,
}

impl Sensor {
    fn new(telling: &Telling<'_>) -> Self {
        let seed = telling.seed.of("sensor", 0);
        let mut dice = seed.dice();
        let phase_s = dice.between(0, EVERY_S - 1);
        let (receiver, molar) = (dice.percent(25), dice.percent(30));
        let height = dice.pick(&[35, 50, 80, 350], 50);
        Self { seed, phase_s, receiver, molar, height }
    }

    /// What a day's list has, upload by upload.
    fn day(&self, telling: &Telling<'_>, day: Day) -> Made {
        let seed = self.seed.of("day", u64::from(day.0.unsigned_abs()));
        let mut dice = seed.dice();
        let midnight = day.start_utc_us();
        let mut uploads: Vec<(Micros, usize)> = (0..4_usize)
            .zip(1_i64..)
            .map(|(quarter, nth)| {
                // An hour late by policy.
                let at = midnight + (nth * 6 + 1) * HOUR;
                (at + i64::from(dice.between(0, 50)) * MINUTE, quarter)
            })
            .collect();
        if dice.percent(10)
            && let Some((at, _)) = uploads.get_mut(1)
        {
            *at += 38 * HOUR;
        }
        uploads.sort_unstable();
        let mut quarters = Vec::new();
        let mut course: Vec<(Micros, Vec<usize>, bool)> = Vec::new();
        for (at, quarter) in uploads {
            quarters.push(quarter);
            course.push((at, quarters.clone(), false));
        }
        if seed.of("smoothed", 0).within(telling.shares.of(Fault::Rescore))
            && let Some((last, all, _)) = course.last().cloned()
        {
            course.push((last + 3 * HOUR, all, true));
        }
        let values = self.values(seed, &mut dice);
        let version = |(at, quarters, smoothed): (Micros, Vec<usize>, bool)| {
            self.version(telling, (day, seed), &values, (at, &quarters, smoothed))
        };
        let versions = course.into_iter().filter_map(version).collect();
        Made { path: format!("{PATH}egvs/{day}"), versions }
    }

    /// The values of a day; absent ones are gaps of the sensor.
    fn values(&self, seed: Seed, dice: &mut Draw) -> Vec<Option<Value>> {
        let meals: Vec<(i32, i32)> =
            [84, 150, 228].map(|slot| (slot + dice.between(-18, 18), self.height)).to_vec();
        let level = |slot: i32, dice: &mut Draw| {
            let meals = meals.iter().map(|(peak, height)| {
                let away = (slot - peak).abs();
                (height - away * height / 24).max(0)
            });
            // Who rises far falls far.
            let night = if self.height > 100 && slot < 60 { -45 } else { 0 };
            92 + night + meals.sum::<i32>() + dice.between(-6, 6)
        };
        let mut slots = seed.of("values", 0).dice();
        let one = |slot: i32| {
            let level = level(slot, &mut slots);
            let (gap, none) = (slots.percent(2), slots.percent(1));
            let good = slots.pick(&[None, Some("ok"), Some("unknown")], None);
            let value = match level {
                _ if gap => return None,
                _ if none => Value { value: None, status: Some("unknown") },
                high if high > *MEASURED.end() => Value { value: None, status: Some("high") },
                low if low < *MEASURED.start() => Value { value: None, status: Some("low") },
                // Tenths of a mmol/L.
                level if self.molar => Value { value: Some(level * 10 / 18), status: good },
                level => Value { value: Some(level), status: good },
            };
            Some(value)
        };
        (0..).take(SLOTS).map(one).collect()
    }

    /// What a list has of a day when these quarters of it have come; none where that is no value at all.
    fn version(
        &self,
        telling: &Telling<'_>,
        (day, seed): (Day, Seed),
        values: &[Option<Value>],
        (at, quarters, smoothed): (Micros, &[usize], bool),
    ) -> Option<Version> {
        let begins = day.start_utc_us() + i64::from(self.phase_s) * SECOND;
        let mut series = vec![None; SLOTS];
        let (mut lines, mut offsets) = (Vec::new(), Vec::new());
        for (slot, value) in values.iter().enumerate() {
            let Some(value) = value.as_ref().filter(|_| quarters.contains(&(slot / QUARTER)))
            else {
                continue;
            };
            let number = u64::try_from(slot).unwrap_or(0);
            let moved = i32::from(smoothed && seed.of("moved", number).within(20));
            let shown = value.value.map(|value| value + moved);
            let sampled = begins + i64::try_from(slot).unwrap_or(0) * i64::from(EVERY_S) * SECOND;
            let offset_s = offset_at(telling.life, sampled);
            lines.push(self.line(seed.of("egv", number).uuid(), (sampled, offset_s), value, shown));
            if let (Some(shown), Some(place)) = (shown, series.get_mut(slot)) {
                *place = Some(self.in_mg(shown));
                offsets.push((sampled, offset_s));
            }
        }
        let (first, last) = (offsets.first()?, offsets.last()?);
        let mut truth = telling.truth("samples.blood_glucose", &format!("{day}|dexcom"), at);
        dated(&mut truth, *first, *last);
        truth.series.push(Series {
            metric: "blood_glucose".to_owned(),
            unit: unit("blood_glucose"),
            start: begins,
            every_s: EVERY_S,
            values: series,
        });
        Some(Version { truth, document: Some(lines.join("\n")), ready: at, kind: "" })
    }

    fn in_mg(&self, shown: i32) -> f64 {
        let shown = f64::from(shown);
        if self.molar { shown / 10.0 * MG_OF_MMOL } else { shown }
    }

    fn line(
        &self,
        id: String,
        (at, offset_s): (Micros, i32),
        value: &Value,
        shown: Option<i32>,
    ) -> String {
        let wall = local(at + if self.receiver { 17 * SECOND } else { 0 }, offset_s);
        let plain = |text: &str| text.chars().take("2026-03-29T00:00:00".len()).collect::<String>();
        let (system, display) = if self.receiver {
            (plain(&utc(at)), plain(&wall))
        } else {
            (format!("{}Z", plain(&utc(at))), wall)
        };
        let shown = shown.map(|shown| match self.molar {
            true => json!(f64::from(shown) / 10.0),
            false => json!(shown),
        });
        let unit = if self.molar { "mmol/L" } else { "mg/dL" };
        json!({
            "recordId": id, "systemTime": system, "displayTime": display,
            "transmitterId": "simulated", "transmitterTicks": at / SECOND % 1_000_000,
            "value": shown, "status": value.status, "trend": "flat", "trendRate": 0.3,
            "unit": unit, "rateUnit": format!("{unit}/min"),
            "displayDevice": if self.receiver { "receiver" } else { "iOS" },
            "transmitterGeneration": "g7",
        })
        .to_string()
    }
}

/// From the first value to the last, wherever the person was.
fn dated(truth: &mut Truth, first: (Micros, i32), last: (Micros, i32)) {
    (truth.start, truth.start_offset_s) = (Some(first.0), Some(first.1));
    (truth.end, truth.end_offset_s) = (Some(last.0), Some(last.1));
    truth.state = Some("final".to_owned());
}
