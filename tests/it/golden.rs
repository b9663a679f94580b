//! Every fixture against its golden: what each vendor's file makes of a body, in full.
//!
//! A fixture is `tests/fixtures/<vendor>/<case>.json`, the exact bytes of a body. Beside it may
//! stand `<case>.headers` with lines `name: value`: a header that the vendor's file keeps is given
//! as the door would give it (`http.<name>`), any other as it is (`vendor_user`,
//! `content_encoding`); `received_at` (RFC 3339) is the receipt, 2026-03-29T07:00:00Z where it is
//! not said. With a `record_type` it is a body that was fetched: a document of that type. What comes
//! out is `<case>.golden.json`.
//!
//! `UPDATE_GOLDEN=1` writes the goldens anew: read the difference. `tests/golden/normaliser.txt`
//! holds the version of normalise and a digest of all goldens, so that no change of them goes by
//! without a look at the version.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test cannot go on without ends it"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use biometric_bridge::error::Reject;
use biometric_bridge::model::connection::Change;
use biometric_bridge::model::contract::header;
use biometric_bridge::model::event::NORMALISER;
use biometric_bridge::model::id::sha256_hex;
use biometric_bridge::model::record::Headers;
use biometric_bridge::model::time::{Micros, Moment};
use biometric_bridge::vendors::{self, Item, Raw, Vendor, VendorRecord, What};
use bytes::Bytes;
use serde_json::{Value, json};

/// A fixture: a body and what came with it.
pub(crate) struct Case {
    pub(crate) vendor: &'static dyn Vendor,
    pub(crate) name: String,
    pub(crate) body: Bytes,
    pub(crate) headers: Headers,
    pub(crate) received_at: Micros,
    golden: PathBuf,
}

impl Case {
    /// What the vendor's file makes of these bytes, received as this case was.
    pub(crate) fn parse_as(&self, body: &Bytes) -> Result<Vec<Item>, Reject> {
        let raw = Raw { headers: &self.headers, body, received_at: self.received_at };
        match self.headers.text(header::RECORD_TYPE) {
            Some(record_type) => self.vendor.document(&raw, record_type),
            None => self.vendor.parse(&raw),
        }
    }

    /// Whether it was fetched.
    pub(crate) fn is_document(&self) -> bool {
        self.headers.get(header::RECORD_TYPE).is_some()
    }

    /// What the vendor's file makes of the fixture.
    pub(crate) fn parse(&self) -> Result<Vec<Item>, Reject> {
        self.parse_as(&self.body)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The files of a directory; a vendor without one has no fixtures, which is a law's business.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = listing.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn is_golden(path: &Path) -> bool {
    path.to_str().is_some_and(|name| name.ends_with(".golden.json"))
}

/// Every fixture of a vendor, by name.
pub(crate) fn cases(vendor: &'static dyn Vendor) -> Vec<Case> {
    files(&root().join("fixtures").join(vendor.name()))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "json") && !is_golden(path))
        .map(|path| case(vendor, &path))
        .collect()
}

fn case(vendor: &'static dyn Vendor, path: &Path) -> Case {
    let mut received_at = "2026-03-29T07:00:00Z".to_owned();
    let mut headers = Headers::new();
    let beside = std::fs::read_to_string(path.with_extension("headers")).unwrap_or_default();
    for line in beside.lines() {
        let (name, value) = line.split_once(": ").expect("a line `name: value`");
        if name == header::RECEIVED_AT {
            value.clone_into(&mut received_at);
        } else if vendor.kept_headers().contains(&name) {
            headers.push(format!("{}{name}", header::REQUEST_PREFIX), value.to_owned());
        } else {
            headers.push(name.to_owned(), value.to_owned());
        }
    }
    let received_at = Moment::parse(&received_at).expect("received_at is a moment").at_us;
    let headers = headers
        .with(header::VENDOR, vendor.name())
        .with(header::RECEIVED_AT, received_at.to_string());
    Case {
        vendor,
        name: format!("{}/{}", vendor.name(), path.file_stem().unwrap().to_str().unwrap()),
        body: Bytes::from(std::fs::read(path).expect("a fixture")),
        headers,
        received_at,
        golden: path.with_extension("golden.json"),
    }
}

/// What came out of a body, as JSON.
pub(crate) fn rendered(outcome: &Result<Vec<Item>, Reject>) -> Value {
    match outcome {
        Ok(items) => Value::Array(items.iter().map(item).collect()),
        Err(why) => json!({ "reject": reject(why) }),
    }
}

