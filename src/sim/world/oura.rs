//! Oura as it is played: thin webhooks of documents, and the documents, without a version and without a user in them.
//!
//! Written from its contract alone. A night is told in a document of its own and in the ones of its day; a sleep can
//! go by a `delete`, or by an update that says it was rest. The same temperature stands in two documents of a night
//! and is one reading; which of the two has it is a decision of ours (`vendors.md` §1.6, 3) that the ledger follows.

use serde_json::{Value, json};

use super::dice::Seed;
use super::fault::Fault;
use super::person::{Lived, PHASE_S, Phase, Sleep, Workout, mean};
use super::place::{HOUR, MINUTE, SECOND, local};
use super::player::{Ask, Delivery, House, Listed, Player, Reply, Shelf, Shown, Wanted};
use super::quota::{Left, Limit};
use super::story::{Account, Made, Notice, Telling, Version};
use super::subscription::Subject;
use crate::model::time::{Day, Micros};
use crate::vendors::wire::hmac::sign_hex;

/// Oura.
pub static PLAYER: Oura = Oura;

/// See the module.
#[derive(Debug)]
pub struct Oura;

/// What stands before a collection in paths.
const COLLECTIONS: &str = "/v2/usercollection/";
/// How many documents a page has: nobody knows, so few.
const PAGE: usize = 10;

