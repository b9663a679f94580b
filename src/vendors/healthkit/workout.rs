//! A workout: one record of its own, not a sample of a bucket.
//!
//! HealthKit's workouts are immutable as its samples are, so the version of one is its end: a deletion, which is
//! placed by its receipt, stands above it whichever of the two comes first. Those of Health Auto Export and
//! `export.xml` have no id; their key is start and source, and what is said later replaces it.

use uuid::Uuid;

use crate::error::{Path, Reject};
use crate::model::event::{Content, Merge, Op, Reading, flag};
use crate::model::metric::{self, Metric};
use crate::model::time::{Micros, Moment, NotAMoment};
use crate::vendors::VendorRecord;
use crate::vendors::healthkit::date;
use crate::vendors::healthkit::element::{Element, invalid, malformed, text};
use crate::vendors::healthkit::push::Push;
use crate::vendors::healthkit::sample::{Offsets, SKEW_US, times, uuid};
use crate::vendors::healthkit::source::{Unread, Written, tree, under};
use crate::vendors::healthkit::table;
use crate::vendors::wire::json::At;
use crate::vendors::wire::unit;

const RECORD_TYPE: &str = "activity";

/// What is said of a workout by a member of `values`, by its type without Apple's prefix.
const VALUES: &[(&str, &str, &str)] = &[
    ("activeenergyburned", "energy_active", "total"),
    ("totalenergyburned", "energy_active", "total"),
    ("basalenergyburned", "energy_basal", "total"),
    ("distancewalkingrunning", "distance_walk_run", "total"),
    ("stepcount", "steps", "total"),
    ("flightsclimbed", "floors_climbed", "total"),
    ("averageheartrate", "heart_rate", "mean"),
    ("minimumheartrate", "heart_rate", "min"),
    ("maximumheartrate", "heart_rate", "max"),
];

/// A workout on its way to be a record.
struct Session {
    id: String,
    version: Option<Micros>,
    times: (Micros, Micros),
    offsets: Offsets,
    written: Written,
    recording_method: &'static str,
    sport: &'static str,
    readings: Vec<Reading>,
}

/// Reads an element of `workouts`, of our own shape or of Health Auto Export's.
pub(super) fn read<'de>(
    element: &Element<'de>,
    push: &mut Push<'_, 'de>,
) -> Result<VendorRecord, Unread> {
    let session = if element.began.is_there() && !element.start.is_there() {
        exported(element)?
    } else {
        pushed(element, push)?
    };
    Ok(session.record(push.circumstance.received_at))
}

/// A workout that is gone.
pub(super) fn gone(id: Uuid) -> VendorRecord {
    VendorRecord {
        device_type: "apple".to_owned(),
        via: "direct",
        record_type: RECORD_TYPE.to_owned(),
        record_id: id.to_string(),
        merge: Merge::Replace,
        op: Op::Delete,
        version: None,
        content: Content {
            offset_provenance: "unknown".to_owned(),
            state: "final".to_owned(),
            ..Content::default()
        },
    }
}

fn pushed<'de>(element: &Element<'de>, push: &mut Push<'_, 'de>) -> Result<Session, Unread> {
    let id = uuid(&element.id)?;
    let times = times(element)?;
    let source = push.sources.source(element.source)?;
    let metadata = push.sources.metadata(element.metadata)?;
    let offsets = push.recent.offsets(element, &metadata, times)?;
    let sport = sport(text(&element.kind, "type")?);
    let mut readings = vec![length(times)];
    if let Some(values) = element.values {
        let values = tree(values)?;
        under("values", measured(&values.root(), times, &mut readings))?;
    }
    let written = push.sources.written(source.at).clone();
    Ok(Session {
        id: key(id, times.0, &written),
        version: id.map(|_| times.1),
        times,
        offsets,
        written,
        recording_method: if metadata.user_entered { "manual" } else { source.method },
        sport,
        readings: readings.into_iter().flatten().collect(),
    })
}

/// A workout of Health Auto Export: dates as the phone spells them, two totals.
fn exported(element: &Element<'_>) -> Result<Session, Unread> {
    let start = spelled(text(&element.began, "start")?, "start")?;
    let end = spelled(text(&element.ended, "end")?, "end")?;
    if end.at_us < start.at_us {
        return Err(invalid("end", "the end is before the start").into());
    }
    let times = (start.at_us, end.at_us);
    let mut readings = vec![length(times)];
    let sport = sport(element.name.text().unwrap_or_default());
    let distance = element.distance.filter(|_| ON_FOOT.contains(&sport));
    for (given, name, metric) in [
        (element.energy, "activeEnergy", "energy_active"),
        (distance, "distance", "distance_walk_run"),
    ] {
        // A later version sends a series in its place, whose sum is for the samples to tell.
        let Some(tree) = given.map(tree).transpose()? else { continue };
        let root = tree.root();
        if let Some(quantity) = root.get("qty") {
            let reading = || total(metric, "total", quantity.number()?, root.get("units"), times);
            readings.push(under(name, reading())?);
        }
    }
    // Its ids are of no HealthKit object that we could see deleted, and early versions give none.
    let written = Written::default();
    Ok(Session {
        id: key(None, times.0, &written),
        version: None,
        times,
        offsets: Offsets { start_s: start.offset_s, end_s: end.offset_s, inferred: true },
        written,
        recording_method: "unknown",
        sport,
        readings: readings.into_iter().flatten().collect(),
    })
}

