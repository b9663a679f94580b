//! HealthKit as it is played: no server, but phones that push what came since they last did.
//!
//! Written from its contract alone, in the shape of our own app. A phone wakes some times a day and sends the samples of
//! some hours; now and then a watch hands a few over later, and now and then the person deletes some, of which one may
//! never have been sent. Every sample has an id of its own and never changes.
//!
//! What is true of a person is told by UTC day and metric: a version is what all pushes until then say of it. A push has no
//! version, so pushes go out in turn, and each may be sent again by a phone that heard no answer.

use serde_json::{Value, json};

use super::dice::Seed;
use super::fault::Fault;
use super::person::offset_at;
use super::place::{HOUR, MINUTE, SECOND, offset, utc};
use super::player::{Ask, Delivery, House, Player, Wanted};
use super::story::{Account, Made, Notice, Telling, Version};
use super::truth::{Series, unit};
use crate::model::time::{Day, Micros};
use crate::vendors::healthkit::token;

/// HealthKit.
pub static PLAYER: HealthKit = HealthKit;

/// See the module.
#[derive(Debug)]
pub struct HealthKit;

/// What is pushed.
struct Type {
    metric: &'static str,
    /// Apple's name of it.
    name: &'static str,
    unit: &'static str,
    /// How far apart samples are, seconds.
    every_s: i32,
    /// Between which values they are.
    values: (i32, i32),
}

const TYPES: [Type; 2] = [
    Type {
        metric: "heart_rate",
        name: "HKQuantityTypeIdentifierHeartRate",
        unit: "count/min",
        every_s: 900,
        values: (48, 140),
    },
    Type {
        metric: "hrv_sdnn",
        name: "HKQuantityTypeIdentifierHeartRateVariabilitySDNN",
        unit: "ms",
        every_s: 7_200,
        values: (20, 110),
    },
];
/// Who writes, and with what.
const APP: &str = "com.apple.health";
const DEVICE: &str = "Watch7,5";
/// How often a phone wakes, and how long after.
const EVERY: Micros = 8 * HOUR;

impl Player for HealthKit {
    fn name(&self) -> &'static str {
        "healthkit"
    }

    /// Of the connection itself: nobody else gives its person an id.
    fn vendor_user(&self, seed: Seed) -> String {
        seed.of("user", 0).uuid()
    }

    fn records(&self, telling: &Telling<'_>) -> Vec<Made> {
        let first = telling.life.first().map_or(0, |lived| Day::of_utc(lived.noon).0);
        let days = (0_i32..).take(telling.life.len()).map(|nth| Day(first.saturating_add(nth)));
        days.flat_map(|day| TYPES.iter().map(move |kind| made(telling, day, kind))).collect()
    }

    fn notice(&self, _seed: Seed, _account: &Account, version: &Version) -> Option<String> {
        version.document.clone()
    }

    fn in_turn(&self) -> bool {
        true
    }

    fn undated(&self, _account: &Account) -> bool {
        true
    }

    fn delivery(&self, notice: &Notice, secret: &str, _now_us: Micros) -> Delivery {
        let token = token(secret.as_bytes(), &notice.vendor_user);
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("authorization", format!("Bearer {token}")),
            ("x-batch-id", notice.id.clone()),
        ];
        Delivery { path: "/webhooks/healthkit".to_owned(), headers }
    }

    fn gives_tokens(&self) -> bool {
        false
    }

    fn house(&self) -> House {
        House { api: "", token: "", limits: &[], token_s: 0, rotates: false }
    }

    fn asks(&self, _ask: &Ask, _path: &str) -> Wanted {
        Wanted::Nothing(404)
    }
}

/// What a phone does.
enum Push {
    /// It sends the samples at these places.
    Samples(Vec<usize>),
    /// It says that those are gone.
    Deleted(Vec<usize>),
}

