//! What is asked for without a notification: the history of a connection that was made, or made anew, and the days that
//! a vendor announces to nobody.
//!
//! A keeper runs in every process and keeps nothing: what is missing stands in `gaps`, and what becomes of it in the
//! queue, each written by a statement that does nothing the second time. From there on a window is fetched as any record.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::stream::clock::Stopwatch;
use crate::stream::hydration::{Histories, Polled, Window};
use crate::telemetry::metrics::Metrics;
use crate::vendors::ask::Api;
use crate::vendors::history;

/// How often it looks for gaps.
const LOOK: Duration = Duration::from_secs(2);
/// How often it looks for what is to be polled.
const POLL: Duration = Duration::from_secs(20);
/// How many gaps of a vendor are opened at a look.
const GAPS_MAX: usize = 100;

/// A vendor whose history is asked for.
#[derive(Clone)]
pub struct Shelf {
    /// Its name.
    pub name: &'static str,
    /// What its file says of it.
    pub api: &'static dyn Api,
}

/// How far back, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Days of history at most; 0 for none.
    pub history_days: i32,
    /// How long a day that is polled is left alone; absent where nothing is polled.
    pub poll: Option<Duration>,
    /// Whether the vendors' world runs faster than our clock: a day of ours is then many of its days, and all that a vendor
    /// is ever polled for can still grow.
    pub fast: bool,
    /// How long a gap waits whose connection may turn out to be another one ([`Histories::gaps`]).
    pub settles: Duration,
}

/// Opens gaps and polls, until `stop`. What fails is tried again at the next look.
pub async fn keep(
    histories: &impl Histories,
    shelves: &[Shelf],
    reach: Reach,
    metrics: &Metrics,
    stop: &CancellationToken,
) {
    let mut polled: Option<Stopwatch> = None;
    while !stop.is_cancelled() {
        for shelf in shelves {
            failed(shelf, metrics, open(histories, shelf, reach).await);
        }
        if polled.is_none_or(|since| since.elapsed() >= POLL) {
            polled = Some(Stopwatch::start());
            for shelf in shelves {
                failed(shelf, metrics, poll(histories, shelf, reach).await);
            }
        }
        let next = tokio::time::timeout(LOOK, stop.cancelled()).await;
        drop(next);
    }
}

fn failed(shelf: &Shelf, metrics: &Metrics, done: Result<()>) {
    if let Err(Error { kind, doing, code }) = done {
        metrics.errors.at([kind.name()]).inc();
        tracing::warn!(vendor = shelf.name, kind = kind.name(), doing, %code,
            "history is asked for later");
    }
}

/// Opens a vendor's gaps.
///
/// # Errors
/// As the port's calls.
pub async fn open(histories: &impl Histories, shelf: &Shelf, reach: Reach) -> Result<()> {
    let collections = shelf.api.history();
    if collections.is_empty() {
        return Ok(());
    }
    for gap in histories.gaps(shelf.name, GAPS_MAX, reach.settles).await? {
        let wanted = history::windows(collections, (gap.from, gap.to), reach.history_days);
        let window = |one: history::Wanted| Window {
            record_type: one.record_type,
            record_id: one.window.to_string(),
            priority: one.priority,
        };
        let windows: Vec<Window> = wanted.into_iter().map(window).collect();
        histories.open(shelf.name, &gap, &windows).await?;
        tracing::info!(vendor = shelf.name, windows = windows.len(), "history is asked for");
    }
    Ok(())
}

/// Asks for a vendor's days that are due.
///
/// # Errors
/// As the port's calls.
pub async fn poll(histories: &impl Histories, shelf: &Shelf, reach: Reach) -> Result<()> {
    let Some(every) = reach.poll else { return Ok(()) };
    for poll in shelf.api.polls() {
        let late_days = if reach.fast { poll.back_days } else { poll.late_days };
        let record_type = poll.record_type;
        let polled = Polled { record_type, late_days, back_days: poll.back_days, every };
        histories.poll(shelf.name, &polled).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::stream::hydration::Gap;

    /// Notes how many days are polled.
    #[derive(Default)]
    struct Noted(Mutex<Vec<i32>>);

    impl Histories for Noted {
        async fn gaps(
            &self,
            _vendor: &str,
            _at_most: usize,
            _settles: Duration,
        ) -> Result<Vec<Gap>> {
            Ok(Vec::new())
        }

        async fn open(&self, _vendor: &str, _gap: &Gap, _windows: &[Window]) -> Result<()> {
            Ok(())
        }

        async fn poll(&self, _vendor: &str, polled: &Polled) -> Result<u64> {
            self.0.lock().expect("not poisoned").push(polled.late_days);
            Ok(0)
        }
    }

    #[tokio::test]
    async fn in_a_faster_world_more_days_than_ours_can_still_grow() {
        let api = crate::vendors::find("dexcom").and_then(|vendor| vendor.api()).expect("an API");
        let (noted, shelf) = (Noted::default(), Shelf { name: "dexcom", api });
        for fast in [false, true] {
            let every = Some(Duration::from_secs(60));
            let reach = Reach { history_days: 0, poll: every, fast, settles: Duration::ZERO };
            poll(&noted, &shelf, reach).await.expect("polled");
        }
        assert_eq!(*noted.0.lock().expect("not poisoned"), [3, 30]);
    }
}
