//! Garmin Health: whole summaries by push, or a ping that says they can be fetched; nothing is
//! signed.
//!
//! A body is `{"<type>": [{"userId": …, …}, …], …}`: several types and several people at once. Where
//! an item has a `callbackURL` it is a ping: its data is asked for, by the upload window that it
//! names. What its types mean stands in the files of this directory.
//!
//! # Decisions
//! - Whoever knows the path is believed: the door takes `/webhooks/garmin/<secret>` alone, and every
//!   request must name our client id in `garmin-client-id`, which is no secret. The scheme on the raw
//!   record says so (`garmin-path`), so that nobody takes it for a signature.
//! - The host of a `callbackURL` is checked and then not used: what is fetched is a path of ours
//!   under our base, with the numbers of the window. A link to somewhere else makes its item bad.
//! - An unknown person is held alone; who stands beside them in the body is not.
//! - A `summaryId` is no identity: Garmin gives a day another one at every sync. A day, a night and
//!   an HRV summary are keyed by their `calendarDate` (a tentative night and its final have other
//!   ids *and* other starts), what has no such date by its start, an epoch by start and type.
//! - There is no version. A final summary stands at its receipt. A day that still grows, its oxygen and
//!   breaths too, and a tentative night stand at the end of what they cover ([`sheet::grown`]), so that a delivery
//!   which Garmin repeats late never undoes a later one.
//! - Below zero a stress or a battery level says why there is none, and 0 breaths or 0 % oxygen are
//!   no reading; 0 steps are.
//! - Not taken: files (`activityFiles` links to what the summaries say), Move IQ's guesses (the
//!   epochs have what was measured), and what the vocabulary has no metric for (a day's lowest
//!   heart rate, stress durations, muscle, bone, water, fitness age, METs, a cuff's pulse).

use serde::de::{MapAccess, SeqAccess};

use crate::error::{Kind, Path, Reject};
use crate::model::connection::Change;
use crate::model::contract::header;
use crate::model::time::Micros;
use crate::vendors::consent::Consent;
use crate::vendors::wire::json::{self, At, Json};
use crate::vendors::wire::walk::{AsScalar, Items, List, Members, Object, Scalar};
use crate::vendors::{
    Item, KeyUser, Raw, Request, Secrets, Vendor, VendorRecord, Verified, What, ask,
};

mod activity;
mod api;
mod consent;
mod day;
mod measurement;
mod night;
mod sheet;
#[cfg(test)]
mod tests;

/// Garmin.
pub(super) static VENDOR: Garmin = Garmin;

/// See the module.
#[derive(Debug)]
pub(super) struct Garmin;

/// What the door takes of vendors that send many people's days in one body.
const BODY_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Bounds of an id; Garmin's have 32 or 36 characters.
const ID_CHARACTERS_MAX: usize = 128;
const CLIENT: &str = "garmin-client-id";

/// What is made of an item.
#[derive(Clone, Copy)]
enum Read {
    /// Records: our name of their type, the last part of their path in Garmin's API, their reader.
    Summary(&'static str, &'static str, ReadSummary),
    /// The person has withdrawn.
    Deregistration,
    /// Nothing of ours, for this reason.
    Nothing(&'static str),
}

type ReadSummary = fn(Micros, &At<'_>) -> Result<VendorRecord, Reject>;

/// Every type that a body can have, by its key there.
#[rustfmt::skip]
static TYPES: &[(&str, Read)] = &[
    ("activities", Read::Summary("activity", "activities", activity::summary)),
    ("activityDetails", Read::Summary("activity_samples", "activityDetails", activity::samples)),
    ("activityFiles", Read::Nothing("a file: the summary has what it says")),
    ("allDayRespiration", Read::Summary("respiration", "respiration", measurement::respiration)),
    ("bloodPressures", Read::Summary("blood_pressure", "bloodPressures", measurement::blood_pressure)),
    ("bodyComps", Read::Summary("body", "bodyComps", measurement::body)),
    ("dailies", Read::Summary("daily", "dailies", day::daily)),
    ("deregistrations", Read::Deregistration),
    ("epochs", Read::Summary("epoch", "epochs", day::epoch)),
    ("healthSnapshot", Read::Summary("health_snapshot", "healthSnapshot", measurement::snapshot)),
    ("hrv", Read::Summary("hrv", "hrv", night::hrv)),
    ("manuallyUpdatedActivities",
        Read::Summary("manual_activity", "manuallyUpdatedActivities", activity::summary)),
    ("mct", Read::Summary("menstrual_cycle", "mct", day::cycle)),
    ("moveIQActivities", Read::Nothing("a guess of what was done: the epochs measure it")),
    ("pulseox", Read::Summary("pulse_ox", "pulseOx", measurement::pulse_ox)),
    ("skinTemp", Read::Summary("skin_temperature", "skinTemp", night::skin)),
    ("sleeps", Read::Summary("sleep", "sleeps", night::sleep)),
    ("stressDetails", Read::Summary("stress", "stressDetails", day::stress)),
    ("userMetrics", Read::Summary("user_metrics", "userMetrics", day::metrics)),
    ("userPermissionsChange", Read::Nothing("permissions changed")),
];

impl Vendor for Garmin {
    fn name(&self) -> &'static str {
        "garmin"
    }

    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }

