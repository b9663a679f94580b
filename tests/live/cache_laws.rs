//! The laws of the cache on real Redis, and what only a real one can do: be away.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use biometric_bridge::error::Kind;
use biometric_bridge::model::event::Op;
use biometric_bridge::model::id::{EventId, User};
use biometric_bridge::model::state::Shown;
use biometric_bridge::redis::Settings;
use biometric_bridge::redis::cache::RedisCache;
use biometric_bridge::stream::Cache;
use biometric_bridge::stream::clock::{RealClock, Stopwatch};
use biometric_bridge::telemetry::metrics::Metrics;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

#[macro_use]
#[path = "../laws/cache.rs"]
mod laws;

fn address() -> String {
    #[expect(clippy::disallowed_methods, reason = "the stack's own setting, not ours")]
    std::env::var("BRIDGE_REDIS").unwrap_or_else(|_| "127.0.0.1:6379".to_owned())
}

fn settings(address: &str) -> Settings {
    Settings {
        url: Some(format!("redis://{address}").into()),
        url_file: None,
        connect_timeout_ms: 2_000,
        command_timeout_ms: 200,
        ttl_s: 60,
        timeseries_max: 5,
    }
}

/// One person of the stack's Redis, whose keys end with the test's time to live.
struct World {
    user: User,
}

impl World {
    async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        #[expect(clippy::disallowed_methods, reason = "a name that no other test has")]
        let name = format!("test-{}-{count}", Uuid::new_v4().simple());
        Self { user: User::parse(&name).expect("a user") }
    }

    fn key(&self, rest: &str) -> String {
        format!("biometrics:{}:{rest}", self.user)
    }
}

/// What a plain reader gets: RESP2, read by hand, because the cache's client is what is tested.
async fn ask(words: &[&str]) -> Vec<String> {
    let mut wire = BufReader::new(TcpStream::connect(address()).await.expect("Redis (make up)"));
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    wire.write_all(request.as_bytes()).await.expect("asked");
    let mut line = String::new();
    wire.read_line(&mut line).await.expect("an answer");
    let (kind, rest) = line.trim_end().split_at(1);
    if kind != "*" {
        return match (kind, rest) {
            ("$", "-1") => Vec::new(),
            ("$", length) => vec![bulk(&mut wire, length).await],
            (_, other) => vec![other.to_owned()],
        };
    }
    let mut all = Vec::new();
    for _ in 0..rest.parse::<i64>().expect("a count") {
        line.clear();
        wire.read_line(&mut line).await.expect("a length");
        all.push(bulk(&mut wire, line.trim_end().trim_start_matches('$')).await);
    }
    all
}

async fn bulk(wire: &mut BufReader<TcpStream>, length: &str) -> String {
    let mut bytes = vec![0; length.parse::<usize>().expect("a length") + 2];
    wire.read_exact(&mut bytes).await.expect("the value");
    bytes.truncate(bytes.len() - 2);
    String::from_utf8(bytes).expect("text")
}

impl laws::Caches for World {
    type Cache = RedisCache<RealClock>;

    async fn open(&self) -> Self::Cache {
        // What is tested here is not how long a busy machine takes.
        let patient = Settings { command_timeout_ms: 5_000, ..settings(&address()) };
        RedisCache::open(&patient, RealClock::new(), Metrics::new()).await.expect("settings")
    }

    fn user(&self) -> User {
        self.user.clone()
    }

    async fn latest(&self, maker: Option<&str>) -> Option<(EventId, i32, String)> {
        let key = match maker {
            None => self.key("latest"),
            Some(maker) => self.key(&format!("{maker}:latest")),
        };
        let fields = ask(&["HGETALL", &key]).await;
        let field = |name: &str| {
            let mut pairs = fields.chunks(2);
            pairs.find(|pair| pair[0] == name).map(|pair| pair[1].clone())
        };
        let id = field("event_id")?.parse().expect("an id");
        let revision = field("revision")?.parse().expect("a number");
        Some((EventId(id), revision, field("json")?))
    }

