//! Fetches by the real hydrator, over the real queue, vault and log, of a vendor that is played.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use biometric_bridge::hydrator::fetch::{Fetcher, Limits};
use biometric_bridge::hydrator::tokens::{Client, Grant, Keyring, Tokens as _};
use biometric_bridge::model::id::{ConnectionId, User};
use biometric_bridge::postgres::vault::{Keys, PostgresVault};
use biometric_bridge::stream::hydration::{Pair as Tokens, Vault as _};
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::vendors::ask::Manner;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use secrecy::ExposeSecret as _;

use crate::database::Database;
use crate::pair::Pair;
use crate::played::{SECRET, Server};
use crate::process::{Deployment, Process, free_port, metric, page, set_or, text, until};

const TOKEN_KEY: &str = "not-a-secret-test-key, thirty-two bytes";
const NEXT_KEY: &str = "not-a-secret-test-key, the one after it";

// ── tokens, over the real vault ────────────────────────────────────────────────────────────────

fn connection() -> ConnectionId {
    ConnectionId::derive("whoop", "v-1", &User::parse("user-1").expect("a user"))
}

fn vault(world: &Database) -> PostgresVault {
    let keys = Keys::new(&TOKEN_KEY.into(), None).expect("keys");
    PostgresVault::new(&world.settings(), keys).expect("a vault")
}

/// What one process has.
fn keyring(world: &Database, server: &Server) -> Keyring<PostgresVault> {
    let second = Duration::from_secs(5);
    let limits = Limits { connect: second, first_byte: second, whole: second, body_bytes: 1 << 20 };
    let fetcher = Fetcher::new(limits).expect("a client");
    let url = server.at("/token");
    let (id, manner) = ("app".to_owned(), Manner::default());
    let client = Client { url, scope: None, id, secret: SECRET.into(), manner };
    let clients = [("whoop".to_owned(), client)].into();
    Keyring::new(vault(world), fetcher, clients, Metrics::of(&["whoop"]), 1)
}

/// A vault with a pair whose access token is at its end.
async fn expired() -> (Database, Server) {
    let (world, server) = (Database::migrated().await, Server::start().await);
    let refresh = Some("canary-refresh-0".into());
    let pair = Tokens { access: "canary-access-0".into(), refresh };
    let lives = Some(Duration::from_secs(3_600));
    vault(&world).store("whoop", connection(), 0, &pair, lives).await.expect("stored");
    world.sql("UPDATE tokens SET stored_at = stored_at - 7200000000, expires_at = expires_at - 7200000000")
        .await;
    (world, server)
}

