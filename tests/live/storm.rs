//! A hydrator that dies again and again, a vendor that is down for an hour, and one that hangs beside another.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use biometric_bridge::stream::clock::Stopwatch;

use crate::fetched::{
    ask, deployment, hydrator, nights, published, sql, states, store, store_for, topic,
};
use crate::kill::{Dice, kills};
use crate::pair::Pair;
use crate::played::Server;
use crate::process::{Deployment, free_port, text, until};

const GOOD: &str = r#"{"access_token":"canary-access-1","refresh_token":"canary-refresh-0"}"#;

/// A deployment in a world that is sixty times as fast: a minute's quota is a second's.
fn fast(label: &str, server: &Server) -> Pair {
    let mut pair = deployment(label, server);
    for (key, value) in [
        ("HYDRATOR__SPEED", "60"),
        ("HYDRATOR__CONNECT_MS_MAX", "1000"),
        ("HYDRATOR__FIRST_BYTE_MS_MAX", "1000"),
        ("HYDRATOR__WHOLE_MS_MAX", "1000"),
        ("HYDRATOR__LEASE_S", "32"),
        ("LOG__LEVEL", "info"),
    ] {
        pair.deployment.set(key, value.to_owned());
    }
    store(&pair.deployment, GOOD);
    pair
}

/// `KILLS` times one of two hydrators dies by SIGKILL while it fetches.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_each_night_is_told_once() {
    const EACH: usize = 60;
    let server = Server::start().await;
    let pair = fast("storm", &server);
    tokio::task::spawn_blocking(move || {
        let world = &pair.deployment;
        let _pipeline = pair.start_pipeline("a", pair.pipeline_admin);
        let kills = usize::try_from(kills()).expect("few");
        let ids = nights(&server, kills * EACH);
        let mut dice = Dice(11);
        let mut running = ["h1", "h2"].map(|label| Some(hydrator(&pair, label, free_port())));
        for (kill, some) in ids.chunks(EACH).enumerate() {
            some.iter().enumerate().for_each(|(at, id)| ask(world, kill * EACH + at, id));
            std::thread::sleep(Duration::from_millis(dice.below(900)));
            let (slot, label) = (kill % 2, ["h1", "h2"][kill % 2]);
            running[slot].take().expect("it runs").kill();
            running[slot] = Some(hydrator(&pair, label, free_port()));
        }
        let all = format!("done {}", ids.len());
        until("all are fetched", Duration::from_secs(240), || states(world) == all);
        until("all are told", Duration::from_secs(120), || published(world).len() >= ids.len());
        std::thread::sleep(Duration::from_secs(3));
        let events = published(world);
        let different: BTreeSet<&String> = events.iter().collect();
        let fetched = topic(world, "raw-documents").len();
        println!("{kills} kills, {} nights, {fetched} documents", ids.len());
        assert_eq!((different.len(), events.len()), (ids.len(), ids.len()));
        assert!(topic(world, "biometric-events.dlq").is_empty());
    })
    .await
    .expect("no panic");
}

/// Down for an hour of its world: nobody is given up, it is hardly asked meanwhile, and then its quota is used.
#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_is_down_for_an_hour_loses_nothing() {
    const NIGHTS: usize = 1_500;
    let server = Server::start().await;
    let pair = fast("down", &server);
    tokio::task::spawn_blocking(move || {
        let world = &pair.deployment;
        server.down.store(true, Ordering::SeqCst);
        nights(&server, NIGHTS);
        sql(world, &many("whoop", "sleep", &format!("generate_series(0, {})", NIGHTS - 1)));
        let _running = hydrator(&pair, "h1", free_port());
        std::thread::sleep(Duration::from_secs(60));
        let asked = server.times.lock().expect("not poisoned").len();
        assert_eq!(states(world), format!("waiting {NIGHTS}"), "nobody is given up");
        // Five failures and a probe a minute; some are under way when it opens.
        assert!((5..200).contains(&asked), "{asked} calls of a vendor that is away");
        server.down.store(false, Ordering::SeqCst);
        let up = Stopwatch::start();
        let all = format!("done {NIGHTS}");
        until("the backlog is fetched", Duration::from_secs(120), || states(world) == all);
        let minutes = up.seconds();
        println!("{asked} calls while it was down; {NIGHTS} nights in {minutes:.1} of its minutes");
        assert!(minutes < 3.0 * 15.0, "fifteen minutes of its quota took {minutes:.1}");
    })
    .await
    .expect("no panic");
}

