//! Dexcom as it is played, asked as it is asked: day by day while it grows, and in windows. What comes of it is what is true.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use biometric_bridge::model::connection::{Connection, FOR_EVER};
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::event::BiometricEvent;
use biometric_bridge::model::id::{ConnectionId, User};
use biometric_bridge::model::record::Headers;
use biometric_bridge::model::time::{Day, Micros};
use biometric_bridge::pipeline::normalise::Unknown;
use biometric_bridge::sim::driver::{Dialect as _, Driver, Setting, settings};
use biometric_bridge::sim::real::Real;
use biometric_bridge::sim::world::compare::{Found, compare};
use biometric_bridge::sim::world::fault::Shares;
use biometric_bridge::sim::world::player::{Ask, Played, Reply};
use biometric_bridge::sim::world::stage::Stage;
use biometric_bridge::sim::world::story::{Account, Plan, Story};
use biometric_bridge::sim::world::truth::Line;
use biometric_bridge::stream::relay;
use biometric_bridge::vendors::ask::{Call, Need};
use biometric_bridge::vendors::find;
use bytes::Bytes;

const HOUR: Micros = 3_600_000_000;

fn stage(faults: &str) -> Stage {
    let plan = Plan {
        seed: 3,
        people: 3,
        first: Day::parse("2026-10-20").expect("a day"),
        days: 8,
        history: 0,
        subscriptions: 0,
        vendors: vec![Played::parse("dexcom").expect("it is played")],
        shares: Shares::parse(faults).expect("shares"),
    };
    // So fast that no token ends.
    Stage::new(Story::new(plan), 1_000_000, BTreeMap::new())
}

fn answer(stage: &mut Stage, call: &Call, account: usize, at: Micros) -> Reply {
    let query: Vec<String> =
        call.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let access = stage.first_tokens()[account].0.access.clone();
    let ask = Ask {
        method: "GET".to_owned(),
        path: format!("/dexcom{}", call.path),
        query: query.join("&"),
        bearer: Some(access),
        ..Ask::default()
    };
    stage.answer(&ask, at)
}

/// The pipeline, and people who are connected to it.
struct Bridge {
    driver: Driver,
    real: Real,
}

fn connection(account: &Account) -> Connection {
    let user = User::parse(&account.user).expect("a user");
    Connection {
        id: ConnectionId::derive("dexcom", &account.vendor_user, &user),
        vendor: "dexcom".to_owned(),
        vendor_user: account.vendor_user.clone(),
        user,
        valid_from: FOR_EVER,
        valid_to: None,
        settled: true,
    }
}

impl Bridge {
    fn new(accounts: &[Account]) -> Self {
        let real = Real::new().expect("a codec");
        let setting = Setting { worker: settings(7), ..Setting::default() };
        let mut driver = Driver::new(setting);
        let settings = relay::Settings {
            batch_records_max: 7,
            wait_max: Duration::from_secs(10),
            ..relay::Settings::default()
        };
        real.add_relay_of(&mut driver, Topic::RawDocuments, Unknown::Hold, settings);
        driver.add_worker(&real, setting.worker);
        accounts.iter().for_each(|account| driver.connect(connection(account)));
        Self { driver, real }
    }

