//! What all of Google's points have in common: numbers, times and offsets, and where a point came from.

use crate::error::Reject;
use crate::model::metric::{self, Metric};
use crate::model::time::{Micros, Moment, parse_offset};
use crate::vendors::wire::json::{At, Json};
use crate::vendors::wire::sheet::{Field, Head, Sheet, Time, visit};

/// The farthest offset that is believed; +14 h exists.
const OFFSET_MAX: i32 = 18 * 3_600;

/// What all records of one body share, but for a version.
pub(super) fn head(received_at: Micros, version: Option<Micros>) -> Head {
    Head { device_type: "google".to_owned(), via: "direct", version, received_at }
}

/// Beyond this nothing is measured: a year is 3.2e10 ms, and what is computed of it still has its decimals.
const AMOUNT_MAX: f64 = 1e12;

/// A number: JSON's, or an integer of 64 bits, which Google writes as a text.
pub(super) fn amount(at: &At<'_>) -> Result<f64, Reject> {
    let found = number(at)?;
    if found.abs() <= AMOUNT_MAX { Ok(found) } else { Err(at.invalid("beyond any measurement")) }
}

fn number(at: &At<'_>) -> Result<f64, Reject> {
    let Json::Text(text) = at.json() else { return at.number() };
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = (1..=19).contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit());
    let value: Option<i64> = text.parse().ok().filter(|_| plain);
    #[expect(clippy::as_conversions, reason = "an integer of a vendor as a measured value")]
    value.map(|value| value as f64).ok_or_else(|| at.malformed("not a number"))
}

/// The number at this path.
pub(super) fn amount_at(here: &At<'_>, path: &[&'static str]) -> Result<Option<f64>, Reject> {
    let mut out = None;
    visit(here, path, &mut |at| amount(at).map(|value| out = Some(value)))?;
    Ok(out)
}

/// The values of these fields, each with its metric.
pub(super) fn values(
    here: &At<'_>,
    fields: &'static [Field],
) -> Result<Vec<(&'static Metric, &'static Field, f64)>, Reject> {
    let mut found = Vec::new();
    for field in fields {
        if let (Some(value), Some(metric)) =
            (amount_at(here, field.path)?, metric::find(field.metric))
        {
            found.push((metric, field, value / field.divisor));
        }
    }
    Ok(found)
}

/// The same as readings over the whole of an item.
pub(super) fn fields(
    sheet: &mut Sheet<'_>,
    here: &At<'_>,
    fields: &'static [Field],
) -> Result<(), Reject> {
    for (metric, field, value) in values(here, fields)? {
        sheet.add(metric, value, field.method, field.context);
    }
    Ok(())
}

/// An instant; `Z` says nothing of where the person was.
pub(super) fn instant(at: &At<'_>) -> Result<Time, Reject> {
    let moment = Moment::parse(at.text()?).map_err(|_| at.malformed("not a date and time"))?;
    Ok(Time { at_us: moment.at_us, offset_s: moment.offset_s, known: true })
}

/// An offset from UTC: a duration (`7200s`, `-25200s`), or as clocks write it (`-07:00`).
pub(super) fn offset(at: &At<'_>) -> Result<i32, Reject> {
    let text = at.text()?;
    let seconds = match text.strip_suffix('s') {
        Some(seconds) => whole(seconds),
        None => parse_offset(text),
    };
    let fits = |seconds: &i32| (-OFFSET_MAX..=OFFSET_MAX).contains(seconds);
    seconds.filter(fits).ok_or_else(|| at.malformed("not an offset from UTC"))
}

/// The seconds of a duration whose fraction is nothing: `7200`, `-3600.000`.
fn whole(text: &str) -> Option<i32> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let nothing = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|digit| digit == b'0');
    let digits = seconds.strip_prefix('-').unwrap_or(seconds);
    let plain = (1..=6).contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit());
    (nothing && plain).then(|| seconds.parse().ok()).flatten()
}

/// An instant with an offset beside it, which goes before one in it.
fn beside(here: &At<'_>, time: &'static str, offset_at: &'static str) -> Result<Time, Reject> {
    let time = instant(&here.need(time)?)?;
    let offset_s = here.get(offset_at).map(|at| offset(&at)).transpose()?;
    Ok(Time { offset_s: offset_s.or(time.offset_s), ..time })
}

/// The start and the end of an interval; what still runs has no end.
pub(super) fn interval(here: &At<'_>) -> Result<(Time, Option<Time>), Reject> {
    let at = here.need("interval")?;
    let interval = at.object()?;
    let start = beside(interval, "startTime", "startUtcOffset")?;
    let Some(end_at) = interval.get("endTime") else { return Ok((start, None)) };
    let end = beside(interval, "endTime", "endUtcOffset")?;
    if end.at_us < start.at_us {
        return Err(end_at.invalid("an end before its start"));
    }
    Ok((start, Some(end)))
}

