//! What Oura gives with a start and an end: sleeps, workouts, moments of rest.

use crate::error::Reject;
use crate::model::metric;
use crate::model::time::Micros;
use crate::vendors::VendorRecord;
use crate::vendors::oura::document::{attribute, day_of, gone, key, series, times, word};
use crate::vendors::wire::json::At;
use crate::vendors::wire::sheet::{Field, Head, Sheet, Zone, boolean, field};

/// Averages of heart rates are made of samples of 30 s, which the app's are not; the average of HRV is the mean of
/// windows of five minutes. The lowest rate is no resting rate.
const SLEEP: &[Field] = &[
    field(&["average_hrv"], "hrv_rmssd_sleep_avg").method("mean_5min"),
    field(&["average_heart_rate"], "heart_rate_sleep_avg").method("30s"),
    field(&["lowest_heart_rate"], "heart_rate_sleep_min").method("30s"),
    field(&["average_breath"], "respiratory_rate_sleep_avg"),
    field(&["total_sleep_duration"], "sleep_total_duration"),
    field(&["deep_sleep_duration"], "sleep_deep_duration"),
    field(&["light_sleep_duration"], "sleep_light_duration"),
    field(&["rem_sleep_duration"], "sleep_rem_duration"),
    field(&["awake_time"], "sleep_awake_duration"),
    field(&["time_in_bed"], "sleep_time_in_bed"),
    field(&["latency"], "sleep_latency"),
    field(&["efficiency"], "sleep_efficiency").method("in_bed"),
    field(&["restless_periods"], "oura.restless_periods"),
];

/// A sleep; which of a day's is the main one its type says.
pub(super) fn sleep(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    let key = key(at)?;
    let types = ["long_sleep", "sleep", "late_nap", "rest", "deleted"];
    let kind = word(at, "type", &types)?;
    if matches!(kind, Some("rest" | "deleted")) {
        return Ok(gone("sleep", key));
    }
    let times = times(at, "bedtime_start", "bedtime_end")?;
    let mut sheet = Sheet::new(head, "sleep", key, Zone::unknown(), times);
    sheet.belongs(Some(day_of(at)?), "vendor_day");
    if let Some(kind) = kind {
        sheet.attribute("sleep_type", kind);
    }
    // Between the two lies `sleep`: a nap, or a short night.
    if let Some(nap) = match kind {
        Some("long_sleep") => Some("false"),
        Some("late_nap") => Some("true"),
        _ => None,
    } {
        sheet.attribute("is_nap", nap);
    }
    if let Some(low) = boolean(at, &["low_battery_alert"])? {
        sheet.attribute("low_battery", low.to_string());
    }
    attribute(&mut sheet, at, ("sleep_algorithm_version", "algorithm"), &["v1", "v2"])?;
    let reasons = ["foreground_sleep_analysis", "bedtime_edit"];
    attribute(&mut sheet, at, ("sleep_analysis_reason", "analysis_reason"), &reasons)?;
    sheet.lasted("sleep_session");
    sheet.fields(at, SLEEP)?;
    series(&mut sheet, at, "heart_rate", ("heart_rate", "sleep"))?;
    series(&mut sheet, at, "hrv", ("hrv_rmssd", "sleep"))?;
    stages(&mut sheet, at)?;
    Ok(sheet.finish())
}

/// The hypnogram, a digit for each 30 s, or else for each five minutes, as intervals of one stage; none beyond the end.
fn stages(sheet: &mut Sheet<'_>, at: &At<'_>) -> Result<(), Reject> {
    let Some(metric) = metric::find("sleep_stage") else { return Ok(()) };
    let fine = at.get("sleep_phase_30_sec").map(|found| (found, 30));
    let coarse = || at.get("sleep_phase_5_min").map(|found| (found, 300));
    let Some((found, step_s)) = fine.or_else(coarse) else { return Ok(()) };
    let (first, last) = (sheet.start.at_us, sheet.end.map_or(Micros::MAX, |end| end.at_us));
    let begins = |nth: i64| first.saturating_add(nth.saturating_mul(step_s * 1_000_000)).min(last);
    let (mut begun, mut current): (i64, Option<char>) = (0, None);
    let digits = found.text()?.chars().map(Some).chain([None]);
    for (nth, digit) in (0..).zip(digits) {
        if digit == current && nth > 0 {
            continue;
        }
        if let Some(before) = current
            && begins(nth) > begins(begun)
        {
            let times = (begins(begun), Some(begins(nth)));
            sheet.add_symbol(metric, stage(before), times, None);
        }
        (begun, current) = (nth, digit);
    }
    Ok(())
}

