//! What some of Polar's devices sense at the wrist: tests of blood oxygen, and the skin's temperature of a night.

use crate::error::Reject;
use crate::model::contract::header;
use crate::model::metric;
use crate::model::time::{Day, Micros};
use crate::vendors::ask::{Call, Need};
use crate::vendors::polar::{OFFSET_MIN_MAX, day};
use crate::vendors::wire::answer::objects;
use crate::vendors::wire::json::{self, At};
use crate::vendors::wire::sheet::{Field, Head, Sheet, Time, Zone, field};
use crate::vendors::{Item, Raw, What};

/// Tests of blood oxygen, of a day and the one before: a test waits for the next sleep to be asked for.
pub(super) const OXYGEN: &str = "spo2";
/// The skin's temperature of a night.
pub(super) const SKIN: &str = "skin_temperature";

/// The last second that is believed: the end of the year 9998.
const SECONDS_MAX: i64 = 253_370_764_800;

/// What to ask for, of the day that the record id is.
pub(super) fn ask(need: &Need<'_>) -> Option<Call> {
    let day = Day::parse(need.record_id)?;
    let (path, from) = match need.record_type {
        OXYGEN => ("spo2", Day(day.0.saturating_sub(1))),
        _ => ("skintemperature", day),
    };
    let query = vec![("from", from.to_string()), ("to", day.to_string())];
    Some(Call::get_with(format!("/v3/users/biosensing/{path}"), query))
}

/// How an object is read.
type Read = fn(&Head, &At<'_>) -> Result<What, Reject>;

/// The objects of an answer, which may be a list of them.
pub(super) fn read(raw: &Raw<'_>, list: &'static str, object: Read) -> Result<Vec<Item>, Reject> {
    let json = json::parse(raw.body)?;
    let head = Head {
        device_type: "polar".to_owned(),
        via: "direct",
        version: None,
        received_at: raw.received_at,
    };
    let mut items = Vec::new();
    objects(&json.root(), list, &mut |index, _, at| {
        let what = object(&head, at).unwrap_or_else(What::Bad);
        let vendor_user = raw.headers.text(header::VENDOR_USER).map(str::to_owned);
        items.push(Item { index, vendor_user, what });
    })?;
    Ok(items)
}

/// A test, keyed by when it was: only one that passed has a result.
pub(super) fn oxygen(head: &Head, at: &At<'_>) -> Result<What, Reject> {
    let time_at = at.object()?.need("test_time")?;
    let seconds = time_at.integer()?;
    if !(0..=SECONDS_MAX).contains(&seconds) {
        return Err(time_at.invalid("not a time"));
    }
    if at.need("test_status")?.text()? != "SPO2_TEST_PASSED" {
        return Ok(What::Ignored("a test that did not pass"));
    }
    let offset_s = at.get("time_zone_offset").map(|at| offset(&at)).transpose()?;
    let at_us: Micros = seconds * 1_000_000;
    let start = Time { at_us, offset_s, known: true };
    let id = seconds.to_string();
    let mut sheet = Sheet::new(head, OXYGEN, id, Zone::unknown(), (start, None));
    sheet.belongs(start.local_date(), "civil_midnight");
    let percent = at.need("blood_oxygen_percent")?.number()?;
    if let Some(metric) = metric::find("spo2") {
        sheet.add(metric, percent, None, Some("spot"));
    }
    Ok(What::Record(Box::new(sheet.finish())))
}

/// Minutes from UTC, as seconds.
fn offset(at: &At<'_>) -> Result<i32, Reject> {
    let minutes = at.integer()?;
    let fits = minutes.abs() <= OFFSET_MIN_MAX;
    let seconds = i32::try_from(minutes.saturating_mul(60)).ok().filter(|_| fits);
    seconds.ok_or_else(|| at.invalid("no offset from UTC"))
}

const TEMPERATURES: &[Field] = &[
    field(&["sleep_time_skin_temperature_celsius"], "skin_temperature_sleep").method("wrist"),
    field(&["deviation_from_baseline_celsius"], "skin_temperature_deviation"),
];

/// A night's temperature, keyed by the date of its sleep; its times are the sleep's, which is another record.
pub(super) fn skin(head: &Head, at: &At<'_>) -> Result<What, Reject> {
    let day = day(&at.object()?.need("sleep_date")?)?;
    let times = (Time::floating_midnight(day), None);
    let mut sheet = Sheet::of_day(head, SKIN, day, Zone::unknown(), times);
    sheet.fields(at, TEMPERATURES)?;
    Ok(What::Record(Box::new(sheet.finish())))
}
