//! Polar as it is played: thin webhooks by date or by exercise, and its documents, without versions and deletions.
//!
//! Written from its contract alone. Nobody is told of a nightly recharge: it comes hours after its sleep, and is asked
//! for with it until it is there. What stands by the clock (`"02:35"`) says nothing in a night in which the clocks
//! change. There is no refresh token, and nobody says when a person withdraws.

use serde_json::{Map, Value, json};

use super::dice::Seed;
use super::fault::Fault;
use super::grant::Tokens;
use super::person::{Lived, PHASE_S, Phase, Sleep, Workout, mean};
use super::place::{HOUR, MINUTE, SECOND, day_at, local, utc};
use super::player::{Ask, Delivery, House, Player, Reply, Wanted};
use super::quota::{Left, Limit};
use super::story::{Account, Made, Notice, Telling, Version};
use super::truth::Truth;
use crate::model::time::{Day, Micros};
use crate::vendors::wire::hmac::sign_hex;

/// Polar.
pub static PLAYER: Polar = Polar;

/// See the module.
#[derive(Debug)]
pub struct Polar;

impl Player for Polar {
    fn name(&self) -> &'static str {
        "polar"
    }

    fn vendor_user(&self, seed: Seed) -> String {
        (60_000_000 + seed.of("user", 0).0 % 1_000_000_000).to_string()
    }

    /// One night and one day a date: a date that a journey gives twice is told once.
    fn records(&self, telling: &Telling<'_>) -> Vec<Made> {
        let mut records = Vec::new();
        let mut last: Option<Day> = None;
        for day in telling.life {
            if last.is_none_or(|last| last.0 < day.night.day.0) {
                records.push(sleeps(telling, &day.night));
                records.push(recharge(telling, &day.night));
                records.push(activity(telling, day));
                records.push(heart_rates(telling, day));
                last = Some(day.night.day);
            }
            records.extend(day.workout.as_ref().map(|workout| exercise(telling, workout)));
        }
        records
    }

    fn notice(&self, _seed: Seed, account: &Account, version: &Version) -> Option<String> {
        let truth = &version.truth;
        let user: u64 = account.vendor_user.parse().ok()?;
        let (event, name, path) = match truth.record_type.as_str() {
            "sleep" => ("SLEEP", "date", "users/sleep"),
            "daily" => ("ACTIVITY_SUMMARY", "date", "users/activities"),
            "daily_heart_rate" => ("CONTINUOUS_HEART_RATE", "date", "users/continuous-heart-rate"),
            "workout" => ("EXERCISE", "entity_id", "exercises"),
            _ => return None,
        };
        let url = format!("https://www.polaraccesslink.com/v3/{path}/{}", truth.record_id);
        let stamp = utc(truth.at);
        let body = json!({
            "event": event, "user_id": user, name: truth.record_id, "timestamp": stamp, "url": url,
        });
        Some(body.to_string())
    }

    /// Lower-case hex over the body.
    fn delivery(&self, notice: &Notice, secret: &str, _now_us: Micros) -> Delivery {
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("polar-webhook-signature", sign_hex(&[notice.body.as_bytes()], secret.as_bytes())),
        ];
        Delivery { path: "/webhooks/polar".to_owned(), headers }
    }

    fn house(&self) -> House {
        House {
            api: "",
            token: "",
            limits: &[
                Limit { window_s: 900, calls: 520 },
                Limit { window_s: 86_400, calls: 5_100 },
            ],
            token_s: 315_360_000,
            rotates: false,
        }
    }

    /// Nobody's device here senses more: that there is nothing is an answer.
    fn asks(&self, ask: &Ask, path: &str) -> Wanted {
        match ask.method.as_str() {
            "GET" if path.starts_with("/v3/users/biosensing/") => Wanted::Nothing(204),
            "GET" => Wanted::Record,
            _ => Wanted::Nothing(405),
        }
    }

    fn failed(&self, status: u16, error: &str) -> Reply {
        let nothing = status == 204;
        let body = if nothing { String::new() } else { json!({ "error": error }).to_string() };
        Reply::json(status, body)
    }

    /// Of a sleep its recharge.
    fn along(&self, path: &str) -> Vec<String> {
        let date = path.strip_prefix("/v3/users/sleep/");
        date.into_iter().map(|date| format!("/v3/users/nightly-recharge/{date}")).collect()
    }

    fn pair(&self, tokens: &Tokens, lives_s: i64) -> String {
        json!({ "access_token": tokens.access, "token_type": "bearer", "expires_in": lives_s })
            .to_string()
    }

    /// Two windows in each header; the nearer one of them stands for both.
    fn rated(&self, reply: Reply, left: Left) -> Reply {
        let twice = |number: u32| format!("{number}, {number}");
        let reset = u32::try_from(left.wait_s()).unwrap_or(0);
        reply
            .with("ratelimit-usage", twice(left.of - left.calls))
            .with("ratelimit-limit", twice(left.of))
            .with("ratelimit-reset", twice(reset))
    }
}