/// Rows that normalise would have written, of these numbers.
fn many(vendor: &str, record_type: &str, numbers: &str) -> String {
    format!(
        "INSERT INTO hydrations (vendor, connection, record_type, record_id, source_topic, source_partition,
                                 source_offset, source_index, asked_at, state)
         SELECT '{vendor}', c.id, '{record_type}', '0c7a4f62-9b8e-4f0d-8a5f-' || lpad(to_hex(n), 12, '0'),
                1, 0, n, 0, (extract(epoch FROM clock_timestamp()) * 1000000)::int8, 'waiting'
         FROM connections AS c, {numbers} AS n WHERE c.vendor = '{vendor}'"
    )
}

/// One vendor answers, the other takes every call and says nothing: how long the first one's records take, from the
/// notification to the log, beside a hanging one and without.
#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_hangs_slows_no_other() {
    const PHASES: usize = 6;
    const EACH: usize = 150;
    let server = Server::start().await;
    let mut pair = fast("hang", &server);
    pair.deployment.set("VENDORS__WHOOP__API_BASE", format!("{}/hang", server.address));
    pair.deployment.set("VENDORS__OURA__API_BASE", server.address.clone());
    tokio::task::spawn_blocking(move || {
        let world = &pair.deployment;
        let whose = ["--vendor", "oura", "--vendor-user", "v-oura"];
        let added = world.run(&[&["connections", "add", "--user", "u-2"], &whose[..]].concat());
        assert!(added.status.success(), "{}", text(&added));
        store_for(world, "oura", "v-oura", GOOD);
        let _running = hydrator(&pair, "h1", free_port());
        let mut p99 = [Vec::new(), Vec::new()];
        for phase in 0..PHASES {
            let hangs = phase % 2 == 1;
            let from = phase * EACH;
            if hangs {
                let numbers = format!("generate_series({from}, {})", from + EACH);
                sql(world, &many("whoop", "sleep", &numbers));
            }
            p99[usize::from(hangs)].push(paced(world, from, EACH));
            if hangs {
                sql(world, "DELETE FROM hydrations WHERE vendor = 'whoop'");
            }
        }
        assert!(server.asked.lock().expect("not poisoned").iter().any(|head| head.contains("/hang/")));
        let [alone, beside] = p99.map(|mut all| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        });
        println!("p99 from notification to log: {alone:.1} ms alone, {beside:.1} ms beside one that hangs");
        assert!(beside <= (1.25 * alone).max(alone + 20.0), "{alone:.1} ms, then {beside:.1} ms");
    })
    .await
    .expect("no panic");
}

/// Asks for so many of Oura's records, twenty a second; the 99th percentile of what they take, ms.
fn paced(world: &Deployment, from: usize, count: usize) -> f64 {
    let until_number = from + count - 1;
    sql(
        world,
        &format!(
            "DO $$ BEGIN FOR one IN {from}..{until_number} LOOP {}; COMMIT; PERFORM pg_sleep(0.05); END LOOP; END $$",
            many("oura", "sleep", "generate_series(one, one)")
        ),
    );
    let waiting = "SELECT count(*) FROM hydrations WHERE vendor = 'oura' AND state = 'waiting'";
    until("they are fetched", Duration::from_secs(30), || sql(world, waiting) == "0");
    let worst = format!(
        "SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY updated_at - asked_at) / 1000.0
         FROM hydrations WHERE vendor = 'oura' AND source_offset BETWEEN {from} AND {until_number}"
    );
    sql(world, &worst).parse().expect("a number")
}
