//! What every [`Register`] promises: normalise's notes can be written twice, in any order, by two at once.
//!
//! A world implements [`Registers`] and says `register_laws!(make)`, as for the store.

use biometric_bridge::model::connection::{Change, Connection, Connections, FOR_EVER, Gap, Lookup};
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::id::{ConnectionId, Source, User};
use biometric_bridge::model::state::{
    Held, Hydration, HydrationEnd, HydrationKey, Notes, RawVerdict, VendorUser, Whose,
};
use biometric_bridge::stream::Register;

/// Notes that many can be connected to, and what stands in them.
pub(crate) trait Registers {
    /// What they are connected by.
    type Register: Register;
    /// Another one, as another process would have it.
    async fn open(&self) -> Self::Register;
    /// Records whose fetch waits, in order.
    async fn waiting(&self) -> Vec<HydrationKey>;
    /// Verdicts in order of source: source, verdict, reason.
    async fn verdicts(&self) -> Vec<(Source, String, String)>;
}

/// A test for each law, over worlds that this makes.
macro_rules! register_laws {
    ($make:path) => {
        register_laws!($make,
            connections_come_back_as_they_were_written,
            who_began_beside_another_is_not_settled_for_a_while,
            notes_twice_are_notes_once,
            an_end_is_never_forgotten,
            ten_requests_are_one_fetch,
            a_deletion_ends_what_was_asked_before_it,
            held_items_wait_for_any_connection,
            held_items_end_once_they_are_put_through,
            a_verdict_is_the_last_word,
        );
    };
    ($make:path, $($law:ident,)*) => {
        $(
            #[tokio::test]
            async fn $law() {
                let world = $make().await;
                laws::$law(&world).await;
            }
        )*
    };
}

fn user(name: &str) -> User {
    User::parse(name).expect("a user")
}

fn source(offset: i64, index: i32) -> Source {
    Source { topic: Topic::RawWebhooks, partition: 1, offset, index }
}

fn key(vendor_user: &str) -> VendorUser {
    ("terra".into(), vendor_user.into())
}

fn connection(vendor_user: &str, name: &str, from: i64, to: Option<i64>) -> Connection {
    Connection {
        id: ConnectionId::derive("terra", vendor_user, &user(name)),
        vendor: "terra".into(),
        vendor_user: vendor_user.into(),
        user: user(name),
        valid_from: from,
        valid_to: to,
        settled: true,
    }
}

fn began(rows: impl IntoIterator<Item = Connection>) -> Notes {
    Notes { connections: rows.into_iter().collect(), ..Notes::default() }
}

fn held(offset: i64, index: i32, vendor_user: &str) -> Held {
    Held {
        source: source(offset, index),
        vendor: "terra".into(),
        vendor_user: vendor_user.into(),
        received_at: 1_000 - offset,
    }
}

fn record(id: &str) -> HydrationKey {
    HydrationKey {
        vendor: "oura".into(),
        connection: ConnectionId::derive("oura", "v", &user("a")),
        record_type: "sleep".into(),
        record_id: id.into(),
    }
}

fn asked(id: &str, at: i64, offset: i64) -> Notes {
    let one = Hydration { key: record(id), source: source(offset, 0), asked_at: at };
    Notes { hydrations: vec![one], ..Notes::default() }
}

fn ended(id: &str, at: i64, offset: i64) -> Notes {
    let one = HydrationEnd { key: record(id), source: source(offset, 0), asked_at: at };
    Notes { ended: vec![one], ..Notes::default() }
}

async fn note(register: &mut impl Register, notes: &Notes) {
    register.note(notes).await.expect("notes");
}

pub(crate) async fn connections_come_back_as_they_were_written(world: &impl Registers) {
    let mut register = world.open().await;
    let rows = [
        connection("v", "a", FOR_EVER, Some(20)),
        connection("v", "b", 30, None),
        connection("w", "c", FOR_EVER, None),
    ];
    note(&mut register, &began(rows.clone())).await;
    let mut read = register.connections(&[key("v"), key("x")].into()).await.expect("rows");
    read.sort_by_key(|row| row.valid_from);
    assert_eq!(read, rows[..2]);
    let people = [("terra".to_owned(), user("c"))].into();
    let of_person = register.connections(&Whose { people, ..Whose::default() }).await;
    assert_eq!(of_person, Ok(rows[2..].to_vec()));
    let both = [("terra".to_owned(), user("b"))].into();
    let both = Whose { people: both, ..[key("v")].into() };
    assert_eq!(register.connections(&both).await.expect("rows").len(), 2, "each row once");
    let of_another =
        register.connections(&[("whoop".into(), "v".into())].into()).await.expect("rows");
    assert_eq!(of_another, []);
    assert_eq!(register.connections(&Whose::default()).await, Ok(Vec::new()));
}

