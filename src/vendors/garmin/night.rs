//! What Garmin says of a night: `sleeps` with their naps, `hrv`, `skinTemp`.

use crate::error::Reject;
use crate::model::metric;
use crate::model::time::Micros;
use crate::vendors::VendorRecord;
use crate::vendors::garmin::sheet::{
    Names, Samples, Span, USUAL, any, grown, head, of_night, positive, samples, second,
};
use crate::vendors::wire::json::At;
use crate::vendors::wire::sheet::{Field, Head, Sheet, Zone, field, number};

const STAGED: &[Field] = &[
    field(&["deepSleepDurationInSeconds"], "sleep_deep_duration"),
    field(&["lightSleepDurationInSeconds"], "sleep_light_duration"),
    field(&["remSleepInSeconds"], "sleep_rem_duration"),
    field(&["awakeDurationInSeconds"], "sleep_awake_duration"),
    field(&["durationInSeconds"], "sleep_time_in_bed"),
    field(&["overallSleepScore", "value"], "garmin.sleep_score"),
];

/// What is slept. An older watch knows no REM.
const ASLEEP: [&[&str]; 3] =
    [&["deepSleepDurationInSeconds"], &["lightSleepDurationInSeconds"], &["remSleepInSeconds"]];

/// The levels of `sleepLevelsMap`.
const LEVELS: [&str; 4] = ["deep", "light", "rem", "awake"];

const OXYGEN: Samples = Samples {
    name: "timeOffsetSleepSpo2",
    metric: "spo2",
    context: Some("sleep"),
    window_s: None,
    is_value: positive,
};
const BREATHS: Samples =
    Samples { name: "timeOffsetSleepRespiration", metric: "respiratory_rate", ..OXYGEN };

/// Values of `validation`, our name of each, and whether another summary follows.
const VALIDATIONS: &[(&str, &str, bool)] = &[
    ("MANUAL", "manual", false),
    ("DEVICE", "device", false),
    ("OFF_WRIST", "off_wrist", false),
    ("AUTO_TENTATIVE", "auto_tentative", true),
    ("AUTO_FINAL", "auto_final", false),
    ("AUTO_MANUAL", "auto_manual", false),
    ("ENHANCED_TENTATIVE", "enhanced_tentative", true),
    ("ENHANCED_FINAL", "enhanced_final", false),
];

const NAP: Names = Names {
    start: "napStartTimeInSeconds",
    offset: "napOffsetInSeconds",
    duration: "napDurationInSeconds",
};

/// Our name of a validation, and whether it is tentative.
fn validation(item: &At<'_>, name: &'static str) -> Result<Option<(&'static str, bool)>, Reject> {
    let Some(at) = item.get(name) else { return Ok(None) };
    let text = at.text()?;
    let known = VALIDATIONS.iter().find(|(theirs, ..)| *theirs == text);
    Ok(Some(
        known.map_or(("unlisted", text.ends_with("_TENTATIVE")), |(_, ours, open)| (*ours, *open)),
    ))
}

fn validated(sheet: &mut Sheet<'_>, validation: Option<(&'static str, bool)>) {
    let Some((name, tentative)) = validation else { return };
    sheet.attribute("validation", name);
    let method = if name.ends_with("manual") { "manual" } else { "automatic" };
    sheet.content.recording_method = Some(method.to_owned());
    if tentative {
        "tentative".clone_into(&mut sheet.content.state);
    }
}