/// The time of a sample.
pub(super) fn sampled(here: &At<'_>) -> Result<Time, Reject> {
    let at = here.need("sampleTime")?;
    beside(at.object()?, "physicalTime", "utcOffset")
}

/// Where a point came from, in words of ours; none of a device's or an app's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    pub(super) platform: &'static str,
    pub(super) form_factor: &'static str,
    pub(super) method: &'static str,
}

const PLATFORMS: &[(&str, &str)] = &[
    ("FITBIT", "fitbit"),
    ("HEALTH_CONNECT", "health_connect"),
    ("HEALTH_KIT", "health_kit"),
    ("FIT", "fit"),
    ("FITBIT_WEB_API", "fitbit_web_api"),
    ("NEST", "nest"),
    ("GOOGLE_WEB_API", "google_web_api"),
    ("GOOGLE_PARTNER_INTEGRATION", "google_partner_integration"),
];
const FORM_FACTORS: &[(&str, &str)] = &[
    ("FITNESS_BAND", "fitness_band"),
    ("WATCH", "watch"),
    ("PHONE", "phone"),
    ("RING", "ring"),
    ("CHEST_STRAP", "chest_strap"),
    ("SCALE", "scale"),
    ("TABLET", "tablet"),
    ("HEAD_MOUNTED", "head_mounted"),
    ("SMART_DISPLAY", "smart_display"),
];
const METHODS: &[(&str, &str)] = &[
    ("PASSIVELY_MEASURED", "automatic"),
    ("DERIVED", "automatic"),
    ("MANUAL", "manual"),
    ("ACTIVELY_MEASURED", "active"),
];

/// Where a point came from.
pub(super) fn origin(point: &At<'_>) -> Result<Origin, Reject> {
    let unknown = Origin { platform: "unknown", form_factor: "unknown", method: "unknown" };
    let Some(at) = point.get("dataSource") else { return Ok(unknown) };
    let source = at.object()?;
    let form_factor = match source.get("device") {
        Some(device) => word(device.object()?, "formFactor", FORM_FACTORS)?,
        None => None,
    };
    let unlisted = "unlisted";
    Ok(Origin {
        platform: word(source, "platform", PLATFORMS)?.unwrap_or(unknown.platform),
        form_factor: form_factor.unwrap_or(unknown.form_factor),
        method: word(source, "recordingMethod", METHODS)?
            .filter(|method| *method != unlisted)
            .unwrap_or(unknown.method),
    })
}

/// Our word for what stands at this name; `unlisted` for one that Google has added since.
pub(super) fn word(
    at: &At<'_>,
    name: &'static str,
    words: &[(&str, &'static str)],
) -> Result<Option<&'static str>, Reject> {
    let Some(found) = at.get(name) else { return Ok(None) };
    let text = found.text()?;
    let known = words.iter().find(|(theirs, _)| *theirs == text);
    Ok(Some(known.map_or("unlisted", |(_, ours)| *ours)))
}

/// Says where a record came from.
pub(super) fn tell(sheet: &mut Sheet<'_>, origin: Origin) {
    for (name, value) in [("platform", origin.platform), ("form_factor", origin.form_factor)] {
        if value != "unknown" {
            sheet.attribute(name, value);
        }
    }
    sheet.content.recording_method = Some(origin.method.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::wire::json;

    fn read<T>(text: &str, with: fn(&At<'_>) -> Result<T, Reject>) -> Option<T> {
        let json = json::parse(text.as_bytes()).expect("JSON");
        with(&json.root()).ok()
    }

    #[test]
    fn an_integer_comes_as_a_text_and_nothing_else_does() {
        for (text, value) in [(r#""812""#, 812.0), (r#""-3""#, -3.0), ("812", 812.0), ("0.5", 0.5)]
        {
            assert_eq!(read(text, amount), Some(value), "{text}");
        }
        for text in [
            r#""""#,
            r#""8.5""#,
            r#""0x1""#,
            r#""+1""#,
            r#"" 1""#,
            r#""NaN""#,
            "true",
            "[]",
            "1e300",
            r#""9999999999999""#,
        ] {
            assert_eq!(read(text, amount), None, "{text}");
        }
    }

    #[test]
    fn an_offset_is_a_duration_or_a_clock_s() {
        for (text, seconds) in [
            (r#""7200s""#, 7_200),
            (r#""-25200s""#, -25_200),
            (r#""0s""#, 0),
            (r#""3600.000s""#, 3_600),
            (r#""-07:00""#, -25_200),
            (r#""+05:30""#, 19_800),
        ] {
            assert_eq!(read(text, offset), Some(seconds), "{text}");
        }
        for text in
            [r#""3.5s""#, r#""s""#, r#""99999s""#, r#""7200""#, r#""Z""#, "7200", r#""1e3s""#]
        {
            assert_eq!(read(text, offset), None, "{text}");
        }
    }
}
