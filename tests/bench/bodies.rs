//! Bodies as vendors send them, signed, each with content of its own, made before anything is measured.

use bytes::Bytes;

use biometric_bridge::model::connection::{Connection, FOR_EVER};
use biometric_bridge::model::contract::header;
use biometric_bridge::model::id::{ConnectionId, PseudonymKey, sha256_hex};
use biometric_bridge::model::record::Headers;
use biometric_bridge::model::time::{Day, Micros};
use biometric_bridge::sim::traffic::{Person, Sent, Sort};
use biometric_bridge::vendors::healthkit::token;
use biometric_bridge::vendors::wire::hmac::sign_hex;

/// What signs here, and nowhere else.
pub(crate) const KEY: &str = "not-a-secret-test-key";

/// The invented person of this number.
pub(crate) fn person(number: u64) -> Person {
    Person::of(number).expect("a number names a person")
}

/// Both connections of a person, as they stand before anything is sent.
pub(crate) fn connections(person: &Person) -> [Connection; 2] {
    let id = ConnectionId::derive("terra", &person.terra_user, &person.user);
    let terra = Connection {
        id,
        vendor: "terra".to_owned(),
        vendor_user: person.terra_user.clone(),
        user: person.user.clone(),
        valid_from: FOR_EVER,
        valid_to: None,
        settled: true,
    };
    [terra, person.healthkit()]
}

/// A number that looks drawn, the same for the same two.
fn mixed(number: u64, at: u64) -> u64 {
    let mut mixed =
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A night of 2 KB by way of Terra: 18 samples, the summary of a ring, an id that no other number has.
pub(crate) fn night(person: &Person, number: u64, now_us: Micros) -> Sent {
    let day = Day(Day::of_utc(now_us).0 - i32::try_from(number % 3).unwrap_or(0));
    let eve = Day(day.0 - 1);
    let one = |at: u64, low: u64, high: u64| low + mixed(number, at) % (high - low);
    let samples: Vec<String> = (0..18_u64)
        .map(|at| {
            let (minutes, value) = (at * 5, one(at, 15, 90));
            format!(
                r#"{{"timestamp":"{eve}T{}:{:02}:00.000000+01:00","hrv_rmssd":{value}}}"#,
                22 + minutes / 60,
                minutes % 60
            )
        })
        .collect();
    let body = format!(
        concat!(
            r#"{{"type":"sleep","version":"2022-03-16","user":{{"user_id":"{user}","provider":"{provider}","#,
            r#""reference_id":"{ours}","active":true}},"data":[{{"metadata":{{"summary_id":"night-{number}","#,
            r#""start_time":"{eve}T22:00:00.000000+01:00","end_time":"{day}T06:00:00.000000+01:00","#,
            r#""is_nap":false,"upload_type":2,"timestamp_localization":1}},"heart_rate_data":{{"summary":"#,
            r#"{{"avg_hr_bpm":{avg},"min_hr_bpm":{min},"avg_hrv_rmssd":{hrv},"avg_hrv_sdnn":null}},"#,
            r#""detailed":{{"hrv_samples_rmssd":[{samples}]}}}},"sleep_durations_data":{{"#,
            r#""sleep_efficiency":{efficiency},"asleep":{{"duration_asleep_state_seconds":24870,"#,
            r#""duration_deep_sleep_state_seconds":{deep},"duration_light_sleep_state_seconds":14400,"#,
            r#""duration_REM_sleep_state_seconds":{rem}}},"awake":{{"duration_awake_state_seconds":3210,"#,
            r#""sleep_latency_seconds":510}}}},"respiration_data":{{"breaths_data":{{"#,
            r#""avg_breaths_per_min":13.75}}}},"scores":{{"sleep":{score}}}}}]}}"#
        ),
        number = number,
        eve = eve,
        day = day,
        user = person.terra_user,
        provider = person.provider,
        ours = person.user.as_str(),
        avg = one(20, 48, 70),
        min = one(21, 40, 48),
        hrv = one(22, 18, 95),
        samples = samples.join(","),
        efficiency = one(23, 70, 99),
        deep = one(24, 2_000, 6_000),
        rem = one(25, 3_000, 8_000),
        score = one(26, 50, 99),
    );
    terra(body.into_bytes(), now_us)
}

fn terra(body: Vec<u8>, now_us: Micros) -> Sent {
    let at = (now_us / 1_000_000).to_string();
    let digest = sign_hex(&[at.as_bytes(), b".", &body], KEY.as_bytes());
    let trace: String = sha256_hex(&body).chars().take(24).collect();
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("x-terra-signature", format!("t={at},v1={digest}")),
        ("x-terra-trace-id", format!("trace-{trace}")),
        ("x-terra-ordering-timestamp", (now_us / 1_000).to_string()),
    ];
    Sent { vendor: "terra", headers, body, sort: Sort::New }
}

