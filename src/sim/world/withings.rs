//! Withings as it is played: notifications by form that name a window, and an API that is a POST of a form for everything
//! and answers 200 whatever happened.
//!
//! Written from its contract alone. A night is known twice, as a summary and as what was measured through it, and
//! nobody is told of the latter by itself. A scale and a cuff measure now and then; a day grows as it is lived. What
//! is scored again says so by `modified`. Deletions are told by nothing, so nothing is deleted. Who unlinks is told of.

use serde_json::{Value, json};

use super::dice::Seed;
use super::fault::Fault;
use super::grant::Tokens;
use super::person::{Lived, PHASE_S, Phase, ROUTES, Sleep, Workout};
use super::place::{HOUR, MINUTE, Place, SECOND};
use super::player::{Ask, Delivery, House, Listed, Player, Reply, Shelf, Shown, Wanted};
use super::quota::Limit;
use super::story::{Account, Made, Notice, Plan, Telling, Version};
use super::truth::Truth;
use crate::model::time::{Day, Micros};

/// Withings.
pub static PLAYER: Withings = Withings;

/// See the module.
#[derive(Debug)]
pub struct Withings;

/// The most elements of a page.
const PAGE: usize = 3;

impl Player for Withings {
    fn name(&self) -> &'static str {
        "withings"
    }

    fn vendor_user(&self, seed: Seed) -> String {
        (30_000_000 + seed.of("user", 0).0 % 1_000_000_000).to_string()
    }

    fn records(&self, telling: &Telling<'_>) -> Vec<Made> {
        let mut records = Vec::new();
        let mut last: Option<Day> = None;
        for day in telling.life {
            records.extend(nights(telling, &day.night));
            records.extend(day.nap.iter().flat_map(|nap| nights(telling, nap)));
            records.extend(weighing(telling, day));
            records.extend(pressure(telling, day));
            records.extend(day.workout.as_ref().map(|workout| exercise(telling, workout)));
            // One day a date: a date that a journey gives twice is told once.
            if last.is_none_or(|last| last.0 < day.night.day.0) {
                records.push(activity(telling, day));
                last = Some(day.night.day);
            }
        }
        records
    }

    fn notice(&self, seed: Seed, account: &Account, version: &Version) -> Option<String> {
        let truth = &version.truth;
        let user = &account.vendor_user;
        let of_window = |appli: u32, from: Micros, to: Micros| {
            let window = format!("startdate={}&enddate={}", from / SECOND, to / SECOND);
            // The order of fields is not fixed, and others may stand among them.
            if seed.of("order", 0).within(50) {
                format!("userid={user}&appli={appli}&{window}")
            } else {
                format!("appli={appli}&{window}&userid={user}&source=sim")
            }
        };
        let (start, end) = (truth.start.unwrap_or_default(), truth.end.unwrap_or_default());
        match truth.record_type.as_str() {
            "sleep" => Some(of_window(44, start, end)),
            "measurement" => {
                let is_weight = truth.values.iter().any(|value| value.metric == "body_weight");
                Some(of_window(if is_weight { 1 } else { 4 }, start, start + SECOND))
            }
            "daily" | "workout" => {
                let date = truth.day.as_deref()?;
                Some(format!("userid={user}&appli=16&date={date}"))
            }
            _ => None,
        }
    }

    fn of_account(&self, account: &Account, _plan: &Plan) -> Vec<(Micros, String)> {
        let unlinked = format!("userid={}&appli=46&action=unlink", account.vendor_user);
        account.revoked_at.map(|at| (at, unlinked)).into_iter().collect()
    }

    /// A connection ends by what is sent.
    fn in_turn(&self) -> bool {
        true
    }

    /// Signed by nothing: who knows the path is believed.
    fn delivery(&self, _notice: &Notice, secret: &str, _now_us: Micros) -> Delivery {
        let form = "application/x-www-form-urlencoded".to_owned();
        Delivery {
            path: format!("/webhooks/withings/{secret}"),
            headers: vec![("content-type", form)],
        }
    }

    fn house(&self) -> House {
        House {
            api: "",
            token: "/v2/oauth2",
            limits: &[Limit { window_s: 60, calls: 120 }],
            token_s: 10_800,
            rotates: true,
        }
    }

    fn asks(&self, ask: &Ask, path: &str) -> Wanted {
        let known = ["/measure", "/v2/measure", "/v2/sleep", "/v2/heart", "/notify"];
        match ask.method.as_str() {
            "POST" if known.contains(&path) => Wanted::List,
            "POST" => Wanted::Nothing(404),
            _ => Wanted::Nothing(405),
        }
    }

    fn list(&self, shelf: &Shelf<'_>, path: &str, ask: &Ask) -> Option<Listed> {
        let action = ask.field("action")?;
        let second = |name: &str| ask.field(name)?.parse::<i64>().ok();
        let seconds = || Some((second("startdate")? * SECOND, second("enddate")? * SECOND));
        let day = |name: &str| Day::parse(&ask.field(name)?);
        let days = || Some((day("startdateymd")?, day("enddateymd")?));
        let of_days = |truth: &Truth, (from, to): (Day, Day)| {
            let own = truth.day.as_deref().and_then(Day::parse);
            own.is_some_and(|own| from.0 <= own.0 && own.0 <= to.0)
        };
        Some(match (path, action.as_str()) {
            ("/measure", "getmeas") => {
                let (from, to) = seconds()?;
                let within = |truth: &Truth| truth.start.is_some_and(|at| from <= at && at <= to);
                paged(shelf, ask, ("measurement", "measuregrps"), &within)
            }
            ("/v2/sleep", "getsummary") => {
                let window = days()?;
                let named = ask.field("data_fields").is_some();
                let within = |truth: &Truth| named && of_days(truth, window);
                paged(shelf, ask, ("sleep", "series"), &within)
            }
            ("/v2/sleep", "get") => {
                let (from, to) = seconds()?;
                let within = |shown: &Shown<'_>| {
                    let truth = &shown.version.truth;
                    let (start, end) = (truth.start.unwrap_or(i64::MIN), truth.end.unwrap_or(0));
                    truth.record_type == "sleep_samples" && from <= start && end <= to
                };
                let found: Vec<Shown<'_>> = shelf.now().into_iter().filter(within).collect();
                let pieces: Vec<&str> = found.iter().map(|shown| shown.document).collect();
                let body = format!(r#"{{"series":[{}],"model":32}}"#, pieces.join(","));
                listed(&body, &found)
            }
            ("/v2/measure", "getactivity") => {
                let window = days()?;
                paged(shelf, ask, ("daily", "activities"), &|truth| of_days(truth, window))
            }
            ("/v2/measure", "getworkouts") => {
                let window = days()?;
                paged(shelf, ask, ("workout", "series"), &|truth| of_days(truth, window))
            }
            ("/v2/heart", "list") => listed(r#"{"series":[],"more":false,"offset":0}"#, &[]),
            ("/notify", "list") => listed(r#"{"profiles":[]}"#, &[]),
            ("/notify", "subscribe" | "revoke") => listed("{}", &[]),
            _ => return None,
        })
    }

    /// Of a night what was measured through it.
    fn along(&self, path: &str) -> Vec<String> {
        let night = path.strip_prefix("/v2/sleep/").filter(|night| !night.contains('/'));
        night.into_iter().map(|night| format!("/v2/sleep/{night}/samples")).collect()
    }

    /// What others say by a status stands in the body, but where there is no answer of Withings at all.
    fn failed(&self, status: u16, error: &str) -> Reply {
        let inside = match (status, error) {
            (503, _) => return Reply::json(503, String::new()),
            (_, "invalid_grant") => 503,
            (401, _) => 401,
            (429, _) => 601,
            _ => 2554,
        };
        Reply::json(200, json!({"status": inside, "body": {}, "error": error}).to_string())
    }

    fn pair(&self, tokens: &Tokens, lives_s: i64) -> String {
        let body = json!({
            "access_token": tokens.access, "refresh_token": tokens.refresh,
            "token_type": "Bearer", "expires_in": lives_s, "scope": "user.metrics,user.activity",
        });
        json!({ "status": 0, "body": body }).to_string()
    }
}

/// An answer of this body, with what is in it.
fn listed(body: &str, shown: &[Shown<'_>]) -> Listed {
    let shown = shown.iter().map(|shown| (shown.place, shown.version.truth.order)).collect();
    Listed { body: format!(r#"{{"status":0,"body":{body}}}"#), shown }
}

/// A page of the records of one type that are within a window.
fn paged(
    shelf: &Shelf<'_>,
    ask: &Ask,
    (record_type, list): (&str, &str),
    within: &dyn Fn(&Truth) -> bool,
) -> Listed {
    let asked = |shown: &Shown<'_>| {
        shown.version.truth.record_type == record_type && within(&shown.version.truth)
    };
    let found: Vec<Shown<'_>> = shelf.now().into_iter().filter(asked).collect();
    let skipped: usize = ask.field("offset").and_then(|text| text.parse().ok()).unwrap_or(0);
    let more = found.len() > skipped.saturating_add(PAGE);
    let page: Vec<Shown<'_>> = found.into_iter().skip(skipped).take(PAGE).collect();
    let elements: Vec<&str> = page.iter().map(|shown| shown.document).collect();
    let offset = if more { skipped + PAGE } else { 0 };
    let body = format!(r#"{{"{list}":[{}],"more":{more},"offset":{offset}}}"#, elements.join(","));
    listed(&body, &page)
}

/// The name of a zone that has this offset then, and at another moment that one; nothing where there is none, as of a
/// journey: then of the latter alone.
fn zone(start: (Micros, i32), end: (Micros, i32)) -> &'static str {
    let names = || ROUTES.iter().flat_map(|(home, away)| [*home, *away]);
    let has =
        |name: &str, (at, offset_s): (Micros, i32)| Place::named(name).offset_s(at) == offset_s;
    let both = names().find(|name| has(name, start) && has(name, end));
    both.or_else(|| names().find(|name| has(name, end))).unwrap_or("UTC")
}

/// Where a named zone says that the person was then.
fn offset_in(name: &str, at: Micros) -> i32 {
    Place::named(name).offset_s(at)
}

fn id(seed: Seed, name: &str, number: u64) -> u64 {
    1_000_000_000 + seed.of(name, number).0 % 1_000_000_000_000
}

fn timed(truth: &mut Truth, zone: &str, (start, end): (Micros, Option<Micros>), day: Day) {
    let at = |at: Micros| (at, offset_in(zone, at));
    truth.during(at(start), end.map(at), day);
    truth.state = Some("final".to_owned());
}

fn nights(telling: &Telling<'_>, sleep: &Sleep) -> [Made; 2] {
    let seed = telling.seed.of("night", sleep.number);
    let number = id(telling.seed, "night", sleep.number);
    let mut at = sleep.end + i64::from(seed.dice().between(3, 60)) * MINUTE;
    at -= at.rem_euclid(SECOND);
    let mut seen = vec![(at, sleep.clone())];
    if seed.of("rescore", 0).within(telling.shares.of(Fault::Rescore)) {
        seen.push((at + 3 * HOUR, sleep.scored_again(telling.seed, 1)));
    }
    let path = format!("/v2/sleep/{number}");
    let summaries = seen.iter().map(|(at, sleep)| summary(telling, number, sleep, *at)).collect();
    let samples = seen.iter().map(|(at, sleep)| samples(telling, number, sleep, *at)).collect();
    [
        Made { path: format!("{path}/samples"), versions: samples },
        Made { path, versions: summaries },
    ]
}

/// A value that the document and the ledger have alike.
fn put(truth: &mut Truth, data: &mut Value, (field, metric): (&str, &str), value: i32) {
    truth.value(metric, f64::from(value));
    if let Some(object) = data.as_object_mut() {
        object.insert(field.to_owned(), value.into());
    }
}

fn summary(telling: &Telling<'_>, number: u64, sleep: &Sleep, at: Micros) -> Version {
    let zone = zone((sleep.start, sleep.start_offset_s), (sleep.end, sleep.end_offset_s));
    let mut truth = telling.truth("sleep", &number.to_string(), at);
    timed(&mut truth, zone, (sleep.start, Some(sleep.end)), sleep.day);
    let [deep, light, rem, awake] =
        [Phase::Deep, Phase::Light, Phase::Rem, Phase::Awake].map(|phase| sleep.seconds(phase));
    let rates = || sleep.heart.iter().flatten().copied();
    let in_bed = sleep.length_s();
    // Hundredths, so that the ratio is a decimal.
    let efficiency = (deep + light + rem) * 100 / in_bed.max(1);
    let mut data = json!({
        "sleep_efficiency": f64::from(efficiency) / 100.0, "waso": awake, "hr_max": 99,
        "apnea_hypopnea_index": if sleep.nap { -1 } else { 4 }, "nb_rem_episodes": 4,
    });
    truth.value("sleep_session", f64::from(in_bed));
    truth.value("sleep_efficiency", f64::from(efficiency));
    if !sleep.nap {
        truth.made("apnea_hypopnea_index", 4.0, "sleep_analyzer");
    }
    for (names, value) in [
        (("total_sleep_time", "sleep_total_duration"), deep + light + rem),
        (("total_timeinbed", "sleep_time_in_bed"), in_bed),
        (("lightsleepduration", "sleep_light_duration"), light),
        (("deepsleepduration", "sleep_deep_duration"), deep),
        (("remsleepduration", "sleep_rem_duration"), rem),
        (("wakeupduration", "sleep_awake_duration"), awake),
        (("wakeupcount", "sleep_awakenings"), awake / 400),
        (("hr_average", "heart_rate_sleep_avg"), sleep.resting + 4),
        (("hr_min", "heart_rate_sleep_min"), rates().min().unwrap_or(sleep.resting)),
        (("rr_average", "respiratory_rate_sleep_avg"), sleep.breaths / 100),
        (("snoring", "snoring_duration"), awake / 7),
        (("sleep_score", "withings.sleep_score"), 40 + sleep.breaths % 55),
        (("rmssd_start_avg", "hrv_rmssd_sleep_start_avg"), sleep.rmssd_us / 1_100),
        (("rmssd_end_avg", "hrv_rmssd_sleep_end_avg"), sleep.rmssd_us / 900),
    ] {
        put(&mut truth, &mut data, names, value);
    }
    let document = json!({
        "id": number, "timezone": zone, "model": 32, "model_id": 63,
        "hash_deviceid": "5".repeat(40), "startdate": sleep.start / SECOND,
        "enddate": sleep.end / SECOND, "date": sleep.day.to_string(),
        "created": sleep.end / SECOND, "modified": at / SECOND, "completed": true, "data": data,
    });
    telling.version(truth, &document)
}

/// What was measured through one phase, which begins at this second.
fn piece(start: i64, phase: Phase, heart: Option<i32>, hrv: Option<i32>) -> String {
    let state = match phase {
        Phase::Awake => 0,
        Phase::Light => 1,
        Phase::Deep => 2,
        Phase::Rem => 3,
    };
    // What is empty is written as a list.
    let map = |value: Option<i32>| match value {
        Some(value) => json!({ start.to_string(): value }),
        None => json!([]),
    };
    json!({
        "startdate": start, "enddate": start + i64::from(PHASE_S), "state": state,
        "model": "Aura Sensor V2", "model_id": 63, "hr": map(heart), "rr": [],
        "rmssd": map(hrv), "sdnn_1": [], "hrv_quality": map(hrv.map(|_| 5)),
    })
    .to_string()
}

/// What was measured through a sleep: a piece for each phase, parted by commas.
fn samples(telling: &Telling<'_>, number: u64, sleep: &Sleep, at: Micros) -> Version {
    let zone = zone((sleep.start, sleep.start_offset_s), (sleep.end, sleep.end_offset_s));
    let mut truth = telling.truth("sleep_samples", &number.to_string(), at);
    timed(&mut truth, zone, (sleep.start, Some(sleep.end)), sleep.day);
    truth.sampled("heart_rate", (sleep.start, PHASE_S), &sleep.heart);
    truth.sampled("hrv_rmssd", (sleep.start, PHASE_S), &sleep.hrv);
    truth.intervals = sleep.stages();
    let phases = (0_i64..).zip(&sleep.phases).zip(sleep.heart.iter().zip(&sleep.hrv));
    let begins = |nth: i64| sleep.start / SECOND + nth * i64::from(PHASE_S);
    let pieces: Vec<String> = phases
        .map(|((nth, phase), (heart, hrv))| piece(begins(nth), *phase, *heart, *hrv))
        .collect();
    Version { ready: at, kind: "", document: Some(pieces.join(",")), truth }
}

/// A measure of a group: its type, its value and the power of ten.
fn measure(number: i32, value: i32, unit: i32) -> Value {
    json!({ "type": number, "value": value, "unit": unit, "algo": 0, "fm": 3 })
}

fn group(
    telling: &Telling<'_>,
    (number, zone, at): (u64, &str, Micros),
    (attrib, modified): (i32, Micros),
    (truth, measures): (Truth, Vec<Value>),
) -> Version {
    let document = json!({
        "grpid": number, "attrib": attrib, "date": at / SECOND, "created": at / SECOND,
        "modified": modified / SECOND, "category": 1, "deviceid": "6".repeat(40),
        "hash_deviceid": "6".repeat(40), "measures": measures, "comment": null, "timezone": zone,
    });
    telling.version(truth, &document)
}

/// On most mornings; of some nobody knows at first who stood on the scale.
fn weighing(telling: &Telling<'_>, day: &Lived) -> Option<Made> {
    let number = u64::from(day.number.unsigned_abs());
    let seed = telling.seed.of("weighing", number);
    let mut dice = seed.dice();
    if dice.percent(40) {
        return None;
    }
    let mut at = day.night.end + i64::from(dice.between(6, 40)) * MINUTE;
    at -= at.rem_euclid(SECOND);
    let zone = zone((at, day.night.end_offset_s), (at, day.night.end_offset_s));
    let own = telling.seed.of("weight", 0).dice().between(52_000, 96_000);
    let (grams, fat) = (own + dice.between(-900, 900), dice.between(1_400, 3_200));
    let grpid = id(telling.seed, "weighing", number);
    let version = |attrib: i32, modified: Micros| {
        let mut truth = telling.truth("measurement", &grpid.to_string(), modified);
        let offset_s = offset_in(zone, at);
        timed(&mut truth, zone, (at, None), super::place::day_at(at, offset_s));
        truth.value("body_weight", f64::from(grams) / 1_000.0);
        truth.value("body_fat_percentage", f64::from(fat) / 100.0);
        // Bones have no metric.
        let measures = vec![measure(1, grams, -3), measure(6, fat, -2), measure(88, 31, -1)];
        group(telling, (grpid, zone, at), (attrib, modified), (truth, measures))
    };
    let ambiguous = seed.of("ambiguous", 0).within(telling.shares.of(Fault::Rescore));
    let versions = if ambiguous {
        vec![version(1, at + 20 * SECOND), version(7, at + 2 * HOUR)]
    } else {
        vec![version(0, at + 20 * SECOND)]
    };
    Some(Made { path: format!("/measure/{grpid}"), versions })
}

/// Now and then in the evening: three measures are one group.
fn pressure(telling: &Telling<'_>, day: &Lived) -> Option<Made> {
    let number = u64::from(day.number.unsigned_abs());
    let seed = telling.seed.of("pressure", number);
    let mut dice = seed.dice();
    if dice.percent(70) {
        return None;
    }
    let mut at = day.noon + i64::from(dice.between(300, 480)) * MINUTE;
    at -= at.rem_euclid(SECOND);
    let zone = zone((at, day.offset_s), (at, day.offset_s));
    let grpid = id(telling.seed, "pressure", number);
    let (high, low, pulse) =
        (dice.between(100, 150), dice.between(60, 92), day.night.resting + dice.between(2, 14));
    let told = at + 15 * SECOND;
    let mut truth = telling.truth("measurement", &grpid.to_string(), told);
    timed(&mut truth, zone, (at, None), super::place::day_at(at, offset_in(zone, at)));
    truth.value("blood_pressure_systolic", f64::from(high));
    truth.value("blood_pressure_diastolic", f64::from(low));
    truth.value("heart_rate", f64::from(pulse));
    let measures = vec![measure(9, low, 0), measure(10, high * 10, -1), measure(11, pulse, 0)];
    let version = group(telling, (grpid, zone, at), (5, told), (truth, measures));
    Some(Made { path: format!("/measure/{grpid}"), versions: vec![version] })
}

/// A day's activity, as it grows.
fn activity(telling: &Telling<'_>, day: &Lived) -> Made {
    let date = day.night.day;
    let zone = zone((day.noon, day.offset_s), (day.noon, day.offset_s));
    let place = Place::named(zone);
    let (start, end) = (place.at(date, 0), place.at(date.next(), 0));
    let versions = (1..=3).map(|third| {
        let mut at = day.noon + i64::from(third - 1) * 5 * HOUR + 7 * MINUTE;
        at -= at.rem_euclid(SECOND);
        let mut truth = telling.truth("daily", &date.to_string(), at);
        timed(&mut truth, zone, (start, Some(end)), date);
        let share = |whole: i32| whole * third / 3;
        let (steps, active, energy) = (share(day.steps), share(day.active), share(day.energy));
        truth.value("steps_daily", f64::from(steps));
        truth.value("energy_active", f64::from(active));
        truth.value("energy_total_daily", f64::from(energy));
        let document = json!({
            "date": date.to_string(), "timezone": zone, "deviceid": null, "brand": 1,
            "is_tracker": true, "modified": at / SECOND, "steps": steps, "calories": active,
            "totalcalories": energy, "soft": 3_600, "active": 600,
        });
        telling.version(truth, &document)
    });
    Made { path: format!("/v2/measure/activity/{date}"), versions: versions.collect() }
}

fn exercise(telling: &Telling<'_>, it: &Workout) -> Made {
    let number = id(telling.seed, "workout", it.number);
    let mut at =
        it.end + i64::from(telling.seed.of("workout", it.number).dice().between(3, 20)) * MINUTE;
    at -= at.rem_euclid(SECOND);
    let zone = zone((it.start, it.offset_s), (it.end, it.offset_s));
    let mut truth = telling.truth("workout", &number.to_string(), at);
    timed(&mut truth, zone, (it.start, Some(it.end)), it.day);
    let seconds = i32::try_from((it.end - it.start) / SECOND).unwrap_or(0);
    let energy = it.energy / 1_000;
    truth.value("workout_session", f64::from(seconds));
    truth.made("heart_rate", f64::from(it.mean), "mean");
    truth.made("heart_rate", f64::from(it.highest), "max");
    truth.made("energy_active", f64::from(energy), "total");
    if it.running {
        truth.made("distance_walk_run", f64::from(it.distance), "total");
    }
    let document = json!({
        "id": number, "category": if it.running { 2 } else { 16 }, "timezone": zone, "model": 59,
        "attrib": 0, "startdate": it.start / SECOND, "enddate": it.end / SECOND,
        "date": it.day.to_string(), "modified": at / SECOND, "deviceid": "7".repeat(40),
        "data": {
            "calories": energy, "hr_average": it.mean, "hr_min": 90, "hr_max": it.highest,
            "steps": 4_000, "distance": it.distance, "elevation": 12, "intensity": 50,
        },
    });
    Made {
        path: format!("/v2/measure/workout/{number}"),
        versions: vec![telling.version(truth, &document)],
    }
}
