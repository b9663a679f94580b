//! Connecting by consent: what Postgres keeps of it, and the whole program against a vendor that is played.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::Duration;

use biometric_bridge::hydrator::tokens::MENDED;
use biometric_bridge::model::id::{ConnectionId, User};
use biometric_bridge::postgres::consent::{PostgresConsents, Standing};
use biometric_bridge::postgres::queue::PostgresQueue;
use biometric_bridge::postgres::vault::{Keys, PostgresVault};
use biometric_bridge::stream::connecting::{Begun, Consents as _};
use biometric_bridge::stream::hydration::{Pair as Tokens, Queue as _, Vault as _, Work};
use secrecy::ExposeSecret as _;

use crate::database::Database;
use crate::pair::Pair;
use crate::played::{SECRET, Server};
use crate::process::{free_port, page, set_or, text, until};

const TOKEN_KEY: &str = "not-a-secret-test-key, thirty-two bytes";
const CONNECT_KEY: &str = "not-a-secret-test-key, another of them";
const LIVES: Duration = Duration::from_secs(60);

fn user(name: &str) -> User {
    User::parse(name).expect("a user")
}

fn vault(world: &Database) -> PostgresVault {
    let keys = Keys::new(&TOKEN_KEY.into(), None).expect("keys");
    PostgresVault::new(&world.settings(), keys).expect("a vault")
}

fn consents(world: &Database) -> PostgresConsents {
    PostgresConsents::new(&world.settings(), vault(world), &MENDED)
}

async fn end(consents: &PostgresConsents, begun: &Begun) -> Option<String> {
    let (state, browser) = (begun.state.expose_secret(), begun.browser.expose_secret());
    let returned = consents.end("whoop", state, browser).await.expect("an answer");
    returned.map(|returned| returned.verifier.expose_secret().to_owned())
}

async fn count(world: &Database, sql: &str) -> i64 {
    world.client().await.query_one(sql, &[]).await.expect("a row").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_answer_with_one_state_one_does() {
    let world = Database::migrated().await;
    let begun = consents(&world).begin("whoop", &user("u-1"), LIVES).await.expect("begun");
    let mut answers = Vec::new();
    for _ in 0..12 {
        let (replica, begun) = (consents(&world), begun.clone());
        answers.push(tokio::spawn(async move { end(&replica, &begun).await }));
    }
    let mut taken = Vec::new();
    for answer in answers {
        taken.extend(answer.await.expect("no panic"));
    }
    assert_eq!(taken, [begun.verifier.expose_secret()]);
    assert_eq!(count(&world, "SELECT count(*) FROM consents").await, 0);
}

#[tokio::test]
async fn a_state_counts_in_time_in_its_browser_and_for_its_vendor() {
    let world = Database::migrated().await;
    let consents = consents(&world);
    let begun = consents.begin("whoop", &user("u-1"), LIVES).await.expect("begun");
    let other = consents.begin("whoop", &user("u-2"), LIVES).await.expect("begun");
    assert_ne!(begun.state.expose_secret(), other.state.expose_secret());
    let (state, browser) = (begun.state.expose_secret(), begun.browser.expose_secret());
    let stranger = other.browser.expose_secret();
    for (vendor, state, browser) in
        [("oura", state, browser), ("whoop", state, stranger), ("whoop", "", browser)]
    {
        assert!(consents.end(vendor, state, browser).await.expect("an answer").is_none());
    }
    let rows = world.client().await;
    let rows = rows.query("SELECT c::text || encode(sealed, 'escape') FROM consents c", &[]).await;
    for row in rows.expect("rows") {
        let row: String = row.get(0);
        for secret in [&begun.state, &begun.browser, &begun.verifier] {
            assert!(!row.contains(secret.expose_secret()), "{row}");
        }
    }
    world.sql("UPDATE consents SET expires_at = expires_at - 60000000 WHERE user_id = 'u-1'").await;
    assert_eq!(end(&consents, &begun).await, None, "it has ended");
    assert!(end(&consents, &other).await.is_some(), "and the other has not");
    for _ in 0..20 {
        consents.begin("whoop", &user("u-1"), LIVES).await.expect("begun");
    }
    assert_eq!(count(&world, "SELECT count(*) FROM consents").await, 8, "no link fills a table");
}

#[tokio::test]
async fn who_connects_again_is_the_same_and_asks_for_the_gap() {
    let world = Database::migrated().await;
    let (consents, vault) = (consents(&world), vault(&world));
    let (one, two) = (user("u-1"), user("u-2"));
    let pair = Tokens { access: "canary-access-0".into(), refresh: None };
    let first = consents.find("whoop", "481516", &one).await.expect("an answer");
    assert_eq!(first.connection, ConnectionId::derive("whoop", "481516", &one));
    assert_eq!(first.fed_until, None);
    vault.store("whoop", first.connection, 0, &pair, None).await.expect("stored");
    assert_eq!(consents.connect("whoop", "481516", &one, first).await, Ok(0));
    let again = consents.find("whoop", "481516", &one).await.expect("an answer");
    assert_eq!(again.connection, first.connection);
    assert!(again.fed_until.is_some(), "from when its tokens were had last");
    // The account is somebody else's next: what was ends, with its tokens.
    let next = consents.find("whoop", "481516", &two).await.expect("an answer");
    assert_eq!((next.connection == first.connection, next.fed_until), (false, None));
    vault.store("whoop", next.connection, 0, &pair, None).await.expect("stored");
    assert_eq!(consents.connect("whoop", "481516", &two, next).await, Ok(1));
    assert!(vault.read(first.connection).await.expect("an answer").is_none());
    assert!(vault.read(next.connection).await.expect("an answer").is_some());
    // And comes back.
    let back = consents.find("whoop", "481516", &one).await.expect("an answer");
    assert_eq!(back.connection, first.connection);
    assert_eq!(consents.connect("whoop", "481516", &one, back).await, Ok(1));
    let sql = "SELECT count(*) FROM gaps AS g JOIN connections AS c ON c.id = g.connection
               WHERE g.from_at = c.valid_to AND c.user_id = 'u-1'";
    assert_eq!(count(&world, sql).await, 1, "from the end of what it had");
    // Another account of the same person is a connection beside it.
    let beside = consents.find("whoop", "23", &one).await.expect("an answer");
    assert_eq!(consents.connect("whoop", "23", &one, beside).await, Ok(0));
    let sql =
        "SELECT count(DISTINCT id) FROM connections WHERE user_id = 'u-1' AND valid_to IS NULL";
    assert_eq!(count(&world, sql).await, 2);
}

#[tokio::test]
async fn nothing_is_fetched_for_a_paused_connection() {
    let world = Database::migrated().await;
    let one = ConnectionId::derive("whoop", "481516", &user("u-1"));
    let (standing, queue) = (
        Standing::new(&world.settings()).expect("a pool"),
        PostgresQueue::new(&world.settings()).expect("a queue"),
    );
    world
        .sql(&format!(
            "INSERT INTO hydrations (vendor, connection, record_type, record_id, source_topic,
             source_partition, source_offset, source_index, asked_at, state)
             VALUES ('whoop', '{one}', 'sleep', 'a', 1, 0, 0, 0, 1, 'waiting')"
        ))
        .await;
    for _ in 0..2 {
        standing.pause(one).await.expect("paused");
    }
    assert!(queue.claim("whoop", Work::News, 10, LIVES).await.expect("an answer").is_empty());
    standing.resume(one).await.expect("resumed");
    assert_eq!(queue.claim("whoop", Work::News, 10, LIVES).await.expect("an answer").len(), 1);
}

