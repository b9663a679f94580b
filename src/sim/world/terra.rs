//! Terra as it is played: whole records of other makers' devices, by webhook or by its Kafka destination.
//!
//! Written from its contract alone. People begin and end by what it sends, and may be given another id. A webhook has
//! an ordering time, the same on repetitions; the Kafka destination has none, so there the later one is the newer one.
//! It carries bodies, or links to them that die. A sleep is sent again when it has been enriched: its score is then in
//! it, and in a later correction there is null again, which erases nothing.

use serde_json::{Value, json};

use super::dice::Seed;
use super::fault::Fault;
use super::person::{Lived, PHASE_S, Phase, Sleep, Workout, mean};
use super::place::{HOUR, MINUTE, SECOND, day_at, local};
use super::player::{Ask, Delivery, House, Player, Wanted};
use super::story::{Account, Made, Notice, Plan, Telling, Version, Way};
use super::truth::Truth;
use crate::model::time::{Day, Micros};
use crate::vendors::wire::hmac::sign_hex;

/// Terra.
pub static PLAYER: Terra = Terra;

/// See the module.
#[derive(Debug)]
pub struct Terra;

/// The share of people whose records go to the Kafka destination, percent, and of their records those by a link.
const BY_LOG: u32 = 50;
const BY_LINK: u32 = 60;
/// How long a link lives, seconds.
pub const LINK_S: i64 = 600;
/// What is below its name before a link's id.
const LINKS: &str = "/payloads/";

impl Player for Terra {
    fn name(&self) -> &'static str {
        "terra"
    }

    fn vendor_user(&self, seed: Seed) -> String {
        seed.of("user", 0).uuid()
    }

    /// One day a date: a date that a journey gives twice is told once.
    fn records(&self, telling: &Telling<'_>) -> Vec<Made> {
        let mut records = Vec::new();
        let mut last: Option<Day> = None;
        for day in telling.life {
            records.extend(night(telling, &day.night));
            records.extend(day.nap.as_ref().map(|nap| napped(telling, nap)));
            if last.is_none_or(|last| last.0 < day.night.day.0) {
                records.push(daily(telling, day));
                records.extend(body(telling, day));
                last = Some(day.night.day);
            }
            records.extend(day.workout.as_ref().map(|workout| activity(telling, workout)));
        }
        records
    }

    fn notice(&self, _seed: Seed, account: &Account, version: &Version) -> Option<String> {
        let item = version.document.as_deref()?;
        let user = user(account, version.truth.at);
        let kind = version.kind;
        Some(format!(r#"{{"type":"{kind}","version":"2022-03-16","user":{user},"data":[{item}]}}"#))
    }

    /// It begins, may get another id (an ordinary `auth` comes then, before it or after it), and may end.
    fn of_account(&self, account: &Account, plan: &Plan) -> Vec<(Micros, String)> {
        let event = |kind: &str, at: Micros| {
            let user = user(account, at);
            format!(
                r#"{{"type":"{kind}","status":"success","message":"","user":{user},"version":"2022-03-16"}}"#
            )
        };
        let mut events = vec![(plan.begins(), event("auth", plan.begins()))];
        if let Some(at) = account.renamed_at {
            let (old, new) = (user(account, at - 1), user(account, at));
            let renamed = format!(
                r#"{{"type":"user_reauth","status":"success","old_user":{old},"new_user":{new},"version":"2022-03-16"}}"#
            );
            let before = account.seed.of("auth before", 0).within(50);
            let auth = event("auth", at);
            events.push((at, if before { auth.clone() } else { renamed.clone() }));
            events.push((at, if before { renamed } else { auth }));
        }
        events.extend(account.revoked_at.map(|at| (at, event("deauth", at))));
        events
    }

    fn way(&self, account: &Account, id: &str) -> Way {
        match is_by_log(account) {
            false => Way::Door,
            true if account.seed.of(id, 0).within(BY_LINK) => Way::Link,
            true => Way::Log,
        }
    }

    fn in_turn(&self) -> bool {
        true
    }

    fn undated(&self, account: &Account) -> bool {
        is_by_log(account)
    }

    /// Lower-case hex over the time in seconds, a dot and the body; twice, under the name of old, too.
    fn delivery(&self, notice: &Notice, secret: &str, now_us: Micros) -> Delivery {
        let at = (now_us / SECOND).to_string();
        let parts: [&[u8]; 3] = [at.as_bytes(), b".", notice.body.as_bytes()];
        let signature = format!("t={at},v1={}", sign_hex(&parts, secret.as_bytes()));
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("x-terra-signature", signature.clone()),
            ("terra-signature", signature),
            ("x-terra-trace-id", notice.id.clone()),
            ("x-terra-ordering-timestamp", (notice.stamp / 1_000).to_string()),
        ];
        Delivery { path: "/webhooks/terra".to_owned(), headers }
    }

    fn pointer(&self, notice: &Notice, address: &str) -> String {
        let url = format!("{address}/terra{LINKS}{}?X-Goog-Expires={LINK_S}", notice.id);
        json!({
            "status": "success", "type": "s3_payload", "url": url, "expires_in": LINK_S,
        })
        .to_string()
    }

    fn has_bucket(&self) -> bool {
        true
    }

    fn is_consented(&self) -> bool {
        false
    }

    fn house(&self) -> House {
        House { api: "", token: "", limits: &[], token_s: 0, rotates: false }
    }

    fn asks(&self, ask: &Ask, path: &str) -> Wanted {
        match path.strip_prefix(LINKS) {
            Some(_) if ask.method == "GET" => Wanted::Link,
            _ => Wanted::Nothing(404),
        }
    }
}