    fn secret_path(&self) -> bool {
        true
    }

    /// Nothing is signed, so nothing has a time that could be too old.
    fn window_us(&self) -> Micros {
        Micros::MAX
    }

    fn verify(
        &self,
        request: &Request<'_>,
        secrets: &Secrets<'_>,
        _now_us: Micros,
    ) -> Result<Verified, Kind> {
        let given = request.one(CLIENT)?.as_bytes();
        let ours = secrets.handshake.unwrap_or(given);
        if given.is_empty() || !bool::from(subtle::ConstantTimeEq::ct_eq(given, ours)) {
            return Err(Kind::SignatureInvalid);
        }
        Ok(Verified { scheme: "garmin-path", vendor_user: None })
    }

    fn key_user(&self, _verified: &Verified, body: &[u8]) -> KeyUser {
        let mut users = Users::default();
        let read = json::document(body, Object(&mut users, 0));
        match (read, users) {
            (Ok(_), Users { first: Some(user), several: false }) => KeyUser::One(user),
            _ => KeyUser::None,
        }
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        let json = json::parse(raw.body)?;
        let root = json.root();
        let mut items = Vec::new();
        let mut index = 0;
        for (key, value) in root.members()? {
            let known = TYPES.iter().find(|(name, _)| *name == key);
            let named = known.and_then(|(name, read)| Some((root.get(name)?, *read)));
            let count = match value.json() {
                Json::List(list) => list.len(),
                Json::Null => 0,
                _ => 1,
            };
            match named {
                Some((list, read)) => pushed(&mut items, index, raw.received_at, &list, read),
                None => items.extend((index..).take(count).map(|index| Item {
                    index,
                    vendor_user: None,
                    what: What::Ignored("unknown type"),
                })),
            }
            index = index.saturating_add(i32::try_from(count).unwrap_or(i32::MAX));
        }
        Ok(items)
    }

    fn api(&self) -> Option<&'static dyn ask::Api> {
        Some(&VENDOR)
    }

    fn consent(&self) -> Option<&'static dyn Consent> {
        Some(&VENDOR)
    }

    fn document(&self, raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
        let known = TYPES.iter().find_map(|(key, read)| match read {
            Read::Summary(name, _, read) if *name == record_type => Some((*key, *read)),
            _ => None,
        });
        let (key, read) = known
            .ok_or_else(|| Reject::invalid(Path::root(), "no type of record of this vendor"))?;
        let json = json::parse(raw.body)?;
        let asked = raw.headers.text(header::VENDOR_USER);
        let root = json.root();
        let list = if root.get(key).is_some() { root.need(key)? } else { root };
        let mut items = Vec::new();
        for (index, item) in (0..).zip(list.items()?) {
            let (vendor_user, whats) = match whose(&item, asked) {
                Ok(user) => (user, records(raw.received_at, &item, read)),
                Err(bad) => (None, vec![What::Bad(bad)]),
            };
            extend(&mut items, index, vendor_user.as_deref(), whats);
        }
        Ok(items)
    }
}

