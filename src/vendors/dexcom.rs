//! Dexcom v3: glucose, asked for and never announced.
//!
//! # Decisions
//! - It sends nothing, so nothing is taken: its path has a secret that nobody was given, and whoever has one is refused all
//!   the same. A body that stands in the log as its webhook is bad.
//! - What is asked for is a UTC day, because parameters without a zone are compared with `systemTime`, which is UTC. The
//!   samples of a day are one bucket, recognised by their `recordId`: a value that smoothing changed afterwards replaces
//!   itself there, and what a sensor brings days late joins it.
//! - `ok` is a good reading, as none is. `high` and `low` without a value say that the sensor measures no further: that
//!   is no reading and no zero.
//! - The instant is `systemTime`'s. A receiver gives no offsets: its `systemTime` is UTC, and how far its `displayTime` is
//!   from it, to the quarter of an hour, is where the person was.
//! - A unit that is not known makes its reading bad. A day of somebody else's is bad altogether: a user id is of one account
//!   and one client.
//! - A person exists in one region: `vendors.dexcom.api_base`, `renewal_url` and `authorise_url` name it where it is not the
//!   United States (`api.dexcom.eu`, `api.dexcom.jp`).
//! - The same glucose may come by Apple Health or Terra, too: as another maker's way, which is told by who links echoes.
//! - Not taken, for want of a metric: trends and their rates, calibrations, alerts, events (what a person typed in).

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::error::{Kind, Path, Reject};
use crate::model::contract::header;
use crate::model::event::{Content, Merge, Op, Reading, flag};
use crate::model::metric;
use crate::model::time::{Day, Micros, Moment};
use crate::vendors::ask::{Api, Call, Need, Per, Quota, Renewal};
use crate::vendors::consent::{Consent, Who, is_id};
use crate::vendors::history::{self, Collection, Poll, Window, collection};
use crate::vendors::wire::answer::objects;
use crate::vendors::wire::json::{self, At};
use crate::vendors::wire::sheet::{SKEW_US, Zone};
use crate::vendors::wire::unit;
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, VendorRecord, Verified, What};

/// The vendor, as [`crate::vendors::ALL`] lists it.
pub(super) static VENDOR: Dexcom = Dexcom;

/// Dexcom.
#[derive(Debug)]
pub(super) struct Dexcom;

impl Vendor for Dexcom {
    fn name(&self) -> &'static str {
        "dexcom"
    }

    fn secret_path(&self) -> bool {
        true
    }

    fn window_us(&self) -> Micros {
        0
    }

    fn verify(
        &self,
        _request: &Request<'_>,
        _secrets: &Secrets<'_>,
        _now_us: Micros,
    ) -> Result<Verified, Kind> {
        Err(Kind::SignatureInvalid)
    }

    fn key_user(&self, _verified: &Verified, _body: &[u8]) -> KeyUser {
        KeyUser::None
    }

    fn parse(&self, _raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        Err(Reject::invalid(Path::root(), "this vendor sends nothing"))
    }

    fn api(&self) -> Option<&'static dyn Api> {
        Some(&VENDOR)
    }

    fn consent(&self) -> Option<&'static dyn Consent> {
        Some(&VENDOR)
    }

    fn document(&self, raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
        match history::of(record_type).unwrap_or(record_type) {
            EGV => read(raw),
            _ => Err(Reject::invalid(Path::root(), "no type of record of this vendor")),
        }
    }
}

// ── what to ask for ────────────────────────────────────────────────────────────────────────────────────────────

/// Estimated glucose values.
const EGV: &str = "egv";
const PATH: &str = "/v3/users/self";
const TOKEN: &str = "https://api.dexcom.com/v2/oauth2/token";

/// Of the whole app.
const QUOTAS: &[Quota] = &[
    Quota { per: Per::App, window_s: 3_600, calls: 60_000 },
    Quota { per: Per::History, window_s: 3_600, calls: 20_000 },
];
/// A call gives thirty days at most. How far back is not documented.
const HISTORY: &[Collection] = &[collection("window.egv", 30)];
/// Values come hours late by policy, and days late from a sensor that was out of reach.
const POLLS: &[Poll] = &[Poll { record_type: EGV, late_days: 3, back_days: 30 }];
/// Ours: a day that has nothing is an empty list, so a 404 is not expected at all.
const AGAIN_S: [u32; 3] = [60, 600, 3_600];

