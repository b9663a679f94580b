//! Requests as vendors send them: signed, correct in shape, seeded; and, by share, everything that goes wrong.
//!
//! `simulate traffic` sends them over HTTP, `try` hands them to the world in memory, and the live tests kill whatever
//! they like meanwhile. People and values are invented; the same seed gives the same requests but for the times.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::model::connection::{Connection, FOR_EVER};
use crate::model::id::{ConnectionId, User, sha256_hex};
use crate::model::time::{Day, Micros};
use crate::sim::generate::Dice;
use crate::vendors::healthkit::token;
use crate::vendors::wire::hmac::sign_hex;

/// What a request is for the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A vendor's connection event.
    Connection,
    /// A new record.
    New,
    /// A request that was sent before, byte for byte.
    Duplicate,
    /// A record with other content and a later version.
    Correction,
    /// A record whose later version was sent before it.
    Late,
    /// A record's deletion.
    Deletion,
    /// A signed body that does not hold to the contract.
    Malformed,
    /// A body whose signature is not over it.
    BadSignature,
}

impl Sort {
    /// The name in the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::New => "new",
            Self::Duplicate => "duplicate",
            Self::Correction => "correction",
            Self::Late => "late",
            Self::Deletion => "deletion",
            Self::Malformed => "malformed",
            Self::BadSignature => "bad_signature",
        }
    }

    /// Whether the door must refuse it.
    #[must_use]
    pub const fn is_refused(self) -> bool {
        matches!(self, Self::BadSignature)
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The vendor, as in the path.
    pub vendor: &'static str,
    /// Header names in lower case, values as they go out.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What it is.
    pub sort: Sort,
}

impl Sent {
    /// SHA-256 of the body, lower-case hex: how the ledger names it.
    #[must_use]
    pub fn sha256(&self) -> String {
        sha256_hex(&self.body)
    }
}

/// Shares of what goes wrong, percent of all requests.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Sent again, byte for byte.
    pub duplicates: u64,
    /// Corrected, the later version last.
    pub corrections: u64,
    /// Corrected, the later version first.
    pub reordered: u64,
    /// Deleted.
    pub deletions: u64,
    /// Malformed, and signed all the same.
    pub malformed: u64,
    /// Signed wrongly.
    pub bad_signatures: u64,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            duplicates: 20,
            corrections: 4,
            reordered: 2,
            deletions: 1,
            malformed: 5,
            bad_signatures: 1,
        }
    }
}

/// One invented person, connected by way of Terra and by the HealthKit app.
#[derive(Clone, Debug)]
pub struct Person {
    /// Our user.
    pub user: User,
    /// Terra's id of its user.
    pub terra_user: String,
    /// The maker behind Terra.
    pub provider: &'static str,
    /// The HealthKit connection.
    pub connection: ConnectionId,
}

/// The label of a simulated HealthKit connection.
pub const LABEL: &str = "simulated";

/// How the ids of invented users begin.
const INVENTED: &str = "sim-user-";

impl Person {
    /// Whether this user is nobody: what a terminal may show.
    #[must_use]
    pub fn is_invented(user: &User) -> bool {
        user.as_str().starts_with(INVENTED)
    }

    /// The person of this number, in every run the same.
    #[must_use]
    pub fn of(number: u64) -> Option<Self> {
        let user = User::parse(&format!("{INVENTED}{number}"))?;
        let providers = ["OURA", "WHOOP", "GARMIN", "WITHINGS"];
        let provider = providers.get(usize::try_from(number % 4).unwrap_or_default()).copied()?;
        let connection = ConnectionId::derive("healthkit", LABEL, &user);
        Some(Self { terra_user: format!("terra-sim-{number}"), provider, connection, user })
    }

    /// The HealthKit connection as `connections add` would make it; Terra's comes by `auth`.
    #[must_use]
    pub fn healthkit(&self) -> Connection {
        Connection {
            id: self.connection,
            vendor: "healthkit".to_owned(),
            vendor_user: self.connection.to_string(),
            user: self.user.clone(),
            valid_from: FOR_EVER,
            valid_to: None,
            settled: true,
        }
    }
}

/// The two secrets that sign.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Terra's signing secret.
    pub terra: Vec<u8>,
    /// The HealthKit app's secret.
    pub healthkit: Vec<u8>,
}

/// How many earlier records can come again.
const REMEMBERED: usize = 512;

/// A stream of requests of some people.
#[derive(Debug)]
pub struct Traffic {
    random: Dice,
    people: Vec<Person>,
    shares: Shares,
    keys: Keys,
    earlier: VecDeque<Sent>,
    records: VecDeque<Record>,
    /// Made and not yet sent: the late half of a reordered pair.
    late: VecDeque<Sent>,
    count: u64,
}

