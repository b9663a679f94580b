//! Unpacks a body that a vendor's contract lets come compressed, within bounds.
//!
//! Two bounds, because each alone is not enough (`design.md` §7): [`BYTES_MAX`] caps what one body may cost, and
//! [`RATIO_MAX`] refuses a bomb long before that. The id of a sample is 16 random bytes, which holds a push at about
//! 12 to 1; samples without ids pack to 40 to 1 and are refused, so a client that sends none must not pack. What
//! stands behind the end of the stream is refused as well: two readers must not see two bodies in one.

use std::io::Read as _;

use flate2::bufread::GzDecoder;

use crate::error::{Kind, Path, Reject};

/// The most bytes that a body may unpack to.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many times its packed size a body may unpack to.
pub const RATIO_MAX: usize = 20;

/// The body as it was before it was packed: one member of RFC 1952, with its checksum.
///
/// # Errors
/// `payload_too_large` where it would pass a bound (no more than the bound is ever unpacked), `payload_malformed`
/// where it is no such stream, is cut short, does not match its checksum, or is followed by anything.
pub fn inflate(packed: &[u8]) -> Result<Vec<u8>, Reject> {
    let malformed = |why| Err(Reject::malformed(Path::root(), why));
    let most = packed.len().saturating_mul(RATIO_MAX).min(BYTES_MAX);
    // One byte more than the bound tells "at the bound" from "past it".
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut reader = GzDecoder::new(packed).take(limit);
    // The stream's last word is its size: believed for the room alone, and only below the bound.
    let says = packed.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size));
    let mut body = Vec::with_capacity(usize::try_from(says).unwrap_or(0).min(most));
    if reader.read_to_end(&mut body).is_err() {
        return malformed("not a gzip stream");
    }
    if body.len() > most {
        return Err(Reject {
            kind: Kind::PayloadTooLarge,
            at: Path::root(),
            why: "unpacks to more than is read",
            position: None,
        });
    }
    if !reader.into_inner().into_inner().is_empty() {
        return malformed("bytes behind the gzip stream");
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn pack(body: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(body).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn a_body_comes_out_as_it_went_in() {
        for body in [b"".as_slice(), br#"{"data":{"records":[]}}"#] {
            assert_eq!(inflate(&pack(body, 6)).expect("a stream"), body);
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_ratio_and_the_bound_is_exact() {
        let bomb = inflate(&pack(&vec![b'0'; 1024 * 1024], 9)).expect_err("1000 to 1");
        assert_eq!(bomb.kind, Kind::PayloadTooLarge);

        // Noise in the header makes the packed size what we want it to be.
        let body = vec![b'0'; 40_000];
        let bare = pack(&body, 9).len();
        for (name, refused) in [(2000 - bare - 1, false), (2000 - bare - 2, true)] {
            let mut encoder = flate2::GzBuilder::new()
                .filename(vec![b'n'; name])
                .write(Vec::new(), Compression::new(9));
            encoder.write_all(&body).expect("memory");
            let packed = encoder.finish().expect("memory");
            assert_eq!(inflate(&packed).is_err(), refused, "{} to 40 000", packed.len());
        }
    }

    #[test]
    fn no_more_than_the_absolute_bound() {
        // Stored, not compressed: far from the ratio, one byte past the bound.
        let reject = inflate(&pack(&vec![0; BYTES_MAX + 1], 0)).expect_err("64 MiB and a byte");
        assert_eq!(reject.kind, Kind::PayloadTooLarge);
    }

    #[test]
    fn what_is_no_single_whole_stream_is_malformed() {
        let good = pack(br#"{"data":{}}"#, 6);
        for cut in 0..good.len() {
            let reject = inflate(&good[..cut]).expect_err("cut short");
            assert_eq!(reject.kind, Kind::PayloadMalformed, "cut at {cut}");
        }
        let mut bent = good.clone();
        let checksum = bent.len() - 8;
        bent[checksum] ^= 1;
        assert_eq!(inflate(&bent).expect_err("a checksum").why, "not a gzip stream");
        let twice = [good.as_slice(), &good].concat();
        assert_eq!(inflate(&twice).expect_err("two").why, "bytes behind the gzip stream");
        assert!(inflate(br#"{"data":{}}"#).is_err(), "not packed at all");
    }
}
