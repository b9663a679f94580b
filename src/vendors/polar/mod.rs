//! Polar AccessLink v3: thin notifications; what they name is fetched by the day, or by the exercise.
//!
//! # Decisions
//! - The `PING` comes before Polar has told the secret, so anybody may send one: it is answered, and does nothing.
//! - A notification's `url` is never followed: the path is made of the date or the id, so that no body chooses where a
//!   token is sent.
//! - Nothing is ever notified of the nightly recharge, so a sleep asks for it, too. It comes later than the sleep, and
//!   has no times: they are its sleep's, which is fetched along with it. An empty answer is "not yet".
//! - Nor of oxygen and skin temperature: a sleep asks for them, too, and that there are none is the answer (204), because
//!   most devices have no such sensor; nothing waits for them.
//! - No resource has a version or tells of a deletion: the receipt time stands in.
//! - What is keyed by the clock (`"02:35"`) is put in order from the start of the sleep. In a night in which the clocks
//!   change it is left out and flagged: nothing says when they did, and the hour that comes twice is lost by Polar.
//! - Heart rates of a day and days themselves are in the device's own time, of which the offset is not known.
//! - Not taken, for want of a metric: the goal, rating, charge, cycles and continuity of a sleep, the mean interval
//!   between beats (no series), active duration but as an attribute. Alertness and bedtimes are predictions. Weight and
//!   height come by transactions only, which two readers steal from each other.

use std::collections::BTreeMap;

use crate::error::{Kind, Path, Reject};
use crate::model::contract::header;
use crate::model::event::flag;
use crate::model::metric;
use crate::model::time::{Day, Micros};
use crate::vendors::Named;
use crate::vendors::ask::{self, Answer, Api, Call, Need, Per, Quota, Told};
use crate::vendors::consent::Consent;
use crate::vendors::history::{self, Collection, Window};
use crate::vendors::wire::answer::objects;
use crate::vendors::wire::hmac::hex_over;
use crate::vendors::wire::json::{self, At, Json};
use crate::vendors::wire::sheet::{Field, Head, Sheet, Time, Zone, field, integer, number};
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, VendorRecord, Verified, What};

mod biosensing;
mod consent;
#[cfg(test)]
mod tests;

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
        "SLEEP" => ["sleep", "nightly_recharge", biosensing::OXYGEN, biosensing::SKIN]
            .map(of_day)
            .into_iter()
            .collect::<Result<_, _>>()?,
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
    Quota { per: Per::History, window_s: 900, calls: 100 },
    Quota { per: Per::History, window_s: 86_400, calls: 1_000 },
];

/// Lists go back four weeks and take no dates, so each is one window; days go back a year, four weeks at once. Only what came
/// after the person was registered is in any of them.
const HISTORY: &[Collection] = &[
    Collection { windows: "window.sleep", days: 31, back_days: Some(28) },
    Collection { windows: "window.nightly_recharge", days: 31, back_days: Some(28) },
    Collection { windows: "window.workout", days: 31, back_days: Some(28) },
    Collection { windows: "window.daily", days: 28, back_days: Some(365) },
];

/// What asks for a window.
fn range(collected: &str, window: Window) -> Option<Call> {
    Some(match collected {
        "sleep" | "nightly_recharge" => Call::get("/v3/users/sleep"),
        "workout" => Call::get("/v3/exercises"),
        "daily" => {
            let last = Day(window.to.0.saturating_sub(1));
            let query = vec![("from", window.from.to_string()), ("to", last.to_string())];
            Call::get_with("/v3/users/activities", query)
        }
        _ => return None,
    })
}

/// Ours, because nothing is documented: a recharge comes some hours after its sleep, or that night has none. After
/// eight tries, a day and a half, it is given up.
const AGAIN_S: [u32; 7] = [60, 600, 3_600, 7_200, 14_400, 28_800, 72_000];