/// A day of a metric.
fn made(telling: &Telling<'_>, day: Day, kind: &Type) -> Made {
    let (metric, every_s, (low, high)) = (kind.metric, kind.every_s, kind.values);
    let seed = telling.seed.of(metric, u64::from(day.0.unsigned_abs()));
    let mut dice = seed.dice();
    let begins = day.start_utc_us() + i64::from(dice.between(0, every_s - 1)) * SECOND;
    let slots = usize::try_from(86_400 / every_s).unwrap_or(1);
    let values: Vec<Option<i32>> =
        (0..slots).map(|_| Some(dice.between(low, high)).filter(|_| !dice.percent(5))).collect();
    let zone = offset_at(telling.life, day.start_utc_us() + 12 * HOUR);
    let sampled =
        |slot: usize| begins + i64::try_from(slot).unwrap_or(0) * i64::from(every_s) * SECOND;
    let id = |slot: usize| seed.of("sample", u64::try_from(slot).unwrap_or(0)).uuid();
    let mut series = vec![None; slots];
    let mut versions = Vec::new();
    for (at, push) in pushes(telling, seed, day, &values) {
        let (mut records, mut deleted) = (Vec::new(), Vec::new());
        match push {
            Push::Samples(some) => {
                for slot in some {
                    let Some((value, place)) =
                        values.get(slot).copied().flatten().zip(series.get_mut(slot))
                    else {
                        continue;
                    };
                    *place = Some(f64::from(value));
                    let time = utc(sampled(slot));
                    records.push(json!({
                        "id": id(slot).to_uppercase(), "type": kind.name, "value": value,
                        "unit": kind.unit, "startDate": time, "endDate": time,
                        "zoneOffset": offset(zone),
                        "source": { "bundleIdentifier": APP, "productType": DEVICE },
                    }));
                }
            }
            Push::Deleted(some) => {
                for slot in some {
                    // The one beyond the last was never sent.
                    if let Some(place) = series.get_mut(slot) {
                        *place = None;
                    }
                    deleted.push(json!({ "id": id(slot), "type": kind.name }));
                }
            }
        }
        let had: Vec<usize> = (0..slots).filter(|slot| series.get(*slot) != Some(&None)).collect();
        let (Some(first), Some(last)) = (had.first(), had.last()) else { continue };
        let mut truth =
            telling.truth(&format!("samples.{metric}"), &format!("{day}|{APP}|{DEVICE}"), at);
        (truth.start, truth.end) = (Some(sampled(*first)), Some(sampled(*last)));
        // What is taken away was nowhere: its push names no zone.
        let zone = Some(zone).filter(|_| deleted.is_empty());
        (truth.start_offset_s, truth.end_offset_s) = (zone, zone);
        truth.state = Some("final".to_owned());
        let (metric, values) = (metric.to_owned(), series.clone());
        truth.series.push(Series { unit: unit(&metric), metric, start: begins, every_s, values });
        versions.push(telling.version(truth, &body(at, &records, &deleted)));
    }
    Made { path: String::new(), versions }
}

/// What is pushed of a day's values, and when.
fn pushes(
    telling: &Telling<'_>,
    seed: Seed,
    day: Day,
    values: &[Option<i32>],
) -> Vec<(Micros, Push)> {
    let mut dice = seed.of("pushes", 0).dice();
    let handed_over = seed.of("handed over", 0).within(telling.shares.of(Fault::Rescore));
    let late: Vec<usize> = if handed_over { vec![1, values.len() / 2] } else { Vec::new() };
    let third = values.len() / 3;
    let mut pushes = Vec::new();
    let mut at = day.start_utc_us();
    for part in 0..3 {
        at = day.start_utc_us()
            + i64::try_from(part + 1).unwrap_or(1) * EVERY
            + i64::from(dice.between(3, 50)) * MINUTE;
        let some = (part * third..(part + 1) * third).filter(|slot| !late.contains(slot));
        pushes.push((at, Push::Samples(some.collect())));
    }
    if handed_over {
        at += 3 * HOUR;
        pushes.push((at, Push::Samples(late)));
    }
    if seed.of("deleted", 0).within(telling.shares.of(Fault::Delete)) {
        let had = (2..values.len()).filter(|slot| values.get(*slot).is_some_and(Option::is_some));
        pushes.push((at + 2 * HOUR, Push::Deleted(had.take(2).chain([values.len()]).collect())));
    }
    pushes
}

fn body(at: Micros, records: &[Value], deleted: &[Value]) -> Value {
    json!({
        "provider": "apple", "sdkVersion": "1.4.0", "syncTimestamp": utc(at),
        "data": { "records": records, "sleep": [], "workouts": [], "deleted": deleted },
    })
}