async fn access(keyring: &Keyring<PostgresVault>) -> Option<String> {
    match keyring.access("whoop", connection()).await.expect("an answer") {
        Grant::Token(token) => Some(token.access.expose_secret().to_owned()),
        Grant::None(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_five_workers_of_five_processes_make_one_renewal() {
    let (world, server) = expired().await;
    let mut workers = Vec::new();
    for _ in 0..5 {
        let keyring = std::sync::Arc::new(keyring(&world, &server));
        for _ in 0..5 {
            let keyring = std::sync::Arc::clone(&keyring);
            workers.push(tokio::spawn(async move { access(&keyring).await }));
        }
    }
    for worker in workers {
        assert_eq!(worker.await.expect("no panic").as_deref(), Some("canary-access-1"));
    }
    assert_eq!(server.count("token"), 1);
}

/// The vendor has rotated, and we die while the new pair is being stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_exchange_and_its_store_ends_as_reauth_required() {
    let (world, server) = expired().await;
    let refuse =
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;
        CREATE TRIGGER refuse BEFORE UPDATE OF sealed ON tokens EXECUTE FUNCTION refuse()";
    world.client().await.batch_execute(refuse).await.expect("a trigger");
    let first = keyring(&world, &server);
    let dying = tokio::spawn(async move { access(&first).await });
    while server.count("token") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    dying.abort();
    assert!(
        dying.await.is_err_and(|error| error.is_cancelled()),
        "nobody is given what is not stored"
    );
    world.sql("DROP TRIGGER refuse ON tokens").await;
    world.sql("UPDATE tokens SET renewing_until = 0").await;
    assert_eq!(access(&keyring(&world, &server)).await, None);
    let sql = "SELECT version, state FROM tokens";
    let row = world.client().await.query_one(sql, &[]).await.expect("a row");
    assert_eq!((row.get(0), row.get(1)), (1_i64, "reauth_required".to_owned()), "said, not silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_key_before_sealed_is_sealed_anew() {
    let (world, _server) = expired().await;
    let keys = |current: &str, previous: Option<&str>| {
        let previous = previous.map(Into::into);
        let keys = Keys::new(&current.into(), previous.as_ref()).expect("keys");
        PostgresVault::new(&world.settings(), keys).expect("a vault")
    };
    let lost = keys(NEXT_KEY, None).reseal().await.expect("an answer");
    assert_eq!((lost.done, lost.unreadable), (0, 1), "nothing is thrown away");
    let resealed = keys(NEXT_KEY, Some(TOKEN_KEY)).reseal().await.expect("an answer");
    assert_eq!((resealed.done, resealed.unreadable), (1, 0));
    let again = keys(NEXT_KEY, Some(TOKEN_KEY)).reseal().await.expect("an answer");
    assert_eq!((again.done, again.unreadable), (0, 0));
    let stored = keys(NEXT_KEY, None).read(connection()).await.expect("read").expect("a pair");
    assert_eq!(stored.pair.access.expose_secret(), "canary-access-0");
    assert_eq!(stored.version, 1, "the same pair");
    assert!(keys(TOKEN_KEY, None).read(connection()).await.is_err(), "the old key opens nothing");
}

// ── the whole program ──────────────────────────────────────────────────────────────────────────

const SLEEP: &str = include_str!("../fixtures/whoop/document_sleep.json");
const SLEEP_ID: &str = "0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77";
const WHOSE: &str = "481516";

/// A deployment whose WHOOP is played, with a connection that has tokens.
pub(crate) fn deployment(label: &str, server: &Server) -> Pair {
    let mut pair = Pair::new(label, "classic");
    let deployment = &mut pair.deployment;
    for (key, value) in [
        ("VENDORS__WHOOP__API_BASE", format!("{}/developer", server.address)),
        ("VENDORS__WHOOP__RENEWAL_URL", format!("{}/token", server.address)),
        ("VENDORS__WHOOP__CLIENT_ID", "app".to_owned()),
        ("VENDORS__WHOOP__CLIENT_SECRET", SECRET.to_owned()),
        ("SECRETS__TOKEN_KEY", TOKEN_KEY.to_owned()),
        ("HYDRATOR__WHOLE_MS_MAX", "5000".to_owned()),
        ("HYDRATOR__FIRST_BYTE_MS_MAX", "5000".to_owned()),
        ("HYDRATOR__LEASE_S", "40".to_owned()),
        ("HYDRATOR__LOOK_MS", "50".to_owned()),
        ("LOG__LEVEL", "trace".to_owned()),
    ] {
        deployment.set(key, value);
    }
    let whose = ["--vendor", "whoop", "--vendor-user", WHOSE];
    let added = deployment.run(&[&["connections", "add", "--user", "u-1"], &whose[..]].concat());
    assert!(added.status.success(), "{}", text(&added));
    store(deployment, r#"{"access_token":"canary-access-0","refresh_token":"canary-refresh-0"}"#);
    pair
}

/// Stores tokens as an operator does.
pub(crate) fn store(deployment: &Deployment, answer: &str) -> String {
    store_for(deployment, "whoop", WHOSE, answer)
}

/// The same of another vendor's user.
pub(crate) fn store_for(deployment: &Deployment, vendor: &str, user: &str, answer: &str) -> String {
    let arguments = ["connections", "token", "--vendor", vendor, "--vendor-user", user, "-"];
    let mut child = deployment
        .command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut input = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, answer.as_bytes()).expect("written");
    drop(input);
    let done = child.wait_with_output().expect("ended");
    assert!(done.status.success(), "{}", text(&done));
    text(&done)
}

/// Runs a statement in the deployment's database; its rows, a line each.
pub(crate) fn sql(deployment: &Deployment, statement: &str) -> String {
    let host = set_or("BRIDGE_POSTGRES", "127.0.0.1:5432");
    let (host, port) = host.split_once(':').expect("host:port");
    let done = Command::new("psql")
        .args(["-h", host, "-p", port, "-U", "bridge", "-d", &deployment.name, "-Atqc", statement])
        .output()
        .expect("psql runs");
    assert!(done.status.success(), "{statement}: {}", text(&done));
    String::from_utf8(done.stdout).expect("text").trim().to_owned()
}

/// Asks for a record, as normalise does.
pub(crate) fn ask(deployment: &Deployment, offset: usize, record: &str) {
    let statement = format!(
        "INSERT INTO hydrations (vendor, connection, record_type, record_id, source_topic, source_partition,
                                 source_offset, source_index, asked_at, state)
         SELECT 'whoop', id, 'sleep', '{record}', 1, 0, {offset}, 0, 1774766800000000, 'waiting'
         FROM connections"
    );
    sql(deployment, &statement);
}

/// Makes so many nights at the vendor; their ids.
pub(crate) fn nights(server: &Server, count: usize) -> Vec<String> {
    let ids: Vec<String> =
        (0..count).map(|night| format!("0c7a4f62-9b8e-4f0d-8a5f-{night:012x}")).collect();
    let mut documents = server.documents.lock().expect("not poisoned");
    for id in &ids {
        let path = format!("developer/v2/activity/sleep/{id}");
        documents.insert(path, SLEEP.replace(SLEEP_ID, id));
    }
    drop(documents);
    ids
}

pub(crate) fn hydrator(pair: &Pair, label: &str, admin: u16) -> Process {
    let more = [("ADMIN__ADDRESS", format!("127.0.0.1:{admin}"))];
    pair.deployment.spawn("hydrator", label, &more)
}

pub(crate) fn states(deployment: &Deployment) -> String {
    sql(
        deployment,
        "SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM
        (SELECT state, count(*) AS n FROM hydrations GROUP BY state) AS s",
    )
}

/// Everything in a topic: headers and values as text, one record a line.
pub(crate) fn topic(deployment: &Deployment, name: &str) -> Vec<String> {
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", set_or("BRIDGE_KAFKA", "127.0.0.1:9092"))
        .set("group.id", format!("{}.look", deployment.name))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let topic = format!("{}.{name}", deployment.name);
    let second = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(Some(&topic), second).expect("metadata");
    let (mut assignment, mut left) = (rdkafka::TopicPartitionList::new(), 0);
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(&topic, partition.id(), second).expect("ends");
        assignment
            .add_partition_offset(&topic, partition.id(), rdkafka::Offset::Offset(low))
            .expect("an offset");
        left += high - low;
    }
    consumer.assign(&assignment).expect("assigned");
    let mut lines = Vec::new();
    while left > 0 {
        let message = consumer.poll(second).expect("what the ends promise").expect("a record");
        let mut line = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
        for header in message.headers().expect("headers").iter() {
            line.push_str(&format!(
                " {}={}",
                header.key,
                String::from_utf8_lossy(header.value.unwrap_or_default())
            ));
        }
        lines.push(line);
        left -= 1;
    }
    lines
}

/// The ids of what was published, as the reader sees them.
pub(crate) fn published(deployment: &Deployment) -> Vec<String> {
    let events = deployment.neuros();
    let id = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let event = event.get("value").cloned().unwrap_or(event);
        event["event_id"].as_str().expect("an id").to_owned()
    };
    events.lines().filter(|line| line.contains("event_id")).map(id).collect()
}