/// What is tentative still grows; what is final stands at its receipt.
fn version(
    received_at: Micros,
    span: Span,
    validation: Option<(&'static str, bool)>,
) -> Option<Micros> {
    let tentative = validation.is_some_and(|(_, tentative)| tentative);
    if tentative { grown(span.last_us(), received_at) } else { None }
}

/// A night.
pub(super) fn sleep(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let span = Span::of(item, USUAL)?;
    let validation = validation(item, "validation")?;
    let head = head(received_at, version(received_at, span, validation));
    let mut sheet = of_night(&head, "sleep", item, span)?;
    sheet.attribute("is_nap", "false");
    validated(&mut sheet, validation);
    sheet.lasted("sleep_session");
    sheet.fields(item, STAGED)?;
    let mut asleep = 0.0;
    let mut staged = false;
    for path in ASLEEP {
        if let Some(part) = number(item, path)? {
            asleep += part;
            staged = true;
        }
    }
    if let (Some(metric), true) = (metric::find("sleep_total_duration"), staged) {
        sheet.add(metric, asleep, None, None);
    }
    stages(&mut sheet, item)?;
    samples(&mut sheet, item, &OXYGEN)?;
    samples(&mut sheet, item, &BREATHS)?;
    Ok(sheet.finish())
}

/// The naps of a night, each a session of its own, in the version that the night has.
pub(super) fn naps(received_at: Micros, item: &At<'_>) -> Vec<Result<VendorRecord, Reject>> {
    let Some(list) = item.get("naps") else { return Vec::new() };
    let night = Span::of(item, USUAL).and_then(|span| Ok((span, validation(item, "validation")?)));
    // Of a night that cannot be read the naps stand at their receipt.
    let version = night.ok().and_then(|(span, of)| version(received_at, span, of));
    let head = head(received_at, version);
    match list.items() {
        Ok(naps) => naps.map(|nap| one_nap(&head, &nap)).collect(),
        Err(bad) => vec![Err(bad)],
    }
}

/// A nap. Its offset is its own, and so is its day: a flight may lie between it and the night.
fn one_nap(head: &Head, nap: &At<'_>) -> Result<VendorRecord, Reject> {
    let span = Span::of(nap.object()?, NAP)?;
    let key = format!("nap:{}", span.start.at_us / 1_000_000);
    let mut sheet = Sheet::new(head, "sleep", key, Zone::unknown(), (span.start, span.end));
    sheet.belongs(span.date_of_end(), "sleep_end");
    sheet.attribute("is_nap", "true");
    validated(&mut sheet, validation(nap, "napValidation")?);
    sheet.lasted("sleep_session");
    Ok(sheet.finish())
}

/// The stages as intervals, in the order of their starts.
fn stages(sheet: &mut Sheet<'_>, item: &At<'_>) -> Result<(), Reject> {
    let (Some(map), Some(metric)) = (item.get("sleepLevelsMap"), metric::find("sleep_stage"))
    else {
        return Ok(());
    };
    let mut found = Vec::new();
    map.object()?;
    for level in LEVELS {
        let Some(list) = map.get(level) else { continue };
        for interval in list.items()? {
            let start = second(&interval.object()?.need("startTimeInSeconds")?)?;
            let end_at = interval.need("endTimeInSeconds")?;
            let end = second(&end_at)?;
            if end < start {
                return Err(end_at.invalid("an end before its start"));
            }
            if end > start {
                found.push((start, end, level));
            }
        }
    }
    found.sort_unstable();
    for (start, end, level) in found {
        sheet.add_symbol(metric, level, (start, Some(end)), None);
    }
    Ok(())
}

const HRV: &[Field] = &[
    field(&["lastNightAvg"], "hrv_rmssd_sleep_avg").method("mean_5min"),
    field(&["lastNight5MinHigh"], "hrv_rmssd_sleep_max").method("max_5min"),
];

const HRV_VALUES: Samples = Samples {
    name: "hrvValues",
    metric: "hrv_rmssd",
    context: Some("sleep"),
    window_s: Some(300),
    is_value: any,
};

/// A night's heart rate variability.
pub(super) fn hrv(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let span = Span::of(item, USUAL)?;
    let head = head(received_at, None);
    let mut sheet = of_night(&head, "hrv", item, span)?;
    sheet.fields(item, HRV)?;
    samples(&mut sheet, item, &HRV_VALUES)?;
    Ok(sheet.finish())
}

const SKIN: &[Field] = &[field(&["avgDeviationCelsius"], "skin_temperature_deviation")];

/// A night's skin temperature against the usual one. Some nights were measured for a few minutes
/// only, which stands beside the value.
pub(super) fn skin(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let span = Span::of(item, USUAL)?;
    let head = head(received_at, None);
    let mut sheet = of_night(&head, "skin_temperature", item, span)?;
    sheet.fields(item, SKIN)?;
    if let Some(end) = span.end {
        let covered = (end.at_us - span.start.at_us) / 1_000_000;
        sheet.attribute("coverage_s", covered.to_string());
    }
    Ok(sheet.finish())
}