fn is_by_log(account: &Account) -> bool {
    account.seed.of("by log", 0).within(BY_LOG)
}

/// Whose devices they are, and whether sleeps have an id of their own.
fn maker(account: &Account) -> (&'static str, bool) {
    let mut dice = account.seed.of("maker", 0).dice();
    let makers = [("OURA", true), ("GARMIN", true), ("FITBIT", true), ("POLAR", false)];
    dice.pick(&makers, ("FITBIT", true))
}

/// The user of an event at this time.
fn user(account: &Account, at: Micros) -> Value {
    let renamed = account.renamed_at.is_some_and(|renamed| renamed <= at);
    let id =
        if renamed { account.seed.of("other user", 0).uuid() } else { account.vendor_user.clone() };
    json!({
        "user_id": id, "provider": maker(account).0, "reference_id": account.user,
        "scopes": "daily,sleep,activity,body", "active": true, "last_webhook_update": null,
    })
}

fn version(telling: &Telling<'_>, kind: &'static str, truth: Truth, item: &Value) -> Version {
    Version { kind, ..telling.version(truth, item) }
}

/// What is sent has no place in an API.
const fn made(versions: Vec<Version>) -> Made {
    Made { path: String::new(), versions }
}

// ── sleeps ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// A night, and Terra's own score of it.
fn night(telling: &Telling<'_>, night: &Sleep) -> Vec<Made> {
    let seed = telling.seed.of("night", night.number);
    let mut dice = seed.dice();
    let first = night.end + i64::from(dice.between(6, 70)) * MINUTE;
    let mut sleeps = Vec::new();
    if seed.of("pending", 0).within(telling.shares.of(Fault::Pending)) {
        sleeps.push(slept(telling, night, first, (true, None)));
    }
    let last = first + 20 * MINUTE;
    sleeps.push(slept(telling, night, last, (false, None)));
    let score = dice.between(40, 99);
    let enriched = slept(telling, night, last + 12 * MINUTE, (false, Some(score)));
    let mut truth =
        telling.truth("terra.sleep_score", &enriched.truth.record_id, enriched.truth.at);
    truth.day.clone_from(&enriched.truth.day);
    truth.value("terra.sleep_score", f64::from(score));
    if seed.of("rescore", 0).within(telling.shares.of(Fault::Rescore)) {
        let again = night.scored_again(telling.seed, 1);
        let later = last + i64::from(dice.between(30, 300)) * MINUTE;
        sleeps.push(slept(telling, &again, later, (false, None)));
    }
    vec![made(sleeps), made(vec![Version { truth, ..enriched }])]
}

fn napped(telling: &Telling<'_>, nap: &Sleep) -> Made {
    made(vec![slept(telling, nap, nap.end + 14 * MINUTE, (false, None))])
}