/// A Terra record that can be corrected or deleted.
#[derive(Clone, Debug)]
struct Record {
    person: usize,
    kind: &'static str,
    id: String,
    day: Day,
}

impl Traffic {
    /// The traffic of `people` persons under a seed.
    #[must_use]
    pub fn new(seed: u64, people: u64, shares: Shares, keys: Keys) -> Self {
        Self {
            random: Dice::new(seed),
            people: (0..people.max(1)).filter_map(Person::of).collect(),
            shares,
            keys,
            earlier: VecDeque::new(),
            records: VecDeque::new(),
            late: VecDeque::new(),
            count: 0,
        }
    }

    /// The people.
    #[must_use]
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// Terra's `auth` of each person: what makes the connections.
    #[must_use]
    pub fn auths(&self, now_us: Micros) -> Vec<Sent> {
        let auth = |person: &Person| {
            let body = json!({
                "type": "auth", "status": "success", "version": "2022-03-16",
                "user": terra_user(person),
            });
            self.terra(&body, now_us, now_us, Sort::Connection)
        };
        self.people.iter().map(auth).collect()
    }

    /// The next request, made at this moment.
    pub fn next(&mut self, now_us: Micros) -> Sent {
        self.count += 1;
        if let Some(late) = self.late.pop_front() {
            return late;
        }
        let shares = self.shares;
        let mut roll = self.below(100);
        let mut within = |share: u64| {
            let hit = roll < share;
            roll = roll.saturating_sub(share);
            if hit {
                roll = u64::MAX;
            }
            hit
        };
        if within(shares.duplicates)
            && let Some(again) = self.pick_earlier()
        {
            return again;
        }
        if within(shares.corrections)
            && let Some(record) = self.pick_record()
        {
            return self.terra_record(&record, now_us, Sort::Correction);
        }
        if within(shares.reordered)
            && let Some(record) = self.pick_record()
        {
            let late = self.terra_record(&record, now_us - 60_000_000, Sort::Late);
            self.late.push_back(late);
            return self.terra_record(&record, now_us, Sort::Correction);
        }
        if within(shares.deletions)
            && let Some(record) = self.pick_record().filter(|record| record.kind == "activity")
        {
            return self.terra_record(&record, now_us, Sort::Deletion);
        }
        if within(shares.malformed) {
            return self.malformed(now_us);
        }
        if within(shares.bad_signatures) {
            let mut sent = self.fresh(now_us);
            let signed = |name: &str| matches!(name, "x-terra-signature" | "authorization");
            for (_, value) in sent.headers.iter_mut().filter(|(name, _)| signed(name)) {
                let last = value.pop();
                value.push(if last == Some('0') { '1' } else { '0' });
            }
            return Sent { sort: Sort::BadSignature, ..sent };
        }
        let sent = self.fresh(now_us);
        if self.earlier.len() == REMEMBERED {
            self.earlier.pop_front();
        }
        self.earlier.push_back(sent.clone());
        sent
    }

    fn pick_earlier(&mut self) -> Option<Sent> {
        let at = self.index(self.earlier.len())?;
        self.earlier.get(at).map(|sent| Sent { sort: Sort::Duplicate, ..sent.clone() })
    }

    fn pick_record(&mut self) -> Option<Record> {
        let at = self.index(self.records.len())?;
        self.records.get(at).cloned()
    }

    /// A number below this one.
    fn below(&mut self, bound: u64) -> u64 {
        self.random.roll() % bound.max(1)
    }

    fn index(&mut self, length: usize) -> Option<usize> {
        (length > 0).then(|| self.random.below(length))
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = u64::try_from(high - low).unwrap_or(1).max(1);
        low + i64::try_from(self.below(width)).unwrap_or(0)
    }

    /// A new record: three of four by way of Terra, the fourth a HealthKit push.
    fn fresh(&mut self, now_us: Micros) -> Sent {
        let person = self.index(self.people.len()).unwrap_or(0);
        if self.below(4) == 0 {
            return self.healthkit(person, now_us, Sort::New);
        }
        let kinds = ["sleep", "daily", "activity"];
        let kind = self.index(3).and_then(|at| kinds.get(at).copied()).unwrap_or("sleep");
        let back = i32::try_from(self.between(0, 2)).unwrap_or(0);
        let day = Day(Day::of_utc(now_us).0 - back);
        let id = format!("{kind}-{person}-{}-{}", self.count, self.random.roll());
        let record = Record { person, kind, id, day };
        if self.records.len() == REMEMBERED {
            self.records.pop_front();
        }
        self.records.push_back(record.clone());
        self.terra_record(&record, now_us, Sort::New)
    }

