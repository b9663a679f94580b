//! WHOOP as it is played: thin webhooks of sleeps, recoveries and workouts, documents of these and of cycles.
//!
//! Written from its contract alone. A recovery names its sleep and its cycle and has no id; a cycle begins with a
//! sleep, runs until the next one, and nobody is told of it: who fetches a recovery gets to see it.

use serde_json::{Value, json};

use super::dice::Seed;
use super::fault::Fault;
use super::grant::Tokens;
use super::person::{Lived, Phase, Sleep, Workout};
use super::place::{HOUR, MINUTE, SECOND, day_at, offset, utc};
use super::player::{Ask, Delivery, House, Listed, Player, Reply, Shelf, Shown, Wanted};
use super::quota::{Left, Limit};
use super::story::{Account, Made, Notice, Telling, Version};
use super::truth::Truth;
use crate::model::time::{Micros, Moment};
use crate::vendors::wire::hmac::sign_base64;

/// kcal in a kJ.
const KCAL_IN_KJ: f64 = 0.239_006;
/// Recoveries until the device knows its person.
const CALIBRATING: i32 = 4;

/// WHOOP.
pub static PLAYER: Whoop = Whoop;

/// See the module.
#[derive(Debug)]
pub struct Whoop;

impl Player for Whoop {
    fn name(&self) -> &'static str {
        "whoop"
    }

    /// A number beyond 32 bits.
    fn vendor_user(&self, seed: Seed) -> String {
        let number = seed.of("user", 0).0 % 1_000_000_000;
        (4_300_000_000 + number).to_string()
    }

    fn records(&self, telling: &Telling<'_>) -> Vec<Made> {
        records(telling)
    }

    /// Of cycles there is none.
    fn notice(&self, seed: Seed, account: &Account, version: &Version) -> Option<String> {
        let truth = &version.truth;
        let id = match truth.record_type.as_str() {
            "recovery" => truth.record_id.trim_start_matches("recovery:"),
            "sleep" | "workout" => truth.record_id.as_str(),
            _ => return None,
        };
        let what = if truth.gone { "deleted" } else { "updated" };
        let body = json!({
            "user_id": number(&account.vendor_user),
            "id": id,
            "type": format!("{}.{what}", truth.record_type),
            "trace_id": seed.of("trace", 0).uuid(),
        });
        Some(body.to_string())
    }

    /// base64 over the time in milliseconds and the body.
    fn delivery(&self, notice: &Notice, secret: &str, now_us: Micros) -> Delivery {
        let at = (now_us / 1_000).to_string();
        let parts = [at.as_bytes(), notice.body.as_bytes()];
        let signature = sign_base64(&parts, secret.as_bytes());
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("x-whoop-signature", signature),
            ("x-whoop-signature-timestamp", at),
        ];
        Delivery { path: "/webhooks/whoop".to_owned(), headers }
    }

    fn house(&self) -> House {
        House {
            api: "/developer",
            token: "/oauth/oauth2/token",
            limits: &[
                Limit { window_s: 60, calls: 100 },
                Limit { window_s: 86_400, calls: 10_000 },
            ],
            token_s: 3_600,
            rotates: true,
        }
    }

    fn asks(&self, ask: &Ask, path: &str) -> Wanted {
        match collection(path) {
            _ if ask.method != "GET" => Wanted::Nothing(405),
            Some(_) => Wanted::List,
            None => Wanted::Record,
        }
    }

    /// A page of a collection: what began within the window, newest first.
    fn list(&self, shelf: &Shelf<'_>, path: &str, ask: &Ask) -> Option<Listed> {
        let record_type = collection(path)?;
        let moment = |name| {
            let read = |text: String| Moment::parse(&text).ok().map(|moment| moment.at_us);
            ask.parameter(name).map_or(Some(None), |text| read(text).map(Some))
        };
        let limit: usize = ask.parameter("limit").map_or(Some(10), |text| text.parse().ok())?;
        let (from, until) = (moment("start")?, moment("end")?);
        if !(1..=25).contains(&limit) {
            return None;
        }
        let window = from.unwrap_or(Micros::MIN)..until.unwrap_or(shelf.at);
        let start = |shown: &Shown<'_>| shown.version.truth.start.unwrap_or_default();
        let mut found = shelf.now();
        found.retain(|shown| {
            shown.version.truth.record_type == record_type && window.contains(&start(shown))
        });
        found.sort_by_key(|shown| std::cmp::Reverse(start(shown)));
        let skipped = ask.parameter("nextToken").and_then(|text| text.parse().ok()).unwrap_or(0);
        let left = found.len().saturating_sub(limit.saturating_add(skipped));
        let page: Vec<_> = found.into_iter().skip(skipped).take(limit).collect();
        let records: Vec<&str> = page.iter().map(|shown| shown.document).collect();
        let next = if left > 0 { format!(r#""{}""#, skipped + limit) } else { "null".to_owned() };
        let body = format!(r#"{{"records":[{}],"next_token":{next}}}"#, records.join(","));
        let shown = page.iter().map(|shown| (shown.place, shown.version.truth.order)).collect();
        Some(Listed { body, shown })
    }

    /// Of a recovery the cycle that it opens, and the one that it closed.
    fn along(&self, path: &str) -> Vec<String> {
        let cycle = path.strip_prefix("/v2/cycle/").and_then(|it| it.strip_suffix("/recovery"));
        let cycle: Option<u64> = cycle.and_then(|it| it.parse().ok());
        let both = cycle.map(|cycle| [cycle, cycle.saturating_sub(1)]);
        both.into_iter().flatten().map(|cycle| format!("/v2/cycle/{cycle}")).collect()
    }

    fn pair(&self, tokens: &Tokens, lives_s: i64) -> String {
        json!({
            "access_token": tokens.access, "refresh_token": tokens.refresh,
            "token_type": "bearer", "expires_in": lives_s,
            "scope": "offline read:recovery read:cycles read:sleep read:workout",
        })
        .to_string()
    }

    fn rated(&self, reply: Reply, left: Left) -> Reply {
        let limit = format!("{}, 100;window=60, 10000;window=86400", left.of);
        reply
            .with("x-ratelimit-limit", limit)
            .with("x-ratelimit-remaining", left.calls.to_string())
            .with("x-ratelimit-reset", left.wait_s().to_string())
    }
}

/// A number that is written as one.
fn number(text: &str) -> Value {
    text.parse::<u64>().map_or(Value::Null, Value::from)
}

/// All that it knows of a person.
fn records(telling: &Telling<'_>) -> Vec<Made> {
    let nights: Vec<Night<'_>> = telling
        .life
        .iter()
        .enumerate()
        .map(|(at, day)| {
            let next = telling.life.get(at + 1);
            Night::new(telling, day, next.map(|next| next.night.start))
        })
        .collect();
    let mut records = Vec::new();
    let mut recoveries = nights.iter().map(Night::recoveries).peekable();
    for night in &nights {
        let Some(recovery) = recoveries.next() else { break };
        let next = recoveries.peek().map(Vec::as_slice).unwrap_or_default();
        let cycle = format!("/v2/cycle/{}", night.cycle);
        let cycles = night.cycles(&recovery, next);
        records.push(Made { path: format!("{cycle}/recovery"), versions: recovery });
        records.push(Made { path: cycle, versions: cycles });
        records.push(night.sleeps(&night.day.night));
        records.extend(night.day.nap.as_ref().map(|nap| night.sleeps(nap)));
        records.extend(night.day.workout.as_ref().map(|workout| workouts(telling, workout)));
    }
    records
}

/// The type of the records of a collection at this path, where there is one.
fn collection(path: &str) -> Option<&'static str> {
    match path {
        "/v2/cycle" => Some("cycle"),
        "/v2/recovery" => Some("recovery"),
        "/v2/activity/sleep" => Some("sleep"),
        "/v2/activity/workout" => Some("workout"),
        _ => None,
    }
}

/// A night, the recovery from it, and the cycle that it begins.
struct Night<'a> {
    telling: &'a Telling<'a>,
    day: &'a Lived,
    cycle: u64,
    ends: Option<Micros>,
}

