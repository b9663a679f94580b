//! Garmin as it is played: whole summaries of several people in one request, or pings with upload windows; unsigned,
//! behind a secret path.
//!
//! Written from its contract alone. A day is pushed at every sync and is longer each time; a night is tentative, then
//! final; a nap comes with its night's summary pushed once more. A person whose app is set to ping is only announced:
//! what was uploaded in a window is asked for. Garmin has no deletions, and says when a person withdraws.

use serde_json::{Map, Value, json};

use super::dice::Seed;
use super::fault::Fault;
use super::person::{Lived, PHASE_S, Phase, Sleep, Workout, mean};
use super::place::{HOUR, MINUTE, SECOND, day_at};
use super::player::{Ask, Delivery, House, Listed, Player, Shelf, Shown, Wanted};
use super::quota::Limit;
use super::story::{Account, Made, Notice, Plan, Telling, Version};
use super::truth::Truth;
use crate::model::time::{Day, Micros};

/// Garmin.
pub static PLAYER: Garmin = Garmin;

/// See the module.
#[derive(Debug)]
pub struct Garmin;

/// What is uploaded within so long goes out in one request.
const TOGETHER: Micros = 10 * MINUTE;
/// The share of people who are pinged, percent.
const PINGED: u32 = 40;

impl Player for Garmin {
    fn name(&self) -> &'static str {
        "garmin"
    }

    fn vendor_user(&self, seed: Seed) -> String {
        seed.of("user", 0).hex(32)
    }

    /// One night and one day a date: a date that a journey gives twice is told once.
    fn records(&self, telling: &Telling<'_>) -> Vec<Made> {
        let mut records = Vec::new();
        let mut last: Option<Day> = None;
        for day in telling.life {
            if last.is_none_or(|last| last.0 < day.night.day.0) {
                records.extend(nights(telling, day));
                records.push(daily(telling, day));
                records.push(stress(telling, day));
                last = Some(day.night.day);
            }
            records.extend(day.workout.as_ref().map(|workout| activity(telling, workout)));
        }
        records
    }

    fn notice(&self, _seed: Seed, account: &Account, version: &Version) -> Option<String> {
        let summary = version.document.as_deref()?;
        let kind = version.kind;
        if !is_pinged(account) {
            return Some(format!(r#"{{"{kind}":[{summary}]}}"#));
        }
        let at_s = version.truth.at / SECOND;
        let link = format!(
            "https://apis.garmin.com/wellness-api/rest/{kind}?uploadStartTimeInSeconds={at_s}&uploadEndTimeInSeconds={at_s}"
        );
        let ping = json!({
            "userId": account.vendor_user, "callbackURL": link,
            "uploadStartTimeInSeconds": at_s, "uploadEndTimeInSeconds": at_s,
        });
        Some(json!({ kind: [ping] }).to_string())
    }

    fn of_account(&self, account: &Account, _plan: &Plan) -> Vec<(Micros, String)> {
        let gone = |at: Micros| {
            let body = json!({"deregistrations": [{"userId": account.vendor_user}]});
            (at, body.to_string())
        };
        account.revoked_at.into_iter().map(gone).collect()
    }

    /// Several people's summaries in one request; who withdraws does so after it.
    fn gathered(&self, notices: Vec<Notice>) -> Vec<Notice> {
        let mut gathered: Vec<Notice> = Vec::new();
        let mut ends = Vec::new();
        for mut notice in notices {
            notice.at = (notice.at / TOGETHER + 1) * TOGETHER;
            if notice.of.is_empty() {
                ends.push(notice);
                continue;
            }
            match gathered.last_mut().filter(|last| last.at == notice.at) {
                Some(last) => {
                    last.body = joined(&last.body, &notice.body);
                    last.of.extend(notice.of);
                }
                None => gathered.push(notice),
            }
        }
        gathered.extend(ends.into_iter().map(|end| Notice { at: end.at + SECOND, ..end }));
        gathered
    }

    fn in_turn(&self) -> bool {
        true
    }

    fn undated(&self, _account: &Account) -> bool {
        true
    }

    fn delivery(&self, _notice: &Notice, secret: &str, _now_us: Micros) -> Delivery {
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("garmin-client-id", "simulated".to_owned()),
        ];
        Delivery { path: format!("/webhooks/garmin/{secret}"), headers }
    }

    fn house(&self) -> House {
        House {
            api: "/wellness-api/rest",
            token: "/di-oauth2-service/oauth/token",
            limits: &[Limit { window_s: 60, calls: 100 }],
            token_s: 86_400,
            rotates: true,
        }
    }

    fn asks(&self, ask: &Ask, _path: &str) -> Wanted {
        if ask.method == "GET" { Wanted::List } else { Wanted::Nothing(405) }
    }

    /// What was uploaded within a window and is still the last of its record.
    fn list(&self, shelf: &Shelf<'_>, path: &str, ask: &Ask) -> Option<Listed> {
        let bound = |name| ask.parameter(name)?.parse::<i64>().ok();
        let window = bound("uploadStartTimeInSeconds")?..=bound("uploadEndTimeInSeconds")?;
        if window.end() - window.start() > 86_400 {
            return None;
        }
        let kind = path.trim_start_matches('/');
        let mut found: Vec<Shown<'_>> = Vec::new();
        for shown in shelf.versions() {
            match found.last_mut().filter(|last| last.place == shown.place) {
                Some(last) => *last = shown,
                None => found.push(shown),
            }
        }
        found.retain(|shown| {
            let version = shown.version;
            window.contains(&(version.truth.at / SECOND)) && version.kind == kind
        });
        let bodies: Vec<&str> = found.iter().map(|shown| shown.document).collect();
        Some(Listed {
            body: format!("[{}]", bodies.join(",")),
            shown: found.iter().map(|shown| (shown.place, shown.version.truth.order)).collect(),
        })
    }
}

