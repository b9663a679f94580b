//! The hydrator's ports in memory, and an API to ask.

#![expect(clippy::panic, reason = "a test that panics fails, which is what it is for")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use biometric_bridge::error::{Error, Kind, Result};
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::Origin;
use biometric_bridge::model::id::{ConnectionId, Source};
use biometric_bridge::model::record::OutRecord;
use biometric_bridge::model::state::{Coordinates, HydrationKey};
use biometric_bridge::model::time::Micros;
use biometric_bridge::stream::Sender;
use biometric_bridge::stream::hydration::{
    Bucket, Claimed, Depth, Fate, HISTORY, Pair, Queue, Room, Stored, Taken, Vault, Work,
};
use biometric_bridge::vendors::Named;
use biometric_bridge::vendors::ask::{Answer, Api, Call, Need, Per, Quota};
use biometric_bridge::vendors::history::{Collection, collection};
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

/// The connection of all rows and tokens here.
pub(crate) const ONE: ConnectionId = ConnectionId(Uuid::from_u128(1));

/// Whom nobody asks for so long: one connection, or the whole vendor.
type Held = (Option<ConnectionId>, Duration);

/// An API whose record ids are paths of the server that is played.
pub(crate) struct Played {
    pub(crate) quotas: &'static [Quota],
}

impl Api for Played {
    fn base(&self) -> &'static str {
        "https://api.example.com"
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
        let path = format!("/{}", need.record_id);
        let posted = need.record_id.starts_with("posted");
        let form = vec![("action", "get & go".to_owned()), ("what", need.record_id.to_owned())];
        let call = if posted { Call::post(path, form) } else { Call::get(path) };
        ["sleep", "window.sleep"].contains(&need.record_type).then_some(call)
    }

    /// Nothing is an answer to who asked for what may be none.
    fn answer_to(&self, need: &Need<'_>, status: u16, headers: &dyn Named) -> Answer {
        match self.answer(status, headers) {
            Answer::Document if status == 204 && need.record_id == "none/at-all" => Answer::Nothing,
            Answer::Document if status == 204 => Answer::NotYet,
            other => other,
        }
    }

    /// What is posted is answered with 200 whatever happens.
    fn judge(&self, need: &Need<'_>, body: &[u8]) -> Answer {
        match std::str::from_utf8(body).expect("text") {
            _ if !need.record_id.starts_with("posted") => Answer::Document,
            r#"{"status":401}"# => Answer::Unauthorised,
            r#"{"status":601}"# => Answer::Limited(None),
            _ => Answer::Document,
        }
    }

    /// A chain has three calls, each of which goes on from the answer before. A window of a year has no end of pages.
    fn then(&self, need: &Need<'_>, answers: &[Bytes]) -> Option<Call> {
        if need.record_id.starts_with("2020-01-01/2021") {
            return self.ask(need);
        }
        let goes_on = need.record_id.starts_with("chain") && answers.len() < 3;
        let path = format!("/{}/{}", need.record_id, answers.len() + 1);
        (goes_on && answers.last()? == "{\"a\":1}").then(|| Call::get(path))
    }

    /// What is posted may be there in part.
    fn together(&self, _need: &Need<'_>, answers: &[Bytes]) -> Answer {
        match answers {
            [one] if one == r#"{"status":"partly"}"# => Answer::Partly,
            _ => Answer::Document,
        }
    }

    /// Of what is gone it must be said what we have.
    fn held(&self, need: &Need<'_>) -> Option<(&'static str, Micros, Micros)> {
        need.record_id.starts_with("gone").then_some(("sleep", 0, 1))
    }

    fn limits(&self, headers: &dyn Named) -> Per {
        if headers.first_two("x-whose")[0].is_some() { Per::User } else { Per::App }
    }

    fn again_s(&self, attempt: u32) -> Option<u32> {
        (attempt < 3).then_some(30)
    }

    fn quotas(&self) -> &'static [Quota] {
        self.quotas
    }

    fn history(&self) -> &'static [Collection] {
        const ALL: &[Collection] = &[collection("window.sleep", 30)];
        ALL
    }
}