pub(crate) async fn who_began_beside_another_is_not_settled_for_a_while(world: &impl Registers) {
    let mut register = world.open().await;
    let known = connection("v", "a", FOR_EVER, None);
    let rows = [known.clone(), connection("w", "a", FOR_EVER, None), connection("x", "b", 5, None)];
    // Who began: an hour before any clock's time, and when it is long over.
    let gap =
        |row: &Connection, to| Gap { vendor: "terra".into(), connection: row.id, from: None, to };
    let gaps = vec![gap(&rows[0], 0), gap(&rows[1], i64::MAX / 2), gap(&rows[2], i64::MAX / 2)];
    let notes = Notes { gaps, held: vec![held(1, 0, "w")], ..began(rows) };
    note(&mut register, &notes).await;
    let mut settled = async |name| {
        let rows = register.connections(&[key(name)].into()).await.expect("rows");
        let waiting = register.connected(9).await.expect("held items").is_empty();
        (rows.iter().map(|row| row.settled).collect::<Vec<_>>(), waiting)
    };
    assert_eq!(settled("v").await, (vec![true], true), "it is known for long");
    assert_eq!(settled("w").await, (vec![false], true));
    assert_eq!(settled("x").await, (vec![true], true), "the only one of its person");
    let mut other = world.open().await;
    note(&mut other, &began([Connection { valid_to: Some(7), ..known }])).await;
    assert_eq!(settled("w").await, (vec![true], false), "there is none beside it any more");
}

pub(crate) async fn notes_twice_are_notes_once(world: &impl Registers) {
    let (mut register, mut other) = (world.open().await, world.open().await);
    let notes = Notes {
        connections: vec![connection("v", "a", FOR_EVER, None)],
        held: vec![held(1, 0, "x"), held(1, 1, "x")],
        verdicts: vec![RawVerdict {
            source: source(2, 0),
            verdict: "ignored",
            reason: "unknown_type",
        }],
        ..asked("r", 10, 1)
    };
    note(&mut register, &notes).await;
    note(&mut other, &notes).await;
    note(&mut register, &Notes::default()).await;
    assert_eq!(register.connections(&[key("v")].into()).await.expect("rows").len(), 1);
    assert_eq!(world.waiting().await, [record("r")]);
    assert_eq!(world.verdicts().await.len(), 1);
    note(&mut register, &began([connection("x", "a", FOR_EVER, None)])).await;
    assert_eq!(register.connected(10).await.expect("held").len(), 2);
}

pub(crate) async fn an_end_is_never_forgotten(world: &impl Registers) {
    let mut register = world.open().await;
    note(&mut register, &began([connection("v", "a", FOR_EVER, Some(20))])).await;
    // One who had read the row before its end was written.
    note(&mut register, &began([connection("v", "a", FOR_EVER, None)])).await;
    let rows = register.connections(&[key("v")].into()).await.expect("rows");
    assert_eq!(rows, [connection("v", "a", FOR_EVER, Some(20))]);
    // Two ends: the earlier one counts, whichever comes first.
    note(&mut register, &began([connection("v", "a", FOR_EVER, Some(30))])).await;
    note(&mut register, &began([connection("v", "a", FOR_EVER, Some(15))])).await;
    let rows = register.connections(&[key("v")].into()).await.expect("rows");
    assert_eq!(rows, [connection("v", "a", FOR_EVER, Some(15))]);
    // What follows is the next owner's alone.
    let mut all = Connections::new(rows);
    all.apply("terra", &Change::Begin { vendor_user: "v".into(), user: user("b") }, 40);
    note(&mut register, &began(all.changes().cloned())).await;
    let all = Connections::new(register.connections(&[key("v")].into()).await.expect("rows"));
    assert!(matches!(all.at("terra", "v", 10), Lookup::Connected(row) if row.user == user("a")));
    assert_eq!(all.at("terra", "v", 35), Lookup::Disconnected);
    assert!(matches!(all.at("terra", "v", 45), Lookup::Connected(row) if row.user == user("b")));
}