    fn malformed(&mut self, now_us: Micros) -> Sent {
        let person = self.people.first().map_or_else(|| json!({}), terra_user);
        let bad = self.random.roll();
        let bodies = [
            format!("{{\"type\":\"sleep\",\"user\":{person},\"data\":[{{\"n\":{bad}"),
            format!("{{\"type\":\"sleep\",\"user\":{person},\"data\":{bad}}}"),
            format!("{{\"type\":\"daily\",\"type\":\"sleep\",\"user\":{person},\"data\":[{bad}]}}"),
            json!({"type": "sleep", "user": person,
                "data": [{"metadata": {"start_time": bad, "end_time": "never"}}]})
            .to_string(),
        ];
        let at = self.index(bodies.len()).unwrap_or(0);
        let body = bodies.into_iter().nth(at).unwrap_or_default().into_bytes();
        self.terra_bytes(body, now_us, now_us, Sort::Malformed)
    }

    fn terra_record(&mut self, record: &Record, version_us: Micros, sort: Sort) -> Sent {
        let item = match record.kind {
            "sleep" => self.sleep(record),
            "daily" => self.daily(record),
            _ => self.activity(record, sort),
        };
        let user = self.people.get(record.person).map_or_else(|| json!({}), terra_user);
        let body = json!({
            "type": record.kind, "version": "2022-03-16", "user": user, "data": [item],
        });
        self.terra(&body, version_us, version_us, sort)
    }

    fn sleep(&mut self, record: &Record) -> Value {
        let start_us = record.day.start_utc_us() - 2 * HOUR_US;
        let samples: Vec<Value> = (0..18_i64)
            .map(|at| {
                let hrv = self.between(15, 90);
                json!({"timestamp": local(start_us + at * 300_000_000), "hrv_rmssd": hrv})
            })
            .collect();
        json!({
            "metadata": {
                "summary_id": record.id, "start_time": local(start_us),
                "end_time": local(start_us + 8 * HOUR_US), "is_nap": false, "upload_type": 2,
                "timestamp_localization": 1,
            },
            "heart_rate_data": {
                "summary": {
                    "avg_hr_bpm": self.between(48, 70), "min_hr_bpm": self.between(40, 48),
                    "avg_hrv_rmssd": self.between(18, 95), "avg_hrv_sdnn": null,
                },
                "detailed": {"hrv_samples_rmssd": samples},
            },
            "sleep_durations_data": {
                "sleep_efficiency": self.between(70, 99),
                "asleep": {
                    "duration_asleep_state_seconds": 24_870,
                    "duration_deep_sleep_state_seconds": self.between(2_000, 6_000),
                    "duration_light_sleep_state_seconds": 14_400,
                    "duration_REM_sleep_state_seconds": self.between(3_000, 8_000),
                },
                "awake": {"duration_awake_state_seconds": 3_210, "sleep_latency_seconds": 510},
            },
            "respiration_data": {"breaths_data": {"avg_breaths_per_min": 13.75}},
            "scores": {"sleep": self.between(50, 99)},
        })
    }

    fn daily(&mut self, record: &Record) -> Value {
        let day = record.day;
        json!({
            "metadata": {
                "start_time": format!("{day}T00:00:00.000000+01:00"),
                "end_time": format!("{}T00:00:00.000000+01:00", day.next()), "upload_type": 1,
            },
            "distance_data": {"steps": self.between(500, 20_000), "distance_meters": 5_200.5},
            "calories_data": {
                "net_activity_calories": self.between(100, 900), "BMR_calories": 1_650.0,
                "total_burned_calories": self.between(1_800, 3_000),
            },
            "heart_rate_data": {"summary": {"resting_hr_bpm": self.between(45, 75)}},
        })
    }

    fn activity(&mut self, record: &Record, sort: Sort) -> Value {
        let start_us = record.day.start_utc_us() + 8 * HOUR_US;
        let upload_type = if sort == Sort::Deletion { 4 } else { 1 };
        json!({
            "metadata": {
                "summary_id": record.id, "start_time": local(start_us),
                "end_time": local(start_us + HOUR_US), "type": 8, "upload_type": upload_type,
            },
            "calories_data": {"total_burned_calories": self.between(100, 900)},
            "heart_rate_data": {"summary": {"avg_hr_bpm": self.between(90, 160)}},
        })
    }

    fn terra(&self, body: &Value, version_us: Micros, now_us: Micros, sort: Sort) -> Sent {
        self.terra_bytes(body.to_string().into_bytes(), version_us, now_us, sort)
    }

