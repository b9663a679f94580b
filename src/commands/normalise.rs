//! `normalise`: what a vendor's payload becomes, with no infrastructure at all.
//!
//! The payload goes through the very step that the pipeline runs, as if it had come by the ingress now, or with a kind
//! by the hydrator, for a person who is derived from the vendor's. Each record that comes out is one JSON line; so is
//! each item that ends here, under `ignored`, `fetch`, `connection` or `reject`, so that nothing of a payload is passed
//! over in silence.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{FAILED, USAGE, complain, done, say};
use crate::cli;
use crate::error::{Error, Kind, Result};
use crate::model::avro::{Codec, SchemaIds};
use crate::model::contract::{Topic, header};
use crate::model::record::{Headers, OutRecord, Record};
use crate::model::state::Notes;
use crate::model::time::{Micros, Moment};
use crate::pipeline::normalise::{Normalise, Unknown};
use crate::stream::clock::now_us;
use crate::vendors::{self, Raw, Vendor};

/// The most bytes of a payload that are read; more than any vendor's cap.
const PAYLOAD_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Whose a payload is where a vendor's headers, not its body, name the person and none is given.
const SOMEBODY: &str = "somebody";

/// Prints what a payload becomes; gives the exit code: 1 where something of it is rejected.
pub fn run(arguments: &cli::Normalise, out: &mut impl Write) -> u8 {
    let Some(vendor) = vendors::find(&arguments.vendor) else {
        let known: Vec<&str> = vendors::ALL.iter().map(|vendor| vendor.name()).collect();
        complain(&format!("--vendor: one of {}", known.join(", ")));
        return USAGE;
    };
    let received_at = match arguments.received_at.as_deref().map(Moment::parse) {
        None => now_us(),
        Some(Ok(moment)) => moment.at_us,
        Some(Err(_)) => {
            complain("--received-at: a time with its offset, such as 2026-03-29T08:00:00Z");
            return USAGE;
        }
    };
    let kind = arguments.kind.as_deref();
    let Some(mut headers) = headers(vendor, received_at, &arguments.header) else {
        complain("--header: name: value");
        return USAGE;
    };
    let topic = match kind {
        None => Topic::RawWebhooks,
        Some(kind) => {
            headers.push(header::RECORD_TYPE, kind.to_owned());
            Topic::RawDocuments
        }
    };
    let made = read(&arguments.file).and_then(|body| {
        let body = Bytes::from(body);
        if !names_somebody(vendor, kind, &headers, &body, received_at) {
            headers.push(header::VENDOR_USER, SOMEBODY);
        }
        convert(topic, headers, body, received_at)
    });
    match made {
        Ok((lines, rejected)) => match say(out, &lines) {
            Ok(()) => {
                if rejected {
                    FAILED
                } else {
                    0
                }
            }
            Err(error) => done(Err(error)),
        },
        Err(error) => done(Err(error)),
    }
}

/// The headers of the raw record, as the ingress would write them.
fn headers(vendor: &dyn Vendor, received_at: Micros, given: &[String]) -> Option<Headers> {
    let mut headers = Headers::new()
        .with(header::VENDOR, vendor.name())
        .with(header::RECEIVED_AT, received_at.to_string());
    for line in given {
        let (name, value) = line.split_once(':')?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        match name.as_str() {
            "content-type" => headers.push(header::CONTENT_TYPE, value),
            "content-encoding" => headers.push(header::CONTENT_ENCODING, value),
            "x-connection-id" => headers.push(header::VENDOR_USER, value),
            kept => headers.push(format!("{}{kept}", header::REQUEST_PREFIX), value),
        }
    }
    Some(headers)
}

/// Whether it is known without us whose a payload is: by a header that is given, or by a fetched body itself, which
/// may be of nobody else then. A webhook's body goes before the header where it names somebody.
fn names_somebody(
    vendor: &dyn Vendor,
    kind: Option<&str>,
    headers: &Headers,
    body: &Bytes,
    received_at: Micros,
) -> bool {
    let named = |kind| {
        let items = vendor.document(&Raw { headers, body, received_at }, kind);
        items.is_ok_and(|items| items.iter().any(|item| item.vendor_user.is_some()))
    };
    headers.get(header::VENDOR_USER).is_some() || kind.is_some_and(named)
}