/// A row of the queue in memory.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) claimed: Claimed,
    pub(crate) leased: bool,
    pub(crate) fate: Option<Fate>,
}

/// A queue whose rows are each claimed once, unless they end untried or for later at once.
#[derive(Clone, Default)]
pub(crate) struct Rows {
    pub(crate) rows: Arc<Mutex<Vec<Row>>>,
    /// How many permits there are still; absent for as many as are asked for.
    pub(crate) permits: Arc<Mutex<Option<usize>>>,
    pub(crate) held: Arc<Mutex<Vec<Held>>>,
    /// What was told.
    pub(crate) told: Arc<Mutex<Vec<Bytes>>>,
    /// How many permits history's share has still; absent for as many as are asked for.
    pub(crate) share: Arc<Mutex<Option<usize>>>,
    /// The one connection that all calls share, as a small pool has it.
    wire: Arc<tokio::sync::Mutex<()>>,
}

impl Rows {
    /// A call takes the connection, and a moment.
    async fn call(&self) -> tokio::sync::MutexGuard<'_, ()> {
        let wire = self.wire.lock().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        wire
    }

    pub(crate) fn with(vendor: &str, records: &[&str]) -> Self {
        let rows = Self::default();
        for record in records {
            rows.add(vendor, record);
        }
        rows
    }

    /// A window of history that is to be fetched.
    pub(crate) fn add_window(&self, vendor: &str, window: &str) {
        self.add(vendor, window);
        let mut rows = self.rows.lock().unwrap();
        let claimed = &mut rows.last_mut().expect("a row").claimed;
        claimed.origin = Origin::Backfill;
        "window.sleep".clone_into(&mut claimed.key.record_type);
    }

    /// The ids of all rows.
    pub(crate) fn ids(&self) -> Vec<String> {
        let rows = self.rows.lock().unwrap();
        rows.iter().map(|row| row.claimed.key.record_id.clone()).collect()
    }

    pub(crate) fn add(&self, vendor: &str, record: &str) {
        let mut rows = self.rows.lock().unwrap();
        let offset = i64::try_from(rows.len()).expect("few");
        let key = HydrationKey {
            vendor: vendor.to_owned(),
            connection: ONE,
            record_type: "sleep".to_owned(),
            record_id: record.to_owned(),
        };
        let source = Source { topic: Topic::RawWebhooks, partition: 3, offset, index: 0 };
        let claimed = Claimed {
            key,
            source,
            asked_at: 1,
            origin: Origin::Live,
            attempts: 0,
            failures: 0,
            reason: None,
            vendor_user: Some("v-1".to_owned()),
            lease: 1,
        };
        rows.push(Row { claimed, leased: false, fate: None });
    }

    pub(crate) fn fate(&self, record: &str) -> Option<Fate> {
        let rows = self.rows.lock().unwrap();
        let row = rows.iter().find(|row| row.claimed.key.record_id == record).expect("a row");
        row.fate
    }

    /// It is time for a record that waits.
    pub(crate) fn again(&self, record: &str) {
        let mut rows = self.rows.lock().unwrap();
        let row = rows.iter_mut().find(|row| row.claimed.key.record_id == record).expect("a row");
        let Some(Fate::Later { attempts, failures, reason, .. }) = row.fate.take() else {
            panic!("{record} does not wait")
        };
        (row.claimed.attempts, row.claimed.failures) = (attempts, failures);
        row.claimed.reason = Some(reason.to_owned());
    }

    /// Waits until a record has a fate.
    pub(crate) async fn until(&self, record: &str) -> Fate {
        for _ in 0..1_000 {
            if let Some(fate) = self.fate(record) {
                return fate;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{record} has no fate")
    }
}

impl Queue for Rows {
    async fn claim(
        &self,
        vendor: &str,
        work: Work,
        at_most: usize,
        _lease: Duration,
    ) -> Result<Vec<Claimed>> {
        let _wire = self.call().await;
        let mut rows = self.rows.lock().unwrap();
        let is = |claimed: &Claimed| {
            let history = claimed.origin == Origin::Backfill;
            claimed.key.vendor == vendor && history == (work == Work::History)
        };
        let due =
            rows.iter_mut().filter(|row| is(&row.claimed) && !row.leased && row.fate.is_none());
        Ok(due
            .take(at_most)
            .map(|row| {
                row.leased = true;
                row.claimed.clone()
            })
            .collect())
    }

    async fn end(&self, claimed: &Claimed, fate: Fate) -> Result<bool> {
        let _wire = self.call().await;
        let mut rows = self.rows.lock().unwrap();
        let row = rows.iter_mut().find(|row| row.claimed.key == claimed.key).expect("a row");
        row.leased = false;
        row.fate = (fate != Fate::Untried).then_some(fate);
        Ok(true)
    }

    async fn divide(&self, claimed: &Claimed, parts: &[String; 2]) -> Result<()> {
        let _wire = self.call().await;
        let id = &claimed.key.record_id;
        self.rows.lock().unwrap().retain(|row| row.claimed.key.record_id != *id);
        for part in parts {
            self.add_window(&claimed.key.vendor, part);
        }
        Ok(())
    }

    async fn take(
        &self,
        _vendor: &str,
        _connection: ConnectionId,
        buckets: &[Bucket],
    ) -> Result<Taken> {
        let _wire = self.call().await;
        if buckets.iter().any(|bucket| bucket.subject == Some(HISTORY))
            && let Some(left) = self.share.lock().unwrap().as_mut()
        {
            if *left == 0 {
                let history = Duration::from_secs(30);
                return Ok(Taken::Wait { app: Duration::ZERO, user: Duration::ZERO, history });
            }
            *left -= 1;
        }
        let mut permits = self.permits.lock().unwrap();
        match permits.as_mut() {
            Some(0) => {
                let app = Duration::from_millis(50);
                Ok(Taken::Wait { app, user: Duration::ZERO, history: Duration::ZERO })
            }
            Some(left) => {
                *left -= 1;
                Ok(Taken::Granted { ago: Duration::ZERO })
            }
            None => Ok(Taken::Granted { ago: Duration::ZERO }),
        }
    }

    async fn hold(
        &self,
        _vendor: &str,
        connection: Option<ConnectionId>,
        time: Duration,
    ) -> Result<()> {
        self.held.lock().unwrap().push((connection, time));
        Ok(())
    }

    async fn told(
        &self,
        _connection: ConnectionId,
        _measured: (Micros, Micros),
        at_most: usize,
    ) -> Result<Vec<Bytes>> {
        let _wire = self.call().await;
        Ok(self.told.lock().unwrap().iter().take(at_most).cloned().collect())
    }

    async fn depths(&self) -> Result<Vec<Depth>> {
        Ok(Vec::new())
    }
}

/// Room for history, or none.
#[derive(Clone, Default)]
pub(crate) struct Door(pub(crate) Arc<AtomicBool>);

impl Room for Door {
    fn is_there(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A log that keeps what it is sent, with what the queue said of the record at that moment.
#[derive(Clone, Default)]
pub(crate) struct Log {
    pub(crate) sent: Arc<Mutex<Vec<OutRecord>>>,
    pub(crate) away: Arc<Mutex<bool>>,
}

impl Log {
    pub(crate) fn of(&self, topic: Topic) -> Vec<OutRecord> {
        let sent = self.sent.lock().unwrap();
        sent.iter().filter(|record| record.topic == topic).cloned().collect()
    }
}

impl Sender for Log {
    async fn send(&self, record: OutRecord) -> Result<Coordinates> {
        if *self.away.lock().unwrap() {
            return Err(Error::new(Kind::BrokerUnavailable, "send a record", "test"));
        }
        let topic = record.topic;
        self.sent.lock().unwrap().push(record);
        Ok(Coordinates { topic, partition: 0, offset: 0 })
    }
}

/// A row of the vault in memory.
#[derive(Clone)]
struct Kept {
    access: String,
    refresh: Option<String>,
    version: i64,
    reauth_required: bool,
    limited: bool,
    renewing: bool,
    life: Option<(Duration, Duration)>,
}

/// A vault in memory. Its clones are what replicas share.
#[derive(Clone, Default)]
pub(crate) struct Safe {
    kept: Arc<Mutex<BTreeMap<Uuid, Kept>>>,
    /// Whether storing fails, as if we died before it.
    pub(crate) stores_nothing: Arc<Mutex<bool>>,
}

impl Safe {
    /// One that holds a pair of connection [`ONE`], so old, and living so long still.
    pub(crate) fn with(access: &str, refresh: Option<&str>, life: Option<(u64, u64)>) -> Self {
        let safe = Self::default();
        let (access, refresh) = (access.to_owned(), refresh.map(str::to_owned));
        let life = life.map(|(old, left)| (Duration::from_secs(old), Duration::from_secs(left)));
        let kept = Kept {
            access,
            refresh,
            version: 1,
            reauth_required: false,
            limited: false,
            renewing: false,
            life,
        };
        safe.kept.lock().unwrap().insert(ONE.0, kept);
        safe
    }

    /// The access token that stands there, and whether only consent mends it.
    pub(crate) fn seen(&self) -> (String, bool) {
        let kept = self.kept.lock().unwrap();
        (kept[&ONE.0].access.clone(), kept[&ONE.0].reauth_required)
    }

    /// Whether it is noted that consent does not cover all.
    pub(crate) fn is_limited(&self) -> bool {
        self.kept.lock().unwrap()[&ONE.0].limited
    }

    /// The access token is at its end.
    pub(crate) fn expire(&self) {
        let life = Some((Duration::from_secs(3_600), Duration::ZERO));
        self.kept.lock().unwrap().values_mut().for_each(|kept| kept.life = life);
    }

    /// The lease of a renewal ends, as it does some time after a worker died.
    pub(crate) fn end_leases(&self) {
        self.kept.lock().unwrap().values_mut().for_each(|kept| kept.renewing = false);
    }
}

impl Vault for Safe {
    async fn read(&self, connection: ConnectionId) -> Result<Option<Stored>> {
        let kept = self.kept.lock().unwrap();
        Ok(kept.get(&connection.0).map(|kept| Stored {
            pair: Pair {
                access: kept.access.clone().into(),
                refresh: kept.refresh.clone().map(SecretString::from),
            },
            version: kept.version,
            life: kept.life,
            reauth_required: kept.reauth_required,
        }))
    }

    async fn store(
        &self,
        _vendor: &str,
        connection: ConnectionId,
        instead_of: i64,
        pair: &Pair,
        lives: Option<Duration>,
    ) -> Result<bool> {
        if *self.stores_nothing.lock().unwrap() {
            return Err(Error::new(Kind::DatabaseError, "store tokens", "test"));
        }
        let mut kept = self.kept.lock().unwrap();
        let row = kept.get_mut(&connection.0).filter(|row| row.version == instead_of);
        let Some(row) = row else { return Ok(false) };
        row.access = pair.access.expose_secret().to_owned();
        row.refresh = pair.refresh.as_ref().map(|refresh| refresh.expose_secret().to_owned());
        (row.version, row.renewing) = (row.version + 1, false);
        row.life = lives.map(|lives| (Duration::ZERO, lives));
        Ok(true)
    }

    async fn begin_renewal(
        &self,
        connection: ConnectionId,
        version: i64,
        _at_most: Duration,
    ) -> Result<bool> {
        let mut kept = self.kept.lock().unwrap();
        let row = kept.get_mut(&connection.0);
        let row = row.filter(|row| row.version == version && !row.renewing);
        Ok(row.is_some_and(|row| {
            row.renewing = true;
            true
        }))
    }

    async fn end_renewal(
        &self,
        connection: ConnectionId,
        version: i64,
        reauth_required: bool,
    ) -> Result<()> {
        let mut kept = self.kept.lock().unwrap();
        if let Some(row) = kept.get_mut(&connection.0).filter(|row| row.version == version) {
            row.renewing = false;
            row.reauth_required |= reauth_required;
        }
        Ok(())
    }

    async fn limited(&self, connection: ConnectionId) -> Result<()> {
        if let Some(row) = self.kept.lock().unwrap().get_mut(&connection.0) {
            row.limited = true;
        }
        Ok(())
    }
}