    async fn series(&self) -> Option<Vec<(i64, String)>> {
        let all = ask(&["ZRANGE", &self.key("timeseries"), "0", "-1", "WITHSCORES"]).await;
        let time = |score: &str| score.parse().expect("whole µs");
        Some(all.chunks(2).map(|pair| (time(&pair[1]), pair[0].clone())).collect())
    }

    fn series_max(&self) -> usize {
        5
    }
}

cache_laws!(World::new);

fn shown(user: &User, n: u128, op: Op) -> Shown {
    let event_id = EventId(Uuid::from_u128(n));
    Shown {
        user: user.clone(),
        device_type: "oura".into(),
        event_id,
        revision: 1,
        op,
        measured_at: 1_000,
        json: format!("{{\"event_id\":\"{event_id}\"}}"),
    }
}

#[tokio::test]
async fn every_key_ends() {
    let world = World::new().await;
    let mut cache = laws::Caches::open(&world).await;
    cache.show(&[shown(&world.user, 1, Op::Upsert)]).await.expect("shown");
    for key in ["latest", "oura:latest", "timeseries", "timeseries:known"] {
        let ttl: i64 = ask(&["TTL", &world.key(key)]).await[0].parse().expect("seconds");
        assert!((1..=60).contains(&ttl), "{key}: {ttl}");
    }
}

#[tokio::test]
async fn tombstones_are_remembered_and_bounded() {
    let world = World::new().await;
    let mut cache = laws::Caches::open(&world).await;
    let all: Vec<Shown> = (1..=500).map(|n| shown(&world.user, n, Op::Delete)).collect();
    cache.show(&all).await.expect("shown");
    let known: i64 = ask(&["HLEN", &world.key("timeseries:known")]).await[0].parse().expect("n");
    assert!((1..=65).contains(&known), "{known}");
}

#[tokio::test]
async fn a_server_that_forgot_the_script_is_told_again() {
    let world = World::new().await;
    let mut cache = laws::Caches::open(&world).await;
    cache.show(&[shown(&world.user, 1, Op::Upsert)]).await.expect("shown");
    ask(&["SCRIPT", "FLUSH"]).await;
    ask(&["DEL", &world.key("latest")]).await;
    cache.show(&[shown(&world.user, 1, Op::Upsert)]).await.expect("shown again");
    assert!(laws::Caches::latest(&world, None).await.is_some());
}

#[tokio::test]
async fn a_server_that_is_away_costs_nothing() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = nobody.local_addr().expect("an address").to_string();
    drop(nobody);
    let mut cache = RedisCache::open(&settings(&address), RealClock::new(), Metrics::new())
        .await
        .expect("settings");
    let user = User::parse("test-nobody").expect("a user");
    let watch = Stopwatch::start();
    for n in 0..20 {
        let error = cache.show(&[shown(&user, 1, Op::Upsert)]).await.expect_err("away");
        assert_eq!(error.kind, Kind::CacheError);
        assert_eq!(error.code, if n < 5 { "not connected" } else { "open" });
    }
    assert!(watch.elapsed() < Duration::from_millis(50), "{:?}", watch.elapsed());
}

#[tokio::test]
async fn a_server_that_stands_still_costs_five_time_outs() {
    // It lets the client in and then says nothing to what the cache asks.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut wire, _)) = silent.accept().await {
            tokio::spawn(async move {
                let mut bytes = vec![0; 4_096];
                while let Ok(length @ 1..) = wire.read(&mut bytes).await {
                    if bytes[..length].windows(4).any(|word| word.eq_ignore_ascii_case(b"INFO")) {
                        let info = "redis_version:7.0.15\r\n";
                        let answer = format!("${}\r\n{info}\r\n", info.len());
                        wire.write_all(answer.as_bytes()).await.expect("let in");
                    }
                }
            });
        }
    });
    let mut cache = RedisCache::open(&settings(&address), RealClock::new(), Metrics::new())
        .await
        .expect("settings");
    let user = User::parse("test-silent").expect("a user");
    let watch = Stopwatch::start();
    for n in 0..20 {
        let error = cache.show(&[shown(&user, 1, Op::Upsert)]).await.expect_err("silent");
        assert!(n < 5 || error.code == "open", "{error}");
    }
    assert!(watch.elapsed() < Duration::from_millis(1_300), "{:?}", watch.elapsed());
}