impl Api for Dexcom {
    fn base(&self) -> &'static str {
        "https://api.dexcom.com"
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
        let window = match history::of(need.record_type) {
            Some(EGV) => Window::parse(need.record_id)?,
            None if need.record_type == EGV => {
                let day = Day::parse(need.record_id)?;
                Window { from: day, to: day.next() }
            }
            _ => return None,
        };
        let at = |day: Day| format!("{day}T00:00:00");
        let query = vec![("startDate", at(window.from)), ("endDate", at(window.to))];
        Some(Call::get_with(format!("{PATH}/egvs"), query))
    }

    fn again_s(&self, attempt: u32) -> Option<u32> {
        let before = usize::try_from(attempt.checked_sub(1)?).ok()?;
        AGAIN_S.get(before).copied()
    }

    fn renewal(&self) -> Option<Renewal> {
        Some(Renewal { url: TOKEN, scope: None })
    }

    fn quotas(&self) -> &'static [Quota] {
        QUOTAS
    }

    fn history(&self) -> &'static [Collection] {
        HISTORY
    }

    fn polls(&self) -> &'static [Poll] {
        POLLS
    }
}

impl Consent for Dexcom {
    fn authorise(&self) -> &'static str {
        "https://api.dexcom.com/v2/oauth2/login"
    }

    fn token(&self) -> &'static str {
        TOKEN
    }

    fn scopes(&self) -> &'static [&'static str] {
        &["offline_access"]
    }

    /// The cheapest call that says it.
    fn who(&self) -> Who {
        Who::Ask(Call::get(format!("{PATH}/dataRange")))
    }

    fn user(&self, body: &[u8]) -> Option<String> {
        let json = json::parse(body).ok()?;
        let user = json.root().get("userId")?.text().ok()?.to_owned();
        is_id(&user).then_some(user)
    }
}

// ── what comes ─────────────────────────────────────────────────────────────────────────────────────────────────