impl Player for Oura {
    fn name(&self) -> &'static str {
        "oura"
    }

    fn vendor_user(&self, seed: Seed) -> String {
        format!("u-{}", seed.of("user", 0).hex(10))
    }

    fn records(&self, telling: &Telling<'_>) -> Vec<Made> {
        let mut records = Vec::new();
        for day in telling.life {
            records.push(sleeps(telling, &day.night));
            records.extend(day.nap.as_ref().map(|nap| sleeps(telling, nap)));
            records.extend(of_the_night(telling, day));
            records.push(activity(telling, day));
            records.push(stress(telling, day));
            records.extend(day.workout.as_ref().map(|workout| trained(telling, workout)));
        }
        records
    }

    fn notice(&self, _seed: Seed, account: &Account, version: &Version) -> Option<String> {
        let truth = &version.truth;
        let event = match (version.document.is_some(), truth.order) {
            (false, _) => "delete",
            (true, 1) => "create",
            (true, _) => "update",
        };
        let body = json!({
            "event_type": event,
            "data_type": truth.record_type,
            "object_id": truth.record_id,
            "event_time": local(truth.at, 0),
            "user_id": account.vendor_user,
        });
        Some(body.to_string())
    }

    fn subscription_ends(&self) -> bool {
        true
    }

    fn subscribed(&self) -> Option<&'static str> {
        Some("/v2/webhook/subscription")
    }

    fn subject(&self, body: &str) -> Option<Subject> {
        let body: Value = serde_json::from_str(body).ok()?;
        let text = |name: &str| Some(body.get(name)?.as_str()?.to_owned());
        Some((text("event_type")?, text("data_type")?))
    }

    /// Upper-case hex over the time in seconds and the body.
    fn delivery(&self, notice: &Notice, secret: &str, now_us: Micros) -> Delivery {
        let at = (now_us / SECOND).to_string();
        let parts = [at.as_bytes(), notice.body.as_bytes()];
        let signature = sign_hex(&parts, secret.as_bytes()).to_uppercase();
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("x-oura-signature", signature),
            ("x-oura-timestamp", at),
        ];
        Delivery { path: "/webhooks/oura".to_owned(), headers }
    }

    fn house(&self) -> House {
        House {
            api: "",
            token: "/oauth/token",
            limits: &[Limit { window_s: 300, calls: 5_000 }],
            token_s: 86_400,
            rotates: true,
        }
    }

    fn asks(&self, ask: &Ask, path: &str) -> Wanted {
        let collection = path.strip_prefix(COLLECTIONS).filter(|rest| !rest.contains('/'));
        match collection {
            _ if ask.method != "GET" => Wanted::Nothing(405),
            Some(_) => Wanted::List,
            None => Wanted::Record,
        }
    }

    /// A page of a collection: the documents of these days, the last one among them. Nobody has heart rates.
    fn list(&self, shelf: &Shelf<'_>, path: &str, ask: &Ask) -> Option<Listed> {
        let record_type = path.strip_prefix(COLLECTIONS)?;
        if record_type == "heartrate" {
            let body = json!({"data": [], "next_token": null}).to_string();
            return ask.parameter("start_datetime").map(|_| Listed { body, shown: Vec::new() });
        }
        let day = |name| Day::parse(&ask.parameter(name)?);
        let days = day("start_date")?..=day("end_date")?;
        let of = |shown: &Shown<'_>| Day::parse(shown.version.truth.day.as_deref()?);
        let mut found = shelf.now();
        found.retain(|shown| {
            let within = of(shown).is_some_and(|day| days.contains(&day));
            shown.version.truth.record_type == record_type && within
        });
        found.sort_by_key(of);
        let skipped = ask.parameter("next_token").map_or(Some(0), |text| text.parse().ok())?;
        let left = found.len().saturating_sub(skipped + PAGE);
        let page: Vec<_> = found.into_iter().skip(skipped).take(PAGE).collect();
        let documents: Vec<&str> = page.iter().map(|shown| shown.document).collect();
        let next = if left > 0 { format!(r#""{}""#, skipped + PAGE) } else { "null".to_owned() };
        let body = format!(r#"{{"data":[{}],"next_token":{next}}}"#, documents.join(","));
        let shown = page.iter().map(|shown| (shown.place, shown.version.truth.order)).collect();
        Some(Listed { body, shown })
    }

    fn rated(&self, reply: Reply, left: Left) -> Reply {
        if reply.status != 429 {
            return reply;
        }
        reply
            .with("retry-after", left.wait_s().to_string())
            .with("x-ratelimit-limit", left.of.to_string())
            .with("x-ratelimit-tier", "application".to_owned())
    }
}

fn made(record_type: &str, id: &str, versions: Vec<Version>) -> Made {
    Made { path: format!("/v2/usercollection/{record_type}/{id}"), versions }
}

fn id(telling: &Telling<'_>, record_type: &str, number: u64) -> String {
    telling.seed.of(record_type, number).uuid()
}

/// When a sleep is scored, and scored again where it is: when its person opens the app.
fn scored(telling: &Telling<'_>, sleep: &Sleep) -> Vec<Micros> {
    let seed = telling.seed.of("scored", sleep.number);
    let mut dice = seed.dice();
    let first = sleep.end + i64::from(dice.between(3, 90)) * MINUTE;
    let again = seed.of("rescore", 0).within(telling.shares.of(Fault::Rescore));
    let again = again.then(|| first + i64::from(dice.between(30, 420)) * MINUTE);
    std::iter::once(first).chain(again).collect()
}

// ── sleeps ─────────────────────────────────────────────────────────────────────────────────────────────────────

fn sleeps(telling: &Telling<'_>, sleep: &Sleep) -> Made {
    let id = id(telling, "sleep", sleep.number);
    let times = scored(telling, sleep);
    let mut versions: Vec<Version> = (0..)
        .zip(&times)
        .map(|(nth, at)| {
            let again =
                if nth == 0 { sleep.clone() } else { sleep.scored_again(telling.seed, nth) };
            slept(telling, &again, &id, *at)
        })
        .collect();
    let seed = telling.seed.of("delete", sleep.number);
    if seed.within(telling.shares.of(Fault::Delete))
        && let Some(last) = versions.last().map(|last| last.truth.at + HOUR)
    {
        versions.push(rejected(telling, sleep, &id, last, seed.of("rest", 0).within(50)));
    }
    made("sleep", &id, versions)
}

/// A sleep that is one no more: deleted, or found to have been rest.
fn rejected(telling: &Telling<'_>, sleep: &Sleep, id: &str, at: Micros, rest: bool) -> Version {
    let gone = telling.gone("sleep", id, at);
    if !rest {
        return gone;
    }
    let document = json!({
        "id": id, "day": sleep.day.to_string(), "type": "rest", "period": 0,
        "low_battery_alert": false, "time_in_bed": sleep.length_s(),
        "bedtime_start": local(sleep.start, sleep.start_offset_s),
        "bedtime_end": local(sleep.end, sleep.end_offset_s),
    });
    Version { document: Some(document.to_string()), ..gone }
}

/// What a sleep comes to, in whole numbers.
struct Sums {
    deep: i32,
    light: i32,
    rem: i32,
    awake: i32,
    in_bed: i32,
    asleep: i32,
    hrv: i32,
    heart: f64,
    lowest: i32,
    breath: f64,
    efficiency: i32,
    restless: i32,
}

impl Sums {
    fn of(sleep: &Sleep) -> Self {
        let [deep, light, rem, awake] =
            [Phase::Deep, Phase::Light, Phase::Rem, Phase::Awake].map(|phase| sleep.seconds(phase));
        let (in_bed, asleep) = (sleep.length_s(), deep + light + rem);
        Self {
            deep,
            light,
            rem,
            awake,
            in_bed,
            asleep,
            hrv: mean(&sleep.hrv, 1),
            heart: f64::from(mean(&sleep.heart, 100)) / 100.0,
            lowest: sleep.heart.iter().flatten().min().copied().unwrap_or(sleep.resting),
            breath: f64::from(sleep.breaths) / 100.0,
            efficiency: asleep * 100 / in_bed.max(1),
            restless: awake / 150,
        }
    }
}

fn slept(telling: &Telling<'_>, sleep: &Sleep, id: &str, at: Micros) -> Version {
    let mut truth = telling.truth("sleep", id, at);
    let (start, end) = ((sleep.start, sleep.start_offset_s), (sleep.end, sleep.end_offset_s));
    truth.during(start, Some(end), sleep.day);
    truth.state = Some("final".to_owned());
    truth.nap = (!sleep.nap).then_some(false);
    let sums = Sums::of(sleep);
    truth.made("hrv_rmssd_sleep_avg", f64::from(sums.hrv), "mean_5min");
    truth.value("heart_rate_sleep_avg", sums.heart);
    truth.value("respiratory_rate_sleep_avg", sums.breath);
    for (metric, value) in [
        ("heart_rate_sleep_min", sums.lowest),
        ("sleep_session", sums.in_bed),
        ("sleep_time_in_bed", sums.in_bed),
        ("sleep_total_duration", sums.asleep),
        ("sleep_deep_duration", sums.deep),
        ("sleep_light_duration", sums.light),
        ("sleep_rem_duration", sums.rem),
        ("sleep_awake_duration", sums.awake),
        ("sleep_latency", 2 * PHASE_S),
        ("sleep_efficiency", sums.efficiency),
        ("oura.restless_periods", sums.restless),
    ] {
        truth.value(metric, f64::from(value));
    }
    truth.sampled("hrv_rmssd", (sleep.start, PHASE_S), &sleep.hrv);
    truth.sampled("heart_rate", (sleep.start, PHASE_S), &sleep.heart);
    truth.intervals = sleep.stages();
    telling.version(truth, &document(sleep, id, &sums))
}

fn document(sleep: &Sleep, id: &str, sums: &Sums) -> Value {
    let items = |values: &[Option<i32>]| {
        let items: Vec<Option<f64>> = values.iter().map(|value| value.map(f64::from)).collect();
        json!({
            "interval": 300.0, "items": items,
            "timestamp": local(sleep.start, sleep.start_offset_s),
        })
    };
    json!({
        "id": id,
        "day": sleep.day.to_string(),
        "bedtime_start": local(sleep.start, sleep.start_offset_s),
        "bedtime_end": local(sleep.end, sleep.end_offset_s),
        "type": if sleep.nap { "sleep" } else { "long_sleep" },
        "period": u8::from(sleep.nap),
        "low_battery_alert": false,
        "time_in_bed": sums.in_bed,
        "total_sleep_duration": sums.asleep,
        "deep_sleep_duration": sums.deep,
        "light_sleep_duration": sums.light,
        "rem_sleep_duration": sums.rem,
        "awake_time": sums.awake,
        "latency": 2 * PHASE_S,
        "efficiency": sums.efficiency,
        "average_heart_rate": sums.heart,
        "lowest_heart_rate": sums.lowest,
        "average_hrv": sums.hrv,
        "average_breath": sums.breath,
        "restless_periods": sums.restless,
        "heart_rate": items(&sleep.heart),
        "hrv": items(&sleep.hrv),
        "sleep_phase_5_min": sleep.phases.iter().map(|phase| digit(*phase)).collect::<String>(),
        "sleep_phase_30_sec": null,
        "readiness": {
            "score": 80, "temperature_deviation": f64::from(sleep.deviation) / 100.0,
            "temperature_trend_deviation": 0.04, "contributors": {"hrv_balance": 78},
        },
        "readiness_score_delta": 0,
        "sleep_score_delta": 0,
        "sleep_algorithm_version": "v2",
        "sleep_analysis_reason": "foreground_sleep_analysis",
        "ring_id": "c2ltdWxhdGVk",
    })
}

const fn digit(phase: Phase) -> char {
    match phase {
        Phase::Deep => '1',
        Phase::Light => '2',
        Phase::Rem => '3',
        Phase::Awake => '4',
    }
}

// ── days ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// A version of a document: from when on it stands, its values by metric, and the document without id and day.
type Daily<'a> = (Micros, Vec<(&'a str, f64)>, Value);