#[tokio::test]
async fn a_turn_is_one_s_until_it_ends() {
    let world = Database::migrated().await;
    let (one, two) = (consents(&world), consents(&world));
    assert!(one.turn("a", LIVES).await.expect("an answer"));
    assert!(!two.turn("a", LIVES).await.expect("an answer"));
    assert!(two.turn("b", LIVES).await.expect("an answer"));
    world.sql("UPDATE turns SET until = until - 60000000").await;
    assert!(two.turn("a", LIVES).await.expect("an answer"));
}

/// What was announced while a subscription was dead nobody told us of: it is asked for, since all were last there.
#[tokio::test]
async fn what_a_dead_subscription_did_not_tell_is_a_gap() {
    let world = Database::migrated().await;
    let consents = consents(&world);
    let mut people = Vec::new();
    for (vendor, vendor_user) in [("oura", "o-1"), ("oura", "o-2"), ("whoop", "w-1")] {
        let found = consents.find(vendor, vendor_user, &user("u-1")).await.expect("an answer");
        assert_eq!(consents.connect(vendor, vendor_user, &user("u-1"), found).await, Ok(0));
        people.push(found.connection);
    }
    world.sql("DELETE FROM gaps").await;
    let look = async |made: &[ConnectionId], all_at| {
        consents.subscribed("oura", made, all_at).await.expect("noted");
        let sql = "SELECT coalesce(sum(from_at), 0)::int8 FROM gaps";
        (count(&world, "SELECT count(*) FROM gaps").await, count(&world, sql).await)
    };
    assert_eq!(
        look(&people, Some(1_000)).await,
        (0, 0),
        "the first look: nothing was there before"
    );
    assert_eq!(look(&[], Some(2_000)).await, (0, 0));
    // A look that does not come to its end has seen none alive, whatever it made.
    assert_eq!(look(&people[..1], None).await, (1, 2_000));
    assert_eq!(look(&people, Some(3_000)).await, (3, 6_000), "of this vendor's people alone");
    assert_eq!(look(&people[1..2], Some(4_000)).await, (4, 9_000));
}

