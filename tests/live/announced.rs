//! A person connects by a vendor's own word, as Terra's `auth`: what was before is asked for, once, with the app's key, and
//! comes to events, once; also where the vendor gives the person another id.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use biometric_bridge::model::time::Day;
use biometric_bridge::stream::clock::now_us;
use biometric_bridge::vendors::wire::hmac::sign_hex;
use serde_json::{Value, json};

use crate::fetched::{hydrator, sql};
use crate::pair::Pair;
use crate::played::{SECRET, Server};
use crate::process::{Deployment, free_port, until};

const SLEEP: &str = include_str!("../fixtures/terra/document_sleep.json");
const SLEEP_ID: &str = "c1a0f1de-88aa-4e2c-b1d4-6a1c7c0d7f10";
/// What the deployment has Terra's webhooks signed with.
const SIGNING: &str = "not-a-secret-test-key";
const OLD: &str = "5a3d0e6b-7f0e-4d6d-9c51-2f5a7a1f0c44";
const NEW: &str = "e1a94b1c-55f0-4b93-b3c9-52b27ea9d700";
/// How far back history goes.
const DAYS: i32 = 20;

fn user(id: &str) -> Value {
    json!({"user_id": id, "provider": "OURA", "reference_id": "app-user-77"})
}

/// A night a day, as Terra has it; its last day is one of the answer's, and there is nothing else.
fn ranges(path: &str) -> Option<String> {
    let (path, query) = path.split_once('?')?;
    let kind = path.strip_prefix("v2/")?;
    let of =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let (from, to) = (Day::parse(of("start_date")?)?, Day::parse(of("end_date")?)?);
    let today = Day::of_utc(now_us());
    let fixture: Value = serde_json::from_str(SLEEP).expect("JSON");
    let night = |day: Day| -> Value {
        let text = fixture["data"][0].to_string().replace(SLEEP_ID, &format!("night-{}", day.0));
        let eve = Day(day.0 - 1).to_string();
        let text = text.replace("2026-03-29", "today").replace("2026-03-28", &eve);
        serde_json::from_str(&text.replace("today", &day.to_string())).expect("JSON")
    };
    let days = (today.0 - DAYS..=today.0 - 1).map(Day);
    let nights = days.filter(|day| kind == "sleep" && (from..=to).contains(day)).map(night);
    let nights: Vec<Value> = nights.collect();
    Some(json!({"type": kind, "user": user(of("user_id")?), "data": nights}).to_string())
}

/// Sends a webhook, signed.
fn send(port: u16, body: &Value) {
    let (at, body) = ((now_us() / 1_000_000).to_string(), body.to_string());
    let signature = sign_hex(&[at.as_bytes(), b".", body.as_bytes()], SIGNING.as_bytes());
    let request = format!(
        "POST /webhooks/terra HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\nx-terra-signature: t={at},v1={signature}\r\n\
         x-terra-trace-id: trace-{}\r\ncontent-length: {}\r\n\r\n{body}",
        now_us(),
        body.len()
    );
    until("it is taken", Duration::from_secs(30), || {
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
            return false;
        };
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    });
}

fn nights(world: &Deployment) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for line in world.neuros().lines().filter(|line| line.contains("event_id")) {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let event = event.get("value").cloned().unwrap_or(event);
        if event["record_type"] == "sleep" {
            *all.entry(event["record_id"].as_str().expect("an id").to_owned()).or_insert(0) += 1;
        }
    }
    all
}

fn windows(world: &Deployment) -> String {
    sql(
        world,
        "SELECT count(*) FILTER (WHERE state = 'done') || ' of ' || count(*) || ' of '
             || count(DISTINCT connection) FROM hydrations WHERE vendor = 'terra'",
    )
}

/// 22 days: of sleeps and of activities four windows each, two of days, one each of the three others.
const ALL_DONE: &str = "13 of 13 of 1";

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_by_a_vendor_s_word_has_a_past_once() {
    let server = Server::start().await;
    *server.ranges.lock().expect("not poisoned") = Some(ranges);
    tokio::task::spawn_blocking(move || {
        let mut pair = Pair::new("announced", "classic");
        for (key, value) in [
            ("VENDORS__TERRA__API_BASE", format!("{}/v2", server.address)),
            ("VENDORS__TERRA__CLIENT_ID", "our-app".to_owned()),
            ("VENDORS__TERRA__CLIENT_SECRET", SECRET.to_owned()),
            ("SECRETS__TOKEN_KEY", "not-a-secret-test-key, thirty-two bytes".to_owned()),
            ("HYDRATOR__LOOK_MS", "50".to_owned()),
            ("HYDRATOR__HISTORY_DAYS", DAYS.to_string()),
        ] {
            pair.deployment.set(key, value);
        }
        let world = &pair.deployment;
        let (_ingress, _pipeline) =
            (pair.start_ingress(), pair.start_pipeline("a", pair.pipeline_admin));
        let auth = |id: &str| json!({"type": "auth", "status": "success", "user": user(id)});
        send(pair.ingress, &auth(OLD));
        until("it is a gap", Duration::from_secs(30), || {
            sql(world, "SELECT count(*) FROM gaps") == "1"
        });
        let _hydrator = hydrator(&pair, "h1", free_port());
        until("all is fetched", Duration::from_secs(90), || windows(world) == ALL_DONE);
        // A webhook that comes again, and another id whose `auth` is told first.
        send(pair.ingress, &auth(OLD));
        send(pair.ingress, &auth(NEW));
        until("it is a connection of its own", Duration::from_secs(30), || {
            sql(world, "SELECT count(*) FROM gaps") == "2"
        });
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(windows(world), ALL_DONE, "it waits for what else is told");
        let asked = || server.asked.lock().expect("not poisoned").len();
        assert_eq!(asked(), 13, "each once");
        let renamed = json!({"type": "user_reauth", "old_user": user(OLD), "new_user": user(NEW)});
        send(pair.ingress, &renamed);
        until("what is since is asked for", Duration::from_secs(60), || {
            asked() == 26 && windows(world) == ALL_DONE
        });
        let heads = server.asked.lock().expect("not poisoned").clone();
        for (nth, head) in heads.iter().enumerate() {
            let id = if nth < 13 { OLD } else { NEW };
            assert!(head.contains(&format!("user_id={id}&")), "{head}");
            assert!(head.contains("dev-id: our-app\r\n") && head.contains(SECRET), "{head}");
        }
        until("all is published", Duration::from_secs(60), || nights(world).len() == 20);
        std::thread::sleep(Duration::from_secs(3));
        let found = nights(world);
        assert!(found.len() == 20 && found.values().all(|times| *times == 1), "{found:?}");
        let letters = sql(world, "SELECT count(*) FROM verdicts WHERE verdict = 'dead_lettered'");
        assert_eq!(letters, "0");
        for log in ["ingress", "a", "h1"] {
            let text =
                std::fs::read_to_string(world.dir.join(format!("{log}.log"))).expect("a log");
            assert!(!text.contains(SECRET) && !text.contains(OLD), "{log}: {text}");
        }
    })
    .await
    .expect("no panic");
}
