//! The outbox's byte string: output records as they will be sent, each with the input offset that caused it.
//!
//! A format of our own, because it is read back only by this system, once, after a crash: a version byte, then
//! per record the cause and its parts, every length in front as 4 bytes big-endian (`u32::MAX` for absent).

use bytes::Bytes;

use super::contract::Topic;
use super::record::{Headers, OutRecord};

/// An output and its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The offset of the input record that caused it.
    pub cause: i64,
    /// What is sent.
    pub record: OutRecord,
}

const VERSION: u8 = 1;
const ABSENT: u32 = u32::MAX;
/// What an output has beside its parts: cause, topic, the lengths of key and value, the count of headers.
const OUTPUT_BYTES: usize = 8 + 1 + 4 + 4 + 4;
/// What a header has beside its name and its value: their lengths.
const HEADER_BYTES: usize = 4 + 4;

/// The bytes of these outputs.
#[must_use]
pub fn encode<'a>(outputs: impl IntoIterator<Item = &'a Output, IntoIter: Clone>) -> Vec<u8> {
    let outputs = outputs.into_iter();
    // Made in one piece: a megabyte that grows is copied ten times over.
    let lengths = outputs.clone().map(|output| {
        let headers = output.record.headers.iter().count();
        output.record.size() + OUTPUT_BYTES + headers * HEADER_BYTES
    });
    let mut out = Vec::with_capacity(1 + lengths.sum::<usize>());
    out.push(VERSION);
    for output in outputs {
        out.extend_from_slice(&output.cause.to_be_bytes());
        out.push(output.record.topic.code());
        put(&mut out, output.record.key.as_deref());
        put(&mut out, output.record.value.as_deref());
        let count = u32::try_from(output.record.headers.iter().count()).unwrap_or(ABSENT);
        out.extend_from_slice(&count.to_be_bytes());
        for (name, value) in output.record.headers.iter() {
            put(&mut out, Some(name.as_bytes()));
            put(&mut out, Some(value));
        }
    }
    out
}

/// The outputs of these bytes; none where they are not ours.
#[must_use]
pub fn decode(bytes: &Bytes) -> Option<Vec<Output>> {
    let mut reader = Reader { rest: bytes.clone() };
    if reader.take(1)?.first() != Some(&VERSION) {
        return None;
    }
    let mut outputs = Vec::new();
    while !reader.rest.is_empty() {
        let cause = i64::from_be_bytes(reader.take(8)?.as_ref().try_into().ok()?);
        let topic = Topic::of_code(*reader.take(1)?.first()?)?;
        let key = reader.part()?;
        let value = reader.part()?;
        let mut headers = Headers::new();
        for _ in 0..reader.count()? {
            let name = reader.part()??;
            headers.push_read(std::str::from_utf8(&name).ok()?, reader.part()??);
        }
        outputs.push(Output { cause, record: OutRecord { topic, key, headers, value } });
    }
    Some(outputs)
}

fn put(out: &mut Vec<u8>, part: Option<&[u8]>) {
    let length = part.map_or(ABSENT, |part| u32::try_from(part.len()).unwrap_or(ABSENT - 1));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(part.unwrap_or_default());
}

struct Reader {
    rest: Bytes,
}

impl Reader {
    fn take(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.rest.len()).then(|| self.rest.split_to(count))
    }

    fn count(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.as_ref().try_into().ok()?))
    }

    /// A part, or its absence.
    fn part(&mut self) -> Option<Option<Bytes>> {
        match self.count()? {
            ABSENT => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_survive_their_bytes() {
        let outputs = vec![
            Output {
                cause: 7,
                record: OutRecord {
                    topic: Topic::BiometricEvents,
                    key: Some(Bytes::from_static(b"u:oura")),
                    headers: Headers::new().with("a", "1").with("a", ""),
                    value: Some(Bytes::from_static(&[0, 1, 2])),
                },
            },
            Output {
                cause: -1,
                record: OutRecord {
                    topic: Topic::DeadLetters,
                    key: None,
                    headers: Headers::new(),
                    value: None,
                },
            },
        ];
        let bytes = Bytes::from(encode(&outputs));
        assert_eq!(decode(&bytes), Some(outputs));
        for cut in 1..bytes.len() {
            let read = decode(&bytes.slice(..cut));
            assert!(read.is_none_or(|read| read.len() < 2), "cut at {cut}");
        }
        assert_eq!(decode(&Bytes::from_static(&[9])), None);
    }
}
