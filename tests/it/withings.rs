//! Withings as it is played against Withings as it is read: what is announced is fetched by the calls that our file
//! describes, and says what the ledger says.

#![expect(clippy::panic, clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::collections::BTreeMap;

use biometric_bridge::model::contract::header;
use biometric_bridge::model::record::Headers;
use biometric_bridge::model::time::{Day, Micros};
use biometric_bridge::sim::world::fault::Shares;
use biometric_bridge::sim::world::player::{Ask, Played};
use biometric_bridge::sim::world::stage::Stage;
use biometric_bridge::sim::world::story::{Plan, Story};
use biometric_bridge::sim::world::truth::Truth;
use biometric_bridge::vendors::ask::{Answer, Call, Need};
use biometric_bridge::vendors::{self, Raw, VendorRecord, What};
use bytes::Bytes;

/// So fast that a token lives longer than the world.
const SPEED: u32 = 1_000_000;

fn stage() -> Stage {
    let withings = Played::parse("withings").unwrap();
    let plan = Plan {
        seed: 7,
        people: 6,
        first: Day::parse("2026-10-12").unwrap(),
        days: 20,
        history: 0,
        subscriptions: 0,
        vendors: vec![withings],
        shares: Shares::parse("rescore=40").unwrap(),
    };
    Stage::new(Story::new(plan), SPEED, BTreeMap::new())
}

/// What the vendor answers to a call, encoded as our client does.
fn answer(stage: &mut Stage, call: &Call, access: &str, at: Micros) -> Bytes {
    let form = call.form.as_ref().unwrap_or_else(|| panic!("{call:?} is no form"));
    let form: Vec<String> = form.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let ask = Ask {
        method: "POST".to_owned(),
        path: format!("/withings{}", call.path),
        form: form.join("&"),
        bearer: Some(access.to_owned()),
        ..Ask::default()
    };
    let reply = stage.answer(&ask, at);
    assert_eq!(reply.status, 200, "{call:?}");
    Bytes::from(reply.body)
}

fn raw<'a>(headers: &'a Headers, body: &'a Bytes, received_at: Micros) -> Raw<'a> {
    Raw { headers, body, received_at }
}

/// All records that a notification leads to, each call judged.
fn told(
    stage: &mut Stage,
    body: &str,
    (access, user): (&str, &str),
    at: Micros,
) -> Vec<VendorRecord> {
    let vendor = vendors::find("withings").unwrap();
    let api = vendor.api().unwrap();
    let headers = Headers::new().with(header::VENDOR_USER, user.to_owned());
    let notice = Bytes::copy_from_slice(body.as_bytes());
    let mut records = Vec::new();
    for item in vendor.parse(&raw(&headers, &notice, at)).unwrap() {
        let What::Fetch { record_type, record_id } = item.what else { panic!("{item:?}") };
        assert_eq!(item.vendor_user.as_deref(), Some(user));
        let need = Need { record_type, record_id: &record_id, vendor_user: user };
        let mut answers = Vec::new();
        let mut next = api.ask(&need);
        while let Some(call) = next {
            let one = answer(stage, &call, access, at);
            assert_eq!(api.judge(&need, &one), Answer::Document, "{call:?}");
            answers.push(one);
            next = api.then(&need, &answers);
        }
        if api.together(&need, &answers) == Answer::Nothing {
            assert_eq!(record_type, "workout", "of no other kind nobody said that there is one");
            continue;
        }
        assert_eq!(api.together(&need, &answers), Answer::Document, "{body}");
        let joined = vendors::ask::joined(&answers);
        for item in vendor.document(&raw(&headers, &joined, at), record_type).unwrap() {
            match item.what {
                What::Record(record) => records.push(*record),
                other => panic!("{other:?}"),
            }
        }
    }
    records
}

/// Whether a record is this version: its times, its day, its values and its samples, none more and none less.
fn is_so(record: &VendorRecord, truth: &Truth) -> bool {
    let content = &record.content;
    let times = (content.start_at, content.end_at, content.start_offset_s, content.end_offset_s);
    let day = content.day().map(|day| day.to_string());
    let own = |metric: &str| truth.series.iter().any(|series| series.metric == metric);
    let mut values: Vec<(String, f64)> = Vec::new();
    let (mut samples, mut stages) = (0, 0);
    for reading in &content.readings {
        match reading.value {
            Some(_) if own(&reading.metric) => samples += 1,
            Some(value) => values.push((reading.metric.clone(), value)),
            None => stages += 1,
        }
    }
    let mut expected: Vec<(String, f64)> =
        truth.values.iter().map(|value| (value.metric.clone(), value.value)).collect();
    let sorted = |list: &mut Vec<(String, f64)>| {
        list.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    };
    sorted(&mut values);
    sorted(&mut expected);
    let sampled: usize = truth.series.iter().map(|one| one.values.iter().flatten().count()).sum();
    times == (truth.start, truth.end, truth.start_offset_s, truth.end_offset_s)
        && day == truth.day
        && values == expected
        && samples == sampled
        && stages == truth.intervals.len()
}

#[test]
fn what_is_announced_is_fetched_and_says_what_is_true() {
    let mut stage = stage();
    let tokens = stage.first_tokens();
    let (mut seen, mut kinds) = (0, BTreeMap::<String, usize>::new());
    for notice in stage.story().notices.clone() {
        let account = stage.story().accounts[notice.account].clone();
        let access = tokens[notice.account].0.access.clone();
        let whose = (access.as_str(), account.vendor_user.as_str());
        for record in told(&mut stage, &notice.body, whose, notice.at) {
            let entry = stage.story().entries.iter().find(|entry| {
                let first = &entry.versions[0].truth;
                (&first.vendor_user, &first.record_type, &first.record_id)
                    == (&account.vendor_user, &record.record_type, &record.record_id)
            });
            let entry = entry.unwrap_or_else(|| panic!("{record:?} is of nothing"));
            let now = entry.versions.iter().rfind(|version| version.truth.at <= notice.at).unwrap();
            assert!(is_so(&record, &now.truth), "{record:#?}\n{:#?}", now.truth);
            assert_eq!(record.version, Some(now.truth.at), "a version is when it was changed");
            *kinds.entry(record.record_type.clone()).or_default() += 1;
            seen += 1;
        }
    }
    assert!(seen > 500, "{kinds:?}");
    let known: Vec<&str> = kinds.keys().map(String::as_str).collect();
    assert_eq!(known, ["daily", "measurement", "sleep", "sleep_samples", "workout"]);
    let ends = stage.story().plan.ends();
    assert_eq!(stage.waiting(ends), 0, "{kinds:?}");
}