impl<'a> Night<'a> {
    fn new(telling: &'a Telling<'a>, day: &'a Lived, ends: Option<Micros>) -> Self {
        let own = telling.seed.of("cycle", 0).0 % 1_000_000 * 1_000;
        let cycle = 93_000_000 + own + u64::from(day.number.unsigned_abs());
        Self { telling, day, cycle, ends }
    }

    fn seed(&self, sleep: &Sleep) -> Seed {
        self.telling.seed.of("sleep", sleep.number)
    }

    /// What becomes of a sleep: when it is scored, and what of it is seen.
    fn course(&self, sleep: &Sleep) -> Vec<(Micros, Step)> {
        let (seed, shares) = (self.seed(sleep), self.telling.shares);
        let mut dice = seed.of("course", 0).dice();
        let scored = sleep.end + i64::from(dice.between(4, 25)) * MINUTE;
        let mut course = Vec::new();
        if seed.of("pending", 0).within(shares.of(Fault::Pending)) {
            course.push((sleep.end + 2 * MINUTE, Step::Pending));
        }
        if seed.of("unscorable", 0).within(shares.of(Fault::Pending) / 4) {
            course.push((scored, Step::Unscorable));
            return course;
        }
        course.push((scored, Step::Scored(0)));
        if seed.of("rescore", 0).within(shares.of(Fault::Rescore)) {
            let later = scored + i64::from(dice.between(30, 480)) * MINUTE;
            course.push((later, Step::Scored(1)));
        }
        if seed.of("delete", 0).within(shares.of(Fault::Delete)) {
            course.push((scored + 9 * HOUR, Step::Gone));
        }
        course
    }

