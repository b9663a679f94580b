//! Nights of Withings: `v2/sleep getsummary`, and `v2/sleep get` for what was measured through them.

use crate::error::Reject;
use crate::model::metric;
use crate::model::time::{Day, Micros};
use crate::vendors::wire::json::{self, At};
use crate::vendors::wire::sheet::{Field, Sheet, Time, Zone, field, integer, number};
use crate::vendors::wire::unit::FRACTION;
use crate::vendors::withings::sheet::{
    Whats, date, elements, head, id, modified, record, second, times, what, zone,
};
use crate::vendors::{Raw, What};

const SUMMARY: &[Field] = &[
    field(&["data", "total_timeinbed"], "sleep_time_in_bed"),
    field(&["data", "lightsleepduration"], "sleep_light_duration"),
    field(&["data", "deepsleepduration"], "sleep_deep_duration"),
    field(&["data", "remsleepduration"], "sleep_rem_duration"),
    field(&["data", "sleep_latency"], "sleep_latency"),
    field(&["data", "wakeupduration"], "sleep_awake_duration"),
    field(&["data", "wakeupcount"], "sleep_awakenings"),
    field(&["data", "hr_average"], "heart_rate_sleep_avg"),
    field(&["data", "hr_min"], "heart_rate_sleep_min"),
    field(&["data", "rr_average"], "respiratory_rate_sleep_avg"),
    field(&["data", "snoring"], "snoring_duration"),
    field(&["data", "sleep_score"], "withings.sleep_score"),
    field(&["data", "rmssd_start_avg"], "hrv_rmssd_sleep_start_avg"),
    field(&["data", "rmssd_end_avg"], "hrv_rmssd_sleep_end_avg"),
];

/// Those whose -1 says that they could not be computed.
const COMPUTED: &[Field] = &[
    field(&["data", "apnea_hypopnea_index"], "apnea_hypopnea_index").method("sleep_analyzer"),
    field(&["data", "withings_index"], "apnea_hypopnea_index").method("withings_index"),
    field(&["data", "breathing_disturbances_intensity"], "withings.breathing_disturbance"),
];

/// What is asked for besides the fields above: what is not named here is not in the answer.
const BESIDES: [&str; 4] = ["total_sleep_time", "asleepduration", "sleep_efficiency", "waso"];

/// The names of a summary's fields, as they are asked for.
pub(super) fn fields() -> String {
    let mapped = SUMMARY.iter().chain(COMPUTED).filter_map(|field| field.path.last().copied());
    mapped.chain(BESIDES).collect::<Vec<_>>().join(",")
}

