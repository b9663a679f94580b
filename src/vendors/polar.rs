//! Polar AccessLink v3: thin notifications; what they name is fetched by the day, or by the exercise.
//!
//! # Decisions
//! - The `PING` comes before Polar has told the secret, so anybody may send one: it is answered, and does nothing.
//! - A notification's `url` is never followed: the path is made of the date or the id, so that no body chooses where a
//!   token is sent.
//! - Nothing is ever notified of the nightly recharge, so a sleep asks for it, too. It comes later than the sleep, and
//!   has no times: they are its sleep's, which is fetched along with it. An empty answer is "not yet".
//! - No resource has a version or tells of a deletion: the receipt time stands in.
//! - What is keyed by the clock (`"02:35"`) is put in order from the start of the sleep. In a night in which the clocks
//!   change it is left out and flagged: nothing says when they did, and the hour that comes twice is lost by Polar.
//! - Heart rates of a day and days themselves are in the device's own time, of which the offset is not known.
//! - Not taken, for want of a metric: the goal, rating, charge, cycles and continuity of a sleep, the mean interval
//!   between beats (no series), active duration but as an attribute. Alertness and bedtimes are predictions. Weight and
//!   height come by transactions only, which two readers steal from each other.

use crate::error::{Kind, Path, Reject};
use crate::model::contract::header;
use crate::model::event::flag;
use crate::model::metric;
use crate::model::time::{Day, Micros};
use crate::vendors::Named;
use crate::vendors::ask::{self, Answer, Api, Call, Need, Per, Quota, Told};
use crate::vendors::consent::Consent;
use crate::vendors::wire::answer::objects;
use crate::vendors::wire::hmac::hex_over;
use crate::vendors::wire::json::{self, At, Json};
use crate::vendors::wire::sheet::{
    Field, Head, Sheet, Time, Zone, field, integer, number, seconds,
};
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, VendorRecord, Verified, What};

mod consent;

/// The vendor, as [`crate::vendors::ALL`] lists it.
pub(super) static VENDOR: Polar = Polar;

/// Polar AccessLink v3.
#[derive(Debug)]
pub(super) struct Polar;

/// The longest greeting that is looked at, bytes.
const PING_BYTES_MAX: usize = 512;
/// The longest id of an exercise.
const ID_CHARACTERS_MAX: usize = 64;

impl Vendor for Polar {
    fn name(&self) -> &'static str {
        "polar"
    }

    /// A signature has no time, so none is asked for.
    fn window_us(&self) -> Micros {
        Micros::MAX
    }

    fn verify(
        &self,
        request: &Request<'_>,
        secrets: &Secrets<'_>,
        _now_us: Micros,
    ) -> Result<Verified, Kind> {
        let signature = request.one("polar-webhook-signature")?;
        if !secrets.signing.iter().any(|key| hex_over(&[request.body], key, signature)) {
            return Err(Kind::SignatureInvalid);
        }
        Ok(Verified { scheme: "polar-hmac-sha256", vendor_user: None })
    }

    /// Whoever sent it: it does nothing.
    fn greets(&self, request: &Request<'_>, _secrets: &Secrets<'_>) -> Option<u16> {
        let parsed = (request.body.len() <= PING_BYTES_MAX).then(|| json::parse(request.body));
        let Some(Ok(json)) = parsed else { return None };
        let root = json.root();
        let event = root.get("event");
        let greets =
            event.is_some_and(|it| it.text() == Ok("PING")) && root.member("user_id").is_none();
        greets.then_some(200)
    }

    fn key_user(&self, _verified: &Verified, body: &[u8]) -> KeyUser {
        let Ok(json) = json::parse(body) else { return KeyUser::None };
        user(&json.root()).map_or(KeyUser::None, KeyUser::One)
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        let json = json::parse(raw.body)?;
        let root = json.root();
        let notification = root.object()?;
        let vendor_user = user(notification)?;
        let whats = asked(notification).unwrap_or_else(|bad| vec![What::Bad(bad)]);
        let item = |what| Item { index: 0, vendor_user: Some(vendor_user.clone()), what };
        Ok(whats.into_iter().map(item).collect())
    }

    fn api(&self) -> Option<&'static dyn Api> {
        Some(&VENDOR)
    }

    fn consent(&self) -> Option<&'static dyn Consent> {
        Some(&VENDOR)
    }

    fn document(&self, raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
        read(raw, record_type)
    }
}

/// The user's number, beyond 32 bits too.
fn user(notification: &At<'_>) -> Result<String, Reject> {
    let user = notification.need("user_id")?;
    let number = user.integer()?;
    if number > 0 { Ok(number.to_string()) } else { Err(user.malformed("not an id")) }
}