/// The id of a sleep; some makers give none, and its start stands in.
fn sleep_id(telling: &Telling<'_>, sleep: &Sleep) -> (Option<String>, String) {
    let id = telling.seed.of("sleep", sleep.number).uuid();
    if maker(telling.account).1 {
        (Some(id.clone()), id)
    } else {
        (None, format!("start:{}", sleep.start))
    }
}

/// The day of a sleep: Oura's naps that end after its day has changed are of the next one.
fn day_of(telling: &Telling<'_>, sleep: &Sleep) -> Day {
    let hour = (sleep.end + i64::from(sleep.end_offset_s) * SECOND).rem_euclid(24 * HOUR) / HOUR;
    let late = sleep.nap && hour >= 18 && maker(telling.account).0 == "OURA";
    Day(sleep.day.0 + i32::from(late))
}

fn slept(
    telling: &Telling<'_>,
    sleep: &Sleep,
    at: Micros,
    (tentative, score): (bool, Option<i32>),
) -> Version {
    let (summary_id, id) = sleep_id(telling, sleep);
    let mut truth = telling.truth("sleep", &id, at);
    let (start, end) = ((sleep.start, sleep.start_offset_s), (sleep.end, sleep.end_offset_s));
    truth.during(start, Some(end), day_of(telling, sleep));
    truth.state = Some(if tentative { "tentative" } else { "final" }.to_owned());
    truth.nap = Some(sleep.nap);
    let sums = Sums::of(sleep);
    sums.tell(&mut truth, sleep);
    let samples = |name, values| samples(sleep, name, values);
    let item = json!({
        "metadata": {
            "summary_id": summary_id, "is_nap": sleep.nap, "timestamp_localization": 1,
            "start_time": local(sleep.start, sleep.start_offset_s),
            "end_time": local(sleep.end, sleep.end_offset_s),
            "upload_type": if tentative { 3 } else { 2 },
        },
        "heart_rate_data": {
            "summary": {
                "avg_hr_bpm": sums.heart, "min_hr_bpm": sums.lowest, "resting_hr_bpm": sleep.resting,
                "avg_hrv_rmssd": sums.hrv, "avg_hrv_sdnn": null,
            },
            "detailed": {
                "hrv_samples_rmssd": samples("hrv_rmssd", &sleep.hrv), "hrv_samples_sdnn": [],
                "hr_samples": samples("bpm", &sleep.heart),
            },
        },
        "sleep_durations_data": {
            "sleep_efficiency": f64::from(sums.efficiency),
            "asleep": {
                "duration_asleep_state_seconds": sums.asleep,
                "duration_deep_sleep_state_seconds": sums.deep,
                "duration_light_sleep_state_seconds": sums.light,
                "duration_REM_sleep_state_seconds": sums.rem,
            },
            "awake": { "duration_awake_state_seconds": sums.awake, "sleep_latency_seconds": 600 },
            "other": { "duration_in_bed_seconds": sleep.length_s() },
            "hypnogram_samples": levels(sleep),
        },
        "respiration_data": {
            "breaths_data": { "avg_breaths_per_min": f64::from(sleep.breaths) / 100.0 },
            "oxygen_saturation_data": { "avg_saturation_percentage": f64::from(sleep.oxygen) / 10.0 },
        },
        "temperature_data": { "delta": f64::from(sleep.deviation) / 100.0 },
        "data_enrichment": { "sleep_score": score },
    });
    version(telling, "sleep", truth, &item)
}

/// One value every five minutes, where there is one.
fn samples(sleep: &Sleep, name: &str, values: &[Option<i32>]) -> Vec<Value> {
    let shown = |(nth, value): (i64, &Option<i32>)| {
        let at = sleep.start + nth * i64::from(PHASE_S) * SECOND;
        let value = f64::from((*value)?);
        Some(json!({ "timestamp": local(at, sleep.start_offset_s), name: value }))
    };
    (0..).zip(values).filter_map(shown).collect()
}

/// The stages by Terra's numbers.
fn levels(sleep: &Sleep) -> Vec<Value> {
    let level = |symbol: &str| match symbol {
        "light" => 4.0,
        "deep" => 5.0,
        "rem" => 6.0,
        _ => 1.0,
    };
    let shown = |start, symbol: &str| {
        json!({
            "timestamp": local(start, sleep.start_offset_s), "level": level(symbol),
        })
    };
    sleep.stages().iter().map(|stage| shown(stage.start, &stage.symbol)).collect()
}