    fn terra_bytes(&self, body: Vec<u8>, version: Micros, now: Micros, sort: Sort) -> Sent {
        let at = (now / 1_000_000).to_string();
        let digest = sign_hex(&[at.as_bytes(), b".", &body], &self.keys.terra);
        let trace = format!("trace-{}", sha256_hex(&body).chars().take(24).collect::<String>());
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("x-terra-signature", format!("t={at},v1={digest}")),
            ("x-terra-trace-id", trace),
            ("x-terra-ordering-timestamp", (version / 1_000).to_string()),
        ];
        Sent { vendor: "terra", headers, body, sort }
    }

    fn healthkit(&mut self, person: usize, now_us: Micros, sort: Sort) -> Sent {
        let samples: Vec<Value> = (0..20_i64)
            .map(|at| {
                let start_us = now_us - HOUR_US + at * 60_000_000;
                let (high, low) = (self.random.roll(), self.random.roll());
                let id = uuid::Uuid::from_u64_pair(high, low);
                json!({
                    "id": id.to_string().to_uppercase(),
                    "type": "HKQuantityTypeIdentifierHeartRate",
                    "value": self.between(50, 120), "unit": "count/min",
                    "startDate": utc(start_us), "endDate": utc(start_us + 5_000_000),
                    "zoneOffset": "+01:00",
                    "source": {"bundleIdentifier": "com.apple.health", "productType": "Watch7,5"},
                })
            })
            .collect();
        let (sleep, deleted) = (self.night(now_us), self.gone(person));
        let body = json!({
            "provider": "apple", "sdkVersion": "1.4.0", "syncTimestamp": utc(now_us),
            "data": {"records": samples, "sleep": sleep, "workouts": [], "deleted": deleted},
        });
        let connection = self.people.get(person).map(|person| person.connection.to_string());
        let token = token(&self.keys.healthkit, &connection.unwrap_or_default());
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("authorization", format!("Bearer {token}")),
        ];
        Sent { vendor: "healthkit", headers, body: body.to_string().into_bytes(), sort }
    }
}

const HOUR_US: Micros = 3_600_000_000;

/// A night's stages by their names in HealthKit, an hour each.
const STAGES: [&str; 6] = ["inBed", "asleepCore", "asleepDeep", "asleepREM", "awake", "asleepCore"];

/// What a phone pushes beside heart rates.
impl Traffic {
    /// The stages of the last hours. Phones have whole hours in common, so that a later push goes on with the night
    /// of an earlier one; the last stage has no id, and is replaced by whoever has that hour later.
    fn night(&mut self, now_us: Micros) -> Vec<Value> {
        let hour = now_us.div_euclid(HOUR_US) * HOUR_US;
        (0..)
            .zip(STAGES)
            .map(|(at, stage)| {
                let start_us = hour - (7 - at) * HOUR_US;
                let (high, low) = (self.random.roll(), self.random.roll());
                let id = uuid::Uuid::from_u64_pair(high, low).to_string();
                json!({
                    "id": (at < 5).then_some(id), "stage": stage,
                    "startDate": utc(start_us), "endDate": utc(start_us + HOUR_US),
                    "zoneOffset": "+01:00",
                    "source": {"bundleIdentifier": "com.apple.health", "productType": "Watch7,5"},
                })
            })
            .collect()
    }

    /// Now and then a sample that was pushed before, and one that never was: its deletion came first.
    fn gone(&mut self, person: usize) -> Vec<Value> {
        if self.below(4) > 0 {
            return Vec::new();
        }
        let pushed = self.earlier.iter().rev().filter(|sent| sent.vendor == "healthkit");
        let connection = self.people.get(person).map(|person| person.connection.to_string());
        let token = token(&self.keys.healthkit, &connection.unwrap_or_default());
        let bearer = format!("Bearer {token}");
        let own = |sent: &&Sent| sent.headers.iter().any(|(_, value)| *value == bearer);
        let body = pushed.filter(own).find_map(|sent| {
            let body: Value = serde_json::from_slice(&sent.body).ok()?;
            body.pointer("/data/sleep/2/id").cloned()
        });
        let never = uuid::Uuid::from_u64_pair(self.random.roll(), self.random.roll()).to_string();
        let sleep = "HKCategoryTypeIdentifierSleepAnalysis";
        let known = body.map(|id| json!({"id": id, "type": sleep}));
        let unknown = json!({"id": never, "type": "HKQuantityTypeIdentifierHeartRate"});
        known.into_iter().chain([unknown]).collect()
    }
}

fn terra_user(person: &Person) -> Value {
    json!({
        "user_id": person.terra_user, "provider": person.provider,
        "reference_id": person.user.as_str(), "active": true,
    })
}

/// An instant in UTC, as text.
fn utc(at_us: Micros) -> String {
    jiff::Timestamp::from_microsecond(at_us).map(|at| at.to_string()).unwrap_or_default()
}

/// An instant as a clock one hour east of UTC shows it.
fn local(at_us: Micros) -> String {
    let shown = utc(at_us + HOUR_US);
    format!("{}+01:00", shown.trim_end_matches('Z'))
}