/// What a notification asks for.
fn asked(notification: &At<'_>) -> Result<Vec<What>, Reject> {
    let of_day = |record_type| -> Result<What, Reject> {
        let date = notification.need("date")?;
        Ok(What::Fetch { record_type, record_id: day(&date)?.to_string() })
    };
    Ok(match notification.need("event")?.text()? {
        "SLEEP" => vec![of_day("sleep")?, of_day("nightly_recharge")?],
        "ACTIVITY_SUMMARY" => vec![of_day("daily")?],
        "CONTINUOUS_HEART_RATE" => vec![of_day("daily_heart_rate")?],
        "EXERCISE" => {
            let id = notification.need("entity_id")?;
            let record_id = id.text()?.to_owned();
            if !is_id(&record_id) {
                return Err(id.malformed("not an id"));
            }
            vec![What::Fetch { record_type: "workout", record_id }]
        }
        "SLEEP_WISE_ALERTNESS" | "SLEEP_WISE_CIRCADIAN_BEDTIME" => {
            vec![What::Ignored("a prediction")]
        }
        "PHYSICAL_INFORMATION" => vec![What::Ignored("a type that its API does not have")],
        _ => vec![What::Ignored("unknown type")],
    })
}

fn day(at: &At<'_>) -> Result<Day, Reject> {
    Day::parse(at.text()?).ok_or_else(|| at.malformed("not a date"))
}

/// An id becomes part of a path when it is fetched, so nothing else may be in it.
fn is_id(text: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=ID_CHARACTERS_MAX).contains(&text.len()) && text.bytes().all(safe)
}

// ── what to ask for ────────────────────────────────────────────────────────────────────────────────────────────

/// What an app with one user may call; 20 and 100 more for each further one, which nobody counts here.
const QUOTAS: &[Quota] = &[
    Quota { per: Per::App, window_s: 900, calls: 520 },
    Quota { per: Per::App, window_s: 86_400, calls: 5_100 },
];

/// Ours, because nothing is documented: a recharge comes some hours after its sleep, or that night has none. After
/// eight tries, a day and a half, it is given up.
const AGAIN_S: [u32; 7] = [60, 600, 3_600, 7_200, 14_400, 28_800, 72_000];

impl Api for Polar {
    fn base(&self) -> &'static str {
        "https://www.polaraccesslink.com"
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
        let of_day = |path: &str| Some(format!("{path}/{}", Day::parse(need.record_id)?));
        let path = match need.record_type {
            // Its times are its sleep's.
            "sleep" | "nightly_recharge" => of_day("/v3/users/sleep")?,
            "daily" => of_day("/v3/users/activities")?,
            "daily_heart_rate" => of_day("/v3/users/continuous-heart-rate")?,
            "workout" if is_id(need.record_id) => format!("/v3/exercises/{}", need.record_id),
            _ => return None,
        };
        Some(Call { path, query: Vec::new() })
    }

    fn then(&self, need: &Need<'_>, answers: &[bytes::Bytes]) -> Option<Call> {
        if need.record_type != "nightly_recharge" || answers.len() != 1 {
            return None;
        }
        let path = format!("/v3/users/nightly-recharge/{}", Day::parse(need.record_id)?);
        Some(Call { path, query: Vec::new() })
    }

    fn answer(&self, status: u16, headers: &dyn Named) -> Answer {
        match ask::usual(status, headers) {
            Answer::Document if status == 204 => Answer::NotYet,
            Answer::Limited(after) => {
                Answer::Limited(after.or(self.told(headers).map(|told| told.reset_s)))
            }
            other => other,
        }
    }

    /// Of its two windows the one that is nearer to its end.
    fn told(&self, headers: &dyn Named) -> Option<Told> {
        let [usage, limit, reset] = ["ratelimit-usage", "ratelimit-limit", "ratelimit-reset"]
            .map(|name| two(headers, name));
        let (usage, limit, reset) = (usage?, limit?, reset?);
        let windows = usage.into_iter().zip(limit).zip(reset);
        windows
            .map(|((used, most), reset_s)| Told { left: most.saturating_sub(used), reset_s })
            .min_by_key(|told| (told.left, std::cmp::Reverse(told.reset_s)))
    }

    fn again_s(&self, attempt: u32) -> Option<u32> {
        let before = usize::try_from(attempt.checked_sub(1)?).ok()?;
        AGAIN_S.get(before).copied()
    }

    fn quotas(&self) -> &'static [Quota] {
        QUOTAS
    }
}

/// The two numbers of a header: of the short window and of the long one.
fn two(headers: &dyn Named, name: &str) -> Option<[u32; 2]> {
    let [Some(value), None] = headers.first_two(name) else { return None };
    let mut numbers = std::str::from_utf8(value).ok()?.split(',').map(|one| one.trim().parse());
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(short)), Some(Ok(long)), None) => Some([short, long]),
        _ => None,
    }
}

// ── what comes ─────────────────────────────────────────────────────────────────────────────────────────────────