/// What a sleep comes to.
struct Sums {
    deep: i32,
    light: i32,
    rem: i32,
    awake: i32,
    asleep: i32,
    hrv: f64,
    heart: f64,
    lowest: i32,
    efficiency: i32,
}

impl Sums {
    fn of(sleep: &Sleep) -> Self {
        let [deep, light, rem, awake] =
            [Phase::Deep, Phase::Light, Phase::Rem, Phase::Awake].map(|phase| sleep.seconds(phase));
        let asleep = deep + light + rem;
        Self {
            deep,
            light,
            rem,
            awake,
            asleep,
            hrv: f64::from(sleep.rmssd_us) / 1_000.0,
            heart: f64::from(mean(&sleep.heart, 10)) / 10.0,
            lowest: sleep.heart.iter().flatten().min().copied().unwrap_or(sleep.resting),
            efficiency: asleep * 100 / sleep.length_s().max(1),
        }
    }

    fn tell(&self, truth: &mut Truth, sleep: &Sleep) {
        truth.made("hrv_rmssd_sleep_avg", self.hrv, "mean");
        truth.made("resting_heart_rate", f64::from(sleep.resting), "provider_unspecified");
        truth.value("heart_rate_sleep_avg", self.heart);
        truth.value("respiratory_rate_sleep_avg", f64::from(sleep.breaths) / 100.0);
        truth.value("spo2_sleep_avg", f64::from(sleep.oxygen) / 10.0);
        truth.value("skin_temperature_deviation", f64::from(sleep.deviation) / 100.0);
        for (metric, value) in [
            ("heart_rate_sleep_min", self.lowest),
            ("sleep_session", sleep.length_s()),
            ("sleep_time_in_bed", sleep.length_s()),
            ("sleep_total_duration", self.asleep),
            ("sleep_deep_duration", self.deep),
            ("sleep_light_duration", self.light),
            ("sleep_rem_duration", self.rem),
            ("sleep_awake_duration", self.awake),
            ("sleep_latency", 600),
            ("sleep_efficiency", self.efficiency),
        ] {
            truth.value(metric, f64::from(value));
        }
        truth.sampled("hrv_rmssd", (sleep.start, PHASE_S), &sleep.hrv);
        truth.sampled("heart_rate", (sleep.start, PHASE_S), &sleep.heart);
        truth.intervals = sleep.stages();
    }
}

// ── days ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// The date of a day and its midnights, as the clock there shows them.
fn metadata(day: &Lived, upload_type: i32) -> Value {
    let date = day.night.day;
    let midnight = |days: i32| {
        let start = Day(date.0 + days).start_utc_us();
        local(start - i64::from(day.offset_s) * SECOND, day.offset_s)
    };
    json!({
        "start_time": midnight(0), "end_time": midnight(1), "upload_type": upload_type,
        "timestamp_localization": 1,
    })
}

/// A day: it grows.
fn daily(telling: &Telling<'_>, day: &Lived) -> Made {
    let date = day.night.day.to_string();
    let versions = (1..=3).map(|third| {
        let at = day.noon + i64::from(third - 1) * 5 * HOUR + 4 * MINUTE;
        let mut truth = telling.truth("daily", &date, at);
        truth.day = Some(date.clone());
        let share = |whole: i32| whole * third / 3;
        let (steps, active, energy) = (share(day.steps), share(day.active), share(day.energy));
        let heart = day.night.resting + 19;
        for (metric, value) in [
            ("steps_daily", steps),
            ("distance_walk_run", steps * 3 / 4),
            ("floors_climbed", share(9)),
            ("energy_active", active),
            ("energy_total_daily", energy),
            ("activity_moderate_duration", share(2_400)),
            ("activity_vigorous_duration", share(1_200)),
            ("heart_rate_daily_avg", heart),
            ("heart_rate_daily_max", heart + 80),
        ] {
            truth.value(metric, f64::from(value));
        }
        truth.made("resting_heart_rate", f64::from(day.night.resting), "provider_unspecified");
        let item = json!({
            "metadata": metadata(day, if third == 1 { 1 } else { 3 }),
            "heart_rate_data": { "summary": {
                "avg_hr_bpm": heart, "max_hr_bpm": f64::from(heart + 80),
                "resting_hr_bpm": day.night.resting,
            }},
            "distance_data": {
                "steps": f64::from(steps), "distance_meters": steps * 3 / 4,
                "floors_climbed": share(9),
            },
            "calories_data": { "net_activity_calories": active, "total_burned_calories": energy },
            "active_durations_data": {
                "moderate_intensity_seconds": share(2_400),
                "vigorous_intensity_seconds": share(1_200),
            },
            "data_enrichment": { "total_stress_score": null },
        });
        version(telling, "daily", truth, &item)
    });
    made(versions.collect())
}