    fn sleeps(&self, sleep: &Sleep) -> Made {
        let id = self.seed(sleep).uuid();
        let version = |(at, step): (Micros, Step)| {
            if step == Step::Gone {
                return self.telling.gone("sleep", &id, at);
            }
            let again = step.of(sleep, self.telling.seed);
            let mut truth = self.telling.truth("sleep", &id, at);
            let zone = sleep.end_offset_s;
            truth.during((sleep.start, zone), Some((sleep.end, zone)), sleep.day);
            truth.nap = Some(sleep.nap);
            let mut document = json!({
                "id": id,
                "cycle_id": self.cycle,
                "user_id": number(&self.telling.account.vendor_user),
                "created_at": utc(sleep.end + MINUTE),
                "updated_at": utc(at),
                "start": utc(sleep.start),
                "end": utc(sleep.end),
                "timezone_offset": if zone == 0 { "Z".to_owned() } else { offset(zone) },
                "nap": sleep.nap,
                "score_state": step.state(),
            });
            step.settle(&mut truth);
            if let Some(again) = again {
                slept(&mut truth, &mut document, &again);
            }
            self.telling.version(truth, &document)
        };
        let versions = self.course(sleep).into_iter().map(version).collect();
        Made { path: format!("/v2/activity/sleep/{id}"), versions }
    }

    fn recoveries(&self) -> Vec<Version> {
        let night = &self.day.night;
        let sleep_id = self.seed(night).uuid();
        let id = format!("recovery:{sleep_id}");
        let version = |(at, step): (Micros, Step)| {
            let at = at + 5 * SECOND;
            if step == Step::Gone {
                return self.telling.gone("recovery", &id, at);
            }
            let mut truth = self.telling.truth("recovery", &id, at);
            let zone = night.end_offset_s;
            truth.during((night.start, zone), Some((night.end, zone)), night.day);
            let mut document = json!({
                "cycle_id": self.cycle,
                "sleep_id": sleep_id,
                "user_id": number(&self.telling.account.vendor_user),
                "created_at": utc(night.end + MINUTE),
                "updated_at": utc(at),
                "score_state": step.state(),
            });
            step.settle(&mut truth);
            if let Some(again) = step.of(night, self.telling.seed) {
                recovered(&mut truth, &mut document, &again, self.day.number < CALIBRATING);
            }
            self.telling.version(truth, &document)
        };
        self.course(night).into_iter().map(version).collect()
    }

    /// The cycle as it grows. What must be known of it is what there was when its recovery was last announced, and the
    /// next one, which says that it is over.
    fn cycles(&self, recoveries: &[Version], next: &[Version]) -> Vec<Version> {
        let (night, workout) = (&self.day.night, self.day.workout.as_ref());
        let Some(first) = recoveries.first().map(|version| version.truth.at) else {
            return Vec::new();
        };
        let id = self.cycle.to_string();
        let mut dice = self.telling.seed.of("strain", self.cycle).dice();
        let (mut strain, mut kilojoules) = (dice.between(900, 4_000), dice.between(900, 3_000));
        let mut versions = Vec::new();
        let trained = workout.map(|workout| workout.end + 10 * MINUTE);
        // It is there before the recovery can be asked for.
        for (at, ended) in [(Some(first - SECOND), None), (trained, None), (self.ends, self.ends)] {
            let Some(at) = at else { continue };
            let mut truth = self.telling.truth("cycle", &id, at);
            let zone = night.end_offset_s;
            truth.during((night.start, zone), ended.map(|end| (end, zone)), night.day);
            truth.state = Some(if ended.is_some() { "final" } else { "tentative" }.to_owned());
            truth.told = false;
            let (mean, highest) = (night.resting + 18, night.resting + dice.between(70, 120));
            let kilojoule = f64::from(kilojoules);
            truth.value("whoop.strain", f64::from(strain) / 1_000.0);
            truth.value("energy_total_daily", kilojoule * KCAL_IN_KJ);
            truth.value("heart_rate_daily_avg", f64::from(mean));
            truth.value("heart_rate_daily_max", f64::from(highest));
            let mut document = json!({
                "id": self.cycle,
                "user_id": number(&self.telling.account.vendor_user),
                "created_at": utc(night.end),
                "updated_at": utc(at),
                "start": utc(night.start),
                "timezone_offset": if zone == 0 { "Z".to_owned() } else { offset(zone) },
                "score_state": "SCORED",
                "score": {
                    "strain": f64::from(strain) / 1_000.0, "kilojoule": kilojoule,
                    "average_heart_rate": mean, "max_heart_rate": highest,
                },
            });
            if let (Some(ended), Some(object)) = (ended, document.as_object_mut()) {
                object.insert("end".to_owned(), utc(ended).into());
            }
            versions.push(self.telling.version(truth, &document));
            strain += dice.between(1_000, 5_000);
            kilojoules += dice.between(2_000, 4_000);
        }
        // Of a sleep that is gone nobody can say on which day its cycle was.
        if !is_gone(recoveries) {
            known_by(&mut versions, recoveries);
            if !is_gone(next) {
                known_by(&mut versions, next);
            }
        }
        versions
    }
}