/// How an object is read, with the sleep that stands in the same body.
type Read = fn(&Head, &At<'_>, Option<&Night>) -> Result<VendorRecord, Reject>;

/// What a body says that was fetched for this type of record.
fn read(raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
    let (list, object): (_, Read) = match record_type {
        "sleep" => ("nights", sleep),
        "nightly_recharge" => ("recharges", recharge),
        "daily" => ("activities", activity),
        "daily_heart_rate" => ("heart_rates", heart_rates),
        "workout" => ("exercises", workout),
        _ => return Err(Reject::invalid(Path::root(), "no type of record of this vendor")),
    };
    let json = json::parse(raw.body)?;
    let root = json.root();
    let comes_along = |at: &At<'_>| record_type == "nightly_recharge" && is_sleep(at);
    let mut slept = None;
    objects(&root, list, &mut |_, _, at| {
        slept = slept.or_else(|| comes_along(at).then(|| night(at).ok()).flatten());
    })?;
    let mut items = Vec::new();
    objects(&root, list, &mut |index, _, at| {
        let head = Head {
            device_type: "polar".to_owned(),
            via: "direct",
            version: None,
            received_at: raw.received_at,
        };
        if !comes_along(at) {
            let what = object(&head, at, slept.as_ref())
                .map_or_else(What::Bad, |record| What::Record(Box::new(record)));
            let vendor_user = raw.headers.text(header::VENDOR_USER).map(str::to_owned);
            items.push(Item { index, vendor_user, what });
        }
    })?;
    if slept.is_some() && items.is_empty() {
        return Err(Reject::malformed(Path::root(), "the record that was asked for is not in it"));
    }
    Ok(items)
}

fn is_sleep(at: &At<'_>) -> bool {
    at.member("sleep_start_time").is_some()
}

/// A sleep as far as others go by it.
#[derive(Clone, Copy, Debug)]
struct Night {
    day: Day,
    start: Time,
    end: Time,
}

impl Night {
    /// Whether the clocks change in it, or the person travels: then nothing says what a time on the clock is.
    fn changes(&self) -> bool {
        self.start.offset_s != self.end.offset_s || self.start.offset_s.is_none()
    }
}

fn night(at: &At<'_>) -> Result<Night, Reject> {
    let day = day(&at.object()?.need("date")?)?;
    let start = Zone::unknown().read(&at.need("sleep_start_time")?)?;
    let end_at = at.need("sleep_end_time")?;
    let end = Zone::unknown().read(&end_at)?;
    if end.at_us < start.at_us {
        return Err(end_at.invalid("an end before its start"));
    }
    Ok(Night { day, start, end })
}

const SLEEP: &[Field] = &[
    field(&["light_sleep"], "sleep_light_duration"),
    field(&["deep_sleep"], "sleep_deep_duration"),
    field(&["rem_sleep"], "sleep_rem_duration"),
    field(&["total_interruption_duration"], "sleep_awake_duration"),
    field(&["sleep_score"], "polar.sleep_score"),
];

fn sleep(head: &Head, at: &At<'_>, _: Option<&Night>) -> Result<VendorRecord, Reject> {
    let night = night(at)?;
    let times = (night.start, Some(night.end));
    let mut sheet = Sheet::new(head, "sleep", night.day.to_string(), Zone::unknown(), times);
    sheet.belongs(Some(night.day), "vendor_day");
    lasted(&mut sheet, "sleep_session");
    sheet.fields(at, SLEEP)?;
    let mut total = Some(0.0);
    for part in [&["light_sleep"], &["deep_sleep"], &["rem_sleep"]] {
        total = total.zip(number(at, part)?).map(|(sum, value)| sum + value);
    }
    if let (Some(total), Some(metric)) = (total, metric::find("sleep_total_duration")) {
        sheet.add(metric, total, None, None);
    }
    if let Some(unrecognised) = integer(at, &["unrecognized_sleep_stage"])? {
        sheet.attribute("unrecognised_s", unrecognised.to_string());
    }
    series(&mut sheet, at, &night, ("heart_rate_samples", "heart_rate", None))?;
    stages(&mut sheet, at, &night)?;
    Ok(sheet.finish())
}

/// How long it lasted.
fn lasted(sheet: &mut Sheet<'_>, name: &str) {
    if let (Some(metric), Some(end)) = (metric::find(name), sheet.end) {
        let length = seconds(sheet.start.at_us, end.at_us);
        sheet.add(metric, length, None, None);
    }
}

/// Averages of the four hours that begin half an hour after falling asleep.
const RECHARGE: &[Field] = &[
    field(&["heart_rate_variability_avg"], "hrv_rmssd_sleep_avg").method("first_4h"),
    field(&["heart_rate_avg"], "heart_rate_sleep_avg").method("first_4h"),
    field(&["breathing_rate_avg"], "respiratory_rate_sleep_avg").method("first_4h"),
    field(&["nightly_recharge_status"], "polar.nightly_recharge_status"),
    field(&["ans_charge"], "polar.ans_charge"),
];

fn recharge(head: &Head, at: &At<'_>, night: Option<&Night>) -> Result<VendorRecord, Reject> {
    let day = day(&at.object()?.need("date")?)?;
    let night = night.filter(|night| night.day == day);
    let mut sheet = match night {
        Some(night) => {
            let times = (night.start, Some(night.end));
            Sheet::new(head, "nightly_recharge", day.to_string(), Zone::unknown(), times)
        }
        None => {
            let times = (Time::floating_midnight(day), None);
            Sheet::of_day(head, "nightly_recharge", day, Zone::unknown(), times)
        }
    };
    sheet.belongs(Some(day), "vendor_day");
    sheet.fields(at, RECHARGE)?;
    if let Some(night) = night {
        series(&mut sheet, at, night, ("hrv_samples", "hrv_rmssd", Some(300)))?;
        series(&mut sheet, at, night, ("breathing_samples", "respiratory_rate", Some(300)))?;
    }
    Ok(sheet.finish())
}

/// Minutes of a day.
const DAY_MIN: i64 = 24 * 60;
/// A time on the clock that lies so long after a sleep's start lies before it: no sleep is that long.
const BEFORE_MIN: i64 = 23 * 60;

/// The numbers of a map whose keys are times on the clock of a night, in order of time; none where the clocks change.
fn by_the_clock(
    sheet: &mut Sheet<'_>,
    at: &At<'_>,
    name: &'static str,
    night: &Night,
) -> Result<Vec<(Micros, f64)>, Reject> {
    let Some(map) = at.get(name) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    let start_min = night.start.at_us.div_euclid(60_000_000);
    let offset_min = i64::from(night.start.offset_s.unwrap_or_default()).div_euclid(60);
    for (clock, value) in map.members()? {
        let minute = minute(clock).ok_or_else(|| map.malformed("a key that is no time of day"))?;
        if matches!(value.json(), Json::Null) {
            continue;
        }
        let after = (minute - (start_min + offset_min)).rem_euclid(DAY_MIN);
        let after = if after >= BEFORE_MIN { after - DAY_MIN } else { after };
        found.push(((start_min + after) * 60_000_000, value.number()?));
    }
    if night.changes() && !found.is_empty() {
        if !sheet.content.flags.iter().any(|name| name == flag::DST_GAP) {
            sheet.content.flags.push(flag::DST_GAP.to_owned());
        }
        return Ok(Vec::new());
    }
    found.sort_by_key(|(at_us, _)| *at_us);
    Ok(found)
}

/// `23:05` as minutes since midnight.
fn minute(clock: &str) -> Option<i64> {
    let (hour, minute) = clock.split_once(':')?;
    let number = |text: &str, below: i64| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<i64>().ok()).flatten().filter(|number| *number < below)
    };
    Some(number(hour, 24)? * 60 + number(minute, 60)?)
}