/// The payload of a file, or of standard input for `-`.
fn read(file: &Path) -> Result<Vec<u8>> {
    let failed = |error: &std::io::Error| {
        Error::new(Kind::InternalError, "read the payload", format!("{:?}", error.kind()))
    };
    let mut from: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(file).map_err(|error| failed(&error))?)
    };
    let mut body = Vec::new();
    from.by_ref().take(PAYLOAD_BYTES_MAX).read_to_end(&mut body).map_err(|error| failed(&error))?;
    Ok(body)
}

/// The lines that a payload becomes, and whether something of it is rejected.
fn convert(
    topic: Topic,
    headers: Headers,
    body: Bytes,
    received_at: Micros,
) -> Result<(String, bool)> {
    let codec = Arc::new(Codec::new(SchemaIds { normalised: 1, events: 2, terra_events: 2 })?);
    let record = Record {
        topic,
        partition: 0,
        offset: 0,
        timestamp_ms: 0,
        key: None,
        headers,
        value: Some(body),
    };
    let step = Normalise::new(Arc::clone(&codec), Unknown::Derive);
    let batch = [record];
    let (_, read) = step.read(&batch);
    let (notes, records) = step.convert(&batch, read, Vec::new(), received_at);
    let (rejects, records): (Vec<OutRecord>, Vec<OutRecord>) =
        records.into_iter().partition(|record| record.topic == Topic::DeadLetters);
    let mut lines = Vec::new();
    for record in &records {
        let value = record.value.as_deref().unwrap_or_default();
        let read = codec.decode_record(value).map_err(|_| broken())?;
        lines.push(serde_json::to_value(read).map_err(|_| broken())?);
    }
    lines.extend(noted(&notes));
    lines.extend(rejects.iter().map(rejected));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Ok((text, !rejects.is_empty()))
}

/// A record that our own codec does not read back.
fn broken() -> Error {
    Error::internal("read back what was written")
}

/// What ends here and is no record.
fn noted(notes: &Notes) -> Vec<Value> {
    let ignored = notes
        .verdicts
        .iter()
        .filter(|row| row.verdict == "ignored")
        .map(|row| json!({"ignored": {"index": row.source.index, "reason": row.reason}}));
    let fetches = notes.hydrations.iter().map(|row| {
        json!({"fetch": {"index": row.source.index, "record_type": row.key.record_type,
                         "record_id": row.key.record_id}})
    });
    let connections = notes.connections.iter().map(|row| {
        let ended = row.valid_to.is_some();
        json!({"connection": {"vendor_user": row.vendor_user, "user_id": row.user, "ended": ended}})
    });
    connections.chain(ignored).chain(fetches).collect()
}

