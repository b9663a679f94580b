//! Google Health as it is played: notifications that name a type and a time, signed by a key of its own; lists by filters,
//! page by page; a refresh token that does not rotate.
//!
//! Written from its contract alone. Sleeps and exercises have names; what a day says in one value is known by its date.
//! Of sleeps none is deleted: a deletion names a time and no record, and a system that keeps no state in between cannot
//! know which it was. What is announced is in the next list.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::dice::Seed;
use super::fault::Fault;
use super::grant::Tokens;
use super::person::{Lived, Phase, Sleep, Workout};
use super::place::{HOUR, MINUTE, SECOND, utc};
use super::player::{Ask, Delivery, House, Listed, Player, Shelf, Wanted};
use super::quota::Limit;
use super::story::{Account, Made, Notice, Telling, Version};
use super::truth::Truth;
use crate::model::time::{Day, Micros};
use crate::sim::signer::Signer;

/// Google.
pub static PLAYER: Google = Google;

/// See the module.
#[derive(Debug)]
pub struct Google;

/// The one key of its set. Drawn when it is first needed, and nowhere written down.
static SIGNER: LazyLock<Option<Signer>> = LazyLock::new(|| Signer::new(0x2f00_71a5));

/// The most sleeps or exercises of a page, and of anything else where nothing is asked for.
const PAGES: [(&str, usize); 3] = [("sleep", 25), ("exercise", 25), ("", 1_440)];

/// Our names of the types that are played, and Google's: in paths, in points.
const TYPES: [(&str, &str, &str); 7] = [
    ("sleep", "sleep", "sleep"),
    ("workout", "exercise", "exercise"),
    ("daily_heart_rate_variability", "daily-heart-rate-variability", "dailyHeartRateVariability"),
    ("daily_resting_heart_rate", "daily-resting-heart-rate", "dailyRestingHeartRate"),
    ("daily_respiratory_rate", "daily-respiratory-rate", "dailyRespiratoryRate"),
    ("daily_oxygen_saturation", "daily-oxygen-saturation", "dailyOxygenSaturation"),
    (
        "daily_sleep_temperature_derivations",
        "daily-sleep-temperature-derivations",
        "dailySleepTemperatureDerivations",
    ),
];

