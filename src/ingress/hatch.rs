//! The door without a socket: every step of a request but the wire, at a moment that the caller names.
//!
//! # Why
//! `try` knocks at the real door in a world whose clock stands still unless it is moved, so that the same requests
//! give the same records. What a socket adds (deadlines of a sender, connections in all) is not looked at here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;

use crate::ingress::accept::Door;
use crate::ingress::admit::{Guest, Guests};
use crate::ingress::{Keys, Settings};
use crate::model::time::Micros;
use crate::stream::Sender;
use crate::stream::clock::Stopwatch;
use crate::telemetry::metrics::Metrics;

/// A door for one sender at a time.
pub struct Hatch<S> {
    door: Door<S>,
    guest: Guest,
}

impl<S: Sender> Hatch<S> {
    /// A door over this log; absent where the settings let nobody in.
    ///
    /// As for [`super::serve`], settings and keys must have no problems.
    #[must_use]
    pub fn new(settings: Settings, keys: Keys, sender: S, metrics: Metrics) -> Option<Self> {
        let (all, per_peer) = (settings.connections_max, settings.connections_per_peer_max);
        let guests = Guests::new(all, per_peer, metrics.connections.clone());
        let guest = guests.enter(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
        Some(Self { door: Door::new(settings, keys, Arc::new(sender), metrics), guest })
    }

    /// Answers a request whose body was complete at this moment, µs since the epoch.
    pub async fn answer(
        &self,
        request: Request<Full<Bytes>>,
        received_at: Micros,
    ) -> Response<Full<Bytes>> {
        self.door.answer(request, &self.guest, Stopwatch::start(), || received_at).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::error::Result;
    use crate::ingress::VendorKeys;
    use crate::ingress::tests::{keys, settings};
    use crate::model::contract::header;
    use crate::model::record::OutRecord;
    use crate::model::state::Coordinates;
    use crate::vendors::wire::hmac::sign_hex;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<OutRecord>>>);

    impl Sender for Kept {
        async fn send(&self, record: OutRecord) -> Result<Coordinates> {
            let at = Coordinates { topic: record.topic, partition: 0, offset: 0 };
            self.0.lock().expect("not poisoned").push(record);
            Ok(at)
        }
    }

    /// The moment is what the signature is held against and what the record says.
    #[tokio::test]
    async fn a_request_is_received_when_the_caller_says() {
        let key = b"not-a-secret-test-key";
        let mut keys = keys();
        let signing = vec!["not-a-secret-test-key".into()];
        keys.vendors.insert("terra".to_owned(), VendorKeys { signing, ..VendorKeys::default() });
        let kept = Kept::default();
        let hatch = Hatch::new(settings(), keys, kept.clone(), Metrics::new()).expect("let in");
        let request = || {
            let digest = sign_hex(&[b"1774742400.", b"{}"], key);
            Request::post("/webhooks/terra")
                .header("x-terra-signature", format!("t=1774742400,v1={digest}"))
                .body(Full::from("{}"))
                .expect("a request")
        };
        let (soon, late) = (1_774_742_401_000_000, 1_774_742_400_000_000 + 26 * 3_600_000_000);
        assert_eq!(hatch.answer(request(), soon).await.status(), 200);
        assert_eq!(hatch.answer(request(), late).await.status(), 401);
        let kept = kept.0.lock().expect("not poisoned");
        let received = |one: &OutRecord| one.headers.text(header::RECEIVED_AT).map(str::to_owned);
        let received: Vec<_> = kept.iter().map(received).collect();
        assert_eq!(received, [Some("1774742401000000".to_owned())]);
    }
}