/// What is measured through a night: the member, the metric, how, the window of its statistic.
type Series = (&'static str, &'static str, Option<&'static str>, Option<i32>);

const SERIES: [Series; 4] = [
    ("hr", "heart_rate", None, None),
    ("rr", "respiratory_rate", None, None),
    // "A few seconds" is no window that could stand beside another one.
    ("rmssd", "hrv_rmssd", Some("ultra_short"), None),
    ("sdnn_1", "hrv_sdnn", None, Some(60)),
];
const QUALITY: &str = "hrv_quality";

/// The names of the samples, as they are asked for.
pub(super) fn samples() -> String {
    SERIES.map(|(name, ..)| name).into_iter().chain([QUALITY]).collect::<Vec<_>>().join(",")
}

/// A night as far as its samples go by it.
struct Night {
    id: String,
    start: Time,
    end: Time,
    day: Option<(Day, &'static str)>,
    version: Option<Micros>,
}

/// A part of a night in one stage, and what was measured in it: of each series, and of the quality.
struct Piece {
    index: i32,
    start_us: Micros,
    end_us: Micros,
    stage: &'static str,
    series: [Vec<(Micros, f64)>; 4],
    quality: Vec<(Micros, f64)>,
}

/// Nights, and the samples of those that are in the document, too.
pub(super) fn nights(raw: &Raw<'_>) -> Result<Whats, Reject> {
    let json = json::parse(raw.body)?;
    let (mut whats, mut nights, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
    elements(&json.root(), "series", &mut |index, at, body| {
        let is_piece = at.member("state").is_some();
        if is_piece {
            match piece(index, at) {
                Ok(piece) => pieces.push(piece),
                Err(bad) => whats.push((index, What::Bad(bad))),
            }
            return;
        }
        whats.push((index, what(summary(raw, at, body, &mut nights))));
    })?;
    pieces.sort_by_key(|piece| piece.start_us);
    for night in &nights {
        let within = |piece: &mut Piece| {
            night.start.at_us <= piece.start_us && piece.end_us <= night.end.at_us
        };
        let own: Vec<Piece> = pieces.extract_if(.., within).collect();
        let first = own.iter().map(|piece| piece.index).min();
        whats.extend(first.map(|index| (index, measured(raw, night, &own))));
    }
    if let Some(index) = pieces.iter().map(|piece| piece.index).min() {
        whats.push((index, What::Ignored("samples of a night that is not in the document")));
    }
    Ok(whats)
}

fn summary(
    raw: &Raw<'_>,
    at: &At<'_>,
    body: &At<'_>,
    nights: &mut Vec<Night>,
) -> Result<What, Reject> {
    let record_id = id(&at.object()?.need("id")?)?;
    let zone = zone(at, body)?;
    let (start, end) = times(at, zone.as_deref())?;
    let version = modified(at)?;
    let named = date(at)?.map(|day| (day, "vendor_day"));
    let day = named.or_else(|| Some((end.local_date()?, "sleep_end")));
    let head = head(raw, version);
    let ends = (start, Some(end));
    let mut sheet = Sheet::new(&head, "sleep", record_id.clone(), Zone::unknown(), ends);
    if let Some((day, rule)) = day {
        sheet.belongs(Some(day), rule);
    }
    if at.get("completed").map(|at| at.boolean()).transpose()? == Some(false) {
        "tentative".clone_into(&mut sheet.content.state);
    }
    let source = match integer(at, &["model"])? {
        None => None,
        Some(16) => Some("tracker"),
        Some(32) => Some("sleep_monitor"),
        Some(_) => Some("unlisted"),
    };
    if let Some(source) = source {
        sheet.attribute("source", source);
    }
    sheet.lasted("sleep_session");
    asleep(&mut sheet, at)?;
    sheet.fields(at, SUMMARY)?;
    for field in COMPUTED {
        let computed = number(at, field.path)?.is_some_and(|value| value >= 0.0);
        if computed {
            sheet.fields(at, std::slice::from_ref(field))?;
        }
    }
    let ratio = number(at, &["data", "sleep_efficiency"])?;
    if let (Some(ratio), Some(metric)) = (ratio, metric::find("sleep_efficiency")) {
        sheet.add(metric, FRACTION.apply(ratio), None, None);
    }
    if let Some(waso) = integer(at, &["data", "waso"])? {
        sheet.attribute("waso_s", waso.to_string());
    }
    nights.push(Night { id: record_id, start, end, day, version });
    Ok(record(sheet))
}

/// How long was slept: the sum of the stages, or where a night came from elsewhere and has none, what that says.
fn asleep(sheet: &mut Sheet<'_>, at: &At<'_>) -> Result<(), Reject> {
    let Some(metric) = metric::find("sleep_total_duration") else { return Ok(()) };
    let staged = number(at, &["data", "lightsleepduration"])?.is_some();
    let total = number(at, &["data", "total_sleep_time"])?;
    let external = number(at, &["data", "asleepduration"])?;
    match (total, external) {
        (_, Some(external)) if !staged => sheet.add(metric, external, Some("external"), None),
        (Some(total), _) => sheet.add(metric, total, None, None),
        (None, _) => {}
    }
    Ok(())
}

fn piece(index: i32, at: &At<'_>) -> Result<Piece, Reject> {
    let end_at = at.need("enddate")?;
    let (start_us, end_us) = (second(&at.need("startdate")?)?, second(&end_at)?);
    if end_us < start_us {
        return Err(end_at.invalid("an end before its start"));
    }
    let stage = match at.need("state")?.integer()? {
        0 | 15 => "awake",
        1 => "light",
        2 => "deep",
        3 => "rem",
        4 | 5 => "asleep_unspecified",
        _ => "unknown",
    };
    let mut series: [Vec<(Micros, f64)>; 4] = Default::default();
    for (found, (name, ..)) in series.iter_mut().zip(SERIES) {
        *found = by_second(at, name)?;
    }
    let quality = by_second(at, QUALITY)?;
    Ok(Piece { index, start_us, end_us, stage, series, quality })
}

/// The numbers of a map whose keys are seconds since 1970.
fn by_second(at: &At<'_>, name: &'static str) -> Result<Vec<(Micros, f64)>, Reject> {
    let Some(map) = at.get(name) else { return Ok(Vec::new()) };
    // A map that is empty is written as a list.
    if matches!(map.json(), json::Json::List(list) if list.is_empty()) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (key, value) in map.members()? {
        let plain = (1..=11).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_digit());
        let second: Option<i64> = key.parse().ok().filter(|_| plain);
        let second = second.ok_or_else(|| map.malformed("a key that is no time"))?;
        if value.json() != &json::Json::Null {
            found.push((second * 1_000_000, value.number()?));
        }
    }
    Ok(found)
}

/// What was measured through a night, in the order of time.
fn measured(raw: &Raw<'_>, night: &Night, pieces: &[Piece]) -> What {
    let head = head(raw, night.version);
    let times = (night.start, Some(night.end));
    let mut sheet = Sheet::new(&head, "sleep_samples", night.id.clone(), Zone::unknown(), times);
    if let Some((day, rule)) = night.day {
        sheet.belongs(Some(day), rule);
    }
    stages(&mut sheet, pieces);
    for (place, (_, metric, method, window_s)) in SERIES.into_iter().enumerate() {
        let Some(metric) = metric::find(metric) else { continue };
        let of_one = |piece: &Piece| piece.series.get(place).cloned().unwrap_or_default();
        let mut samples: Vec<(Micros, f64)> = pieces.iter().flat_map(of_one).collect();
        samples.sort_by_key(|(at_us, _)| *at_us);
        for (at_us, value) in samples {
            sheet.add_at(metric, value, (at_us, None), method, Some("sleep"));
            if let Some(last) = sheet.content.readings.last_mut() {
                last.window_s = window_s;
            }
        }
    }
    let quality = || pieces.iter().flat_map(|piece| &piece.quality).map(|(_, value)| *value);
    for (name, value) in [
        ("hrv_quality_min", quality().reduce(f64::min)),
        ("hrv_quality_max", quality().reduce(f64::max)),
    ] {
        if let Some(value) = value {
            sheet.attribute(name, value.to_string());
        }
    }
    record(sheet)
}

/// The stages; a stage that goes on is one.
fn stages(sheet: &mut Sheet<'_>, pieces: &[Piece]) {
    let Some(metric) = metric::find("sleep_stage") else { return };
    let mut rest = pieces.iter().peekable();
    while let Some(piece) = rest.next() {
        let mut end_us = piece.end_us;
        while let Some(next) =
            rest.next_if(|next| next.stage == piece.stage && next.start_us == end_us)
        {
            end_us = next.end_us;
        }
        if piece.start_us < end_us {
            sheet.add_symbol(metric, piece.stage, (piece.start_us, Some(end_us)), None);
        }
    }
}