/// What a watch records most, and in which unit.
const TYPES: [(&str, &str, u64, u64); 8] = [
    ("HeartRate", "count/min", 48, 140),
    ("HeartRate", "count/min", 48, 140),
    ("HeartRate", "count/min", 48, 140),
    ("HeartRate", "count/min", 48, 140),
    ("ActiveEnergyBurned", "kcal", 1, 9),
    ("ActiveEnergyBurned", "kcal", 1, 9),
    ("StepCount", "count", 4, 400),
    ("HeartRateVariabilitySDNN", "ms", 20, 90),
];

/// A push of the HealthKit app: so many samples of a watch, the last of them now, half a minute between them.
pub(crate) fn push(person: &Person, number: u64, samples: u64, now_us: Micros) -> Sent {
    let list: Vec<String> = (0..samples)
        .map(|at| {
            let drawn = mixed(number, at);
            let (kind, unit, low, high) = TYPES[usize::try_from(at % 8).expect("below eight")];
            let id = uuid::Uuid::from_u64_pair(mixed(number, at + (1 << 40)), drawn);
            let back = i64::try_from((samples - at) * 30_000_000).expect("days");
            let (start, end) = (utc(now_us - back), utc(now_us - back + 4_000_000));
            format!(
                concat!(
                    r#"{{"id":"{id}","type":"HKQuantityTypeIdentifier{kind}","value":{value},"unit":"{unit}","#,
                    r#""startDate":"{start}","endDate":"{end}","zoneOffset":"+01:00","source":{{"#,
                    r#""bundleIdentifier":"com.apple.health","productType":"Watch7,5"}}}}"#
                ),
                id = id.to_string().to_uppercase(),
                kind = kind,
                value = low + drawn % (high - low),
                unit = unit,
                start = start,
                end = end,
            )
        })
        .collect();
    let body = format!(
        concat!(
            r#"{{"provider":"apple","sdkVersion":"1.4.0","syncTimestamp":"{now}","#,
            r#""data":{{"records":[{list}],"sleep":[],"workouts":[],"deleted":[]}}}}"#
        ),
        now = utc(now_us),
        list = list.join(","),
    );
    let bearer = token(KEY.as_bytes(), &person.connection.to_string());
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("authorization", format!("Bearer {bearer}")),
    ];
    Sent { vendor: "healthkit", headers, body: body.into_bytes(), sort: Sort::New }
}

/// A whole second, as a phone writes it.
fn utc(at_us: Micros) -> String {
    let second = jiff::Timestamp::from_second(at_us / 1_000_000).expect("a time of our days");
    second.to_string()
}

/// A request as the door writes it to `raw-webhooks`: key, headers, value.
pub(crate) fn raw(sent: &Sent, vendor_user: &str, received_at: Micros) -> (String, Headers, Bytes) {
    let key = PseudonymKey::new(KEY.as_bytes()).vendor_user(sent.vendor, vendor_user);
    let sha256 = sha256_hex(&sent.body);
    let scheme = if sent.vendor == "terra" { "terra-v1" } else { "healthkit-token" };
    let trace: String = sha256.chars().take(32).collect();
    let mut headers = Headers::new()
        .with(header::VENDOR, sent.vendor)
        .with(header::DELIVERY_ID, trace.clone())
        .with(header::RECEIVED_AT, received_at.to_string())
        .with(header::SIGNATURE, "verified")
        .with(header::SIGNATURE_SCHEME, scheme)
        .with(header::TRACEPARENT, format!("00-{trace}-00f067aa0ba902b7-01"))
        .with(header::SHA256, sha256)
        .with(header::CONTENT_TYPE, "application/json");
    for (name, value) in &sent.headers {
        if name.starts_with("x-") {
            headers.push(format!("{}{name}", header::REQUEST_PREFIX), value.clone());
        }
    }
    if sent.vendor == "healthkit" {
        headers.push(header::VENDOR_USER, vendor_user.to_owned());
    }
    (format!("{}:{key}", sent.vendor), headers, Bytes::from(sent.body.clone()))
}
