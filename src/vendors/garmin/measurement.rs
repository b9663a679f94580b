//! What Garmin measures at a time: `bodyComps`, `bloodPressures`, `pulseox`, `allDayRespiration`,
//! `healthSnapshot`.

use crate::error::Reject;
use crate::model::metric;
use crate::model::time::Micros;
use crate::vendors::VendorRecord;
use crate::vendors::garmin::sheet::{
    Names, Samples, Span, USUAL, grown, head, not_negative, of_time, positive, samples,
};
use crate::vendors::wire::json::At;
use crate::vendors::wire::sheet::{Field, boolean, field, number};

const MEASURED: Names = Names {
    start: "measurementTimeInSeconds",
    offset: "measurementTimeOffsetInSeconds",
    duration: "durationInSeconds",
};

const GRAMS_PER_KG: f64 = 1_000.0;

const BODY: &[Field] = &[
    field(&["weightInGrams"], "body_weight").divisor(GRAMS_PER_KG),
    field(&["bodyFatInPercent"], "body_fat_percentage"),
    field(&["bodyMassIndex"], "body_mass_index"),
];

/// A weighing.
pub(super) fn body(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    measured(received_at, item, "body", BODY)
}

const PRESSURE: &[Field] = &[
    field(&["systolic"], "blood_pressure_systolic"),
    field(&["diastolic"], "blood_pressure_diastolic"),
];

/// A blood pressure, measured or typed in.
pub(super) fn blood_pressure(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    measured(received_at, item, "blood_pressure", PRESSURE)
}

fn measured(
    received_at: Micros,
    item: &At<'_>,
    record_type: &'static str,
    fields: &[Field],
) -> Result<VendorRecord, Reject> {
    let span = Span::of(item, MEASURED)?;
    let head = head(received_at, None);
    let mut sheet = of_time(&head, record_type, item, span, None)?;
    if let Some(at) = item.get("sourceType") {
        let method = match at.text()? {
            "MANUAL" => "manual",
            "DEVICE" => "automatic",
            _ => "unknown",
        };
        sheet.content.recording_method = Some(method.to_owned());
    }
    sheet.fields(item, fields)?;
    Ok(sheet.finish())
}

const OXYGEN: Samples = Samples {
    name: "timeOffsetSpo2Values",
    metric: "spo2",
    context: Some("day"),
    window_s: None,
    is_value: positive,
};

/// Oxygen, by the day or when it was asked for.
pub(super) fn pulse_ox(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let span = Span::of(item, USUAL)?;
    let head = head(received_at, grown(span.last_us(), received_at));
    let mut sheet = of_time(&head, "pulse_ox", item, span, None)?;
    let spot = boolean(item, &["onDemand"])?;
    if let Some(spot) = spot {
        sheet.attribute("on_demand", spot.to_string());
    }
    let context = if spot == Some(true) { "spot" } else { "day" };
    samples(&mut sheet, item, &Samples { context: Some(context), ..OXYGEN })?;
    Ok(sheet.finish())
}

const BREATHS: Samples = Samples {
    name: "timeOffsetEpochToBreaths",
    metric: "respiratory_rate",
    context: None,
    ..OXYGEN
};

/// Breaths, a quarter of an hour or a day of them; the map has had another name.
pub(super) fn respiration(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let span = Span::of(item, USUAL)?;
    let head = head(received_at, grown(span.last_us(), received_at));
    let mut sheet = of_time(&head, "respiration", item, span, None)?;
    let old = item.get(BREATHS.name).is_none();
    let name = if old { "timeOffsetRespirationValues" } else { BREATHS.name };
    samples(&mut sheet, item, &Samples { name, ..BREATHS })?;
    Ok(sheet.finish())
}

/// Garmin's name, the metric, what of it is a value.
type Part = (&'static str, &'static str, fn(f64) -> bool);

/// The parts of a snapshot.
const PARTS: &[Part] = &[
    ("heart_rate", "heart_rate", positive),
    ("respiration", "respiratory_rate", positive),
    ("spo2", "spo2", positive),
    ("stress", "garmin.stress_level", not_negative),
    ("rmssd_hrv", "hrv_rmssd", positive),
    ("sdrr_hrv", "hrv_sdnn", positive),
];

/// Two minutes of sitting still: the mean of each of its parts.
pub(super) fn snapshot(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let span = Span::of(item, USUAL)?;
    let head = head(received_at, None);
    let mut sheet = of_time(&head, "health_snapshot", item, span, None)?;
    let Some(list) = item.get("summaries") else { return Ok(sheet.finish()) };
    let window_s = span.end.map(|end| (end.at_us - span.start.at_us) / 1_000_000);
    for part in list.items()? {
        let name = part.object()?.need("summaryType")?;
        let name = name.text()?;
        let value = number(&part, &["avgValue"])?;
        let Some((_, metric, is_value)) = PARTS.iter().find(|(theirs, ..)| *theirs == name) else {
            continue;
        };
        let value = value.filter(|value| is_value(*value));
        if let (Some(value), Some(metric)) = (value, metric::find(metric)) {
            sheet.add(metric, value, Some("mean"), Some("rest"));
            if let Some(last) = sheet.content.readings.last_mut() {
                last.window_s = window_s.and_then(|window| i32::try_from(window).ok());
            }
        }
    }
    Ok(sheet.finish())
}