fn is_gone(recoveries: &[Version]) -> bool {
    recoveries.last().is_some_and(|last| last.truth.gone)
}

/// Marks the version that there was when this recovery was last announced.
fn known_by(versions: &mut [Version], recoveries: &[Version]) {
    let Some(last) = recoveries.last().map(|last| last.truth.at) else { return };
    let known = versions.iter_mut().filter(|version| version.truth.at <= last);
    if let Some(known) = known.last() {
        known.truth.told = true;
    }
}

/// What is seen of a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Pending,
    Unscorable,
    /// Scored, for the so-many-th time after the first.
    Scored(u64),
    Gone,
}

impl Step {
    const fn state(self) -> &'static str {
        match self {
            Self::Pending => "PENDING_SCORE",
            Self::Unscorable => "UNSCORABLE",
            Self::Scored(_) | Self::Gone => "SCORED",
        }
    }

    fn settle(self, truth: &mut Truth) {
        let state = if self == Self::Pending { "tentative" } else { "final" };
        truth.state = Some(state.to_owned());
    }

    /// What is scored, where something is.
    fn of(self, sleep: &Sleep, seed: Seed) -> Option<Sleep> {
        match self {
            Self::Scored(0) => Some(sleep.clone()),
            Self::Scored(times) => Some(sleep.scored_again(seed, times)),
            Self::Pending | Self::Unscorable | Self::Gone => None,
        }
    }
}

/// A sleep's score.
fn slept(truth: &mut Truth, document: &mut Value, sleep: &Sleep) {
    let s = f64::from;
    let [deep, light, rem, awake] =
        [Phase::Deep, Phase::Light, Phase::Rem, Phase::Awake].map(|phase| sleep.seconds(phase));
    let in_bed = sleep.length_s();
    let (cycles, disturbances) = (in_bed / 5_400, awake / 400);
    let needs = [27_600_123, 1_200_456, 900_789, -600_012];
    let efficiency = f64::from((deep + light + rem) * 100 / in_bed.max(1)) + 0.25;
    truth.value("sleep_session", s(in_bed));
    truth.value("sleep_time_in_bed", s(in_bed));
    truth.value("sleep_awake_duration", s(awake));
    truth.value("sleep_light_duration", s(light));
    truth.value("sleep_deep_duration", s(deep));
    truth.value("sleep_rem_duration", s(rem));
    truth.value("sleep_total_duration", s(deep + light + rem));
    truth.value("sleep_need", f64::from(needs.iter().sum::<i32>()) / 1_000.0);
    truth.value("whoop.disturbance_count", s(disturbances));
    truth.value("respiratory_rate_sleep_avg", s(sleep.breaths) / 100.0);
    truth.value("sleep_efficiency", efficiency);
    truth.value("whoop.sleep_consistency", 81.0);
    truth.value("whoop.sleep_performance", 92.0);
    let [base, debt, strain, nap] = needs;
    let score = json!({
        "stage_summary": {
            "total_in_bed_time_milli": in_bed * 1_000,
            "total_awake_time_milli": awake * 1_000,
            "total_no_data_time_milli": 0,
            "total_light_sleep_time_milli": light * 1_000,
            "total_slow_wave_sleep_time_milli": deep * 1_000,
            "total_rem_sleep_time_milli": rem * 1_000,
            "sleep_cycle_count": cycles,
            "disturbance_count": disturbances,
        },
        "sleep_needed": {
            "baseline_milli": base, "need_from_sleep_debt_milli": debt,
            "need_from_recent_strain_milli": strain, "need_from_recent_nap_milli": nap,
        },
        "respiratory_rate": s(sleep.breaths) / 100.0,
        "sleep_performance_percentage": 92.0,
        "sleep_consistency_percentage": 81.0,
        "sleep_efficiency_percentage": efficiency,
    });
    put(document, score);
}