/// Reads the items of one type, the first of which is the body's `index`-th.
fn pushed(items: &mut Vec<Item>, index: i32, received_at: Micros, list: &At<'_>, read: Read) {
    let elements = match list.items() {
        Ok(elements) => elements,
        Err(bad) => return extend(items, index, None, vec![What::Bad(bad)]),
    };
    for (index, item) in (index..).zip(elements) {
        match user(&item) {
            Ok(user) => {
                let whats = what(received_at, &item, read, user);
                extend(items, index, Some(user), whats);
            }
            Err(bad) => extend(items, index, None, vec![What::Bad(bad)]),
        }
    }
}

fn what(received_at: Micros, item: &At<'_>, read: Read, user: &str) -> Vec<What> {
    match read {
        Read::Nothing(why) => vec![What::Ignored(why)],
        Read::Deregistration => {
            vec![What::Connection(Change::End { vendor_user: user.to_owned() })]
        }
        Read::Summary(record_type, ..) if item.get(api::CALLBACK).is_some() => {
            let window = api::window(item);
            let fetch = window.map(|record_id| What::Fetch { record_type, record_id });
            vec![fetch.unwrap_or_else(What::Bad)]
        }
        Read::Summary(_, _, read) => records(received_at, item, read),
    }
}

/// What a summary is, and what the naps are that only a night's has. Each is read, or bad, alone.
fn records(received_at: Micros, item: &At<'_>, read: ReadSummary) -> Vec<What> {
    let all = std::iter::once(read(received_at, item)).chain(night::naps(received_at, item));
    let what = |read: Result<VendorRecord, Reject>| match read {
        Ok(record) => What::Record(Box::new(record)),
        Err(bad) => What::Bad(bad),
    };
    all.map(what).collect()
}

fn extend(items: &mut Vec<Item>, index: i32, user: Option<&str>, whats: Vec<What>) {
    let vendor_user = user.map(str::to_owned);
    items.extend(whats.into_iter().map(|what| Item {
        index,
        vendor_user: vendor_user.clone(),
        what,
    }));
}

/// Whose a pushed item is.
fn user<'a>(item: &'a At<'a>) -> Result<&'a str, Reject> {
    let at = item.object()?.need("userId")?;
    let text = at.text()?;
    if is_id(text) { Ok(text) } else { Err(at.malformed("not an id")) }
}

/// Whose a fetched item is: who was asked for. Where it names somebody, that must be the same.
fn whose(item: &At<'_>, asked: Option<&str>) -> Result<Option<String>, Reject> {
    let Some(named) = item.object()?.get("userId") else { return Ok(asked.map(str::to_owned)) };
    let own = user(item)?;
    match asked {
        Some(asked) if asked != own => Err(named.invalid("not the user that was asked for")),
        _ => Ok(Some(own.to_owned())),
    }
}

fn is_id(text: &str) -> bool {
    (1..=ID_CHARACTERS_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The people of a body, element by element: a push may have 12 MiB, and the door wants no tree of
/// it.
#[derive(Default)]
struct Users {
    first: Option<String>,
    several: bool,
}

impl<'de> Members<'de> for Users {
    fn field(key: &str) -> Option<u8> {
        let at = TYPES.iter().position(|(name, _)| *name == key)?;
        u8::try_from(at).ok()
    }

    fn member<A: MapAccess<'de>>(
        &mut self,
        _field: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        map.next_value_seed(List(self, level)).map(|_met| ())
    }
}

impl<'de> Items<'de> for Users {
    fn item<A: SeqAccess<'de>>(&mut self, level: usize, list: &mut A) -> Result<bool, A::Error> {
        let mut one = User::default();
        let met = list.next_element_seed(Object(&mut one, level))?;
        if let Scalar::Text(user) = one.0
            && is_id(&user)
        {
            self.several |= self.first.as_deref().is_some_and(|first| first != user);
            self.first.get_or_insert_with(|| user.into_owned());
        }
        Ok(met.is_some())
    }
}

/// Whose one item is.
#[derive(Default)]
struct User<'a>(Scalar<'a>);

impl<'de> Members<'de> for User<'de> {
    fn field(key: &str) -> Option<u8> {
        (key == "userId").then_some(0)
    }

    fn member<A: MapAccess<'de>>(
        &mut self,
        _field: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        self.0 = map.next_value_seed(AsScalar(level))?;
        Ok(())
    }
}
