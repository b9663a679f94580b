//! `sleep`: one session, a night's or a nap.
//!
//! - Its key is `summary_id`; where a maker gives none, the session's start.
//! - It belongs to the person's date at its end. Oura's naps that end after its sleep day has
//!   changed (18:00) belong to the next day, as Oura itself counts them, so that the direct record
//!   and this one name the same day.
//! - `upload_type` is not the one of activities: here 1 is *manual*, 2 *automatic*, and 4 deletes
//!   nothing.
//! - Efficiency is a percentage; some makers' ratio (at most 1) is made one: a night slept at 1 %
//!   is not reported.

use crate::error::Reject;
use crate::model::metric;
use crate::model::time::{Day, Micros};
use crate::vendors::VendorRecord;
use crate::vendors::terra::record::{
    Field, Head, Score, Series, Sheet, Zone, boolean, field, id, integer, name_of, named, number,
    series, visit,
};
use crate::vendors::terra::vitals;
use crate::vendors::wire::json::At;

pub(super) const FIELDS: &[Field] = &[
    field(&["heart_rate_data", "summary", "avg_hr_bpm"], "heart_rate_sleep_avg"),
    field(&["heart_rate_data", "summary", "min_hr_bpm"], "heart_rate_sleep_min"),
    field(&["heart_rate_data", "summary", "resting_hr_bpm"], "resting_heart_rate")
        .method("provider_unspecified"),
    field(&["heart_rate_data", "summary", "avg_hrv_rmssd"], "hrv_rmssd_sleep_avg").method("mean"),
    field(&["heart_rate_data", "summary", "avg_hrv_sdnn"], "hrv_sdnn")
        .method("mean")
        .context("sleep"),
    field(
        &["sleep_durations_data", "asleep", "duration_asleep_state_seconds"],
        "sleep_total_duration",
    ),
    field(
        &["sleep_durations_data", "asleep", "duration_deep_sleep_state_seconds"],
        "sleep_deep_duration",
    ),
    field(
        &["sleep_durations_data", "asleep", "duration_light_sleep_state_seconds"],
        "sleep_light_duration",
    ),
    field(
        &["sleep_durations_data", "asleep", "duration_REM_sleep_state_seconds"],
        "sleep_rem_duration",
    ),
    field(
        &["sleep_durations_data", "awake", "duration_awake_state_seconds"],
        "sleep_awake_duration",
    ),
    field(&["sleep_durations_data", "awake", "sleep_latency_seconds"], "sleep_latency"),
    field(&["sleep_durations_data", "awake", "num_wakeup_events"], "sleep_awakenings"),
    field(&["sleep_durations_data", "other", "duration_in_bed_seconds"], "sleep_time_in_bed"),
    field(
        &["respiration_data", "breaths_data", "avg_breaths_per_min"],
        "respiratory_rate_sleep_avg",
    ),
    field(
        &["respiration_data", "snoring_data", "total_snoring_duration_seconds"],
        "snoring_duration",
    ),
    field(&["temperature_data", "delta"], "skin_temperature_deviation"),
];

pub(super) const BREATHS: Series = Series {
    context: Some("sleep"),
    ..series(
        &["respiration_data", "breaths_data", "samples"],
        "breaths_per_min",
        "respiratory_rate",
    )
};

/// Terra's own scores of a session.
pub(super) const SCORES: &[Score] = &[
    ("sleep_score", "terra.sleep_score", "terra.sleep_score", None),
    ("sleep_score_v2", "terra.sleep_score_v2", "terra.sleep_score", Some("v2")),
    ("readiness_score", "terra.readiness_score", "terra.readiness_score", None),
    ("respiratory_score_v2", "terra.respiratory_score_v2", "terra.respiratory_score", Some("v2")),
];

const UPLOAD: &[(i64, &str)] =
    &[(0, "unknown"), (1, "manual"), (2, "automatic"), (3, "tentative"), (4, "indeterminate")];

/// Stages; out of bed is awake, because a session's intervals must cover it.
const STAGES: &[(i64, &str)] = &[
    (0, "unknown"),
    (1, "awake"),
    (2, "asleep_unspecified"),
    (3, "awake"),
    (4, "light"),
    (5, "deep"),
    (6, "rem"),
];

const RECOVERY: &[(i64, &str)] = &[
    (0, "unknown"),
    (1, "very_poor"),
    (2, "poor"),
    (3, "compromised"),
    (4, "ok"),
    (5, "good"),
    (6, "very_good"),
];

/// When Oura's sleep day changes, local.
const OURA_CHANGE_HOUR: i8 = 18;