/// The hydrator is killed at the seam: bodies are in the log, their rows are not done yet.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_log_and_the_row_it_fetches_again_and_nothing_is_doubled() {
    let server = Server::start().await;
    let pair = deployment("fetched", &server);
    tokio::task::spawn_blocking(move || {
        let world = &pair.deployment;
        store(world, r#"{"access_token":"canary-access-1","refresh_token":"canary-refresh-0"}"#);
        let _pipeline = pair.start_pipeline("a", pair.pipeline_admin);
        let ids = nights(&server, 30);
        // A row may be claimed and its lease written, but it cannot be done: the seam is held open.
        sql(world, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                IF NEW.state = 'done' THEN RAISE 'not yet'; END IF; RETURN NEW; END$$;
            CREATE TRIGGER refuse BEFORE UPDATE ON hydrations FOR EACH ROW EXECUTE FUNCTION refuse()");
        for (offset, id) in ids.iter().enumerate() {
            ask(world, offset, id);
        }
        let (one, two) = (hydrator(&pair, "h1", free_port()), hydrator(&pair, "h2", free_port()));
        until("bodies are in the log", Duration::from_secs(60), || {
            topic(world, "raw-documents").len() >= 30
        });
        one.kill();
        two.kill();
        let before = topic(world, "raw-documents").len();
        assert_eq!(states(world), "waiting 30", "none is done without its word");
        sql(world, "DROP TRIGGER refuse ON hydrations");
        let again = hydrator(&pair, "h3", free_port());
        until("all are fetched again", Duration::from_secs(120), || states(world) == "done 30");
        let after = topic(world, "raw-documents");
        assert!(after.len() >= before + 30, "{before} then {}", after.len());
        let fetched: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        assert!(fetched.iter().all(|id| after.iter().any(|line| line.contains(id))));
        until("all are published", Duration::from_secs(60), || published(world).len() >= 30);
        std::thread::sleep(Duration::from_secs(3));
        let events = published(world);
        assert_eq!(events.iter().collect::<BTreeSet<_>>().len(), 30);
        assert_eq!(events.len(), 30, "fetched twice, told once");
        assert_eq!(again.end("TERM", Duration::from_secs(15)), Some(0));
    })
    .await
    .expect("no panic");
}

/// WHOOP's hundred a minute, three hydrators, a world three times as fast (`QUOTA_SPEED=1 QUOTA_CALLS=400`: as it is, for
/// three minutes): never more, and nearly all of it.
#[tokio::test(flavor = "multi_thread")]
async fn three_hydrators_use_a_quota_and_never_more() {
    let calls: usize = set_or("QUOTA_CALLS", "300").parse().expect("a number");
    let speed: u32 = set_or("QUOTA_SPEED", "3").parse().expect("a number");
    let server = Server::start().await;
    let mut pair = deployment("quota", &server);
    pair.deployment.set("HYDRATOR__SPEED", speed.to_string());
    pair.deployment.set("LOG__LEVEL", "info");
    tokio::task::spawn_blocking(move || {
        let world = &pair.deployment;
        store(world, r#"{"access_token":"canary-access-1"}"#);
        for (offset, id) in nights(&server, calls).iter().enumerate() {
            ask(world, offset, id);
        }
        let _running = ["h1", "h2", "h3"].map(|label| hydrator(&pair, label, free_port()));
        let all = format!("done {calls}");
        until("all are fetched", Duration::from_secs(240), || states(world) == all);
        let mut times = server.times.lock().expect("not poisoned").clone();
        times.sort_unstable();
        assert_eq!(times.len(), calls, "each is fetched once");
        let window = Duration::from_secs(60) / speed;
        let within = |first: &Duration| {
            times.iter().filter(|at| *at >= first && **at - *first <= window).count()
        };
        let densest = times.iter().map(within).max().expect("calls");
        assert!(densest <= 100, "{densest} calls in a window of 100");
        // The first hundred may go at once; each further hundred has a window of its own.
        let least = window.as_secs_f64() * f64::from(u32::try_from(calls / 100 - 1).expect("few"));
        let took = (times[calls - 1] - times[0]).as_secs_f64();
        println!("{:.1} % of the quota", 100.0 * least / took);
        assert!(least / took >= 0.95, "{took} s for what {least} s allow");
    })
    .await
    .expect("no panic");
}

/// A person withdraws consent: nobody calls any more, it is told and counted, and the person's word mends it all.
/// Tokens and the app's secret stand nowhere in the clear.
#[tokio::test(flavor = "multi_thread")]
async fn withdrawn_consent_stops_is_told_and_can_be_mended_and_no_token_is_in_the_clear() {
    let server = Server::start().await;
    let pair = deployment("consent", &server);
    tokio::task::spawn_blocking(move || {
        let world = &pair.deployment;
        "another-one".clone_into(&mut server.refresh.0.lock().expect("not poisoned"));
        // No document: the server says 401 to whatever token is not its own.
        let stale = |id: usize| format!("0c7a4f62-9b8e-4f0d-8a5f-{id:012x}");
        server.refuses.store(true, std::sync::atomic::Ordering::SeqCst);
        (0..10).for_each(|id| ask(world, id, &stale(id)));
        let admin = free_port();
        let running = hydrator(&pair, "h1", admin);
        until("all are given up", Duration::from_secs(60), || states(world) == "given_up 10");
        assert_eq!(server.count("token"), 1, "one exchange tells it");
        let calls = server.asked.lock().expect("not poisoned").len();
        let listed = text(&world.run(&["connections", "list"]));
        assert!(listed.contains("reauth_required") && listed.contains("10"), "{listed}");
        let letters = topic(world, "biometric-events.dlq");
        assert_eq!(letters.len(), 10);
        for letter in &letters {
            assert!(letter.contains("error_type=authentication_error"), "{letter}");
            assert!(letter.contains("stage=hydrate"), "{letter}");
        }
        let metrics = page(admin, "/metrics").expect("a page");
        let refused = r#"bridge_renewals_total{outcome="refused",vendor="whoop"}"#;
        assert!((metric(&metrics, refused) - 1.0).abs() < 0.1, "{metrics}");
        // What comes later is not asked for either.
        ask(world, 10, &stale(10));
        until("it is given up, too", Duration::from_secs(30), || states(world) == "given_up 11");
        assert_eq!(server.asked.lock().expect("not poisoned").len(), calls, "nobody calls");
        // The person consents anew: what was missed is fetched.
        let ids = nights(&server, 11);
        assert_eq!(ids[10], stale(10));
        server.refuses.store(false, std::sync::atomic::Ordering::SeqCst);
        let said = store(
            world,
            r#"{"access_token":"canary-access-1","refresh_token":"canary-refresh-9"}"#,
        );
        assert!(said.contains("11 records"), "{said}");
        until("what was missed is fetched", Duration::from_secs(30), || states(world) == "done 11");
        let metrics = metrics + &page(admin, "/metrics").expect("a page");
        assert_eq!(running.end("TERM", Duration::from_secs(15)), Some(0));
        let log = std::fs::read_to_string(world.dir.join("h1.log")).expect("a log");
        assert!(log.contains("a refresh token is refused"), "{log}");
        let rows = sql(world, "SELECT t::text FROM hydrations t");
        let sealed = sql(world, "SELECT t::text || encode(sealed, 'escape') FROM tokens t");
        assert!(sealed.contains("whoop"), "there is a row");
        let topics = [topic(world, "raw-documents"), letters].concat().join("\n");
        for (place, found) in [
            ("the log", log),
            ("the metrics", metrics),
            ("the list", listed + &said),
            ("a column", rows + &sealed),
            ("a topic", topics),
        ] {
            assert!(!found.contains("canary"), "{place}: {found}");
        }
        let rotated = rotate(&pair);
        assert!(rotated.contains("1 pairs"), "{rotated}");
    })
    .await
    .expect("no panic");
}

/// The key is rotated by command.
fn rotate(pair: &Pair) -> String {
    let mut command = pair.deployment.command(&["vault", "rotate"]);
    command.env("BRIDGE__SECRETS__TOKEN_KEY", NEXT_KEY);
    command.env("BRIDGE__SECRETS__PREVIOUS_TOKEN_KEY", TOKEN_KEY);
    let done = command.output().expect("the binary runs");
    assert!(done.status.success(), "{}", text(&done));
    text(&done)
}