fn series(
    sheet: &mut Sheet<'_>,
    at: &At<'_>,
    night: &Night,
    (name, metric, window_s): (&'static str, &str, Option<i32>),
) -> Result<(), Reject> {
    let Some(metric) = metric::find(metric) else { return Ok(()) };
    for (at_us, value) in by_the_clock(sheet, at, name, night)? {
        let mut reading = sheet.reading(metric, value, at_us, None);
        (reading.window_s, reading.context) = (window_s, Some("sleep".to_owned()));
        sheet.content.readings.push(reading);
    }
    Ok(())
}

/// The hypnogram: each code lasts until the next one, the last until the end.
fn stages(sheet: &mut Sheet<'_>, at: &At<'_>, night: &Night) -> Result<(), Reject> {
    let Some(metric) = metric::find("sleep_stage") else { return Ok(()) };
    let mut codes = by_the_clock(sheet, at, "hypnogram", night)?.into_iter().peekable();
    while let Some((from, code)) = codes.next() {
        let stage = stage(code);
        while codes.next_if(|(_, next)| self::stage(*next) == stage).is_some() {}
        let until = codes.peek().map_or(night.end.at_us, |(next, _)| *next);
        if from < until {
            sheet.add_symbol(metric, stage, (from, Some(until)), None);
        }
    }
    Ok(())
}

/// Two of the codes are light sleep.
fn stage(code: f64) -> &'static str {
    const STAGES: [(f64, &str); 5] =
        [(0.0, "awake"), (1.0, "rem"), (2.0, "light"), (3.0, "light"), (4.0, "deep")];
    let known = STAGES.iter().find(|(known, _)| (*known - code).abs() < f64::EPSILON);
    known.map_or("unknown", |(_, stage)| stage)
}

const ACTIVITY: &[Field] = &[
    field(&["steps"], "steps_daily"),
    field(&["active_calories"], "energy_active").context("day"),
    field(&["calories"], "energy_total_daily"),
];