/// What an element is: a sample of a UTC day, or nothing of ours.
enum Said {
    Sample(Box<Sample>),
    Nothing(&'static str),
}

/// A sample, and where the person was, as far as that is known.
struct Sample {
    id: Uuid,
    reading: Reading,
    offset_s: Option<i32>,
}

/// The samples of one UTC day, and the position of the first.
#[derive(Default)]
struct Bucket {
    first: i32,
    samples: BTreeMap<Uuid, Sample>,
}

fn read(raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
    let json = json::parse(raw.body)?;
    let root = json.root();
    let asked = raw.headers.text(header::VENDOR_USER);
    let whose = |at: &At<'_>| -> Result<String, Reject> { Ok(at.text()?.to_owned()) };
    let own = root.get("userId").map(|at| whose(&at)).transpose()?;
    if let (Some(own), Some(asked)) = (&own, asked)
        && own != asked
    {
        return Err(Reject::invalid(Path::root().key("userId"), "not the user that was asked for"));
    }
    let vendor_user = asked.map(str::to_owned).or(own.filter(|own| is_id(own)));
    let (mut whats, mut days) = (Vec::new(), BTreeMap::<Day, Bucket>::new());
    root.object()?.need("records")?;
    objects(&root, "records", &mut |index, _, at| match said(raw, at) {
        Ok(Said::Sample(sample)) => {
            let day = days.entry(Day::of_utc(sample.reading.start_at));
            let bucket = day.or_insert_with(|| Bucket { first: index, ..Bucket::default() });
            bucket.samples.insert(sample.id, *sample);
        }
        Ok(Said::Nothing(why)) => whats.push((index, What::Ignored(why))),
        Err(bad) => whats.push((index, What::Bad(bad))),
    })?;
    for (day, bucket) in days {
        whats.push((bucket.first, What::Record(Box::new(bucket.record(day)))));
    }
    whats.sort_by_key(|(index, _)| *index);
    let item = |(index, what)| Item { index, vendor_user: vendor_user.clone(), what };
    Ok(whats.into_iter().map(item).collect())
}

fn said(raw: &Raw<'_>, at: &At<'_>) -> Result<Said, Reject> {
    let id_at = at.object()?.need("recordId")?;
    let id = Uuid::try_parse(id_at.text()?).map_err(|_text| id_at.malformed("not an id"))?;
    let time = Zone { utc: true, ..Zone::unknown() }.read(&at.need("systemTime")?)?;
    let status = at.get("status").map(|at| at.text().map(str::to_owned)).transpose()?;
    let Some(value_at) = at.get("value") else {
        return Ok(Said::Nothing(match status.as_deref() {
            Some("high") => "above what the sensor measures",
            Some("low") => "below what the sensor measures",
            _ => "no value",
        }));
    };
    let Some(metric) = metric::find("blood_glucose") else {
        return Ok(Said::Nothing("nothing that has a metric"));
    };
    let unit_at = at.need("unit")?;
    let conversion = unit::conversion(metric.unit.unwrap_or_default(), unit_at.text()?);
    let conversion = conversion.ok_or_else(|| unit_at.invalid("a unit that is not known"))?;
    let mut reading = metric.reading(conversion.apply(value_at.number()?), time.at_us, None);
    reading.flags.push(flag::DERIVED_ID.to_owned());
    if time.at_us > raw.received_at.saturating_add(SKEW_US) {
        reading.flags.push(flag::CLOCK_SKEW.to_owned());
    }
    let method = Some("interstitial".to_owned());
    let reading = Reading { sample_id: Some(id.to_string()), method, ..reading };
    let offset_s = at.get("displayTime").map(|at| offset(&at, time.at_us)).transpose()?.flatten();
    Ok(Said::Sample(Box::new(Sample { id, reading, offset_s })))
}

/// Offsets are whole quarters of an hour, and none is further from UTC.
const QUARTER_US: Micros = 900_000_000;
const OFFSET_MAX_S: i64 = 14 * 3_600;

/// Where the person was: as it stands beside the time, or as far as the receiver's clock on the wall is from UTC.
fn offset(at: &At<'_>, system_us: Micros) -> Result<Option<i32>, Reject> {
    let text = at.text()?;
    if let Ok(moment) = Moment::parse(text) {
        return Ok(moment.offset_s);
    }
    let wall =
        Moment::parse(&format!("{text}Z")).map_err(|_text| at.malformed("not a date and time"))?;
    let apart = wall.at_us.saturating_sub(system_us);
    let quarters = apart.saturating_add(QUARTER_US / 2).div_euclid(QUARTER_US);
    let seconds = quarters.saturating_mul(QUARTER_US / 1_000_000);
    Ok(i32::try_from(seconds).ok().filter(|_| seconds.abs() <= OFFSET_MAX_S))
}

impl Bucket {
    fn record(self, day: Day) -> VendorRecord {
        let mut samples: Vec<Sample> = self.samples.into_values().collect();
        samples.sort_by_key(|sample| sample.reading.start_at);
        // What is dated in the future is kept, but does not say when the bucket was.
        let skewed =
            |sample: &&Sample| sample.reading.flags.iter().any(|name| name == flag::CLOCK_SKEW);
        let all = samples.iter().all(|sample| skewed(&sample));
        let dated = || samples.iter().filter(|sample| all || !skewed(sample));
        let (first, last) = (dated().next(), dated().next_back());
        let at = |sample: Option<&Sample>| sample.map(|sample| sample.reading.start_at);
        let offset = |sample: Option<&Sample>| sample.and_then(|sample| sample.offset_s);
        let known = offset(first).is_some() || offset(last).is_some();
        let content = Content {
            start_at: at(first),
            end_at: at(last),
            start_offset_s: offset(first),
            end_offset_s: offset(last),
            offset_provenance: if known { "device" } else { "unknown" }.to_owned(),
            state: "final".to_owned(),
            recording_method: Some("automatic".to_owned()),
            flags: all.then(|| flag::CLOCK_SKEW.to_owned()).into_iter().collect(),
            ..Content::default()
        };
        let readings = samples.into_iter().map(|sample| sample.reading).collect();
        VendorRecord {
            device_type: "dexcom".to_owned(),
            via: "direct",
            record_type: "samples.blood_glucose".to_owned(),
            record_id: format!("{day}|dexcom"),
            merge: Merge::Union,
            op: Op::Upsert,
            version: None,
            content: Content { readings, ..content },
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::record::Headers;

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../tests/fixtures/dexcom/", $name, ".json"))
        };
    }

    fn items(body: &str) -> Result<Vec<Item>, Reject> {
        let headers = Headers::new().with(header::VENDOR_USER, "f0c1d2e3-user");
        let body = Bytes::copy_from_slice(body.as_bytes());
        let received_at = Day::parse("2026-03-30").expect("a day").start_utc_us();
        VENDOR.document(&Raw { headers: &headers, body: &body, received_at }, EGV)
    }

    fn samples(body: &str) -> Vec<Reading> {
        let items = items(body).expect("items").into_iter();
        let records = items.filter_map(|item| match item.what {
            What::Record(record) => Some(record.content.readings),
            _ => None,
        });
        records.flatten().collect()
    }

    fn values(body: &str) -> Vec<Option<f64>> {
        samples(body).into_iter().map(|reading| reading.value).collect()
    }

