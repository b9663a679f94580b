//! What the door answers: statuses and constant bodies. Pure.
//!
//! A body says no more than its status does, in the same bytes for everybody: who tries signatures
//! must not learn whether the key or the clock was wrong. What we know more precisely stands in
//! `webhook_events_failed_total`.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::error::Kind;

/// The answer's type: a body in one piece.
pub(super) type Answer = Response<Full<Bytes>>;

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No such path, or no such vendor.
    NotFound(Kind),
    /// Another method; these are allowed.
    Method(&'static str),
    /// Larger than the vendor's bodies are.
    TooLarge,
    /// Encoded, and the vendor's contract has no encoding.
    Encoding,
    /// The body did not come whole, or not as HTTP has it.
    Broken,
    /// The body took too long.
    Slow,
    /// Not the vendor's, or outside its window.
    Signature(Kind),
    /// Whether it is the vendor's cannot be told: its public keys are not at hand.
    Keyless,
    /// A page of an origin that is not listed.
    Origin,
    /// More often than is configured: the vendor's status for it, and when it may come again, s.
    Limited(u16, u32),
    /// More is in flight than we take.
    Overloaded,
    /// The log does not have it: refused, or not acknowledged in time.
    NotDurable,
}

impl Refusal {
    /// Of a request that was not verified, for this reason.
    pub(super) const fn unverified(kind: Kind) -> Self {
        match kind {
            Kind::WearableApiError => Self::Keyless,
            kind => Self::Signature(kind),
        }
    }

    /// The kind under which it is counted.
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::NotFound(kind) | Self::Signature(kind) => kind,
            Self::Method(_) | Self::Encoding | Self::Broken | Self::Slow | Self::Origin => {
                Kind::RequestRefused
            }
            Self::Limited(..) => Kind::RateLimitError,
            Self::TooLarge => Kind::PayloadTooLarge,
            Self::Overloaded => Kind::Overloaded,
            Self::NotDurable => Kind::BrokerUnavailable,
            Self::Keyless => Kind::WearableApiError,
        }
    }

    /// A 4xx says that the sender is wrong; only a 5xx makes every vendor send again.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::Limited(429, _) => StatusCode::TOO_MANY_REQUESTS,
            Self::Limited(..) | Self::Overloaded | Self::NotDurable | Self::Keyless => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    const fn body(self) -> &'static str {
        match self {
            Self::NotFound(_) => r#"{"error":"not_found"}"#,
            Self::Method(_) => r#"{"error":"method_not_allowed"}"#,
            Self::TooLarge => r#"{"error":"payload_too_large"}"#,
            Self::Encoding => r#"{"error":"unsupported_encoding"}"#,
            Self::Broken => r#"{"error":"bad_request"}"#,
            Self::Slow => r#"{"error":"request_timeout"}"#,
            Self::Signature(_) => r#"{"error":"unauthorised"}"#,
            Self::Origin => r#"{"error":"forbidden"}"#,
            Self::Limited(..) => r#"{"error":"too_many_requests"}"#,
            Self::Overloaded | Self::NotDurable | Self::Keyless => r#"{"error":"unavailable"}"#,
        }
    }

    /// The answer.
    pub(super) fn answer(self, retry_after_s: u32) -> Answer {
        let mut answer = json(self.status(), Bytes::from_static(self.body().as_bytes()));
        let headers = answer.headers_mut();
        match self {
            Self::Method(allowed) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Self::Overloaded | Self::NotDurable | Self::Keyless => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
            }
            Self::Limited(_, after_s) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(after_s));
            }
            Self::NotFound(_)
            | Self::TooLarge
            | Self::Encoding
            | Self::Broken
            | Self::Slow
            | Self::Origin
            | Self::Signature(_) => {}
        }
        answer
    }
}

/// The answer to what the log has. `delivery_id` is of safe characters, so it stands as it is.
pub(super) fn accepted(status: u16, vendor: &str, delivery_id: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    if status == StatusCode::NO_CONTENT {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = status;
        return answer;
    }
    let text =
        format!(r#"{{"status":"accepted","device":"{vendor}","delivery_id":"{delivery_id}"}}"#);
    json(status, Bytes::from(text))
}

/// The answer to a vendor's greeting.
pub(super) fn greeted(status: u16) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    json(status, Bytes::from_static(br#"{"status":"accepted"}"#))
}

/// The answer to a handshake: the vendor's file made the text, a browser must not guess what it is.
pub(super) fn handshake(text: String) -> Answer {
    let mut answer = json(StatusCode::OK, Bytes::from(text));
    answer
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Ends the connection after this answer.
pub(super) fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn json(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Refusal; 15] = [
        Refusal::NotFound(Kind::UnknownVendor),
        Refusal::NotFound(Kind::RequestRefused),
        Refusal::Method("POST"),
        Refusal::TooLarge,
        Refusal::Encoding,
        Refusal::Broken,
        Refusal::Slow,
        Refusal::Signature(Kind::SignatureInvalid),
        Refusal::Signature(Kind::SignatureExpired),
        Refusal::Origin,
        Refusal::Limited(503, 9),
        Refusal::Limited(429, 9),
        Refusal::Overloaded,
        Refusal::NotDurable,
        Refusal::Keyless,
    ];

    #[test]
    fn our_fault_is_a_503_with_a_time_and_never_a_4xx() {
        for refusal in ALL {
            let answer = refusal.answer(5);
            let ours = matches!(
                refusal.kind(),
                Kind::Overloaded | Kind::BrokerUnavailable | Kind::WearableApiError
            );
            let limited = matches!(refusal, Refusal::Limited(..));
            assert!(answer.status() != 503 || ours || limited, "{refusal:?}");
            assert!(!ours || answer.status() == 503, "{refusal:?}");
            let told = answer.headers().get(header::RETRY_AFTER).map(HeaderValue::as_bytes);
            let when: Option<&[u8]> = if limited { Some(b"9") } else { ours.then_some(b"5") };
            assert_eq!(told, when, "{refusal:?}");
            assert_ne!(answer.status(), 410, "410 ends an Oura subscription");
        }
    }

    #[test]
    fn a_401_does_not_say_what_was_wrong() {
        let invalid = Refusal::Signature(Kind::SignatureInvalid);
        let expired = Refusal::Signature(Kind::SignatureExpired);
        assert_eq!(invalid.body(), expired.body());
        assert_ne!(invalid.kind(), expired.kind(), "counted apart");
        assert_eq!(invalid.status(), expired.status());
    }

    #[test]
    fn a_204_has_no_body() {
        let answer = accepted(204, "google", "d");
        assert_eq!(answer.status(), 204);
        assert!(!answer.headers().contains_key(header::CONTENT_TYPE));
        assert_eq!(accepted(200, "oura", "d").status(), 200);
    }
}