/// The id, or what stands for it: the moment and the source.
fn key(id: Option<Uuid>, start_us: Micros, written: &Written) -> String {
    id.map_or_else(|| format!("{start_us}|{}", written.key()), |id| id.to_string())
}

/// A date as a phone spells it.
pub(super) fn spelled(given: &str, name: &'static str) -> Result<Moment, Reject> {
    date::spelled(given).map_err(|why| match why {
        NotAMoment::NoOffset => invalid(name, "a local time without its offset"),
        NotAMoment::Malformed => malformed(name, "not a date and time"),
    })
}

fn length((start_us, end_us): (Micros, Micros)) -> Option<Reading> {
    #[expect(clippy::as_conversions, reason = "µs of a workout are far below 2^53")]
    let seconds = (end_us - start_us) as f64 / 1e6;
    let metric = metric::find("workout_session")?;
    Some(metric.reading(seconds, start_us, Some(end_us)))
}

fn measured(
    values: &At<'_>,
    times: (Micros, Micros),
    readings: &mut Vec<Option<Reading>>,
) -> Result<(), Reject> {
    for at in values.items()? {
        let kind = at.object()?.need("type")?;
        let name = kind.text()?;
        let name = name.strip_prefix("HKQuantityTypeIdentifier").unwrap_or(name);
        let name = name.to_ascii_lowercase();
        let Some((_, metric, method)) = VALUES.iter().find(|(known, ..)| *known == name) else {
            continue;
        };
        let value = at.need("value")?;
        readings.push(total(metric, method, value.number()?, at.get("unit"), times)?);
    }
    Ok(())
}

/// One figure for the whole of a workout.
fn total(
    name: &str,
    method: &str,
    value: f64,
    spelling: Option<At<'_>>,
    (start_us, end_us): (Micros, Micros),
) -> Result<Option<Reading>, Reject> {
    let Some(found) = metric::find(name) else { return Ok(None) };
    let Some(spelling) = spelling else {
        return Err(Reject::invalid(Path::root(), "a value without its unit"));
    };
    let conversion = unit::conversion(found.unit.unwrap_or_default(), spelling.text()?);
    let value = conversion.ok_or_else(|| spelling.invalid("an unknown unit"))?.apply(value);
    Ok(Some(Reading {
        method: Some(method.to_owned()),
        context: Some("workout".to_owned()),
        ..of(found, value, start_us, end_us)?
    }))
}

fn of(
    metric: &'static Metric,
    value: f64,
    start_us: Micros,
    end_us: Micros,
) -> Result<Reading, Reject> {
    if !value.is_finite() {
        return Err(Reject::invalid(Path::root(), "too large"));
    }
    Ok(metric.reading(value, start_us, Some(end_us)))
}

impl Session {
    fn record(self, received_at: Micros) -> VendorRecord {
        let (start_us, end_us) = self.times;
        let day = Moment { at_us: start_us, offset_s: self.offsets.start_s }.local_date();
        let mut flags = Vec::new();
        if end_us > received_at.saturating_add(SKEW_US) {
            flags.push(flag::CLOCK_SKEW.to_owned());
        }
        if self.offsets.start_s != self.offsets.end_s {
            flags.push(flag::OFFSET_CHANGE.to_owned());
        }
        VendorRecord {
            device_type: table::maker(self.written.app.as_deref()).to_owned(),
            via: "direct",
            record_type: RECORD_TYPE.to_owned(),
            record_id: self.id,
            merge: Merge::Replace,
            op: Op::Upsert,
            version: self.version,
            content: Content {
                start_at: Some(start_us),
                end_at: Some(end_us),
                start_offset_s: self.offsets.start_s,
                end_offset_s: self.offsets.end_s,
                offset_provenance: self.offsets.provenance().to_owned(),
                local_date: day.map(|day| day.0),
                day_rule: day.map(|_| "civil_midnight".to_owned()),
                state: "final".to_owned(),
                attributes: [("sport".to_owned(), self.sport.to_owned())].into(),
                app: self.written.app,
                device_model: self.written.model,
                recording_method: Some(self.recording_method.to_owned()),
                flags,
                readings: self.readings,
                ..Content::default()
            },
        }
    }
}

/// Sports that one does by walking or running, so that their distance is walked or run.
const ON_FOOT: &[&str] = &["walking", "running", "hiking"];