/// The values of a night's phases by the clock.
fn by_the_clock(sleep: &Sleep, values: &[Option<i32>]) -> Map<String, Value> {
    let shown = |nth: i64| {
        let at = sleep.start + nth * i64::from(PHASE_S) * SECOND;
        let shown = local(at, sleep.start_offset_s);
        shown.get(11..16).unwrap_or_default().to_owned()
    };
    let values = (0..).zip(values);
    values.filter_map(|(nth, value)| Some((shown(nth), (*value)?.into()))).collect()
}

/// Whether the clock says when something was in this night.
const fn is_plain(sleep: &Sleep) -> bool {
    sleep.start_offset_s == sleep.end_offset_s
}

fn timed(truth: &mut Truth, sleep: &Sleep) {
    let (start, end) = ((sleep.start, sleep.start_offset_s), (sleep.end, sleep.end_offset_s));
    truth.during(start, Some(end), sleep.day);
}

fn sleeps(telling: &Telling<'_>, night: &Sleep) -> Made {
    let seed = telling.seed.of("night", night.number);
    let at = night.end + i64::from(seed.dice().between(4, 80)) * MINUTE;
    let mut versions = vec![slept(telling, night, at)];
    if seed.of("rescore", 0).within(telling.shares.of(Fault::Rescore)) {
        let again = night.scored_again(telling.seed, 1);
        versions.push(slept(telling, &again, at + 3 * HOUR));
    }
    Made { path: format!("/v3/users/sleep/{}", night.day), versions }
}

fn slept(telling: &Telling<'_>, night: &Sleep, at: Micros) -> Version {
    let mut truth = telling.truth("sleep", &night.day.to_string(), at);
    timed(&mut truth, night);
    let [deep, light, rem, awake] =
        [Phase::Deep, Phase::Light, Phase::Rem, Phase::Awake].map(|phase| night.seconds(phase));
    let score = 40 + night.breaths % 55;
    for (metric, value) in [
        ("sleep_session", night.length_s()),
        ("sleep_deep_duration", deep),
        ("sleep_light_duration", light),
        ("sleep_rem_duration", rem),
        ("sleep_awake_duration", awake),
        ("sleep_total_duration", deep + light + rem),
        ("polar.sleep_score", score),
    ] {
        truth.value(metric, f64::from(value));
    }
    if is_plain(night) {
        truth.sampled("heart_rate", (night.start, PHASE_S), &night.heart);
        truth.intervals = night.stages();
    }
    // Two codes are light sleep: every other phase of it is the lighter one.
    let codes: Vec<Option<i32>> = (0..)
        .zip(&night.phases)
        .map(|(nth, phase)| match phase {
            Phase::Awake => Some(0),
            Phase::Rem => Some(1),
            Phase::Light => Some(2 + nth % 2),
            Phase::Deep => Some(4),
        })
        .collect();
    let document = json!({
        "polar_user": "https://www.polaraccesslink.com/v3/users/1",
        "date": night.day.to_string(),
        "sleep_start_time": local(night.start, night.start_offset_s),
        "sleep_end_time": local(night.end, night.end_offset_s),
        "device_id": "SIMULATED", "continuity": 2.1, "continuity_class": 2,
        "light_sleep": light, "deep_sleep": deep, "rem_sleep": rem,
        "unrecognized_sleep_stage": 0, "sleep_score": score,
        "total_interruption_duration": awake, "sleep_charge": 3, "sleep_goal": 28_800,
        "sleep_rating": 0, "short_interruption_duration": 0,
        "long_interruption_duration": awake, "sleep_cycles": 4,
        "hypnogram": by_the_clock(night, &codes),
        "heart_rate_samples": by_the_clock(night, &night.heart),
    });
    telling.version(truth, &document)
}