fn is_pinged(account: &Account) -> bool {
    account.seed.of("pinged", 0).within(PINGED)
}

/// Two bodies as one: the lists of each type one after the other.
fn joined(one: &str, other: &str) -> String {
    let read = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let mut all = read(one);
    for (kind, list) in read(other) {
        let more = list.as_array().cloned().unwrap_or_default();
        match all.get_mut(&kind).and_then(Value::as_array_mut) {
            Some(list) => list.extend(more),
            None => drop(all.insert(kind, list)),
        }
    }
    Value::Object(all).to_string()
}

/// A record that is pushed, or asked for, as a type of Garmin's.
fn made(telling: &Telling<'_>, id: &str, versions: Vec<Version>) -> Made {
    // It is asked for by a window: the path only says that it has to be.
    let path = if is_pinged(telling.account) { format!("/{id}") } else { String::new() };
    Made { path, versions }
}

fn version(telling: &Telling<'_>, kind: &'static str, truth: Truth, document: Value) -> Version {
    let truth = Truth { end_offset_s: None, ..truth };
    let user = json!({ "userId": telling.account.vendor_user });
    Version { kind, ..telling.version(truth, &with(document, user)) }
}

// ── nights ─────────────────────────────────────────────────────────────────────────────────────────────────────

fn nights(telling: &Telling<'_>, day: &Lived) -> Vec<Made> {
    let night = &day.night;
    let seed = telling.seed.of("night", night.number);
    let mut dice = seed.dice();
    let first = night.end + i64::from(dice.between(5, 60)) * MINUTE;
    let pending = seed.of("pending", 0).within(telling.shares.of(Fault::Pending));
    let again = seed.of("rescore", 0).within(telling.shares.of(Fault::Rescore));
    let mut sleeps = Vec::new();
    if pending {
        sleeps.push(slept(telling, night, first, true));
    }
    let last = first + 70 * MINUTE;
    sleeps.push(slept(telling, night, last, false));
    let scored = night.scored_again(telling.seed, 1);
    let is = if again { &scored } else { night };
    if again {
        sleeps.push(slept(telling, is, last + i64::from(dice.between(20, 150)) * MINUTE, false));
    }
    let date = night.day.to_string();
    let mut records = vec![
        made(telling, &format!("sleeps/{date}"), sleeps),
        made(telling, &format!("hrv/{date}"), vec![hrv(telling, night, last + MINUTE)]),
        made(telling, &format!("skinTemp/{date}"), vec![skin(telling, night, last + 2 * MINUTE)]),
    ];
    if let Some(nap) = &day.nap {
        let version = napped(telling, (is, nap), nap.end + 9 * MINUTE);
        records.push(made(telling, &format!("sleeps/nap/{}", nap.number), vec![version]));
    }
    records
}