/// One session and its scores.
pub(super) fn read(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let metadata = item.object()?.need("metadata")?;
    let metadata = metadata.object()?;
    let zone = Zone::of(metadata)?;
    let start = zone.read(&metadata.need("start_time")?)?;
    let end_at = metadata.need("end_time")?;
    let end = zone.read(&end_at)?;
    if end.at_us < start.at_us {
        return Err(end_at.invalid("an end before its start"));
    }
    let key = match metadata.get("summary_id") {
        Some(at) => id(&at)?,
        None => format!("start:{}", start.at_us),
    };
    let nap = boolean(metadata, &["is_nap"])?;
    let mut sheet = Sheet::new(head, "sleep", key, zone, (start, Some(end)));
    sheet.belongs(session_day(&sheet, nap), "sleep_end");
    if let Some(nap) = nap {
        sheet.attribute("is_nap", nap.to_string());
    }
    let upload = named(metadata, &["upload_type"], UPLOAD)?.unwrap_or("unknown");
    sheet.attribute("upload_type", upload);
    sheet.content.recording_method = Some(
        match upload {
            "manual" | "automatic" => upload,
            _ => "unknown",
        }
        .to_owned(),
    );
    if upload == "tentative" {
        "tentative".clone_into(&mut sheet.content.state);
    }
    sheet.device(item)?;
    measure(&mut sheet, item)?;
    let mut records = sheet.scores(item, SCORES)?;
    records.insert(0, sheet.finish());
    Ok(records)
}

fn session_day(sheet: &Sheet<'_>, nap: Option<bool>) -> Option<Day> {
    let end = sheet.end?;
    let day = end.local_date()?;
    let after_change = end.local_hour().is_some_and(|hour| hour >= OURA_CHANGE_HOUR);
    let next = sheet.head.device_type == "oura" && nap == Some(true) && after_change;
    Some(if next { day.next() } else { day })
}

fn measure(sheet: &mut Sheet<'_>, item: &At<'_>) -> Result<(), Reject> {
    sheet.lasted("sleep_session");
    sheet.fields(item, FIELDS)?;
    if let (Some(value), Some(metric)) = (
        number(item, &["sleep_durations_data", "sleep_efficiency"])?,
        metric::find("sleep_efficiency"),
    ) {
        sheet.add(metric, percent(value), None, None);
    }
    own_scores(sheet, item)?;
    vitals::rates(sheet, item, &["heart_rate_data"], Some("sleep"))?;
    sheet.series(item, &[BREATHS])?;
    vitals::saturation(
        sheet,
        item,
        &vitals::Saturation {
            samples: &["respiration_data", "oxygen_saturation_data", "samples"],
            mean: &["respiration_data", "oxygen_saturation_data", "avg_saturation_percentage"],
            mean_metric: "spo2_sleep_avg",
            context: Some("sleep"),
        },
    )?;
    stages(sheet, item)
}

/// A share as a percentage, whichever of the two it came as; six decimals, so that 0.57 is 57.
fn percent(share: f64) -> f64 {
    if share <= 1.0 { (share * 1e8).round() / 1e6 } else { share }
}

/// The maker's scores, where the vocabulary has a name for them.
fn own_scores(sheet: &mut Sheet<'_>, item: &At<'_>) -> Result<(), Reject> {
    for (path, name) in [
        (&["scores", "sleep"], "sleep_score"),
        (&["readiness_data", "readiness"], "readiness_score"),
    ] {
        if let (Some(value), Some(metric)) = (number(item, path)?, sheet.head.own(name)) {
            sheet.add(metric, value, None, None);
        }
    }
    if let Some(level) = named(item, &["readiness_data", "recovery_level"], RECOVERY)? {
        sheet.attribute("recovery_level", level);
    }
    Ok(())
}

/// The hypnogram as intervals: each sample until the next, none beyond the session's end.
///
/// A sample without a level ends the one before it and begins nothing: a gap.
fn stages(sheet: &mut Sheet<'_>, item: &At<'_>) -> Result<(), Reject> {
    let Some(metric) = metric::find("sleep_stage") else { return Ok(()) };
    let (zone, mut found) = (sheet.zone, Vec::new());
    visit(item, &["sleep_durations_data", "hypnogram_samples"], &mut |list| {
        for sample in list.items()? {
            let sample = sample.object()?;
            let level = integer(sample, &["level"])?;
            if let Some(at) = sample.get("timestamp") {
                found.push((zone.read(&at)?.at_us, level));
            }
        }
        Ok(())
    })?;
    found.sort_by_key(|(at_us, _)| *at_us);
    let last = sheet.end.map_or(Micros::MAX, |end| end.at_us);
    let ends = found.iter().skip(1).map(|(at_us, _)| (*at_us).min(last)).chain([last]);
    for ((start, level), end) in found.iter().zip(ends) {
        if let (Some(level), true) = (level, end > *start) {
            let symbol = match name_of(*level, STAGES) {
                "unlisted" => "unknown",
                stage => stage,
            };
            sheet.add_symbol(metric, symbol, (*start, Some(end)), None);
        }
    }
    Ok(())
}