fn recharge(telling: &Telling<'_>, night: &Sleep) -> Made {
    let date = night.day.to_string();
    let mut dice = telling.seed.of("recharge", night.number).dice();
    let at = night.end + i64::from(dice.between(2, 140)) * MINUTE;
    let mut truth = telling.truth("nightly_recharge", &date, at);
    timed(&mut truth, night);
    let (rmssd, heart) = (mean(&night.hrv, 1), mean(&night.heart, 1));
    let (breaths, charge) = (f64::from(night.breaths) / 100.0, dice.between(-100, 100));
    let charge = f64::from(charge) / 10.0;
    let status = if night.ill { 1 } else { 4 };
    truth.made("hrv_rmssd_sleep_avg", f64::from(rmssd), "first_4h");
    truth.made("heart_rate_sleep_avg", f64::from(heart), "first_4h");
    truth.made("respiratory_rate_sleep_avg", breaths, "first_4h");
    truth.value("polar.nightly_recharge_status", f64::from(status));
    truth.value("polar.ans_charge", charge);
    if is_plain(night) {
        truth.sampled("hrv_rmssd", (night.start, PHASE_S), &night.hrv);
    }
    let document = json!({
        "polar_user": "https://www.polaraccesslink.com/v3/users/1",
        "date": date, "heart_rate_avg": heart, "beat_to_beat_avg": 60_000 / heart.max(1),
        "heart_rate_variability_avg": rmssd, "breathing_rate_avg": breaths,
        "nightly_recharge_status": status, "ans_charge": charge, "ans_charge_status": 3,
        "hrv_samples": by_the_clock(night, &night.hrv), "breathing_samples": {},
    });
    let path = format!("/v3/users/nightly-recharge/{date}");
    Made { path, versions: vec![telling.version(truth, &document)] }
}

/// A day's activity, in the device's own time of which nobody knows the offset: it grows.
fn activity(telling: &Telling<'_>, day: &Lived) -> Made {
    let date = day.night.day.to_string();
    let versions = (1..=3).map(|third| {
        let at = day.noon + i64::from(third - 1) * 5 * HOUR + 7 * MINUTE;
        let mut truth = telling.truth("daily", &date, at);
        truth.day = Some(date.clone());
        let share = |whole: i32| whole * third / 3;
        let (steps, active, energy) = (share(day.steps), share(day.active), share(day.energy));
        truth.value("steps_daily", f64::from(steps));
        truth.value("energy_active", f64::from(active));
        truth.value("energy_total_daily", f64::from(energy));
        let document = json!({
            "start_time": format!("{date}T00:00:00"), "end_time": format!("{date}T23:59:59"),
            "active_duration": if third == 3 { "PT7H5M" } else { "PT0S" },
            "inactive_duration": "PT9H", "steps": steps, "active_calories": active,
            "calories": energy, "distance_from_steps": f64::from(steps) * 0.7,
        });
        telling.version(truth, &document)
    });
    Made { path: format!("/v3/users/activities/{date}"), versions: versions.collect() }
}