/// A document of a day, version by version.
fn daily(telling: &Telling<'_>, record_type: &str, day: &Lived, versions: Vec<Daily<'_>>) -> Made {
    let id = id(telling, record_type, u64::from(day.number.unsigned_abs()));
    let versions = versions.into_iter().map(|(at, values, mut document)| {
        let mut truth = telling.truth(record_type, &id, at);
        truth.day = Some(day.night.day.to_string());
        for (metric, value) in values {
            truth.value(metric, value);
        }
        if let Some(object) = document.as_object_mut() {
            object.insert("id".to_owned(), id.clone().into());
            object.insert("day".to_owned(), day.night.day.to_string().into());
        }
        telling.version(truth, &document)
    });
    let versions = versions.collect();
    made(record_type, &id, versions)
}

/// What is said of a night by its day: a score, readiness with the temperature, oxygen.
fn of_the_night(telling: &Telling<'_>, day: &Lived) -> Vec<Made> {
    let night = &day.night;
    let times = scored(telling, night);
    let midnight = local(night.end - 6 * HOUR, night.end_offset_s);
    let scores = (0..).zip(&times).map(|(nth, at)| {
        let score = if night.ill { 55 } else { 82 } + nth;
        let document = json!({
            "score": score, "timestamp": midnight,
            "contributors": {"deep_sleep": 90, "efficiency": 88, "latency": null},
        });
        (*at + 2 * SECOND, vec![("oura.sleep_score", f64::from(score))], document)
    });
    let scores = scores.collect();
    let readiness = (0..).zip(&times).map(|(nth, at)| {
        let score = if night.ill { 48 } else { 79 } + nth;
        let deviation = f64::from(night.deviation + nth) / 100.0;
        let trend = f64::from(night.deviation / 3) / 100.0;
        let values = vec![
            ("oura.readiness_score", f64::from(score)),
            ("skin_temperature_deviation", deviation),
            ("skin_temperature_trend_deviation", trend),
            ("oura.readiness_contributor.hrv_balance", 71.0),
            ("oura.readiness_contributor.resting_heart_rate", 64.0),
            ("oura.readiness_contributor.previous_night", f64::from(score)),
        ];
        let document = json!({
            "score": score, "timestamp": midnight,
            "temperature_deviation": deviation, "temperature_trend_deviation": trend,
            "contributors": {
                "hrv_balance": 71, "resting_heart_rate": 64, "previous_night": score,
                "activity_balance": null,
            },
        });
        (*at + 4 * SECOND, values, document)
    });
    let readiness = readiness.collect();
    let oxygen = f64::from(night.oxygen) / 10.0;
    let index = 2 + night.oxygen % 9;
    let document = json!({
        "spo2_percentage": {"average": oxygen}, "breathing_disturbance_index": index,
    });
    let at = times.first().copied().unwrap_or(night.end);
    let values = vec![("spo2_sleep_avg", oxygen), ("oura.breathing_disturbance", f64::from(index))];
    vec![
        daily(telling, "daily_sleep", day, scores),
        daily(telling, "daily_readiness", day, readiness),
        daily(telling, "daily_spo2", day, vec![(at + 6 * SECOND, values, document)]),
    ]
}

