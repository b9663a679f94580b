//! The vendors' senders: announcements at their moments, signed when they go out, again where nobody took them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::Theatre;
use crate::commands::http::Client;
use crate::error::{Error, Kind, Result};
use crate::sim::world::story::{Notice, Played};
use crate::sim::world::{oura, whoop};
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
    target: &str,
    secrets: BTreeMap<Played, String>,
    stop: CancellationToken,
) -> Result<()> {
    let (notices, queue) = mpsc::channel::<Notice>(WAITING);
    let queue = Arc::new(Mutex::new(queue));
    let secrets = Arc::new(secrets);
    let mut senders = Vec::new();
    for _ in 0..SENDERS {
        let client = Client::new(target, DEADLINE).ok_or_else(|| {
            Error::new(Kind::RequestRefused, "read --target as http://host:port", "")
        })?;
        let sender = Sender {
            client,
            theatre: Arc::clone(&theatre),
            secrets: Arc::clone(&secrets),
            stop: stop.clone(),
        };
        senders.push(tokio::spawn(sender.work(Arc::clone(&queue))));
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
        if notices.send(notice).await.is_err() {
            break;
        }
    }
    drop(notices);
    for sender in senders {
        sender.await.map_err(|_| Error::internal("send announcements"))?;
    }
    Ok(())
}

struct Sender {
    client: Client,
    theatre: Arc<Theatre>,
    secrets: Arc<BTreeMap<Played, String>>,
    stop: CancellationToken,
}

impl Sender {
    async fn work(mut self, queue: Arc<Mutex<mpsc::Receiver<Notice>>>) {
        loop {
            let next = queue.lock().await.recv().await;
            let Some(notice) = next else { return };
            let taken = !self.stop.is_cancelled() && self.deliver(&notice).await;
            let mut stage = self.theatre.stage();
            match notice.of {
                Some((entry, order)) if taken => stage.taken(entry, order),
                Some((entry, order)) => stage.given_up(entry, order),
                None => {}
            }
        }
    }

    /// Sends one until it is taken, or given up.
    async fn deliver(&mut self, notice: &Notice) -> bool {
        let vendor = {
            let stage = self.theatre.stage();
            stage.story().accounts.get(notice.account).map(|account| account.vendor)
        };
        let Some(vendor) = vendor else { return false };
        let secret = self.secrets.get(&vendor).cloned().unwrap_or_default();
        let path = format!("/webhooks/{}", vendor.name());
        let mut pauses = AGAIN_S.iter().zip(AGAIN_REAL_MS);
        loop {
            let headers = match vendor {
                Played::Oura => oura::signed(&notice.body, secret.as_bytes(), now_us()),
                Played::Whoop => whoop::signed(&notice.body, secret.as_bytes(), now_us()),
            };
            let body = notice.body.clone().into_bytes();
            let answer = self.client.send("POST", &path, &headers, body).await;
            if answer.is_some_and(|answer| (200..300).contains(&answer.status)) {
                return true;
            }
            let Some((pause_s, least_ms)) = pauses.next() else { return false };
            let speed = u64::try_from(self.theatre.speed).unwrap_or(1).max(1);
            let pause = (Duration::from_secs(*pause_s) / u32::try_from(speed).unwrap_or(1))
                .max(Duration::from_millis(least_ms));
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