/// Heart rates of a day by the device's own clock.
fn heart_rates(telling: &Telling<'_>, day: &Lived) -> Made {
    let date = day.night.day.to_string();
    let at = day.noon + 8 * HOUR;
    let mut dice = telling.seed.of("heart", u64::from(day.number.unsigned_abs())).dice();
    let rates: Vec<Option<i32>> =
        (0..24).map(|_| Some(day.night.resting + dice.between(2, 60))).collect();
    let mut truth = telling.truth("daily_heart_rate", &date, at);
    truth.day = Some(date.clone());
    truth.sampled("heart_rate", (day.night.day.start_utc_us(), 3_600), &rates);
    let samples: Vec<Value> = (0..)
        .zip(&rates)
        .map(|(hour, rate)| json!({"heart_rate": rate, "sample_time": format!("{hour:02}:00:00")}))
        .collect();
    let document = json!({
        "polar_user": "https://www.polaraccesslink.com/v3/users/1", "date": date,
        "heart_rate_samples": samples,
    });
    let path = format!("/v3/users/continuous-heart-rate/{date}");
    Made { path, versions: vec![telling.version(truth, &document)] }
}

fn exercise(telling: &Telling<'_>, it: &Workout) -> Made {
    let seed = telling.seed.of("workout", it.number);
    let id = seed.hex(8);
    let at = it.end + i64::from(seed.dice().between(3, 20)) * MINUTE;
    let mut truth = telling.truth("workout", &id, at);
    let zone = it.offset_s;
    truth.during((it.start, zone), Some((it.end, zone)), day_at(it.start, zone));
    let minutes = (it.end - it.start) / MINUTE;
    let energy = it.energy / 1_000;
    let seconds = i32::try_from(minutes * 60).unwrap_or(0);
    truth.value("workout_session", f64::from(seconds));
    truth.made("heart_rate", f64::from(it.mean), "mean");
    truth.made("heart_rate", f64::from(it.highest), "max");
    truth.made("energy_active", f64::from(energy), "total");
    let distance = f64::from(it.distance);
    if it.running {
        truth.made("distance_walk_run", distance, "total");
    }
    let start = local(it.start, zone);
    let document = json!({
        "id": id, "upload_time": utc(at), "polar_user": "https://www.polaraccesslink.com/v3/users/1",
        "device": "Polar Simulated", "start_time": start.get(..19).unwrap_or_default(),
        "start_time_utc_offset": zone / 60,
        "duration": format!("PT{}H{}M0S", minutes / 60, minutes % 60),
        "calories": energy, "distance": distance,
        "heart_rate": {"average": it.mean, "maximum": it.highest},
        "sport": if it.running { "RUNNING" } else { "STRENGTH_TRAINING" },
        "has_route": false, "detailed_sport_info": "RUNNING",
    });
    let path = format!("/v3/exercises/{id}");
    Made { path, versions: vec![telling.version(truth, &document)] }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::fault::Shares;
    use super::super::player::{Ask, Played};
    use super::super::stage::Stage;
    use super::super::story::{Plan, Story};
    use crate::model::time::Day;

    #[test]
    fn a_day_is_named_alike_for_everybody_and_each_gets_ones_own() {
        let polar = Played::parse("polar").expect("it is played");
        let plan = Plan {
            seed: 11,
            people: 2,
            first: Day::parse("2026-10-01").expect("a day"),
            days: 4,
            history: 0,
            subscriptions: 0,
            vendors: vec![polar],
            shares: Shares::parse("none").expect("shares"),
        };
        let secrets = BTreeMap::from([(polar, "not-a-secret-test-key".to_owned())]);
        let mut stage = Stage::new(Story::new(plan), 1_000_000, secrets);
        let at = stage.story().plan.ends() - 1;
        let mut nights = Vec::new();
        for (tokens, _) in stage.first_tokens() {
            let ask = Ask {
                method: "GET".to_owned(),
                path: "/polar/v3/users/sleep/2026-10-02".to_owned(),
                bearer: Some(tokens.access),
                ..Ask::default()
            };
            let reply = stage.answer(&ask, at);
            assert_eq!(reply.status, 200);
            nights.push(reply.body);
        }
        assert_eq!(nights.len(), 2);
        assert_ne!(nights.first(), nights.last());
    }
}