/// A dead letter's reason, from its headers.
fn rejected(letter: &OutRecord) -> Value {
    let header = |name| letter.headers.text(name).unwrap_or_default();
    json!({"reject": {
        "error_type": header(header::ERROR_TYPE),
        "error_message": header(header::ERROR_MESSAGE),
        "indexes": header(header::INDEXES),
        "count": header(header::COUNT),
    }})
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Runs the command over a body; gives the exit code and the lines.
    fn run_on(vendor: &str, case: &str, body: &[u8], header: &[&str]) -> (u8, Vec<Value>) {
        run_as(vendor, None, case, body, header)
    }

    fn run_as(
        vendor: &str,
        kind: Option<&str>,
        case: &str,
        body: &[u8],
        header: &[&str],
    ) -> (u8, Vec<Value>) {
        let name = format!("normalise-{}-{case}.json", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, body).expect("a file");
        let arguments = cli::Normalise {
            vendor: vendor.to_owned(),
            kind: kind.map(str::to_owned),
            header: header.iter().map(|line| (*line).to_owned()).collect(),
            received_at: Some("2026-03-29T08:00:00Z".to_owned()),
            file: file.clone(),
        };
        let mut out = Vec::new();
        let code = run(&arguments, &mut out);
        std::fs::remove_file(&file).expect("the file goes");
        let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        (code, lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect())
    }

    const RECOVERY: &[u8] = br#"{"user_id":481516,"id":"0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77","type":"recovery.deleted","trace_id":"5f0c2a11-7d34-4d0a-9a53-0d8e6b1f9c20"}"#;

    #[test]
    fn a_payload_becomes_its_records() {
        let (code, lines) = run_on("whoop", "deletion", RECOVERY, &[]);
        assert_eq!(code, 0);
        assert_eq!(lines[0]["op"], "DELETE");
        assert_eq!(lines[0]["record_id"], "recovery:0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77");
        assert_eq!(lines[0]["received_at"], 1_774_771_200_000_000_i64);
        assert_eq!(lines[1]["connection"]["vendor_user"], "481516");
    }

    #[test]
    fn a_notification_names_what_is_to_be_fetched() {
        let body = String::from_utf8_lossy(RECOVERY).replace("deleted", "updated");
        let (code, lines) = run_on("whoop", "notification", body.as_bytes(), &[]);
        assert_eq!((code, lines.len()), (0, 2));
        assert_eq!(lines[1]["fetch"]["record_type"], "recovery");
    }

    #[test]
    fn a_reject_is_the_closed_one_and_the_code_is_1() {
        let (code, lines) = run_on("whoop", "reject", b"{\"user_id\": \"jane\"", &[]);
        assert_eq!((code, lines.len()), (1, 1));
        assert_eq!(lines[0]["reject"]["error_type"], "payload_malformed");
        assert!(!lines[0].to_string().contains("jane"), "no value of the payload");
    }

    #[test]
    fn a_push_is_somebodys() {
        let body = br#"{"data":{"records":[],"sleep":[],"workouts":[],"deleted":[]}}"#;
        let (code, lines) = run_on("healthkit", "empty", body, &["X-Connection-Id: me"]);
        assert_eq!(code, 0, "{lines:?}");
        assert_eq!(lines[0]["ignored"]["reason"], "empty");
    }

    #[test]
    fn a_fetched_body_is_read_as_its_kind() {
        let body = |case: &str| {
            let name = format!("tests/fixtures/{case}.json");
            std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        };
        let sleep = body("whoop/document_sleep").expect("a fixture");
        let (code, lines) = run_as("whoop", Some("sleep"), "document", &sleep, &[]);
        assert_eq!((code, lines.len()), (0, 2), "{lines:?}");
        assert_eq!(lines[0]["record_type"], "sleep");
        assert_eq!(lines[0]["source"]["topic"], "raw-documents");
        assert_eq!(lines[1]["connection"]["vendor_user"], "481516", "the body says whose it is");
        let other = run_as("whoop", Some("sleep"), "another", &sleep, &["X-Connection-Id: 7"]);
        assert_eq!((other.0, &other.1[0]["reject"]["error_type"]), (1, &"validation_error".into()));
        let night = body("oura/document_sleep").expect("a fixture");
        let (code, lines) = run_as("oura", Some("sleep"), "nobodys", &night, &[]);
        assert_eq!(code, 0, "{lines:?}");
        assert_eq!(lines[1]["connection"]["vendor_user"], SOMEBODY);
        let (code, lines) = run_as("whoop", Some("heartrate"), "kind", &sleep, &[]);
        assert_eq!((code, lines.len()), (1, 1), "{lines:?}");
        let (code, _) = run_as("terra", Some("sleep"), "without", &sleep, &[]);
        assert_eq!(code, 1, "a vendor without documents");
    }

    #[test]
    fn a_form_is_a_payload_and_polled_days_are_documents() {
        let notice = b"userid=363&appli=44&startdate=1774735200&enddate=1774764120";
        let (code, lines) = run_on("withings", "form", notice, &[]);
        assert_eq!((code, &lines[1]["fetch"]["record_type"]), (0, &"sleep".into()), "{lines:?}");
        for (vendor, kind, case, record_type) in [
            ("withings", "measurement", "document_weight", "measurement"),
            ("dexcom", "egv", "document_day", "samples.blood_glucose"),
            ("polar", "skin_temperature", "document_skin_temperature", "skin_temperature"),
        ] {
            let name = format!("tests/fixtures/{vendor}/{case}.json");
            let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            let body = std::fs::read(file).expect("a fixture");
            let (_, lines) = run_as(vendor, Some(kind), case, &body, &[]);
            assert_eq!(lines[0]["record_type"], record_type, "{lines:?}");
        }
    }

    #[test]
    fn wrong_usage_says_so() {
        assert_eq!(run_on("nobody", "vendor", b"", &[]), (USAGE, vec![]));
        assert_eq!(run_on("oura", "header", b"", &["no colon"]), (USAGE, vec![]));
        let arguments = cli::Normalise {
            vendor: "oura".into(),
            kind: None,
            header: Vec::new(),
            received_at: None,
            file: PathBuf::from("no such file"),
        };
        assert_eq!(run(&arguments, &mut Vec::new()), FAILED);
    }
}