fn activity(head: &Head, at: &At<'_>, _: Option<&Night>) -> Result<VendorRecord, Reject> {
    let start_at = at.object()?.need("start_time")?;
    let start = Zone::unknown().read(&start_at)?;
    let civil = start_at.text()?.get(..10).and_then(Day::parse);
    let day = civil.ok_or_else(|| start_at.malformed("not a date and time"))?;
    let end = at.get("end_time").map(|end| Zone::unknown().read(&end)).transpose()?;
    let mut sheet = Sheet::of_day(head, "daily", day, Zone::unknown(), (start, end));
    if let Some(active) = at.get("active_duration") {
        let active_us = duration(&active)?;
        sheet.attribute("active_s", active_us.div_euclid(1_000_000).to_string());
    }
    sheet.fields(at, ACTIVITY)?;
    Ok(sheet.finish())
}

/// An ISO 8601 duration of hours, minutes and seconds (`PT24H`, `PT7H5M`, `PT0S`), µs.
fn duration(at: &At<'_>) -> Result<Micros, Reject> {
    let bad = || at.malformed("not a duration");
    let mut rest = at.text()?.strip_prefix("PT").filter(|rest| !rest.is_empty()).ok_or_else(bad)?;
    let mut total: Micros = 0;
    for (letter, one) in [('H', 3_600_000_000_i64), ('M', 60_000_000), ('S', 1_000_000)] {
        let Some((figure, after)) = rest.split_once(letter) else { continue };
        let (whole, part) = figure.split_once('.').unwrap_or((figure, ""));
        let plain = |text: &str| text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_seconds = letter == 'S';
        if whole.is_empty() || !plain(whole) || !plain(part) || !(part.is_empty() || is_seconds) {
            return Err(bad());
        }
        let micros: i64 = format!("{part:0<6}").parse().map_err(|_| bad())?;
        total += whole.parse::<i64>().map_err(|_| bad())? * one + micros;
        rest = after;
    }
    if rest.is_empty() { Ok(total) } else { Err(bad()) }
}

fn heart_rates(head: &Head, at: &At<'_>, _: Option<&Night>) -> Result<VendorRecord, Reject> {
    let day = day(&at.object()?.need("date")?)?;
    let times = (Time::floating_midnight(day), None);
    let mut sheet = Sheet::of_day(head, "daily_heart_rate", day, Zone::unknown(), times);
    let (Some(samples), Some(metric)) = (at.get("heart_rate_samples"), metric::find("heart_rate"))
    else {
        return Ok(sheet.finish());
    };
    for sample in samples.items()? {
        let time = sample.object()?.need("sample_time")?;
        let second = second(time.text()?).ok_or_else(|| time.malformed("not a time of day"))?;
        let Some(rate) = sample.get("heart_rate") else { continue };
        let at_us = day.start_utc_us() + second * 1_000_000;
        sheet.add_at(metric, rate.number()?, (at_us, None), None, None);
    }
    Ok(sheet.finish())
}

/// `23:05:30` as seconds since midnight.
fn second(clock: &str) -> Option<i64> {
    let (clock, seconds) = clock.rsplit_once(':')?;
    let plain = seconds.len() == 2 && seconds.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = plain.then(|| seconds.parse::<i64>().ok()).flatten().filter(|it| *it < 60)?;
    Some(minute(clock)? * 60 + seconds)
}

const WORKOUT: &[Field] = &[
    field(&["heart_rate", "average"], "heart_rate").method("mean").context("workout"),
    field(&["heart_rate", "maximum"], "heart_rate").method("max").context("workout"),
    field(&["calories"], "energy_active").method("total").context("workout"),
];

const ON_FOOT: &[Field] =
    &[field(&["distance"], "distance_walk_run").method("total").context("workout")];

/// Polar's names of sports that are known here, in lower case; its others are `unlisted`.
#[rustfmt::skip]
const SPORTS: &[&str] = &[
    "running", "walking", "hiking", "cycling", "swimming", "rowing", "strength_training", "yoga", "pilates",
    "cross_country_skiing", "downhill_skiing", "fitness_dancing", "treadmill_running", "indoor_cycling",
    "mountain_biking", "road_biking", "nordic_walking", "trail_running", "open_water_swimming", "pool_swimming",
    "circuit_training", "core", "crossfit", "soccer", "basketball", "tennis", "badminton", "golf", "other_indoor",
    "other_outdoor", "other",
];

const FEET: [&str; 6] =
    ["running", "walking", "hiking", "treadmill_running", "nordic_walking", "trail_running"];

/// The most that the offset of an exercise may be, minutes.
const OFFSET_MIN_MAX: i64 = 18 * 60;

