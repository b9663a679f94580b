//! What every vendor must keep, whoever wrote its file: the laws run over `vendors::ALL` and every
//! fixture.

#![expect(clippy::panic, reason = "what a test cannot go on without ends it")]

use std::collections::BTreeSet;

use biometric_bridge::error::{Kind, Reject};
use biometric_bridge::model::event::{Merge, Op};
use biometric_bridge::model::metric;
use biometric_bridge::vendors::ask::{Need, Per};
use biometric_bridge::vendors::wire::hmac::Key;
use biometric_bridge::vendors::{
    self, Item, KeyUser, Request, Secrets, VendorRecord, Verified, What, history,
};
use bytes::Bytes;
use serde_json::Value;

use crate::golden::{Case, cases, rendered};

/// Stands in the fixtures' names and notes, and must stand nowhere else.
const CANARY: &str = "canary";

fn all() -> impl Iterator<Item = Case> {
    vendors::ALL.iter().flat_map(|vendor| cases(*vendor))
}

fn records(items: &[Item]) -> impl Iterator<Item = &VendorRecord> {
    items.iter().filter_map(|item| match &item.what {
        What::Record(record) | What::Gone(record) => Some(record.as_ref()),
        _ => None,
    })
}

fn rejects(outcome: &Result<Vec<Item>, Reject>) -> Vec<&Reject> {
    match outcome {
        Err(reject) => vec![reject],
        Ok(items) => items
            .iter()
            .filter_map(|item| match &item.what {
                What::Bad(reject) => Some(reject),
                _ => None,
            })
            .collect(),
    }
}

/// A reject says what is wrong, where, and nothing of what stood there.
fn assert_says_nothing(name: &str, outcome: &Result<Vec<Item>, Reject>) {
    for reject in rejects(outcome) {
        let said = format!("{reject} {} {}", reject.at, reject.why);
        assert!(!said.to_lowercase().contains(CANARY), "{name}: {said}");
        assert!(
            matches!(reject.kind, Kind::PayloadMalformed | Kind::ValidationError),
            "{name}: a body is malformed or invalid, not {}",
            reject.kind
        );
    }
}

#[test]
fn names_are_unique_and_can_stand_in_paths() {
    let names: BTreeSet<_> = vendors::ALL.iter().map(|vendor| vendor.name()).collect();
    assert_eq!(names.len(), vendors::ALL.len());
    for name in names {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        assert!(vendors::find(name).is_some());
    }
}

#[test]
fn every_vendor_has_its_fixtures() {
    for vendor in vendors::ALL {
        let (documents, cases): (Vec<Case>, Vec<Case>) =
            cases(*vendor).into_iter().partition(Case::is_document);
        assert!(cases.len() >= 6, "{} has {} fixtures", vendor.name(), cases.len());
        assert!(cases.iter().any(|case| case.parse().is_err()), "{}: none bad", vendor.name());
        if vendor.api().is_some() {
            assert!(documents.len() >= 6, "{} has {} documents", vendor.name(), documents.len());
            let bad = documents.iter().any(|case| !rejects(&case.parse()).is_empty());
            assert!(bad, "{}: no document is bad", vendor.name());
        }
    }
}

#[test]
fn a_vendor_asks_within_its_quotas_and_gives_up_some_time() {
    for vendor in vendors::ALL {
        let Some(api) = vendor.api() else { continue };
        let name = vendor.name();
        assert!(api.base().starts_with("https://") && !api.base().ends_with('/'), "{name}");
        assert!(!api.quotas().is_empty(), "{name}: no vendor answers without end");
        for quota in api.quotas() {
            assert!(quota.window_s > 0 && quota.calls > 0, "{name}");
        }
        let tries = (1..).take_while(|attempt| api.again_s(*attempt).is_some()).count();
        assert!((1..100).contains(&tries), "{name} asks {tries} times");
    }
}

