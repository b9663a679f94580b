//! The laws of the register on real Postgres, and the command over it.

use biometric_bridge::commands::connections::{self, Named, New};
use biometric_bridge::model::id::{Source, User};
use biometric_bridge::model::state::HydrationKey;
use biometric_bridge::postgres::lookup::Snapshot;
use biometric_bridge::postgres::pool::pool;
use biometric_bridge::postgres::queue::PostgresQueue;
use biometric_bridge::postgres::register::PostgresRegister;

use crate::database::Database;

#[macro_use]
#[path = "../laws/register.rs"]
mod laws;

async fn snapshot(world: &Database) -> Snapshot {
    let pool = pool(&world.settings()).expect("a pool");
    Snapshot::open(&pool).await.expect("a snapshot")
}

impl laws::Registers for Database {
    type Register = PostgresRegister;

    async fn open(&self) -> PostgresRegister {
        self.register()
    }

    async fn waiting(&self) -> Vec<HydrationKey> {
        let rows = snapshot(self).await.hydrations(None).await.expect("rows");
        rows.into_iter().filter(|row| row.state == "waiting").map(|row| row.key).collect()
    }

    async fn verdicts(&self) -> Vec<(Source, String, String)> {
        let rows = snapshot(self).await.verdicts(None).await.expect("rows");
        rows.into_iter().map(|row| (row.source, row.verdict, row.reason)).collect()
    }
}

register_laws!(Database::migrated);

#[tokio::test]
async fn connections_are_added_listed_and_ended() {
    let world = Database::migrated().await;
    let mut register = world.register();
    let queue = PostgresQueue::new(&world.settings()).expect("a queue");
    let user = User::parse("user-1").expect("a user");
    let phone = New {
        vendor: "healthkit".into(),
        user: user.clone(),
        named: Named::ByLabel("phone".into()),
    };
    let mut printed = Vec::new();
    for at in [10, 20] {
        printed.clear();
        let token = |id| Some(format!("{id}.mac"));
        connections::add(&mut register, &phone, at, token, true, &mut printed)
            .await
            .expect("added");
    }
    let line: serde_json::Value = serde_json::from_slice(&printed).expect("one line");
    assert_eq!(line["vendor_user"], line["id"], "HealthKit's user is the connection");
    assert_eq!(line["token"], format!("{}.mac", line["id"].as_str().expect("an id")));
    let ring =
        New { vendor: "oura".into(), user: user.clone(), named: Named::ByVendor("v-1".into()) };
    connections::add(&mut register, &ring, 10, |_| None, false, &mut Vec::new())
        .await
        .expect("added");
    let mut listed = Vec::new();
    connections::list(&mut register, &queue, Some(&user), true, &mut listed).await.expect("listed");
    assert_eq!(listed.iter().filter(|byte| **byte == b'\n').count(), 2, "twice is once");
    let mut end = async |at| {
        let mut out = Vec::new();
        connections::remove(&mut register, "oura", "v-1", at, true, &mut out).await.expect("ended")
    };
    assert!(end(30).await);
    assert!(!end(40).await, "there is none any more");
    // Another of our users has it next, and nothing of before.
    let next = New { user: User::parse("user-2").expect("a user"), ..ring };
    connections::add(&mut register, &next, 50, |_| None, false, &mut Vec::new())
        .await
        .expect("added");
    let mut listed = Vec::new();
    connections::list(&mut register, &queue, None, false, &mut listed).await.expect("listed");
    let text = String::from_utf8(listed).expect("text");
    assert!(text.contains("1970-01-01T00:00:00.00005Z"), "{text}");
    assert!(text.contains("1970-01-01T00:00:00.00003Z"), "{text}");
}