impl Player for Google {
    fn name(&self) -> &'static str {
        "google"
    }

    fn vendor_user(&self, seed: Seed) -> String {
        seed.of("user", 0).hex(16)
    }

    fn records(&self, telling: &Telling<'_>) -> Vec<Made> {
        let mut records = Vec::new();
        for (nth, day) in telling.life.iter().enumerate() {
            records.push(sleeps(telling, &day.night));
            records.extend(day.nap.as_ref().map(|nap| sleeps(telling, nap)));
            records.extend(day.workout.as_ref().map(|workout| exercises(telling, workout)));
            // Who travels may wake twice on a date, and a date has one record: the later night's.
            let mut later = telling.life.iter().skip(nth + 1);
            if later.all(|later| later.night.day != day.night.day) {
                records.extend(days(telling, day));
            }
        }
        records
    }

    fn notice(&self, _seed: Seed, account: &Account, version: &Version) -> Option<String> {
        let truth = &version.truth;
        let (_, name, _) = TYPES.into_iter().find(|(ours, ..)| *ours == truth.record_type)?;
        let interval = match (truth.start, truth.end) {
            (Some(start), Some(end)) => json!({
                "physicalTimeInterval": { "startTime": utc(start), "endTime": utc(end) },
            }),
            _ => json!({ "civilIso8601TimeInterval": {
                "startTime": format!("{}T00:00:00", truth.record_id),
                "endTime": format!("{}T23:59:59", truth.record_id),
            } }),
        };
        let body = json!([{ "data": {
            "version": "1",
            "clientProvidedSubscriptionName": "simulated",
            "healthUserId": account.vendor_user,
            "operation": if truth.gone { "DELETE" } else { "UPSERT" },
            "dataType": name,
            "intervals": [interval],
        } }]);
        Some(body.to_string())
    }

    fn delivery(&self, notice: &Notice, secret: &str, _now_us: Micros) -> Delivery {
        let signature = SIGNER.as_ref().and_then(|signer| signer.sign(notice.body.as_bytes()));
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("authorization", secret.to_owned()),
            ("google-health-api-signature", signature.unwrap_or_default()),
        ];
        Delivery { path: "/webhooks/google".to_owned(), headers }
    }

    fn keyset(&self) -> Option<String> {
        SIGNER.as_ref().map(Signer::keyset)
    }

    fn house(&self) -> House {
        House {
            api: "/v4",
            token: "/token",
            limits: &[Limit { window_s: 60, calls: 1_200 }],
            token_s: 3_600,
            rotates: false,
        }
    }

    fn asks(&self, ask: &Ask, path: &str) -> Wanted {
        match listed(path) {
            _ if ask.method != "GET" => Wanted::Nothing(405),
            Some(_) => Wanted::List,
            None => Wanted::Nothing(404),
        }
    }

    /// A page of a type's points that lie within a filter, newest first.
    fn list(&self, shelf: &Shelf<'_>, path: &str, ask: &Ask) -> Option<Listed> {
        let name = listed(path)?;
        let (record_type, ..) = TYPES.into_iter().find(|(_, known, _)| *known == name)?;
        let (from, until) = within(name, &ask.parameter("filter")?)?;
        let (_, most) = PAGES.into_iter().find(|(known, _)| known.is_empty() || *known == name)?;
        let asked = ask.parameter("pageSize").map_or(Some(most), |text| text.parse().ok())?;
        let size = if most == 25 { asked.min(most) } else { asked.min(10_000) };
        let mut found = Vec::new();
        for (place, entry) in &shelf.entries {
            // What is announced is there: that it is not there yet is no fault of Google's.
            let now = entry.versions.iter().rev().find(|version| version.truth.at <= shelf.at);
            let Some((version, document)) = now.and_then(|it| Some((it, it.document.as_deref()?)))
            else {
                continue;
            };
            let when = key(&version.truth);
            if version.truth.record_type == record_type && (&*from..&*until).contains(&&*when) {
                found.push((when, (*place, version.truth.order), document));
            }
        }
        found.sort_by(|one, other| other.cmp(one));
        let token = ask.parameter("pageToken");
        let skipped = token.map_or(Some(0), |text| text.parse::<usize>().ok())?;
        let goes_on = found.len() > skipped.saturating_add(size);
        let page: Vec<_> = found.into_iter().skip(skipped).take(size).collect();
        let points: Vec<&str> = page.iter().map(|(.., document)| *document).collect();
        // What is empty is not written.
        let mut members = Vec::new();
        if !points.is_empty() {
            members.push(format!(r#""dataPoints":[{}]"#, points.join(",")));
        }
        if goes_on {
            members.push(format!(r#""nextPageToken":"{}""#, skipped + size));
        }
        let shown = page.iter().map(|(_, shown, _)| *shown).collect();
        Some(Listed { body: format!("{{{}}}", members.join(",")), shown })
    }

    /// Without a refresh token: the first one lives on.
    fn pair(&self, tokens: &Tokens, lives_s: i64) -> String {
        json!({ "access_token": tokens.access, "token_type": "Bearer", "expires_in": lives_s })
            .to_string()
    }
}

/// The type whose list is at this path.
fn listed(path: &str) -> Option<&str> {
    path.strip_prefix("/users/me/dataTypes/")?.strip_suffix("/dataPoints")
}

/// The bounds of a filter, `<field> >= "<from>" AND <field> < "<until>"`, where it names the field of its type.
fn within(name: &str, filter: &str) -> Option<(String, String)> {
    let snake = name.replace('-', "_");
    let field = match name {
        "sleep" => "sleep.interval.end_time".to_owned(),
        "exercise" => "exercise.interval.civil_start_time".to_owned(),
        _ => format!("{snake}.date"),
    };
    let (lower, upper) = filter.split_once(" AND ")?;
    let bound = |part: &str, by: &str| {
        let text = part.strip_prefix(&field)?.strip_prefix(by)?;
        Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned())
    };
    Some((bound(lower, " >= ")?, bound(upper, " < ")?))
}

/// What a point is filtered by, as a text of the same form.
fn key(truth: &Truth) -> String {
    let plain = |at: Micros| utc(at).chars().take("2026-03-29T06:31:04".len()).collect::<String>();
    match (&*truth.record_type, truth.start, truth.end) {
        ("sleep", _, Some(end)) => format!("{}Z", plain(end)),
        ("workout", Some(start), _) => {
            plain(start + i64::from(truth.start_offset_s.unwrap_or(0)) * SECOND)
        }
        _ => truth.record_id.clone(),
    }
}

/// An interval with the offsets at both ends, in the two spellings that Google has.
fn interval(start: (Micros, i32), end: (Micros, i32)) -> Value {
    json!({
        "startTime": utc(start.0), "startUtcOffset": format!("{}s", start.1),
        "endTime": utc(end.0), "endUtcOffset": super::place::offset(end.1),
    })
}

fn source() -> Value {
    json!({
        "platform": "FITBIT", "recordingMethod": "PASSIVELY_MEASURED",
        "device": { "displayName": "Simulated", "formFactor": "WATCH" },
    })
}

/// A sleep: perhaps not processed at first, perhaps scored again, perhaps deleted: its time is said then, and no name.
fn sleeps(telling: &Telling<'_>, sleep: &Sleep) -> Made {
    let seed = telling.seed.of("sleep", sleep.number);
    let id = seed.uuid();
    let name = format!("users/{}/dataTypes/sleep/dataPoints/{id}", telling.account.vendor_user);
    let synced = sleep.end + i64::from(seed.of("synced", 0).dice().between(4, 25)) * MINUTE;
    let hit = |fault, name: &str| seed.of(name, 0).within(telling.shares.of(fault));
    let mut course = Vec::new();
    if hit(Fault::Pending, "pending") {
        course.push((sleep.end + 2 * MINUTE, None));
    }
    course.push((synced, Some(sleep.clone())));
    if hit(Fault::Rescore, "rescore") {
        let later = synced + i64::from(seed.of("later", 0).dice().between(30, 480)) * MINUTE;
        course.push((later, Some(sleep.scored_again(telling.seed, 1))));
    }
    let version = |(at, scored): (Micros, Option<Sleep>)| {
        let mut truth = telling.truth("sleep", &id, at);
        let (start, end) = ((sleep.start, sleep.start_offset_s), (sleep.end, sleep.end_offset_s));
        truth.during(start, Some(end), sleep.day);
        truth.nap = Some(sleep.nap);
        let state = if scored.is_some() { "final" } else { "tentative" };
        truth.state = Some(state.to_owned());
        let mut data = json!({
            "interval": interval(start, end),
            "type": "STAGES",
            "metadata": { "nap": sleep.nap, "processed": scored.is_some() },
            "createTime": utc(sleep.end), "updateTime": utc(at),
        });
        if let (Some(scored), Some(members)) = (scored, data.as_object_mut()) {
            let (stages, summary) = slept(&mut truth, &scored);
            members.insert("stages".to_owned(), stages);
            members.insert("summary".to_owned(), summary);
        }
        telling.version(truth, &json!({ "name": name, "dataSource": source(), "sleep": data }))
    };
    let last = course.last().map_or(synced, |(at, _)| *at);
    let mut versions: Vec<Version> = course.into_iter().map(version).collect();
    if hit(Fault::Delete, "delete") {
        let mut gone = telling.gone("sleep", &id, last + 9 * HOUR);
        let (start, end) = ((sleep.start, sleep.start_offset_s), (sleep.end, sleep.end_offset_s));
        gone.truth.during(start, Some(end), sleep.day);
        versions.push(gone);
    }
    Made { path: format!("/{name}"), versions }
}

/// What is known of a sleep that is processed. Its phases are whole minutes.
fn slept(truth: &mut Truth, sleep: &Sleep) -> (Value, Value) {
    let [deep, light, rem, awake] =
        [Phase::Deep, Phase::Light, Phase::Rem, Phase::Awake].map(|phase| sleep.seconds(phase));
    for (metric, seconds) in [
        ("sleep_session", sleep.length_s()),
        ("sleep_time_in_bed", sleep.length_s()),
        ("sleep_total_duration", deep + light + rem),
        ("sleep_awake_duration", awake),
        ("sleep_deep_duration", deep),
        ("sleep_light_duration", light),
        ("sleep_rem_duration", rem),
    ] {
        truth.value(metric, f64::from(seconds));
    }
    truth.intervals = sleep.stages();
    let stage = |one: &super::truth::Interval| {
        json!({
            "startTime": utc(one.start), "endTime": utc(one.end),
            "type": one.symbol.to_uppercase(),
        })
    };
    let stages: Vec<Value> = truth.intervals.iter().map(stage).collect();
    let minutes = |seconds: i32| (seconds / 60).to_string();
    let summary = json!({
        "minutesInSleepPeriod": minutes(sleep.length_s()),
        "minutesAsleep": minutes(deep + light + rem),
        "minutesAwake": minutes(awake),
        "stagesSummary": [
            { "type": "DEEP", "minutes": minutes(deep) },
            { "type": "LIGHT", "minutes": minutes(light) },
            { "type": "REM", "minutes": minutes(rem) },
            { "type": "AWAKE", "minutes": minutes(awake), "count": "9" },
        ],
    });
    (Value::from(stages), summary)
}

/// An exercise.
fn exercises(telling: &Telling<'_>, workout: &Workout) -> Made {
    let id = telling.seed.of("exercise", workout.number).uuid();
    let name = format!("users/{}/dataTypes/exercise/dataPoints/{id}", telling.account.vendor_user);
    let at = workout.end + 6 * MINUTE;
    let mut truth = telling.truth("workout", &id, at);
    let (start, end) = ((workout.start, workout.offset_s), (workout.end, workout.offset_s));
    truth.during(start, Some(end), workout.day);
    truth.state = Some("final".to_owned());
    let length = (workout.end - workout.start) / SECOND;
    truth.value("workout_session", f64::from(i32::try_from(length).unwrap_or(0)));
    truth.made("heart_rate", f64::from(workout.mean), "mean");
    truth.made("energy_active", f64::from(workout.energy / 1_000), "total");
    if workout.running {
        truth.made("distance_walk_run", f64::from(workout.distance), "total");
    }
    let data = json!({
        "interval": interval(start, end),
        "exerciseType": if workout.running { "RUNNING" } else { "BIKING" },
        "metricsSummary": {
            "averageHeartRateBeatsPerMinute": workout.mean.to_string(),
            "caloriesKcal": workout.energy / 1_000,
            "distanceMillimeters": i64::from(workout.distance) * 1_000,
        },
        "updateTime": utc(at),
    });
    let point = json!({ "name": name, "dataSource": source(), "exercise": data });
    Made { path: format!("/{name}"), versions: vec![telling.version(truth, &point)] }
}

/// What a day's record says: the metric, the value, the method, and the field that has it.
type Said = (&'static str, f64, Option<&'static str>, &'static str);

/// What a night says in single values, by the date on which it ended. The resting rate is told when the day is over.
fn days(telling: &Telling<'_>, day: &Lived) -> Vec<Made> {
    let night = &day.night;
    let s = f64::from;
    let rmssd = s(night.rmssd_us) / 1_000.0;
    let skin = s(night.skin) / 100.0;
    let (after, morning) = (Day(night.day.0 + 2).start_utc_us(), night.end + 40 * MINUTE);
    let hrv_field = "averageHeartRateVariabilityMilliseconds";
    let (resting, unspecified) = (s(night.resting), Some("provider_unspecified"));
    let all: [(usize, Micros, Said); 5] = [
        (2, morning, ("hrv_rmssd_sleep_avg", rmssd, Some("mean"), hrv_field)),
        (3, after, ("resting_heart_rate", resting, unspecified, "beatsPerMinute")),
        (
            4,
            morning,
            ("respiratory_rate_sleep_avg", s(night.breaths) / 100.0, None, "breathsPerMinute"),
        ),
        (5, morning, ("spo2_sleep_avg", s(night.oxygen) / 10.0, None, "averagePercentage")),
        (6, morning, ("skin_temperature_sleep", skin, None, "nightlyTemperatureCelsius")),
    ];
    let mut records = Vec::new();
    for (place, at, said) in all {
        let Some((record_type, name, _)) = TYPES.get(place).copied() else { continue };
        let id = night.day.to_string();
        let mut versions = vec![daily(telling, night, place, at, said)];
        let seed = telling.seed.of(record_type, u64::from(day.number.unsigned_abs()));
        if seed.of("delete", 0).within(telling.shares.of(Fault::Delete)) {
            versions.push(telling.gone(record_type, &id, at + 9 * HOUR));
        }
        let user = &telling.account.vendor_user;
        records.push(Made { path: format!("/users/{user}/{name}/{id}"), versions });
    }
    records
}

/// One of these.
fn daily(
    telling: &Telling<'_>,
    night: &Sleep,
    place: usize,
    at: Micros,
    (metric, value, method, field): Said,
) -> Version {
    let (record_type, _, member) = TYPES.get(place).copied().unwrap_or_default();
    let id = night.day.to_string();
    let mut truth = telling.truth(record_type, &id, at);
    truth.day = Some(id);
    match method {
        Some(method) => truth.made(metric, value, method),
        None => truth.value(metric, value),
    }
    let mut data = json!({ "date": date(night.day), field: value });
    if let (6, Some(members)) = (place, data.as_object_mut()) {
        let usual = f64::from(night.skin - night.deviation) / 100.0;
        let deviation = ((value - usual) * 1e9).round() / 1e9;
        truth.made("skin_temperature_deviation", deviation, "baseline");
        members.insert("baselineTemperatureCelsius".to_owned(), usual.into());
        members.insert("relativeNightlyStddev30dCelsius".to_owned(), 0.41.into());
    }
    let point = json!({ "dataSource": source(), member: data });
    telling.version(truth, &point)
}

/// A civil date.
fn date(day: Day) -> Value {
    let text = day.to_string();
    let parts: Vec<i32> = text.split('-').filter_map(|part| part.parse().ok()).collect();
    let part = |nth: usize| parts.get(nth).copied().unwrap_or(0);
    json!({ "year": part(0), "month": part(1), "day": part(2) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Moment;

    #[test]
    fn a_filter_is_of_its_type_s_own_field() {
        let sleep = r#"sleep.interval.end_time >= "2026-03-28T00:00:00Z" AND sleep.interval.end_time < "2026-03-29T00:00:00Z""#;
        let bounds = ("2026-03-28T00:00:00Z".to_owned(), "2026-03-29T00:00:00Z".to_owned());
        assert_eq!(within("sleep", sleep), Some(bounds));
        assert_eq!(within("exercise", sleep), None);
        assert_eq!(within("sleep", &sleep.replace("end_time", "start_time")), None);
        let kebab = r#"daily-resting-heart-rate.date >= "2026-03-28" AND daily-resting-heart-rate.date < "2026-03-29""#;
        assert_eq!(within("daily-resting-heart-rate", kebab), None);
        assert!(
            within(
                "daily-resting-heart-rate",
                &kebab.replace("g-h", "g_h").replace("t-r", "t_r").replace("y-r", "y_r")
            )
            .is_some()
        );
    }

    #[test]
    fn what_it_sends_is_verified_by_its_keyset() {
        use crate::vendors::wire::tink::Keyset;
        let keyset = Keyset::parse(PLAYER.keyset().expect("a key").as_bytes()).expect("a keyset");
        let signature = SIGNER.as_ref().and_then(|signer| signer.sign(b"[]")).expect("a signature");
        assert!(keyset.verifies(b"[]", &signature));
    }

    #[test]
    fn a_point_lies_within_its_filter_s_form() {
        let at = |text| Moment::parse(text).expect("a moment").at_us;
        let mut truth = Truth { record_type: "workout".to_owned(), ..Truth::default() };
        truth.start = Some(at("2026-03-28T23:30:00Z"));
        truth.start_offset_s = Some(3_600);
        assert_eq!(key(&truth), "2026-03-29T00:30:00", "the person's own clock");
    }
}