impl Api for Polar {
    fn base(&self) -> &'static str {
        "https://www.polaraccesslink.com"
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
        if let Some(collected) = history::of(need.record_type) {
            return range(collected, Window::parse(need.record_id)?);
        }
        let of_day = |path: &str| Some(format!("{path}/{}", Day::parse(need.record_id)?));
        let path = match need.record_type {
            // Its times are its sleep's.
            "sleep" | "nightly_recharge" => of_day("/v3/users/sleep")?,
            "daily" => of_day("/v3/users/activities")?,
            "daily_heart_rate" => of_day("/v3/users/continuous-heart-rate")?,
            biosensing::OXYGEN | biosensing::SKIN => return biosensing::ask(need),
            "workout" if is_id(need.record_id) => format!("/v3/exercises/{}", need.record_id),
            _ => return None,
        };
        Some(Call::get(path))
    }

    fn then(&self, need: &Need<'_>, answers: &[bytes::Bytes]) -> Option<Call> {
        if need.record_type == "window.nightly_recharge" && answers.len() == 1 {
            return Some(Call::get("/v3/users/nightly-recharge"));
        }
        if need.record_type != "nightly_recharge" || answers.len() != 1 {
            return None;
        }
        let path = format!("/v3/users/nightly-recharge/{}", Day::parse(need.record_id)?);
        Some(Call::get(path))
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

    /// Nobody waits for what most devices do not measure, nor for what was before.
    fn answer_to(&self, need: &Need<'_>, status: u16, headers: &dyn Named) -> Answer {
        match need.record_type {
            window if history::of(window).is_some() && matches!(status, 204 | 404) => {
                Answer::Nothing
            }
            biosensing::OXYGEN | biosensing::SKIN if status == 204 => Answer::Nothing,
            _ => self.answer(status, headers),
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

    fn history(&self) -> &'static [Collection] {
        HISTORY
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
fn read(raw: &Raw<'_>, asked_for: &str) -> Result<Vec<Item>, Reject> {
    let collected = history::of(asked_for);
    let record_type = collected.unwrap_or(asked_for);
    let (list, object): (_, Read) = match record_type {
        "sleep" => ("nights", sleep),
        "nightly_recharge" => ("recharges", recharge),
        "daily" => ("activities", activity),
        "daily_heart_rate" => ("heart_rates", heart_rates),
        "workout" => ("exercises", workout),
        biosensing::OXYGEN => return biosensing::read(raw, "spo2", biosensing::oxygen),
        biosensing::SKIN => return biosensing::read(raw, "skin_temperatures", biosensing::skin),
        _ => return Err(Reject::invalid(Path::root(), "no type of record of this vendor")),
    };
    let json = json::parse(raw.body)?;
    let root = json.root();
    let comes_along = |at: &At<'_>| {
        record_type == "nightly_recharge" && (is_sleep(at) || at.member("nights").is_some())
    };
    let mut slept = BTreeMap::new();
    objects(&root, list, &mut |_, _, at| {
        if comes_along(at) {
            nights(at, &mut slept);
        }
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
            let date = at.get("date").and_then(|date| day(&date).ok());
            let what = object(&head, at, date.and_then(|date| slept.get(&date)))
                .map_or_else(What::Bad, |record| What::Record(Box::new(record)));
            let vendor_user = raw.headers.text(header::VENDOR_USER).map(str::to_owned);
            items.push(Item { index, vendor_user, what });
        }
    })?;
    if !slept.is_empty() && items.is_empty() && collected.is_none() {
        return Err(Reject::malformed(Path::root(), "the record that was asked for is not in it"));
    }
    Ok(items)
}

/// The sleeps of an object that comes along by their days: itself, or a list of them. One that cannot be read is bad where
/// it was asked for.
fn nights(at: &At<'_>, slept: &mut BTreeMap<Day, Night>) {
    let mut take = |at: &At<'_>| {
        if let Ok(night) = night(at) {
            slept.entry(night.day).or_insert(night);
        }
    };
    match at.get("nights") {
        None => take(at),
        Some(list) => list.items().into_iter().flatten().for_each(|one| take(&one)),
    }
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
    sheet.lasted("sleep_session");
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
    sheet.lasted("workout_session");
    sheet.fields(at, WORKOUT)?;
    if sport.is_some_and(|sport| FEET.contains(&sport)) {
        sheet.fields(at, ON_FOOT)?;
    }
    Ok(sheet.finish())
}