/// Somebody weighs oneself now and then.
fn body(telling: &Telling<'_>, day: &Lived) -> Option<Made> {
    let seed = telling.seed.of("body", u64::from(day.number.unsigned_abs()));
    if !seed.within(20) {
        return None;
    }
    let date = day.night.day.to_string();
    let at = day.night.end + 33 * MINUTE;
    let mut dice = seed.dice();
    let weight = f64::from(dice.between(55_000, 99_000)) / 1_000.0;
    let lean = dice.between(40_000, 52_000);
    let fat = f64::from(dice.between(120, 310)) / 10.0;
    let mut truth = telling.truth("body", &date, at);
    truth.day = Some(date);
    truth.value("body_weight", weight);
    truth.value("body_fat_percentage", fat);
    truth.value("lean_body_mass", f64::from(lean) / 1_000.0);
    let item = json!({
        "metadata": metadata(day, 1),
        "measurements_data": { "measurements": [{
            "measurement_time": local(day.night.end + 30 * MINUTE, day.offset_s),
            "weight_kg": weight, "bodyfat_percentage": fat, "lean_mass_g": lean,
        }]},
    });
    Some(made(vec![version(telling, "body", truth, &item)]))
}

fn activity(telling: &Telling<'_>, it: &Workout) -> Made {
    let seed = telling.seed.of("workout", it.number);
    let id = seed.uuid();
    let at = it.end + i64::from(seed.dice().between(3, 20)) * MINUTE;
    let zone = it.offset_s;
    let one = |at: Micros, more: i32| {
        let mut truth = telling.truth("activity", &id, at);
        truth.during((it.start, zone), Some((it.end, zone)), day_at(it.start, zone));
        let seconds = i32::try_from((it.end - it.start) / SECOND).unwrap_or(0);
        let energy = f64::from(it.energy / 1_000 + more);
        truth.value("workout_session", f64::from(seconds));
        truth.made("heart_rate", f64::from(it.mean), "mean");
        truth.made("heart_rate", f64::from(it.highest), "max");
        truth.made("energy_active", energy, "total");
        if it.running {
            truth.made("distance_walk_run", f64::from(it.distance), "total");
        }
        let item = json!({
            "metadata": activity_metadata(it, &id, 1),
            "heart_rate_data": { "summary": { "avg_hr_bpm": it.mean, "max_hr_bpm": it.highest } },
            "distance_data": { "summary": { "distance_meters": it.distance } },
            "calories_data": { "net_activity_calories": energy },
        });
        version(telling, "activity", truth, &item)
    };
    let mut versions = vec![one(at, 0)];
    if seed.of("rescore", 0).within(telling.shares.of(Fault::Rescore)) {
        versions.push(one(at + HOUR, 17));
    }
    if seed.of("delete", 0).within(telling.shares.of(Fault::Delete)) {
        let truth = Truth { gone: true, ..telling.truth("activity", &id, at + 3 * HOUR) };
        let item = json!({ "metadata": activity_metadata(it, &id, 4) });
        versions.push(version(telling, "activity", truth, &item));
    }
    made(versions)
}

fn activity_metadata(it: &Workout, id: &str, upload_type: i32) -> Value {
    json!({
        "summary_id": id, "upload_type": upload_type, "type": if it.running { 8 } else { 80 },
        "start_time": local(it.start, it.offset_s), "end_time": local(it.end, it.offset_s),
        "timestamp_localization": 1,
    })
}