    /// Fetches a record as the hydrator does.
    fn fetch(
        &mut self,
        stage: &mut Stage,
        account: usize,
        (record_type, record_id): (&'static str, &str),
        at: Micros,
    ) {
        let connection = connection(&stage.story().accounts[account]);
        let api = find("dexcom").expect("a vendor").api().expect("an API");
        let need = Need { record_type, record_id, vendor_user: &connection.vendor_user };
        let reply = answer(stage, &api.ask(&need).expect("a call"), account, at);
        assert_eq!(reply.status, 200, "{record_type} {record_id}: {}", reply.body);
        let headers = Headers::new()
            .with(header::VENDOR, "dexcom")
            .with(header::RECEIVED_AT, at.to_string())
            .with(header::RECORD_TYPE, record_type)
            .with(header::CONNECTION, connection.id.to_string())
            .with(header::VENDOR_USER, connection.vendor_user)
            .with(header::ORIGIN, "live")
            .with(header::HTTP_STATUS, "200");
        self.driver.write(Topic::RawDocuments, 0, None, headers, Bytes::from(reply.body));
    }

    /// What was published, against the ledger.
    fn held(mut self, stage: &Stage) -> (Found, usize) {
        let ran = self.driver.run();
        assert!(ran.is_ok(), "{ran:?}\n{}", self.driver.explain());
        let report = self.driver.report(&self.real);
        assert!(report.is_clean(), "{report}");
        let records = self.driver.committed(Topic::BiometricEvents);
        let read = |value: &Bytes| self.real.event(value).expect("an event");
        let events: Vec<BiometricEvent> =
            records.iter().map(|record| read(record.value.as_ref().expect("a value"))).collect();
        let later = events.iter().filter(|event| event.revision > 1);
        let taken = later.filter(|event| !event.content.removed.is_empty()).count();
        let lines: Vec<Line> = stage.story().lines().collect();
        (compare(&lines, &events.iter().collect::<Vec<_>>(), &HashSet::new()), taken)
    }
}

fn assert_all(found: &Found, stage: &Stage) {
    let faults = [&found.missing, &found.wrong, &found.doubled, &found.explained];
    assert!(faults.iter().all(|list| list.is_empty()), "{found:#?}");
    let records = stage.story().entries.len();
    assert!(records > 20);
    assert_eq!(found.counted["records as they are"], records);
}

#[test]
fn days_that_grow_are_asked_for_again_and_become_what_is_true() {
    let mut stage = stage("rescore=40");
    let (begins, ends) = (stage.story().plan.begins(), stage.story().plan.ends());
    let accounts = stage.story().accounts.clone();
    let mut bridge = Bridge::new(&accounts);
    let poll = find("dexcom").expect("a vendor").api().expect("an API").polls()[0];
    let mut at = begins;
    while at < ends {
        at = (at + 11 * HOUR).min(ends - 1);
        let today = Day::of_utc(at);
        for account in 0..accounts.len() {
            for back in 0..=poll.late_days {
                let day = Day(today.0 - back).to_string();
                bridge.fetch(&mut stage, account, (poll.record_type, &day), at);
            }
        }
        if at == ends - 1 {
            break;
        }
    }
    assert_eq!((stage.waiting(ends), stage.excuses(ends)), (0, vec![]));
    let (found, taken) = bridge.held(&stage);
    assert_all(&found, &stage);
    assert!(taken > 3, "{taken}: smoothing takes the place of what was there");
    // Who looks every eleven hours sees the four uploads of a day, six hours apart, as two or three.
    let events = found.counted["their events"];
    assert!(events > 2 * stage.story().entries.len(), "{events}");
}

#[test]
fn a_window_has_all_of_it_and_a_day_alone_is_a_part() {
    let mut stage = stage("none");
    let ends = stage.story().plan.ends();
    let accounts = stage.story().accounts.clone();
    let (first, last) = (stage.story().plan.first, Day::of_utc(ends));
    let mut bridge = Bridge::new(&accounts);
    for account in 0..accounts.len() {
        let window = format!("{}/{last}", Day(first.0 - 1));
        bridge.fetch(&mut stage, account, ("window.egv", &window), ends);
    }
    let (found, _) = bridge.held(&stage);
    assert_all(&found, &stage);
    // What nobody asked for is missing: the comparison sees it.
    let mut bridge = Bridge::new(&accounts);
    bridge.fetch(&mut stage, 0, ("egv", &Day(last.0 - 2).to_string()), ends);
    let (found, _) = bridge.held(&stage);
    let all = stage.story().entries.len();
    assert_eq!((found.missing.len(), found.wrong.len()), (all - 1, 0), "{found:#?}");
}

#[test]
fn who_is_asked_for_is_said_and_too_much_is_refused() {
    let mut stage = stage("none");
    let ends = stage.story().plan.ends();
    let reply = answer(&mut stage, &Call::get("/v3/users/self/dataRange"), 1, ends);
    let consent = find("dexcom").expect("a vendor").consent().expect("one");
    let user = consent.user(reply.body.as_bytes());
    assert_eq!(user.as_deref(), Some(&*stage.story().accounts[1].vendor_user));
    let asked = |from: &str, to: &str| {
        let query = vec![("startDate", from.to_owned()), ("endDate", to.to_owned())];
        Call::get_with("/v3/users/self/egvs", query)
    };
    let mut status = |from, to| answer(&mut stage, &asked(from, to), 1, ends).status;
    assert_eq!(status("2026-10-01T00:00:00", "2026-10-31T00:00:00"), 200);
    assert_eq!(status("2026-10-01T00:00:00", "2026-11-01T00:00:00"), 400, "thirty days");
    assert_eq!(status("2026-10-01", "2026-10-02"), 400);
}