fn stage(digit: char) -> &'static str {
    match digit {
        '1' => "deep",
        '2' => "light",
        '3' => "rem",
        '4' => "awake",
        _ => "unknown",
    }
}

const WORKOUT: &[Field] =
    &[field(&["calories"], "energy_active").method("total").context("workout")];

const ON_FOOT: &[Field] =
    &[field(&["distance"], "distance_walk_run").method("total").context("workout")];

/// Oura's names of activities that are known here; its others are `unlisted`.
#[rustfmt::skip]
const SPORTS: &[&str] = &[
    "walking", "running", "hiking", "nordicWalking", "cycling", "indoorCycling", "swimming", "rowing", "elliptical",
    "strengthTraining", "weightlifting", "HIIT", "crossTraining", "crossfit", "yoga", "pilates", "stretching",
    "dance", "dancing", "boxing", "martialArts", "climbing", "golf", "tennis", "tableTennis", "badminton", "squash",
    "padel", "soccer", "football", "basketball", "volleyball", "floorball", "hockey", "iceHockey", "baseball",
    "rugby", "handball", "crossCountrySkiing", "downhillSkiing", "snowboarding", "skating", "surfing", "sailing",
    "kayaking", "canoeing", "horsebackRiding", "housework", "yardwork", "gardening", "other",
];

/// A workout.
pub(super) fn workout(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    let times = times(at, "start_datetime", "end_datetime")?;
    let mut sheet = Sheet::new(head, "workout", key(at)?, Zone::unknown(), times);
    sheet.belongs(Some(day_of(at)?), "vendor_day");
    let sport = word(at, "activity", SPORTS)?;
    if let Some(sport) = sport {
        sheet.attribute("sport", snake(sport));
    }
    let intensities = ["easy", "moderate", "hard"];
    attribute(&mut sheet, at, ("intensity", "intensity"), &intensities)?;
    let sources = ["manual", "autodetected", "confirmed", "workout_heart_rate"];
    let method = match word(at, "source", &sources)? {
        Some("manual") => "manual",
        Some("autodetected" | "confirmed") => "automatic",
        Some("workout_heart_rate") => "active",
        _ => "unknown",
    };
    sheet.content.recording_method = Some(method.to_owned());
    sheet.lasted("workout_session");
    sheet.fields(at, WORKOUT)?;
    if matches!(sport, Some("walking" | "running" | "hiking" | "nordicWalking")) {
        sheet.fields(at, ON_FOOT)?;
    }
    Ok(sheet.finish())
}

/// `crossCountrySkiing` as the attribute has it: `cross_country_skiing`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut low = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && low {
            out.push('_');
        }
        low = letter.is_ascii_lowercase();
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// A moment of rest: breathing, meditation, a nap. How it felt is the person's own word and stays in the raw topic.
pub(super) fn moment(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    let times = times(at, "start_datetime", "end_datetime")?;
    let mut sheet = Sheet::new(head, "session", key(at)?, Zone::unknown(), times);
    sheet.belongs(Some(day_of(at)?), "vendor_day");
    let types = ["breathing", "meditation", "nap", "relaxation", "rest", "body_status"];
    attribute(&mut sheet, at, ("type", "session_type"), &types)?;
    series(&mut sheet, at, "heart_rate", ("heart_rate", "session"))?;
    series(&mut sheet, at, "heart_rate_variability", ("hrv_rmssd", "session"))?;
    Ok(sheet.finish())
}
