//! Events as records of an output topic: key, headers, value.
//!
//! Headers are for routing, and everyone who may list a topic may read them: they name our user by our own opaque
//! id, what kind of event it is and whether somebody is to act on it. No value of a measurement stands in one, and
//! no muted trigger: who acts on headers alone must not act on what nobody is to act on.

use bytes::Bytes;
use serde_json::json;

use crate::model::contract::{Topic, event_key, header};
use crate::model::event::BiometricEvent;
use crate::model::id::Source;
use crate::model::record::{Headers, OutRecord};
use crate::model::trigger::{Severity, Trigger};

/// The topic of an event: by its way of arrival, so that it stands in one topic and never in two.
#[must_use]
pub fn topic(event: &BiometricEvent) -> Topic {
    if event.via == "terra" { Topic::TerraBiometricEvents } else { Topic::BiometricEvents }
}

/// An event as it is sent: `value` is its framed bytes, `traceparent` that of the input, unchanged.
#[must_use]
pub fn event(
    topic: Topic,
    event: &BiometricEvent,
    value: Bytes,
    traceparent: Option<&Bytes>,
) -> OutRecord {
    let acting: Vec<&Trigger> = event.triggers.iter().filter(|trigger| !trigger.muted).collect();
    let severity = acting.iter().filter_map(|trigger| Severity::parse(&trigger.severity)).max();
    let has_triggers = if acting.is_empty() { "false" } else { "true" };
    let mut headers = Headers::new()
        .with(header::EVENT_TYPE, event.record_type.clone())
        .with(header::USER_ID, event.user_id.as_str().to_owned())
        .with(header::DEVICE_TYPE, event.device_type.clone())
        .with(header::PRIORITY, severity.map_or("NORMAL", Severity::priority))
        .with(header::HAS_TRIGGERS, has_triggers)
        .with(header::TRIGGERS, triggers(&acting))
        .with(header::SEVERITY, severity.map_or("", Severity::name))
        .with(header::SOURCE, source(event.source))
        .with(header::ORIGIN, event.origin.name())
        .with(header::EVENT_ID, event.event_id.to_string())
        .with(header::REVISION, event.revision.to_string());
    if let Some(traceparent) = traceparent {
        headers.push(header::TRACEPARENT, traceparent.clone());
    }
    let key = event_key(&event.user_id, &event.device_type);
    OutRecord { topic, key: Some(Bytes::from(key)), headers, value: Some(value) }
}

/// Coordinates as text: `topic/partition/offset/index`.
#[must_use]
pub fn source(source: Source) -> String {
    format!("{}/{}/{}/{}", source.topic, source.partition, source.offset, source.index)
}

/// What stands in the header: v0's form, without the value; empty where there is nothing to act on.
fn triggers(acting: &[&Trigger]) -> String {
    if acting.is_empty() {
        return String::new();
    }
    let list: Vec<_> = acting
        .iter()
        .map(|trigger| {
            json!({
                "type": trigger.action,
                "severity": trigger.severity,
                "metric": trigger.metric,
                "recommendation": trigger.recommendation,
            })
        })
        .collect();
    json!({ "triggers": list }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Content, Merge, Op, Origin};
    use crate::model::id::{ConnectionId, EventId, User};

    fn trigger(severity: &str, muted: bool) -> Trigger {
        Trigger {
            trigger_id: "t".into(),
            rule: "v0.hrv_critical@1".into(),
            action: "URGENT_INTERVENTION".into(),
            severity: severity.into(),
            metric: "hrv".into(),
            value: 18.75,
            recommendation: "immediate_stress_protocol".into(),
            step: "open".into(),
            muted,
        }
    }

    fn with(via: &str, triggers: Vec<Trigger>) -> BiometricEvent {
        let user = User::parse("u1").expect("a user");
        let connection = ConnectionId::derive("terra", "v", &user);
        BiometricEvent {
            event_id: EventId::derive(connection, "sleep", "r"),
            revision: 3,
            op: Op::Upsert,
            user_id: user,
            connection_id: connection,
            vendor: "terra".into(),
            device_type: "oura".into(),
            via: via.into(),
            record_type: "sleep".into(),
            record_id: "r".into(),
            merge: Merge::Replace,
            version: None,
            received_at: 5,
            freshness_us: None,
            source: Source { topic: Topic::RawWebhooks, partition: 1, offset: 2, index: 0 },
            origin: Origin::Live,
            normaliser: 1,
            content: Content::default(),
            triggers,
        }
    }

    fn sent(triggers: Vec<Trigger>) -> OutRecord {
        let of = with("terra", triggers);
        event(topic(&of), &of, Bytes::from_static(b"x"), Some(&Bytes::from_static(b"00-t")))
    }

    #[test]
    fn an_event_goes_to_one_topic_by_its_way() {
        assert_eq!(topic(&with("terra", vec![])), Topic::TerraBiometricEvents);
        assert_eq!(topic(&with("direct", vec![])), Topic::BiometricEvents);
    }

    #[test]
    fn headers_are_those_of_the_contract() {
        let record = sent(vec![trigger("HIGH", false), trigger("CRITICAL", false)]);
        assert_eq!(record.key, Some(Bytes::from_static(b"u1:oura")));
        let headers: Vec<(&str, &str)> = record
            .headers
            .iter()
            .map(|(name, value)| (name, std::str::from_utf8(value).expect("text")))
            .collect();
        let one = |severity: &str| {
            json!({"type": "URGENT_INTERVENTION", "severity": severity, "metric": "hrv",
                   "recommendation": "immediate_stress_protocol"})
        };
        let triggers = json!({"triggers": [one("HIGH"), one("CRITICAL")]}).to_string();
        let id = with("terra", vec![]).event_id.to_string();
        let expected = [
            ("event_type", "sleep"),
            ("user_id", "u1"),
            ("device_type", "oura"),
            ("priority", "HIGH"),
            ("has_triggers", "true"),
            ("triggers", triggers.as_str()),
            ("severity", "CRITICAL"),
            ("source", "raw-webhooks/1/2/0"),
            ("origin", "live"),
            ("event_id", id.as_str()),
            ("revision", "3"),
            ("traceparent", "00-t"),
        ];
        assert_eq!(headers, expected);
        assert!(!format!("{headers:?}").contains("18.75"), "a value never stands in a header");
    }

    #[test]
    fn a_muted_trigger_stands_in_no_header() {
        let (muted, none) = (sent(vec![trigger("CRITICAL", true)]), sent(vec![]));
        assert_eq!(muted.headers, none.headers);
        assert_eq!(muted.headers.text(header::HAS_TRIGGERS), Some("false"));
        assert_eq!(muted.headers.text(header::PRIORITY), Some("NORMAL"));
        assert_eq!(muted.headers.text(header::TRIGGERS), Some(""));
        let both = sent(vec![trigger("CRITICAL", true), trigger("HIGH", false)]);
        assert_eq!(both.headers.text(header::SEVERITY), Some("HIGH"));
        assert_eq!(both.headers.text(header::PRIORITY), Some("MEDIUM"));
    }
}