/// What is asked for without a notification is asked for by calls, within a share of what the app has.
#[test]
fn history_is_calls_within_a_share_and_pages_are_read() {
    for vendor in vendors::ALL {
        let Some(api) = vendor.api().filter(|api| !api.history().is_empty()) else { continue };
        let name = vendor.name();
        let of = |per| api.quotas().iter().filter(move |quota| quota.per == per);
        for app in of(Per::App) {
            let share = of(Per::History).find(|share| share.window_s == app.window_s);
            let share = share.unwrap_or_else(|| panic!("{name}: a share of {app:?}"));
            assert!(share.calls * 2 <= app.calls, "{name}: what is new has half and more");
        }
        for one in api.history() {
            let (record_type, record_id) = (one.windows, "2026-03-01/2026-03-21");
            assert!(history::of(record_type).is_some(), "{name}: {record_type}");
            assert!(one.days > 0, "{name}: {record_type}");
            let need = Need { record_type, record_id, vendor_user: "v-1" };
            assert!(api.ask(&need).is_some(), "{name}: {record_type}");
            assert_eq!(api.ask(&Need { record_id: "2026-03-01", ..need }), None, "{name}");
        }
        for poll in api.polls() {
            let need =
                Need { record_type: poll.record_type, record_id: "2026-03-01", vendor_user: "v" };
            assert!(api.ask(&need).is_some() && poll.late_days <= poll.back_days, "{name}");
        }
    }
}

/// What a vendor's notifications ask for, its API has: its document is fetched by one call, and read.
#[test]
fn what_is_asked_for_is_a_call_and_a_document() {
    for case in all() {
        for item in case.parse().unwrap_or_default() {
            let What::Fetch { record_type, record_id } = &item.what else { continue };
            let Some(api) = case.vendor.api() else { continue };
            let vendor_user = item.vendor_user.as_deref().unwrap_or_default();
            let call = api.ask(&Need { record_type, record_id, vendor_user });
            let call = call.unwrap_or_else(|| panic!("{}: no call for {record_type}", case.name));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~%".contains(&byte);
            assert!(call.path.starts_with('/') && call.path.bytes().all(plain), "{}", call.path);
            assert!(!call.path.contains(".."), "{}", call.path);
        }
    }
}

/// The most calls that one record may be.
const CALLS_MAX: usize = 64;

/// Whatever its API answers, a record's calls come to an end.
#[test]
fn no_record_is_calls_without_end() {
    let asked: BTreeSet<(&str, String, String)> = all()
        .flat_map(|case| {
            let items = case.parse().unwrap_or_default();
            items.into_iter().map(move |item| (case.vendor.name(), item))
        })
        .filter_map(|(vendor, item)| match item.what {
            What::Fetch { record_type, record_id } => {
                Some((vendor, record_type.to_owned(), record_id))
            }
            What::Record(record) => Some((vendor, record.record_type, record.record_id)),
            _ => None,
        })
        .collect();
    for case in all().filter(Case::is_document) {
        let api = case.vendor.api().expect("documents are fetched");
        for (_, record_type, record_id) in asked.iter().filter(|it| it.0 == case.vendor.name()) {
            let need = Need { record_type, record_id, vendor_user: "481516" };
            let mut answers = vec![case.body.clone()];
            while let Some(call) = api.then(&need, &answers) {
                assert!(answers.len() < CALLS_MAX, "{}: {record_type}: {call:?}", case.name);
                answers.push(case.body.clone());
            }
        }
    }
}

#[test]
fn a_body_cut_anywhere_is_read_or_refused() {
    for case in all() {
        for length in 0..case.body.len() {
            let outcome = case.parse_as(&case.body.slice(..length));
            assert_says_nothing(&case.name, &outcome);
        }
    }
}

/// Every value of the document in turn, replaced by each of these.
fn mutated(body: &[u8], replace: &mut dyn FnMut(Bytes)) {
    let Ok(document) = serde_json::from_slice::<Value>(body) else { return };
    let mut pointers = Vec::new();
    walk(&document, String::new(), &mut pointers);
    let values = [
        Value::from("canary in a value"),
        Value::from(-1),
        Value::from(1e300),
        Value::from(true),
        Value::Null,
        serde_json::json!([1]),
        serde_json::json!({ "canary": "canary" }),
    ];
    for pointer in pointers {
        for value in &values {
            let mut changed = document.clone();
            if let Some(place) = changed.pointer_mut(&pointer) {
                *place = value.clone();
            }
            replace(Bytes::from(changed.to_string()));
        }
    }
}

fn walk(value: &Value, at: String, pointers: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                walk(value, format!("{at}/{key}"), pointers);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                walk(value, format!("{at}/{index}"), pointers);
            }
        }
        _ => {}
    }
    pointers.push(at);
}

#[test]
fn any_value_may_be_anything() {
    for case in all() {
        mutated(&case.body, &mut |body| {
            let outcome = case.parse_as(&body);
            assert_says_nothing(&case.name, &outcome);
            for record in records(outcome.as_deref().unwrap_or_default()) {
                assert_speaks_the_language(&case.name, record);
            }
        });
    }
}