fn workout(head: &Head, at: &At<'_>, _: Option<&Night>) -> Result<VendorRecord, Reject> {
    let id = at.object()?.need("id")?;
    let record_id = id.text()?.to_owned();
    if !is_id(&record_id) {
        return Err(id.malformed("not an id"));
    }
    let offset_s = match at.get("start_time_utc_offset") {
        None => None,
        Some(offset) => {
            let minutes = offset.integer()?;
            if minutes.abs() > OFFSET_MIN_MAX {
                return Err(offset.invalid("no offset from UTC"));
            }
            i32::try_from(minutes * 60).ok()
        }
    };
    let zone = Zone { offset_s, ..Zone::unknown() };
    let start = zone.read(&at.need("start_time")?)?;
    let length = at.get("duration").map(|length| duration(&length)).transpose()?;
    let end = length.map(|length| Time { at_us: start.at_us.saturating_add(length), ..start });
    let mut sheet = Sheet::new(head, "workout", record_id, zone, (start, end));
    sheet.belongs(start.local_date(), "civil_midnight");
    let theirs = at.get("sport").map(|sport| sport.text().map(str::to_ascii_lowercase));
    let theirs = theirs.transpose()?;
    let sport = theirs
        .map(|theirs| SPORTS.iter().find(|known| **known == theirs).copied().unwrap_or("unlisted"));
    if let Some(sport) = sport {
        sheet.attribute("sport", sport);
    }
    lasted(&mut sheet, "workout_session");
    sheet.fields(at, WORKOUT)?;
    if sport.is_some_and(|sport| FEET.contains(&sport)) {
        sheet.fields(at, ON_FOOT)?;
    }
    Ok(sheet.finish())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::record::Headers;
    use crate::vendors::wire::hmac::Key;

    const KEY: &[u8] = b"not-a-secret-test-key";
    const SAYS: &str = "b680ddf10776ec2bba6340ed9f94e16fe7c5f732ec5e5cda135ff862d8409c2b";

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../tests/fixtures/polar/", $name, ".json"))
        };
    }

    fn verify(body: &str, headers: &[(&str, &str)]) -> Result<(), Kind> {
        let headers: Vec<(String, Vec<u8>)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let keys = [b"the-next", KEY].map(Key::new);
        let secrets = Secrets { signing: &keys, ..Secrets::default() };
        let request = Request { headers: &headers, body: body.as_bytes() };
        VENDOR.verify(&request, &secrets, 0).map(|_| ())
    }

    fn whats(body: &str) -> Vec<What> {
        let (headers, body) = (Headers::new(), Bytes::copy_from_slice(body.as_bytes()));
        let raw = Raw { headers: &headers, body: &body, received_at: 0 };
        VENDOR.parse(&raw).expect("items").into_iter().map(|item| item.what).collect()
    }

    fn read_as(record_type: &str, body: &str) -> Result<Vec<Item>, Reject> {
        let headers = Headers::new().with(header::VENDOR_USER, "62713944");
        let body = Bytes::copy_from_slice(body.as_bytes());
        let received_at = Day::parse("2026-03-29").expect("a day").next().start_utc_us();
        VENDOR.document(&Raw { headers: &headers, body: &body, received_at }, record_type)
    }

    fn one(record_type: &str, body: &str) -> VendorRecord {
        let items = read_as(record_type, body).expect("items");
        let [Item { what: What::Record(record), .. }] = &items[..] else { panic!("{items:?}") };
        (**record).clone()
    }

    fn values(record: &VendorRecord, metric: &str) -> Vec<f64> {
        let all = record.content.readings.iter().filter(|reading| reading.metric == metric);
        all.filter_map(|reading| reading.value).collect()
    }

    #[test]
    fn the_golden_vector_holds() {
        let name = "polar-webhook-signature";
        let body = fixture!("sleep");
        assert_eq!(verify(body, &[(name, SAYS)]), Ok(()));
        let spaced = body.replacen(',', ", ", 1);
        for (body, headers) in [
            (spaced.as_str(), &[(name, SAYS)][..]),
            (body, &[(name, SAYS.trim_start_matches("b6"))]),
            (body, &[(name, "")]),
            (body, &[("x-oura-signature", SAYS)]),
            (body, &[(name, SAYS), (name, SAYS)]),
        ] {
            assert_eq!(verify(body, headers), Err(Kind::SignatureInvalid), "{headers:?}");
        }
    }

    #[test]
    fn only_a_ping_is_a_greeting() {
        let headers: Vec<(String, Vec<u8>)> = Vec::new();
        let greets = |body: &str| {
            let request = Request { headers: &headers, body: body.as_bytes() };
            VENDOR.greets(&request, &Secrets::default()).is_some()
        };
        assert!(greets(fixture!("ping")));
        let with_more = r#"{"event":"PING","user_id":7}"#;
        let long = format!(r#"{{"event":"PING","x":"{}"}}"#, "x".repeat(PING_BYTES_MAX));
        for body in [fixture!("sleep"), with_more, &long, "PING", "", r#"{"event":["PING"]}"#] {
            assert!(!greets(body), "{body}");
        }
    }

    #[test]
    fn a_sleep_asks_for_its_recharge_and_no_body_chooses_a_path() {
        let fetch = |record_type, record_id: &str| What::Fetch {
            record_type,
            record_id: record_id.to_owned(),
        };
        let both = [fetch("sleep", "2026-03-29"), fetch("nightly_recharge", "2026-03-29")];
        assert_eq!(whats(fixture!("sleep")), both);
        assert_eq!(whats(fixture!("sleep_again")), both);
        assert_eq!(whats(fixture!("sleep_url_elsewhere")), both);
        assert_eq!(whats(fixture!("exercise")), [fetch("workout", "aQlC83")]);
        let rates = [fetch("daily_heart_rate", "2026-03-28")];
        assert_eq!(whats(fixture!("continuous_heart_rate")), rates);
        for body in [fixture!("exercise_bad_id"), fixture!("bad_date")] {
            assert!(matches!(whats(body)[..], [What::Bad(_)]));
        }
        assert_eq!(whats(fixture!("unknown_event")), [What::Ignored("unknown type")]);
        let large = fixture!("activity_summary").as_bytes();
        let key = VENDOR.key_user(&Verified::default(), large);
        assert_eq!(key, KeyUser::One("9007199254740993".to_owned()));
        assert_eq!(VENDOR.key_user(&Verified::default(), b"{}"), KeyUser::None);
    }

    #[test]
    fn every_type_has_its_path_and_a_recharge_its_sleep() {
        let need = |record_type, record_id| Need { record_type, record_id, vendor_user: "7" };
        let path = |record_type, record_id| {
            VENDOR.ask(&need(record_type, record_id)).map(|call| call.path)
        };
        for (record_type, record_id, expected) in [
            ("sleep", "2026-03-29", "/v3/users/sleep/2026-03-29"),
            ("nightly_recharge", "2026-03-29", "/v3/users/sleep/2026-03-29"),
            ("daily", "2026-03-29", "/v3/users/activities/2026-03-29"),
            ("daily_heart_rate", "2026-03-29", "/v3/users/continuous-heart-rate/2026-03-29"),
            ("workout", "aQlC83", "/v3/exercises/aQlC83"),
        ] {
            assert_eq!(path(record_type, record_id).as_deref(), Some(expected));
        }
        for (record_type, record_id) in
            [("sleep", "../1"), ("workout", "a/b"), ("workout", ""), ("ecg", "2026-03-29")]
        {
            assert_eq!(path(record_type, record_id), None, "{record_type} {record_id}");
        }
        let answers = [Bytes::from(fixture!("document_sleep")), Bytes::from("{}")];
        let recharge = need("nightly_recharge", "2026-03-28");
        let next = VENDOR.then(&recharge, &answers[..1]).map(|call| call.path);
        assert_eq!(next.as_deref(), Some("/v3/users/nightly-recharge/2026-03-28"));
        assert_eq!(VENDOR.then(&recharge, &answers), None);
        assert_eq!(VENDOR.then(&need("sleep", "2026-03-28"), &answers[..1]), None);
    }

    #[test]
    fn nothing_is_not_yet_and_the_nearer_window_counts() {
        let headers = |reset: &str| -> Vec<(String, Vec<u8>)> {
            [("usage", "519, 700"), ("limit", "520, 5100"), ("reset", reset)]
                .map(|(name, value)| (format!("ratelimit-{name}"), value.as_bytes().to_vec()))
                .to_vec()
        };
        let nearer = Told { left: 1, reset_s: 240 };
        assert_eq!(VENDOR.told(&headers("240, 80000")), Some(nearer));
        assert_eq!(VENDOR.told(&headers("240")), None);
        assert_eq!(VENDOR.answer(429, &headers("240, 80000")), Answer::Limited(Some(240)));
        assert_eq!(VENDOR.answer(204, &Vec::new()), Answer::NotYet);
        assert_eq!(VENDOR.answer(404, &Vec::new()), Answer::NotYet);
        assert_eq!(VENDOR.answer(200, &Vec::new()), Answer::Document);
        assert_eq!(VENDOR.answer(403, &Vec::new()), Answer::Forbidden, "no matter of tokens");
    }

    #[test]
    fn a_clock_is_unwrapped_from_the_start_of_the_sleep() {
        let night = one("sleep", fixture!("document_sleep"));
        let start = night.content.start_at.expect("a start");
        let stages: Vec<_> = night
            .content
            .readings
            .iter()
            .filter_map(|reading| {
                let from = (reading.start_at - start + 30_000_000) / 60_000_000;
                Some((from, reading.symbol.as_deref()?))
            })
            .collect();
        let expected = [
            (0, "awake"),
            (6, "light"),
            (56, "deep"),
            (96, "rem"),
            (171, "unknown"),
            (196, "light"),
            (465, "awake"),
        ];
        assert_eq!(stages, expected, "two codes are light, and midnight is passed");
        assert_eq!(values(&night, "heart_rate"), [57.0, 51.0, 48.0], "in order, without the null");
        assert_eq!(values(&night, "sleep_total_duration"), [24_870.0]);
        assert_eq!(values(&night, "polar.sleep_score"), [78.0]);
        assert_eq!(night.content.attributes["unrecognised_s"], "60");
        assert_eq!(night.content.day(), Day::parse("2026-03-28"));
        let sparse = one("sleep", fixture!("document_sleep_sparse"));
        assert_eq!(values(&sparse, "sleep_total_duration"), [0.0; 0], "a part is missing");
        assert_eq!(values(&sparse, "polar.sleep_score"), [0.0; 0], "null is not zero");
        let changed = one("sleep", fixture!("document_sleep_clock_change"));
        assert!(changed.content.flags.iter().any(|name| name == flag::DST_GAP));
        assert!(changed.content.readings.iter().all(|reading| reading.symbol.is_none()));
        assert_eq!(values(&changed, "sleep_session"), [28_080.0], "its length is of instants");
        let bad = read_as("sleep", fixture!("document_sleep_bad_key")).expect("items");
        let What::Bad(reject) = &bad[0].what else { panic!("{bad:?}") };
        assert_eq!(reject.at.as_str(), "hypnogram");
        let page = read_as("sleep", fixture!("document_sleep_page")).expect("items");
        assert_eq!((page.len(), matches!(page[1].what, What::Bad(_))), (3, true), "others live");
    }

    #[test]
    fn a_recharge_has_the_times_of_its_sleep() {
        let recharge = one("nightly_recharge", fixture!("document_recharge"));
        let sleep = one("sleep", fixture!("document_sleep"));
        assert_eq!(recharge.content.start_at, sleep.content.start_at);
        assert_eq!(values(&recharge, "hrv_rmssd_sleep_avg"), [62.0]);
        assert_eq!(values(&recharge, "polar.ans_charge"), [-2.3], "a charge may be less than none");
        assert_eq!(values(&recharge, "hrv_rmssd"), [66.0, 58.0]);
        let hrv = recharge.content.readings.iter().find(|one| one.metric == "hrv_rmssd_sleep_avg");
        assert_eq!(hrv.and_then(|one| one.method.as_deref()), Some("first_4h"));
        assert!(read_as("nightly_recharge", fixture!("document_recharge_missing")).is_err());
        let alone = one("nightly_recharge", fixture!("document_recharge_page"));
        assert_eq!((alone.content.start_at, alone.content.day()), (None, Day::parse("2026-03-28")));
        assert_eq!(values(&alone, "hrv_rmssd"), [0.0; 0], "nothing says when");
        assert_eq!(alone.record_id, recharge.record_id);
    }

    #[test]
    fn days_and_exercises_have_their_lengths() {
        let day = one("daily", fixture!("document_daily"));
        assert_eq!(day.record_id, "2026-03-28");
        assert_eq!(day.content.attributes["active_s"], "25500");
        assert_eq!(values(&day, "energy_total_daily"), [2_610.0]);
        let whole = one("daily", fixture!("document_daily_whole"));
        assert_eq!(whole.content.attributes["active_s"], "86400");
        assert_eq!(values(&whole, "steps_daily"), [0.0], "zero is a value");
        let rates = one("daily_heart_rate", fixture!("document_heart_rate"));
        assert_eq!(values(&rates, "heart_rate"), [58.0, 61.0]);
        assert!(rates.content.flags.iter().any(|name| name == flag::FLOATING_TIME));
        let run = one("workout", fixture!("document_workout"));
        assert_eq!(values(&run, "workout_session"), [2_670.0]);
        assert_eq!(run.content.start_at, Some(1_774_712_470_000_000), "16:41:10 at +01:00");
        assert_eq!(values(&run, "distance_walk_run"), [7_772.8]);
        let other = one("workout", fixture!("document_workout_unlisted"));
        assert_eq!(other.content.attributes["sport"], "unlisted");
        assert_eq!(values(&other, "distance_walk_run"), [0.0; 0]);
    }

    #[test]
    fn a_duration_is_read_strictly() {
        for (text, expected) in [
            ("PT24H", Some(86_400_000_000)),
            ("PT0S", Some(0)),
            ("PT7H5M", Some(25_500_000_000)),
            ("PT1M0.25S", Some(60_250_000)),
            ("PT", None),
            ("P1D", None),
            ("PT1.5H", None),
            ("PT5M7H", None),
            ("PT-5M", None),
            ("PT5", None),
        ] {
            let body = format!(r#"{{"d":"{text}"}}"#);
            let json = json::parse(body.as_bytes()).expect("JSON");
            let root = json.root();
            let at = root.get("d").expect("a value");
            assert_eq!(duration(&at).ok(), expected, "{text}");
        }
    }
}