/// The day's activity, from four to four: it grows, and is told again and again.
fn activity(telling: &Telling<'_>, day: &Lived) -> Made {
    let midnight = local(day.noon - 8 * HOUR, day.offset_s);
    let versions = (1..=3).map(|third| {
        let share = |whole: i32| whole * third / 3;
        let (steps, active) = (share(day.steps), share(day.active));
        let total = share(day.energy - day.active) + active;
        let (medium, high, sedentary) = (share(3_000), share(900), share(28_800));
        let score = 60 + third * 7;
        let values = [
            ("oura.activity_score", score),
            ("steps_daily", steps),
            ("energy_active", active),
            ("energy_total_daily", total),
            ("activity_moderate_duration", medium),
            ("activity_vigorous_duration", high),
            ("sedentary_duration", sedentary),
            ("non_wear_duration", 0),
        ];
        let document = json!({
            "score": score, "steps": steps, "active_calories": active, "total_calories": total,
            "medium_activity_time": medium, "high_activity_time": high,
            "low_activity_time": 7_200, "sedentary_time": sedentary, "non_wear_time": 0,
            "resting_time": 25_000, "equivalent_walking_distance": steps,
            "timestamp": midnight, "met": {"interval": 60.0, "items": [0.9, 1.1], "timestamp": midnight},
        });
        let at = day.noon + i64::from(third - 1) * 5 * HOUR;
        (at, values.map(|(metric, value)| (metric, f64::from(value))).to_vec(), document)
    });
    let versions = versions.collect();
    daily(telling, "daily_activity", day, versions)
}