/// The sport, in the closed vocabulary of the attribute; `unlisted` for any other, which may be a person's own word.
///
/// Apple's names (`traditionalStrengthTraining`, with `HKWorkoutActivityType` before it in `export.xml`) and the
/// English ones of Health Auto Export (`Traditional Strength Training`, `Outdoor Run`).
fn sport(name: &str) -> &'static str {
    let name = name.strip_prefix("HKWorkoutActivityType").unwrap_or(name);
    let letters = name.chars().filter(|letter| letter.is_ascii_alphanumeric());
    let squeezed: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    let found = SPORTS.iter().find(|(known, _)| *known == squeezed);
    found.map_or("unlisted", |(_, sport)| sport)
}

#[rustfmt::skip]
const SPORTS: &[(&str, &str)] = &[
    ("americanfootball", "american_football"), ("archery", "archery"), ("australianfootball", "australian_football"),
    ("badminton", "badminton"), ("barre", "barre"), ("baseball", "baseball"), ("basketball", "basketball"),
    ("bowling", "bowling"), ("boxing", "boxing"), ("cardiodance", "dancing"), ("climbing", "rock_climbing"),
    ("cooldown", "cooldown"), ("coretraining", "core_training"), ("cricket", "cricket"),
    ("crosscountryskiing", "cross_country_skiing"), ("crosstraining", "cross_training"), ("curling", "curling"),
    ("cycling", "biking"), ("indoorcycle", "stationary_biking"), ("indoorcycling", "stationary_biking"),
    ("outdoorcycle", "biking"), ("outdoorcycling", "biking"), ("dance", "dancing"), ("socialdance", "dancing"),
    ("discsports", "frisbee"), ("downhillskiing", "downhill_skiing"), ("elliptical", "elliptical"),
    ("equestriansports", "horseback_riding"), ("fencing", "fencing"), ("fishing", "fishing"),
    ("flexibility", "stretching"), ("functionalstrengthtraining", "strength_training"), ("golf", "golf"),
    ("gymnastics", "gymnastics"), ("handcycling", "hand_biking"), ("handball", "handball"),
    ("highintensityintervaltraining", "hiit"), ("hiking", "hiking"), ("hockey", "hockey"), ("hunting", "hunting"),
    ("jumprope", "jumping_rope"), ("kickboxing", "kickboxing"), ("lacrosse", "lacrosse"),
    ("martialarts", "martial_arts"), ("mindandbody", "mind_and_body"), ("mixedcardio", "cardio_training"),
    ("other", "other"), ("paddlesports", "paddling"), ("pickleball", "pickleball"), ("pilates", "pilates"),
    ("play", "play"), ("preparationandrecovery", "recovery"), ("racquetball", "racquetball"), ("rowing", "rowing"),
    ("rugby", "rugby"), ("running", "running"), ("outdoorrun", "running"), ("indoorrun", "running"),
    ("outdoorrunning", "running"), ("indoorrunning", "running"), ("sailing", "sailing"),
    ("skatingsports", "skating"), ("snowboarding", "snowboarding"), ("snowsports", "snow_sports"),
    ("soccer", "english_football"), ("softball", "softball"), ("squash", "squash"),
    ("stairclimbing", "stair_climbing_machine"), ("stairs", "stair_climbing"), ("steptraining", "step_training"),
    ("surfingsports", "surfing"), ("swimbikerun", "triathlon"), ("swimming", "swimming"),
    ("poolswim", "swimming_in_pool"), ("openwaterswim", "open_water_swimming"), ("tabletennis", "table_tennis"),
    ("taichi", "tai_chi"), ("tennis", "tennis"), ("trackandfield", "track_and_field"),
    ("traditionalstrengthtraining", "strength_training"), ("underwaterdiving", "diving"),
    ("volleyball", "volleyball"), ("walking", "walking"), ("outdoorwalk", "walking"), ("indoorwalk", "walking"),
    ("outdoorwalking", "walking"), ("indoorwalking", "walking"), ("waterfitness", "water_fitness"),
    ("waterpolo", "water_polo"), ("watersports", "water_sports"), ("wheelchairrunpace", "wheelchair"),
    ("wheelchairwalkpace", "wheelchair"), ("wrestling", "wrestling"), ("yoga", "yoga"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sport_is_one_of_ours_or_unlisted() {
        for (name, is) in [
            ("running", "running"),
            ("HKWorkoutActivityTypeRunning", "running"),
            ("HKWorkoutActivityTypeTraditionalStrengthTraining", "strength_training"),
            ("highIntensityIntervalTraining", "hiit"),
            ("Outdoor Run", "running"),
            ("Canary's morning run", "unlisted"),
            ("", "unlisted"),
        ] {
            assert_eq!(sport(name), is, "{name}");
        }
    }

    #[test]
    fn every_figure_has_its_metric() {
        for (_, name, _) in VALUES {
            assert!(metric::find(name).is_some(), "{name}");
        }
        assert!(length((0, 1)).is_some());
    }
}