/// A recovery's score.
fn recovered(truth: &mut Truth, document: &mut Value, night: &Sleep, calibrating: bool) {
    let recovery = if night.ill { 21.0 } else { f64::from(40 + night.rmssd_us / 2_000) };
    let rmssd = f64::from(night.rmssd_us) / 1_000.0;
    truth.made("hrv_rmssd_sleep_avg", rmssd, "sleep_weighted");
    truth.made("resting_heart_rate", f64::from(night.resting), "sleep_weighted");
    truth.value("spo2_sleep_avg", f64::from(night.oxygen) / 10.0);
    truth.value("skin_temperature_sleep", f64::from(night.skin) / 100.0);
    if !calibrating {
        truth.value("whoop.recovery_score", recovery);
    }
    let score = json!({
        "user_calibrating": calibrating,
        "recovery_score": recovery,
        "resting_heart_rate": f64::from(night.resting),
        "hrv_rmssd_milli": rmssd,
        "spo2_percentage": f64::from(night.oxygen) / 10.0,
        "skin_temp_celsius": f64::from(night.skin) / 100.0,
    });
    put(document, score);
}

fn put(document: &mut Value, score: Value) {
    if let Some(object) = document.as_object_mut() {
        object.insert("score".to_owned(), score);
    }
}

fn workouts(telling: &Telling<'_>, workout: &Workout) -> Made {
    let seed = telling.seed.of("workout", workout.number);
    let id = seed.uuid();
    let at = workout.end + i64::from(seed.of("course", 0).dice().between(3, 20)) * MINUTE;
    let mut versions = vec![trained(telling, workout, &id, at, 0)];
    if seed.of("rescore", 0).within(telling.shares.of(Fault::Rescore)) {
        versions.push(trained(telling, workout, &id, at + 40 * MINUTE, 1));
    }
    if seed.of("delete", 0).within(telling.shares.of(Fault::Delete)) {
        versions.push(telling.gone("workout", &id, at + 2 * HOUR));
    }
    Made { path: format!("/v2/activity/workout/{id}"), versions }
}

fn trained(telling: &Telling<'_>, it: &Workout, id: &str, at: Micros, times: i32) -> Version {
    let mut truth = telling.truth("workout", id, at);
    let zone = it.offset_s;
    truth.during((it.start, zone), Some((it.end, zone)), day_at(it.start, zone));
    truth.state = Some("final".to_owned());
    let seconds = i32::try_from((it.end - it.start) / SECOND).unwrap_or(0);
    let kilojoule = f64::from(it.energy / 239);
    let strain = f64::from(it.strain + times * 113) / 1_000.0;
    truth.value("workout_session", f64::from(seconds));
    truth.value("whoop.strain", strain);
    truth.made("heart_rate", f64::from(it.mean), "mean");
    truth.made("heart_rate", f64::from(it.highest), "max");
    truth.value("energy_active", kilojoule * KCAL_IN_KJ);
    let mut score = json!({
        "strain": strain, "average_heart_rate": it.mean, "max_heart_rate": it.highest,
        "kilojoule": kilojoule, "percent_recorded": 100.0,
        "zone_durations": {
            "zone_zero_milli": 60_000, "zone_one_milli": 120_000,
            "zone_two_milli": seconds * 1_000 - 180_000, "zone_three_milli": 0,
            "zone_four_milli": 0, "zone_five_milli": 0,
        },
    });
    if it.running {
        truth.value("distance_walk_run", f64::from(it.distance));
        if let Some(object) = score.as_object_mut() {
            object.insert("distance_meter".to_owned(), f64::from(it.distance).into());
            object.insert("altitude_gain_meter".to_owned(), 42.5.into());
        }
    }
    let mut document = json!({
        "id": id,
        "user_id": number(&telling.account.vendor_user),
        "created_at": utc(it.end),
        "updated_at": utc(at),
        "start": utc(it.start),
        "end": utc(it.end),
        "timezone_offset": if zone == 0 { "Z".to_owned() } else { offset(zone) },
        "sport_name": if it.running { "running" } else { "weightlifting" },
        "score_state": "SCORED",
    });
    put(&mut document, score);
    telling.version(truth, &document)
}