fn stress(telling: &Telling<'_>, day: &Lived) -> Made {
    let high = 900 * (1 + day.steps % 7);
    let recovered = 900 * (1 + day.active % 5);
    let values = vec![
        ("oura.stress_high_duration", f64::from(high)),
        ("oura.recovery_high_duration", f64::from(recovered)),
    ];
    let document = json!({
        "stress_high": high, "recovery_high": recovered, "day_summary": "normal",
    });
    daily(telling, "daily_stress", day, vec![(day.noon + 9 * HOUR, values, document)])
}

fn trained(telling: &Telling<'_>, workout: &Workout) -> Made {
    let id = id(telling, "workout", workout.number);
    let at = workout.end + 12 * MINUTE;
    let zone = workout.offset_s;
    let mut truth = telling.truth("workout", &id, at);
    truth.during((workout.start, zone), Some((workout.end, zone)), workout.day);
    let seconds = i32::try_from((workout.end - workout.start) / SECOND).unwrap_or(0);
    let calories = f64::from(workout.energy) / 1_000.0;
    truth.value("workout_session", f64::from(seconds));
    truth.value("energy_active", calories);
    let mut document = json!({
        "id": id, "day": workout.day.to_string(), "intensity": "moderate",
        "activity": if workout.running { "running" } else { "strengthTraining" },
        "start_datetime": local(workout.start, zone), "end_datetime": local(workout.end, zone),
        "source": "confirmed", "calories": calories, "distance": null, "label": null,
    });
    if workout.running {
        let distance = f64::from(workout.distance) + 0.5;
        truth.value("distance_walk_run", distance);
        if let Some(object) = document.as_object_mut() {
            object.insert("distance".to_owned(), distance.into());
        }
    }
    let mut versions = vec![telling.version(truth, &document)];
    if telling.seed.of("delete workout", workout.number).within(telling.shares.of(Fault::Delete)) {
        versions.push(telling.gone("workout", &id, at + 3 * HOUR));
    }
    made("workout", &id, versions)
}
