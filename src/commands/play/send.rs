//! The vendors' senders: announcements at their moments, signed when they go out, again where nobody took them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::Theatre;
use crate::commands::http::Client;
use crate::error::{Error, Kind, Result};
use crate::kafka::producer::Sending;
use crate::model::contract::Topic;
use crate::model::record::{Headers, OutRecord};
use crate::sim::world::player::Played;
use crate::sim::world::story::{Notice, Way};
use crate::stream::Sender as _;
use crate::stream::clock::now_us;

/// How many requests are under way at once.
const SENDERS: usize = 16;
/// How many announcements wait for a sender.
const WAITING: usize = 256;
/// A vendor's patience with an answer.
const DEADLINE: Duration = Duration::from_secs(8);
/// After how long an announcement is sent again: five times in about an hour of the vendor's time, and not all of them
/// within a blink of ours.
const AGAIN_S: [u64; 5] = [60, 240, 600, 1_200, 1_500];
const AGAIN_REAL_MS: [u64; 5] = [500, 1_000, 2_000, 4_000, 8_000];

/// Sends all announcements; what is left when it is stopped is given up.
pub(super) async fn all(
    theatre: Arc<Theatre>,
    (target, address): (&str, &str),
    secrets: BTreeMap<Played, String>,
    log: Option<Arc<Sending>>,
    stop: CancellationToken,
) -> Result<()> {
    let (notices, queue) = mpsc::channel::<Notice>(WAITING);
    let queue = Arc::new(Mutex::new(queue));
    let secrets = Arc::new(secrets);
    let sender = || {
        let client = Client::new(target, DEADLINE).ok_or_else(|| {
            Error::new(Kind::RequestRefused, "read --target as http://host:port", "")
        })?;
        let (theatre, secrets) = (Arc::clone(&theatre), Arc::clone(&secrets));
        let (log, address) = (log.clone(), address.to_owned());
        Ok::<_, Error>(Sender { client, theatre, secrets, log, address, stop: stop.clone() })
    };
    let mut senders = Vec::new();
    for _ in 0..SENDERS {
        senders.push(tokio::spawn(sender()?.work(Arc::clone(&queue))));
    }
    // Who sends in turn has a sender of its own.
    let mut turns = BTreeMap::new();
    for vendor in secrets.keys().filter(|vendor| vendor.in_turn()) {
        let (own, queue) = mpsc::channel::<Notice>(WAITING);
        senders.push(tokio::spawn(sender()?.work(Arc::new(Mutex::new(queue)))));
        turns.insert(*vendor, own);
    }
    let count = theatre.stage().story().notices.len();
    for at in 0..count {
        let notice = theatre.stage().story().notices.get(at).cloned();
        let Some(notice) = notice else { continue };
        if let Some(early) = theatre.until(notice.at) {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(early) => {}
            }
        }
        if turns.get(&notice.vendor).unwrap_or(&notices).send(notice).await.is_err() {
            break;
        }
    }
    drop((notices, turns));
    for sender in senders {
        sender.await.map_err(|_| Error::internal("send announcements"))?;
    }
    Ok(())
}

struct Sender {
    client: Client,
    theatre: Arc<Theatre>,
    secrets: Arc<BTreeMap<Played, String>>,
    /// What writes to the topic that Terra itself writes.
    log: Option<Arc<Sending>>,
    /// Where links lead.
    address: String,
    stop: CancellationToken,
}

impl Sender {
    async fn work(mut self, queue: Arc<Mutex<mpsc::Receiver<Notice>>>) {
        loop {
            let next = queue.lock().await.recv().await;
            let Some(notice) = next else { return };
            let now = self.theatre.now();
            if !self.theatre.stage().hears(&notice, now) {
                continue;
            }
            let taken = !self.stop.is_cancelled() && self.deliver(&notice).await;
            let mut stage = self.theatre.stage();
            if taken {
                stage.taken(&notice);
            } else {
                stage.given_up(&notice);
            }
        }
    }

    /// Sends one until it is taken, or given up. What is of an account itself is not given up: all else hangs on it.
    async fn deliver(&mut self, notice: &Notice) -> bool {
        let secret = self.secrets.get(&notice.vendor).cloned().unwrap_or_default();
        let mut pauses = AGAIN_S.iter().zip(AGAIN_REAL_MS);
        loop {
            let taken = match notice.way {
                Way::Door => self.post(notice, &secret).await,
                Way::Log => self.write(notice.body.clone()).await,
                Way::Link | Way::DeadLink => {
                    let now = self.theatre.now();
                    self.theatre.stage().written(&notice.id, now);
                    self.write(notice.vendor.pointer(notice, &self.address)).await
                }
            };
            if taken {
                return true;
            }
            let last = AGAIN_S.iter().zip(AGAIN_REAL_MS).next_back();
            let next = pauses.next().or(last.filter(|_| notice.of.is_empty()));
            let Some((pause_s, least_ms)) = next else { return false };
            let speed = u64::try_from(self.theatre.speed).unwrap_or(1).max(1);
            let pause = (Duration::from_secs(*pause_s) / u32::try_from(speed).unwrap_or(1))
                .max(Duration::from_millis(least_ms));
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn post(&mut self, notice: &Notice, secret: &str) -> bool {
        let delivery = notice.vendor.delivery(notice, secret, now_us());
        let body = notice.body.clone().into_bytes();
        let answer = self.client.send("POST", &delivery.path, &delivery.headers, body).await;
        answer.is_some_and(|answer| (200..300).contains(&answer.status))
    }

    /// Writes as Terra does: without a key and without headers.
    async fn write(&mut self, value: String) -> bool {
        let Some(log) = &self.log else { return false };
        let headers = Headers::new();
        let value = Some(Bytes::from(value));
        let sent = log.send(OutRecord { topic: Topic::RawTerra, key: None, headers, value }).await;
        // The log's times are milliseconds, and two in one of them have no order.
        tokio::time::sleep(Duration::from_millis(2)).await;
        sent.is_ok()
    }
}
