//! Types whose content our vocabulary has (almost) no metric for: hormones, observations, plans,
//! routes, lab reports, the athlete.
//!
//! They are records all the same, with their key, their times and a closed set of attributes: that
//! there was one, and when, is known; what a person wrote or a laboratory printed stays in the raw
//! topic. A plan or a route is no measurement, so it has a day at most.

use crate::error::Reject;
use crate::model::event::Op;
use crate::model::metric;
use crate::model::time::Day;
use crate::vendors::VendorRecord;
use crate::vendors::terra::record::{Head, Sheet, Zone, id, integer, named, number, text, visit};
use crate::vendors::wire::json::At;

/// The analytes of a hormone test, as Terra names them with their units.
const ANALYTES: &[(&str, &str)] = &[
    ("lh_mIU_per_ml", "lh"),
    ("e3g_ng_per_ml", "e3g"),
    ("pdg_ug_per_ml", "pdg"),
    ("hcg_mIU_per_ml", "hcg"),
    ("fsh_mIU_per_ml", "fsh"),
];

/// A hormone test: flat, and keyed by its `timestamp`.
pub(super) fn hormone(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let time = Zone::unknown().read(&item.object()?.need("timestamp")?)?;
    let key = time.at_us.to_string();
    let mut sheet = Sheet::new(head, "hormone", key, Zone::unknown(), (time, None));
    sheet.belongs(time.local_date(), "civil_midnight");
    let mut found = Vec::new();
    for (key, name) in ANALYTES {
        if number(item, &[key])?.is_some() {
            found.push(*name);
        }
    }
    if !found.is_empty() {
        sheet.attribute("analytes", found.join(","));
    }
    Ok(vec![sheet.finish()])
}

const CATEGORY: &[(i64, &str)] = &[
    (0, "unspecified"),
    (1, "symptom"),
    (2, "reproductive_health"),
    (3, "self_care"),
    (4, "medication"),
    (5, "lab_and_health_metrics"),
    (6, "state_of_mind"),
    (7, "device_event"),
    (8, "clinical"),
];

const SEVERITY: &[(i64, &str)] =
    &[(0, "unspecified"), (1, "not_present"), (2, "mild"), (3, "moderate"), (4, "severe")];

const STATUS: &[(i64, &str)] =
    &[(0, "unspecified"), (1, "final"), (2, "amended"), (3, "entered_in_error")];

/// An observation: a symptom, an event, a state of mind. Status 3 takes it back.
pub(super) fn observation(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let metadata = item.object()?.need("metadata")?;
    let metadata = metadata.object()?;
    let key = id(&metadata.need("summary_id")?)?;
    let zone = Zone::of(metadata)?;
    let start = zone.read(&metadata.need("start_time")?)?;
    let end_at = metadata.get("end_time");
    let end = end_at.as_ref().map(|at| zone.read(at)).transpose()?;
    if let (Some(end_at), Some(end)) = (end_at, end)
        && end.at_us < start.at_us
    {
        return Err(end_at.invalid("an end before its start"));
    }
    let mut sheet = Sheet::new(head, "health_observation", key, zone, (start, end));
    sheet.belongs(start.local_date(), "civil_midnight");
    let enums: [(&'static str, &[(i64, &'static str)]); 3] =
        [("category", CATEGORY), ("severity", SEVERITY), ("status", STATUS)];
    for (name, names) in enums {
        if let Some(value) = named(item, &["observation_data", name], names)? {
            sheet.attribute(name, value);
        }
    }
    if sheet.content.attributes.get("status").is_some_and(|status| status == "entered_in_error") {
        sheet.op = Op::Delete;
        return Ok(vec![sheet.finish()]);
    }
    valence(&mut sheet, item)?;
    Ok(vec![sheet.finish()])
}

/// How pleasant a state of mind was, −1 to 1: the one component that the vocabulary has.
fn valence(sheet: &mut Sheet<'_>, item: &At<'_>) -> Result<(), Reject> {
    let kind = text(item, &["observation_data", "observation_type"])?;
    let Some(metric) = metric::find("state_of_mind_valence") else { return Ok(()) };
    if kind.as_deref() != Some("state_of_mind") {
        return Ok(());
    }
    visit(item, &["observation_data", "components"], &mut |list| {
        for component in list.items()? {
            let component = component.object()?;
            if text(component, &["code"])?.as_deref() != Some("valence") {
                continue;
            }
            visit(component, &["value", "unit"], &mut |unit| match unit.text()? {
                "" | "1" => Ok(()),
                _ => Err(unit.invalid("a unit that is not known here")),
            })?;
            if let Some(value) = number(component, &["value", "quantity"])? {
                sheet.add(metric, value, None, None);
            }
        }
        Ok(())
    })
}

/// The first id that stands at one of these paths; the last of them is named where there is none.
fn first_id(item: &At<'_>, paths: &[&'static [&'static str]]) -> Result<Option<String>, Reject> {
    let mut found = None;
    for path in paths {
        if found.is_none() {
            visit(item, path, &mut |at| id(at).map(|key| found = Some(key)))?;
        }
    }
    Ok(found)
}

/// A planned workout: the plan of a day, nothing measured.
pub(super) fn plan(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let item = item.object()?;
    let key =
        first_id(item, &[&["planned_workout_id"], &["metadata", "id"], &["provider_workout_id"]])?;
    let key = key.map_or_else(|| id(&item.need("planned_workout_id")?), Ok)?;
    let mut sheet = Sheet::timeless(head, "planned_workout", key);
    for path in [["planned_date"].as_slice(), &["metadata", "planned_date"]] {
        visit(item, path, &mut |at| {
            let day = at.text()?.get(..10).and_then(Day::parse);
            sheet.belongs(Some(day.ok_or_else(|| at.malformed("not a date"))?), "vendor_day");
            Ok(())
        })?;
    }
    Ok(vec![sheet.finish()])
}

/// A route that was put on a device.
pub(super) fn route(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let item = item.object()?;
    let key = first_id(
        item,
        &[&["pushed_route_id"], &["route_id"], &["metadata", "id"], &["metadata", "summary_id"]],
    )?;
    let key = key.map_or_else(|| id(&item.need("route_id")?), Ok)?;
    Ok(vec![Sheet::timeless(head, "route", key).finish()])
}

const SEX: &[&str] = &["female", "male", "other"];

/// The athlete: one a connection, the latest counts. Of a profile only what physiology depends on.
pub(super) fn athlete(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let mut sheet = Sheet::timeless(head, "athlete", "athlete".to_owned());
    let sex = text(item.object()?, &["sex"])?.map(|sex| sex.to_lowercase());
    if let Some(known) = SEX.iter().find(|known| sex.as_deref() == Some(**known)) {
        sheet.attribute("sex", *known);
    }
    Ok(vec![sheet.finish()])
}

/// A finished lab report: the report's day and how many results it has. Its texts stay in the raw
/// topic.
pub(super) fn lab_report(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let item = item.object()?;
    let mut sheet = Sheet::timeless(head, "lab_report", id(&item.need("session_id")?)?);
    visit(item, &["report_date"], &mut |at| {
        let day = Day::parse(at.text()?).ok_or_else(|| at.malformed("not a date"))?;
        sheet.belongs(Some(day), "vendor_day");
        Ok(())
    })?;
    if let Some(count) = integer(item, &["results_count"])? {
        sheet.attribute("results", count.to_string());
    }
    Ok(vec![sheet.finish()])
}