fn item(item: &Item) -> Value {
    let (name, what) = match &item.what {
        What::Record(found) => ("record", record(found)),
        What::Gone(found) => ("gone", record(found)),
        What::Fetch { record_type, record_id } => {
            ("fetch", json!({ "record_type": record_type, "record_id": record_id }))
        }
        What::Connection(found) => ("connection", change(found)),
        What::Ignored(why) => ("ignored", json!(why)),
        What::Bad(why) => ("bad", reject(why)),
    };
    json!({ "index": item.index, "vendor_user": item.vendor_user, name: what })
}

fn record(record: &VendorRecord) -> Value {
    json!({
        "device_type": record.device_type,
        "via": record.via,
        "record_type": record.record_type,
        "record_id": record.record_id,
        "merge": record.merge,
        "op": record.op,
        "version": record.version,
        "content": without_nulls(serde_json::to_value(&record.content).expect("a content")),
    })
}

/// Nulls are most of a content; without them a golden can be read.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn change(change: &Change) -> Value {
    match change {
        Change::Begin { vendor_user, user } => {
            json!({ "begin": { "vendor_user": vendor_user, "user": user } })
        }
        Change::End { vendor_user } => json!({ "end": { "vendor_user": vendor_user } }),
        Change::Rename { old, new } => json!({ "rename": { "old": old, "new": new } }),
    }
}

fn reject(reject: &Reject) -> Value {
    json!({
        "kind": reject.kind.name(),
        "at": reject.at.as_str(),
        "why": reject.why,
        "position": reject.position,
    })
}

/// One reading a line: a golden is read by people.
fn printed(value: &Value) -> String {
    let mut out = String::new();
    print(value, 0, &mut out);
    out.push('\n');
    out
}

fn print(value: &Value, depth: usize, out: &mut String) {
    let short = value.to_string();
    let inner: Vec<(Option<&String>, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(key, value)| (Some(key), value)).collect(),
        Value::Array(list) => list.iter().map(|value| (None, value)).collect(),
        _ => Vec::new(),
    };
    let reading = value.get("metric").is_some();
    if inner.is_empty() || reading || short.len() + 2 * depth < 80 {
        out.push_str(&short);
        return;
    }
    let (open, close) = if value.is_array() { ('[', ']') } else { ('{', '}') };
    out.push(open);
    for (at, (key, value)) in inner.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(out, "{comma}\n{}", "  ".repeat(depth + 1)).expect("a string");
        if let Some(key) = key {
            write!(out, "{}: ", json!(key)).expect("a string");
        }
        print(value, depth + 1, out);
    }
    write!(out, "\n{}{close}", "  ".repeat(depth)).expect("a string");
}

fn updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

#[test]
fn every_fixture_makes_what_its_golden_says() {
    let mut digest = String::new();
    let mut wrong = Vec::new();
    for vendor in vendors::ALL {
        for case in cases(*vendor) {
            let found = printed(&rendered(&case.parse()));
            if updating() {
                std::fs::write(&case.golden, &found).expect("a golden is written");
            }
            let golden = std::fs::read_to_string(&case.golden).unwrap_or_default();
            if golden != found {
                let line = golden.lines().zip(found.lines()).position(|(a, b)| a != b);
                wrong.push(format!("{}, line {}", case.name, line.map_or(0, |at| at + 1)));
            }
            writeln!(digest, "{} {}", case.name, sha256_hex(found.as_bytes())).expect("a string");
        }
    }
    assert!(wrong.is_empty(), "UPDATE_GOLDEN=1 and read the difference: {wrong:#?}");
    let kept = root().join("golden/normaliser.txt");
    let now = format!("{NORMALISER} {}\n", sha256_hex(digest.as_bytes()));
    if updating() {
        std::fs::create_dir_all(root().join("golden")).expect("a directory");
        std::fs::write(&kept, &now).expect("the digest is written");
    }
    let known = std::fs::read_to_string(&kept).unwrap_or_default();
    assert_eq!(known, now, "goldens changed: does model::event::NORMALISER need a bump?");
}

#[test]
fn no_golden_and_no_headers_without_a_fixture() {
    for vendor in vendors::ALL {
        let all = files(&root().join("fixtures").join(vendor.name()));
        for path in &all {
            let name = path.to_str().expect("a name in UTF-8");
            let stem = name.strip_suffix(".golden.json").or(name.strip_suffix(".headers"));
            if let Some(stem) = stem {
                let fixture = PathBuf::from(format!("{stem}.json"));
                assert!(all.contains(&fixture), "{name} belongs to no fixture");
            } else {
                assert!(name.ends_with(".json"), "{name} is no fixture");
            }
        }
    }
}