/// The summary of a night, without its naps.
fn summary(sleep: &Sleep, tentative: bool) -> Value {
    let [deep, light, rem, awake] =
        [Phase::Deep, Phase::Light, Phase::Rem, Phase::Awake].map(|phase| sleep.seconds(phase));
    let mut levels = json!({"deep": [], "light": [], "rem": [], "awake": []});
    for stage in sleep.stages() {
        let one = json!({
            "startTimeInSeconds": stage.start / SECOND, "endTimeInSeconds": stage.end / SECOND,
        });
        if let Some(list) = levels.get_mut(&stage.symbol).and_then(Value::as_array_mut) {
            list.push(one);
        }
    }
    let breaths: Map<String, Value> = (1..4)
        .map(|nth| (nth * 600).to_string())
        .map(|offset| (offset, (f64::from(sleep.breaths) / 100.0).into()))
        .collect();
    json!({
        "summaryId": format!("x{:x}-{}", sleep.start / SECOND, u8::from(tentative)),
        "calendarDate": sleep.day.to_string(),
        "startTimeInSeconds": sleep.start / SECOND,
        "startTimeOffsetInSeconds": sleep.start_offset_s,
        "durationInSeconds": sleep.length_s(),
        "unmeasurableSleepInSeconds": 0,
        "deepSleepDurationInSeconds": deep,
        "lightSleepDurationInSeconds": light,
        "remSleepInSeconds": rem,
        "awakeDurationInSeconds": awake,
        "validation": if tentative { "ENHANCED_TENTATIVE" } else { "ENHANCED_FINAL" },
        "sleepLevelsMap": levels,
        "timeOffsetSleepRespiration": breaths,
        "overallSleepScore": {"value": 60 + sleep.breaths % 30, "qualifierKey": "FAIR"},
    })
}

fn slept(telling: &Telling<'_>, sleep: &Sleep, at: Micros, tentative: bool) -> Version {
    let mut truth = telling.truth("sleep", &sleep.day.to_string(), at);
    truth.during((sleep.start, sleep.start_offset_s), Some((sleep.end, 0)), sleep.day);
    truth.state = Some(if tentative { "tentative" } else { "final" }.to_owned());
    truth.nap = Some(false);
    let [deep, light, rem, awake] =
        [Phase::Deep, Phase::Light, Phase::Rem, Phase::Awake].map(|phase| sleep.seconds(phase));
    for (metric, value) in [
        ("sleep_session", sleep.length_s()),
        ("sleep_time_in_bed", sleep.length_s()),
        ("sleep_deep_duration", deep),
        ("sleep_light_duration", light),
        ("sleep_rem_duration", rem),
        ("sleep_awake_duration", awake),
        ("sleep_total_duration", deep + light + rem),
        ("garmin.sleep_score", 60 + sleep.breaths % 30),
    ] {
        truth.value(metric, f64::from(value));
    }
    let breath = f64::from(sleep.breaths) / 100.0;
    (1..4).for_each(|_| truth.value("respiratory_rate", breath));
    truth.intervals = sleep.stages();
    version(telling, "sleeps", truth, summary(sleep, tentative))
}

/// A nap: its night's summary once more, with it.
fn napped(telling: &Telling<'_>, (night, nap): (&Sleep, &Sleep), at: Micros) -> Version {
    let mut truth = telling.truth("sleep", &format!("nap:{}", nap.start / SECOND), at);
    truth.during(
        (nap.start, nap.start_offset_s),
        Some((nap.end, 0)),
        day_at(nap.end, nap.start_offset_s),
    );
    truth.state = Some("final".to_owned());
    truth.nap = Some(true);
    truth.value("sleep_session", f64::from(nap.length_s()));
    let mut document = summary(night, false);
    let naps = json!([{
        "napStartTimeInSeconds": nap.start / SECOND, "napOffsetInSeconds": nap.start_offset_s,
        "napDurationInSeconds": nap.length_s(), "napValidation": "DEVICE",
    }]);
    if let Some(object) = document.as_object_mut() {
        object.insert("naps".to_owned(), naps);
    }
    version(telling, "sleeps", truth, document)
}