    /// Traps 1 and 2.
    #[test]
    fn ok_is_good_and_beyond_the_sensor_is_no_zero() {
        assert_eq!(values(fixture!("document_day")), [Some(104.0), Some(108.0), Some(111.0)]);
        let clamped = items(fixture!("document_clamped")).expect("items");
        let ignored: Vec<&What> = clamped
            .iter()
            .map(|item| &item.what)
            .filter(|it| matches!(it, What::Ignored(_)))
            .collect();
        let why = ["above what the sensor measures", "below what the sensor measures", "no value"];
        assert_eq!(ignored, why.map(What::Ignored).iter().collect::<Vec<_>>());
        assert_eq!(values(fixture!("document_clamped")), [Some(398.0)], "no zero among them");
    }

    /// Trap 3: the same sample says another value, and is told by its id.
    #[test]
    fn a_smoothed_value_is_the_same_sample() {
        let [before, after] =
            [fixture!("document_day"), fixture!("document_day_smoothed")].map(samples);
        let ids = |all: &[Reading]| -> Vec<Option<String>> {
            all.iter().map(|reading| reading.sample_id.clone()).collect()
        };
        assert_eq!(ids(&before), ids(&after));
        assert_ne!(before, after);
        assert!(after.iter().all(|reading| reading.flags == [flag::DERIVED_ID]), "replaceable");
    }

    /// Trap 4.
    #[test]
    fn a_receiver_s_times_are_utc() {
        let both = [fixture!("document_day"), fixture!("document_receiver")].map(|body| {
            let items = items(body).expect("items");
            let What::Record(record) = &items[0].what else { panic!("{items:?}") };
            record.content.clone()
        });
        assert_eq!(both[0].start_at, both[1].start_at, "the same instant");
        assert_eq!(both[0].start_at, Some(1_774_759_272_000_000), "04:41:12 UTC");
        for content in both {
            assert_eq!((content.start_offset_s, content.end_offset_s), (Some(7_200), Some(7_200)));
        }
    }

    /// Trap 5.
    #[test]
    fn a_unit_is_converted_or_refused() {
        let items = items(fixture!("document_units")).expect("items");
        let What::Bad(reject) = &items[1].what else { panic!("{items:?}") };
        assert_eq!((reject.kind, reject.at.as_str()), (Kind::ValidationError, "records[1].unit"));
        assert_eq!(values(fixture!("document_units")), [Some(99.0858), Some(101.0)]);
    }

    /// Trap 6: nothing of it says that it is another one's. It is direct, and its maker is Dexcom.
    /// Trap 7: what comes late joins the day on which it was measured.
    #[test]
    fn what_comes_late_is_of_its_own_day() {
        let items = items(fixture!("document_two_days")).expect("items");
        let ids: Vec<_> = items
            .iter()
            .filter_map(|item| match &item.what {
                What::Record(record) => {
                    assert_eq!((record.via, record.device_type.as_str()), ("direct", "dexcom"));
                    Some(record.record_id.as_str())
                }
                _ => None,
            })
            .collect();
        assert_eq!(ids, ["2026-03-28|dexcom", "2026-03-27|dexcom"], "in the order of the body");
    }

    #[test]
    fn a_day_is_asked_for_and_nothing_else() {
        let need = |record_type, record_id| Need { record_type, record_id, vendor_user: "u" };
        let call = VENDOR.ask(&need(EGV, "2026-03-28")).expect("a call");
        assert_eq!(call.path, "/v3/users/self/egvs");
        let day = [("startDate", "2026-03-28T00:00:00"), ("endDate", "2026-03-29T00:00:00")];
        assert_eq!(call.query, day.map(|(name, value)| (name, value.to_owned())));
        let month = VENDOR.ask(&need("window.egv", "2026-03-01/2026-03-31")).expect("a call");
        assert_eq!(month.query[1], ("endDate", "2026-03-31T00:00:00".to_owned()));
        for (record_type, record_id) in [
            (EGV, "../1"),
            ("alerts", "2026-03-28"),
            (EGV, ""),
            (EGV, "2026-03-01/2026-03-31"),
            ("window.alerts", "2026-03-01/2026-03-31"),
        ] {
            assert_eq!(VENDOR.ask(&need(record_type, record_id)), None);
        }
    }

    #[test]
    fn nobody_sends_as_dexcom_and_a_day_is_of_who_was_asked_for() {
        let request = Request { headers: &Vec::new(), body: b"{}" };
        let answer = VENDOR.verify(&request, &Secrets::default(), 0);
        assert_eq!(answer, Err(Kind::SignatureInvalid));
        let reject = items(fixture!("document_another_user")).expect_err("another's");
        assert_eq!(reject.at.as_str(), "userId");
        let range = br#"{"recordType":"dataRange","userId":"f0c1d2e3-user","egvs":{}}"#;
        assert_eq!(VENDOR.user(range).as_deref(), Some("f0c1d2e3-user"));
        assert_eq!(VENDOR.user(br#"{"userId":"../1"}"#), None);
    }
}
