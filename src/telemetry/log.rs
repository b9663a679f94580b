//! Logs: one JSON line an event, on standard error, and nobody's health in any of them.
//!
//! Three rules keep it so. Only our own targets pass: what a library has to say (rdkafka, hyper,
//! fred, `tokio_postgres`) may quote a record, so it is dropped whatever the level; we log its
//! stable code ourselves. A person is named by [`Who`], which only the holder of the key can turn
//! back. And a panic is logged by its place in our code, never by its message, which can hold a
//! value.

use std::fmt;
use std::panic::PanicHookInfo;

use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::error::{Error, Kind, Result};
use crate::model::id::{PseudonymKey, User};

/// The target that all modules of this crate share.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// What of our own is logged.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub level: Level,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    Off,
    /// What a person must look at.
    Error,
    /// What a person should know.
    Warn,
    /// Starts, stops, changes of state.
    Info,
    /// Every refusal.
    Debug,
    /// Everything.
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::OFF,
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// One of our people in a line of a log: a keyed pseudonym, so that lines of one person can be
/// found together.
#[derive(Clone, PartialEq, Eq)]
pub struct Who(String);

impl Who {
    /// The pseudonym of a user under the deployment's key.
    #[must_use]
    pub fn of(key: &PseudonymKey, user: &User) -> Self {
        Self(key.logged(user))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Logs to standard error from here on, panics included. Once in a process.
///
/// # Errors
/// [`Kind::InternalError`] where the process logs already.
pub fn install(settings: &Settings) -> Result<()> {
    let subscriber = subscriber(settings.level, std::io::stderr);
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_| Error::new(Kind::InternalError, "install the log", "twice"))?;
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// What [`install`] installs, onto any writer.
#[must_use]
pub fn subscriber<W>(level: Level, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .with_span_list(false)
        .with_writer(writer)
        .with_filter(filter_fn(is_ours))
        .with_filter(LevelFilter::from(level));
    tracing_subscriber::registry().with(lines)
}

/// Whether this comes from our own code.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata
        .target()
        .strip_prefix(OURS)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Where a panic happened; what it said stays unsaid.
fn panicked(panic: &PanicHookInfo<'_>) {
    match panic.location() {
        Some(at) => tracing::error!(file = at.file(), line = at.line(), "panicked"),
        None => tracing::error!("panicked"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Level, events: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        tracing::subscriber::with_default(subscriber(level, move || writer.clone()), events);
        let bytes = page.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_library_has_nothing_to_say() {
        let text = logged(Level::Trace, || {
            tracing::error!(target: "librdkafka", "value jane.doe@example.com");
            tracing::error!(target: "hyper::proto", "header jane.doe@example.com");
            tracing::error!(target: "biometric_bridge_of_another", "jane.doe@example.com");
            tracing::info!(port = 8080, "listening");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["fields"]["message"], "listening");
        assert_eq!(line["fields"]["port"], 8080);
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_level_is_a_level_and_a_span_stands_once() {
        let text = logged(Level::Info, || {
            tracing::debug!("too much");
            let span = tracing::info_span!("batch", records = 3);
            span.in_scope(|| tracing::warn!("slow"));
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(text.matches("records").count(), 1, "{text}");
        assert_eq!(logged(Level::Off, || tracing::error!("no")), "");
    }

    #[test]
    fn a_person_is_a_pseudonym() {
        let key = PseudonymKey::new(b"not-a-secret-test-key");
        let user = User::parse("app-user-77").expect("a user");
        let who = Who::of(&key, &user);
        let text = logged(Level::Info, || tracing::info!(%who, "connected"));
        assert!(text.contains(&who.to_string()));
        assert!(!text.contains("app-user-77"));
        assert_eq!(format!("{who:?}").len(), 32);
    }
}