fn hrv(telling: &Telling<'_>, night: &Sleep, at: Micros) -> Version {
    let mut truth = telling.truth("hrv", &night.day.to_string(), at);
    truth.during((night.start, night.start_offset_s), Some((night.end, 0)), night.day);
    let highest = night.hrv.iter().flatten().max().copied().unwrap_or_default();
    truth.made("hrv_rmssd_sleep_avg", f64::from(mean(&night.hrv, 1)), "mean_5min");
    truth.made("hrv_rmssd_sleep_max", f64::from(highest), "max_5min");
    truth.sampled("hrv_rmssd", (night.start, PHASE_S), &night.hrv);
    let values: Map<String, Value> = (0..)
        .zip(&night.hrv)
        .filter_map(|(nth, value)| Some(((nth * PHASE_S).to_string(), (*value)?.into())))
        .collect();
    let document = json!({
        "summaryId": format!("x{:x}-h", night.start / SECOND),
        "calendarDate": night.day.to_string(),
        "startTimeInSeconds": night.start / SECOND,
        "startTimeOffsetInSeconds": night.start_offset_s,
        "durationInSeconds": night.length_s(),
        "lastNightAvg": mean(&night.hrv, 1),
        "lastNight5MinHigh": highest,
        "hrvValues": values,
    });
    version(telling, "hrv", truth, document)
}

fn skin(telling: &Telling<'_>, night: &Sleep, at: Micros) -> Version {
    let mut truth = telling.truth("skin_temperature", &night.day.to_string(), at);
    truth.during((night.start, night.start_offset_s), Some((night.end, 0)), night.day);
    let deviation = f64::from(night.deviation) / 100.0;
    truth.value("skin_temperature_deviation", deviation);
    let document = json!({
        "summaryId": format!("x{:x}-t", night.start / SECOND),
        "calendarDate": night.day.to_string(),
        "startTimeInSeconds": night.start / SECOND,
        "startTimeOffsetInSeconds": night.start_offset_s,
        "durationInSeconds": night.length_s(),
        "avgDeviationCelsius": deviation,
    });
    version(telling, "skinTemp", truth, document)
}

// ── days ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// How much of a day each of its syncs covers, hours.
const SYNCS: [i64; 3] = [9, 15, 23];

/// A version of a day's record that begins at its midnight, without its readings.
fn of_day(telling: &Telling<'_>, day: &Lived, (kind, hours): (&str, i64)) -> (Truth, Value) {
    let midnight = day.noon - 12 * HOUR;
    let at = midnight + hours * HOUR + 3 * MINUTE;
    let record_type = if kind == "dailies" { "daily" } else { "stress" };
    let mut truth = telling.truth(record_type, &day.night.day.to_string(), at);
    let end = midnight + hours * HOUR;
    truth.during((midnight, day.offset_s), Some((end, 0)), day.night.day);
    let document = json!({
        "summaryId": format!("x{:x}-{kind}-{hours}", midnight / SECOND),
        "calendarDate": day.night.day.to_string(),
        "startTimeInSeconds": midnight / SECOND,
        "startTimeOffsetInSeconds": day.offset_s,
        "durationInSeconds": hours * 3_600,
    });
    (truth, document)
}

fn with(mut document: Value, more: Value) -> Value {
    if let (Some(object), Value::Object(more)) = (document.as_object_mut(), more) {
        object.extend(more);
    }
    document
}

fn daily(telling: &Telling<'_>, day: &Lived) -> Made {
    let versions = (1..).zip(SYNCS).map(|(third, hours)| {
        let (mut truth, document) = of_day(telling, day, ("dailies", hours));
        let share = |whole: i32| whole * third / 3;
        let (steps, active, basal) =
            (share(day.steps), share(day.active), share(day.energy - day.active));
        let (resting, heart) = (day.night.resting, day.night.resting + 21);
        let (moderate, vigorous, floors) = (share(3_000), share(900), share(12));
        for (metric, value) in [
            ("steps_daily", steps),
            ("distance_walk_run", steps * 3 / 4),
            ("energy_active", active),
            ("energy_basal", basal),
            ("floors_climbed", floors),
            ("activity_moderate_duration", moderate),
            ("activity_vigorous_duration", vigorous),
            ("heart_rate_daily_avg", heart),
            ("heart_rate_daily_max", heart + 70),
        ] {
            truth.value(metric, f64::from(value));
        }
        truth.made("resting_heart_rate", f64::from(resting), "provider_unspecified");
        truth.made("garmin.stress_level", f64::from(30 + third), "mean");
        truth.made("garmin.stress_level", f64::from(80 + third), "max");
        let document = with(
            document,
            json!({
                "activityType": "GENERIC", "steps": steps, "distanceInMeters": f64::from(steps * 3 / 4),
                "activeKilocalories": active, "bmrKilocalories": basal, "floorsClimbed": floors,
                "moderateIntensityDurationInSeconds": moderate,
                "vigorousIntensityDurationInSeconds": vigorous,
                "restingHeartRateInBeatsPerMinute": resting,
                "averageHeartRateInBeatsPerMinute": heart,
                "maxHeartRateInBeatsPerMinute": heart + 70,
                "minHeartRateInBeatsPerMinute": resting - 2,
                "averageStressLevel": 30 + third, "maxStressLevel": 80 + third,
            }),
        );
        version(telling, "dailies", truth, document)
    });
    made(telling, &format!("dailies/{}", day.night.day), versions.collect())
}