pub(crate) async fn ten_requests_are_one_fetch(world: &impl Registers) {
    let mut register = world.open().await;
    let mut ten = Notes::default();
    for n in 0..10 {
        ten.hydrations.append(&mut asked("r", n, n).hydrations);
    }
    ten.hydrations.append(&mut asked("s", 3, 3).hydrations);
    note(&mut register, &ten).await;
    note(&mut register, &asked("r", 4, 4)).await;
    assert_eq!(world.waiting().await, [record("r"), record("s")]);
}

pub(crate) async fn a_deletion_ends_what_was_asked_before_it(world: &impl Registers) {
    let mut register = world.open().await;
    note(&mut register, &asked("r", 10, 1)).await;
    note(&mut register, &ended("r", 20, 2)).await;
    assert_eq!(world.waiting().await, [], "ended");
    note(&mut register, &asked("r", 10, 1)).await;
    assert_eq!(world.waiting().await, [], "the same request, read again");
    note(&mut register, &asked("r", 30, 3)).await;
    assert_eq!(world.waiting().await, [record("r")], "asked for after the deletion");
    note(&mut register, &ended("r", 20, 2)).await;
    assert_eq!(world.waiting().await, [record("r")], "the same deletion, read again");
    // Whichever is read first, and in one batch as in two.
    note(&mut register, &ended("s", 20, 2)).await;
    note(&mut register, &asked("s", 10, 1)).await;
    note(&mut register, &Notes { ended: ended("t", 20, 2).ended, ..asked("t", 10, 1) }).await;
    note(&mut register, &Notes { ended: ended("u", 20, 2).ended, ..asked("u", 30, 3) }).await;
    // Of one time, the source decides.
    note(&mut register, &Notes { ended: ended("v", 20, 2).ended, ..asked("v", 20, 1) }).await;
    assert_eq!(world.waiting().await, [record("r"), record("u")]);
}

pub(crate) async fn held_items_wait_for_any_connection(world: &impl Registers) {
    let mut register = world.open().await;
    let items = [held(1, 0, "v"), held(2, 0, "v"), held(3, 0, "w"), held(4, 0, "v")];
    note(&mut register, &Notes { held: items.to_vec(), ..Notes::default() }).await;
    assert_eq!(register.connected(10).await, Ok(Vec::new()));
    // One that has ended already will do: normalise says what becomes of them.
    note(&mut register, &began([connection("v", "a", 5, Some(6))])).await;
    let found = register.connected(10).await.expect("held");
    assert_eq!(found, [items[3].clone(), items[1].clone(), items[0].clone()], "oldest first");
    assert_eq!(register.connected(2).await.expect("held"), found[..2]);
}

pub(crate) async fn held_items_end_once_they_are_put_through(world: &impl Registers) {
    let mut register = world.open().await;
    let items = vec![held(1, 0, "v"), held(1, 1, "v"), held(2, 0, "v")];
    let notes = Notes {
        connections: vec![connection("v", "a", FOR_EVER, None)],
        held: items.clone(),
        ..Notes::default()
    };
    note(&mut register, &notes).await;
    register.put_through(&items[..2]).await.expect("ended");
    register.put_through(&items[..2]).await.expect("twice is once");
    register.put_through(&[]).await.expect("none");
    assert_eq!(register.connected(10).await, Ok(vec![items[2].clone()]));
}

pub(crate) async fn a_verdict_is_the_last_word(world: &impl Registers) {
    let mut register = world.open().await;
    let verdict = |offset, index, verdict, reason| RawVerdict {
        source: source(offset, index),
        verdict,
        reason,
    };
    let first = vec![
        verdict(2, 0, "ignored", "unknown_type"),
        verdict(1, 7, "dead_lettered", "validation_error"),
        verdict(1, 0, "ignored", "empty"),
    ];
    note(&mut register, &Notes { verdicts: first, ..Notes::default() }).await;
    // A repaired normaliser says otherwise.
    let again = vec![verdict(2, 0, "dead_lettered", "payload_malformed")];
    note(&mut register, &Notes { verdicts: again, ..Notes::default() }).await;
    let expected = [
        (source(1, 0), "ignored".to_owned(), "empty".to_owned()),
        (source(1, 7), "dead_lettered".to_owned(), "validation_error".to_owned()),
        (source(2, 0), "dead_lettered".to_owned(), "payload_malformed".to_owned()),
    ];
    assert_eq!(world.verdicts().await, expected);
}