// ── the whole program ──────────────────────────────────────────────────────────────────────────

/// A browser: one request, its whole answer.
fn browse(port: u16, path: &str, cookie: &str) -> String {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the door");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("set");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name}: {answer}"))
}

fn dumped(database: &str) -> String {
    let host = set_or("BRIDGE_POSTGRES", "127.0.0.1:5432");
    let (host, port) = host.split_once(':').expect("host:port");
    let sql = "SELECT t::text FROM tokens t UNION ALL SELECT g::text FROM gaps g
               UNION ALL SELECT c::text FROM consents c UNION ALL SELECT c::text FROM connections c";
    let done = Command::new("psql")
        .args(["-h", host, "-p", port, "-U", "bridge", "-d", database, "-Atqc", sql])
        .output()
        .expect("psql runs");
    assert!(done.status.success(), "{}", text(&done));
    String::from_utf8(done.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_connects_by_a_link_and_is_removed() {
    let server = Server::start().await;
    let profile = r#"{"user_id":481516,"email":"canary@example.com"}"#.to_owned();
    let path = "developer/v2/user/profile/basic".to_owned();
    server.documents.lock().expect("not poisoned").insert(path, profile);
    let (door, admin) = (free_port(), free_port());
    let mut pair = Pair::new("connected", "classic");
    for (key, value) in [
        ("VENDORS__WHOOP__API_BASE", format!("{}/developer", server.address)),
        ("VENDORS__WHOOP__RENEWAL_URL", format!("{}/token", server.address)),
        ("VENDORS__WHOOP__CLIENT_ID", "app".to_owned()),
        ("VENDORS__WHOOP__CLIENT_SECRET", SECRET.to_owned()),
        ("SECRETS__TOKEN_KEY", TOKEN_KEY.to_owned()),
        ("SECRETS__CONNECT_KEY", CONNECT_KEY.to_owned()),
        ("CONNECT__ADDRESS", format!("127.0.0.1:{door}")),
        ("CONNECT__PUBLIC_URL", format!("http://127.0.0.1:{door}")),
        ("LOG__LEVEL", "trace".to_owned()),
    ] {
        pair.deployment.set(key, value);
    }
    tokio::task::spawn_blocking(move || {
        let world = &pair.deployment;
        let running =
            world.spawn("hydrator", "h", &[("ADMIN__ADDRESS", format!("127.0.0.1:{admin}"))]);
        let ready = || page(admin, "/ready").is_some();
        until("the hydrator is ready", Duration::from_secs(60), ready);
        let made = world.run(&["connections", "link", "--vendor", "whoop", "--user", "u-1"]);
        let link = text(&made).lines().next().expect("a link").to_owned();
        let path = link.strip_prefix(&format!("http://127.0.0.1:{door}")).expect("our address");
        let asked = browse(door, path, "");
        assert!(asked.starts_with("HTTP/1.1 302"), "{asked}");
        let (_, state) = header(&asked, "location").split_once("&state=").expect("a state");
        let state = state.split('&').next().expect("a state");
        let kept = header(&asked, "set-cookie").split(';').next().expect("a cookie");
        let back = format!("/connect/whoop/callback?code=canary-code-1&state={state}");
        assert!(browse(door, &back, "").starts_with("HTTP/1.1 400"), "another browser");
        let done = browse(door, &back, kept);
        assert!(done.starts_with("HTTP/1.1 200"), "{done}");
        assert!(browse(door, &back, kept).starts_with("HTTP/1.1 400"), "once");
        let listed = text(&world.run(&["connections", "list"]));
        assert!(listed.contains("481516") && listed.contains("live"), "{listed}");
        let whose = ["--vendor", "whoop", "--vendor-user", "481516"];
        let run = |verb| world.run(&[&["connections", verb], &whose[..]].concat());
        assert!(run("pause").status.success());
        assert!(text(&world.run(&["connections", "list"])).contains("live, paused"));
        assert!(run("resume").status.success());
        let rows = dumped(&world.name);
        let removed = run("remove");
        assert!(removed.status.success(), "{}", text(&removed));
        assert!(text(&removed).contains("has withdrawn"), "{}", text(&removed));
        assert_eq!(server.count("developer/v2/user/access"), 1);
        let listed = text(&world.run(&["connections", "list"]));
        assert!(listed.contains("none"), "no tokens: {listed}");
        assert!(!run("remove").status.success(), "there is none any more");
        assert_eq!(running.end("TERM", Duration::from_secs(15)), Some(0));
        let log = std::fs::read_to_string(world.dir.join("h.log")).expect("a log");
        assert!(log.contains("a person connected"), "{log}");
        for (place, found) in [("the log", log), ("a row", rows), ("the list", listed)] {
            assert!(!found.contains("canary") && !found.contains(state), "{place}: {found}");
        }
    })
    .await
    .expect("no panic");
}