/// Stress every three minutes of an hour or two; below zero it says why there is none.
fn stress(telling: &Telling<'_>, day: &Lived) -> Made {
    let versions = [(20, 10), (40, 16)].map(|(count, hours)| {
        let (mut truth, document) = of_day(telling, day, ("stressDetails", hours));
        let mut dice = telling.seed.of("stress", u64::from(day.number.unsigned_abs())).dice();
        let levels: Vec<Option<i32>> =
            (0..count).map(|_| Some(dice.between(-9, 95)).filter(|level| *level >= 0)).collect();
        let start = day.noon - 12 * HOUR;
        truth.sampled("garmin.stress_level", (start, 180), &levels);
        let values: Map<String, Value> = (0..)
            .zip(&levels)
            .map(|(nth, level)| ((nth * 180).to_string(), level.unwrap_or(-2).into()))
            .collect();
        let document = with(document, json!({ "timeOffsetStressLevelValues": values }));
        version(telling, "stressDetails", truth, document)
    });
    made(telling, &format!("stressDetails/{}", day.night.day), versions.into())
}

/// A workout; a person who corrects it makes it another type of Garmin's, with the same id.
fn activity(telling: &Telling<'_>, it: &Workout) -> Made {
    let seed = telling.seed.of("workout", it.number);
    let at = it.end + i64::from(seed.dice().between(3, 20)) * MINUTE;
    let number = 10_000_000_000 + seed.0 % 1_000_000_000;
    let one = |kind: &'static str, at: Micros, more: i32| {
        let mut truth = telling.truth("activity", &number.to_string(), at);
        let zone = it.offset_s;
        truth.during((it.start, zone), Some((it.end, 0)), day_at(it.start, zone));
        let seconds = i32::try_from((it.end - it.start) / SECOND).unwrap_or(0);
        let energy = it.energy / 1_000 + more;
        truth.value("workout_session", f64::from(seconds));
        truth.made("heart_rate", f64::from(it.mean), "mean");
        truth.made("heart_rate", f64::from(it.highest), "max");
        truth.made("energy_active", f64::from(energy), "total");
        if it.running {
            truth.made("distance_walk_run", f64::from(it.distance), "total");
        }
        let document = json!({
            "summaryId": number.to_string(), "activityId": number,
            "activityType": if it.running { "RUNNING" } else { "STRENGTH_TRAINING" },
            "startTimeInSeconds": it.start / SECOND, "startTimeOffsetInSeconds": zone,
            "durationInSeconds": seconds, "distanceInMeters": f64::from(it.distance),
            "averageHeartRateInBeatsPerMinute": it.mean, "maxHeartRateInBeatsPerMinute": it.highest,
            "activeKilocalories": energy, "manual": false,
        });
        version(telling, kind, truth, document)
    };
    let mut versions = vec![one("activities", at, 0)];
    if seed.of("rescore", 0).within(telling.shares.of(Fault::Rescore)) {
        versions.push(one("manuallyUpdatedActivities", at + HOUR, 13));
    }
    made(telling, &format!("activities/{number}"), versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_joined_type_by_type() {
        let one = r#"{"sleeps":[{"a":1}],"hrv":[{"b":2}]}"#;
        let all: Value =
            serde_json::from_str(&joined(one, r#"{"sleeps":[{"c":3}],"dailies":[4]}"#))
                .expect("JSON");
        let expected = json!({"sleeps":[{"a":1},{"c":3}],"hrv":[{"b":2}],"dailies":[4]});
        assert_eq!(all, expected);
    }
}