fn assert_speaks_the_language(name: &str, record: &VendorRecord) {
    let plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    assert!(plain(&record.device_type), "{name}: device type {}", record.device_type);
    assert!(record.record_type.split('.').all(plain), "{name}: {}", record.record_type);
    assert!(!record.record_id.is_empty(), "{name}: no id");
    let content = &record.content;
    assert!(["tentative", "final"].contains(&content.state.as_str()), "{name}: {}", content.state);
    let provenances = ["vendor", "device", "user_fallback", "inferred", "unknown"];
    assert!(provenances.contains(&content.offset_provenance.as_str()), "{name}: provenance");
    assert_eq!(content.local_date.is_some(), content.day_rule.is_some(), "{name}: a day, a rule");
    if let (Some(start), Some(end)) = (content.start_at, content.end_at) {
        assert!(start <= end, "{name}: an end before its start");
    }
    assert_eq!(record.merge == Merge::Removal, !content.removed.is_empty(), "{name}: removal");
    if record.op == Op::Delete {
        assert!(content.readings.is_empty(), "{name}: a tombstone measures nothing");
    }
    for reading in &content.readings {
        let found = metric::find(&reading.metric);
        let metric = found.unwrap_or_else(|| panic!("{name}: no metric {}", reading.metric));
        assert_eq!(reading.unit.as_deref(), metric.unit, "{name}: {}", reading.metric);
        let one = reading.value.is_some() != reading.symbol.is_some();
        assert!(one, "{name}: {} has a value or a symbol", reading.metric);
        assert!(reading.value.is_none_or(f64::is_finite), "{name}: {}", reading.metric);
        let known = reading.symbol.as_deref().is_none_or(|symbol| metric.symbols.contains(&symbol));
        assert!(known, "{name}: a symbol of {}", reading.metric);
        assert!(reading.end_at.is_none_or(|end| end >= reading.start_at), "{name}: backwards");
        let union = record.merge == Merge::Union;
        assert_eq!(reading.sample_id.is_some(), union, "{name}: sample ids are of unions");
    }
}

#[test]
fn every_record_speaks_the_language() {
    for case in all() {
        let items = case.parse().unwrap_or_default();
        for record in records(&items) {
            assert_speaks_the_language(&case.name, record);
        }
        assert!(items.iter().all(|item| item.index >= 0), "{}: an index", case.name);
        let order: Vec<_> = items.iter().map(|item| item.index).collect();
        assert!(order.is_sorted(), "{}: items come in the body's order", case.name);
    }
}

#[test]
fn a_body_reads_the_same_every_time() {
    for case in all() {
        assert_eq!(case.parse(), case.parse(), "{}", case.name);
    }
}

#[test]
fn the_key_is_the_user_of_the_items() {
    for case in all().filter(|case| !case.is_document()) {
        let verified = Verified {
            scheme: "test",
            vendor_user: case.headers.text("vendor_user").map(str::to_owned),
        };
        let key = case.vendor.key_user(&verified, &case.body);
        let Ok(items) = case.parse() else { continue };
        let users: BTreeSet<_> = items.iter().filter_map(|item| item.vendor_user.clone()).collect();
        if users.len() == 1 {
            assert_eq!(key, KeyUser::One(users.into_iter().next().unwrap()), "{}", case.name);
        } else {
            assert_eq!(key, KeyUser::None, "{}", case.name);
        }
    }
}

#[test]
fn what_a_person_wrote_stays_in_the_raw_topic() {
    for case in all() {
        let said = rendered(&case.parse()).to_string().to_lowercase();
        assert!(!said.contains(CANARY), "{}: free text came through", case.name);
    }
    let with = all().filter(|case| String::from_utf8_lossy(&case.body).contains(CANARY));
    let vendors: BTreeSet<_> = with.map(|case| case.vendor.name()).collect();
    assert!(!vendors.is_empty(), "no fixture has a canary, so this law holds of nothing");
}

#[test]
fn a_request_without_a_signature_is_refused() {
    let keys = [b"not-a-secret-test-key".as_slice(), b""].map(Key::new);
    let secrets = Secrets { signing: &keys, ..Secrets::default() };
    for case in all() {
        let request = Request { headers: &Vec::new(), body: &case.body };
        let answer = case.vendor.verify(&request, &secrets, case.received_at);
        assert_eq!(answer, Err(Kind::SignatureInvalid), "{}", case.name);
    }
}
