//! Links by which people connect: who may connect whom is an operator's word, and the link carries it.
//!
//! A link names a vendor, a user of ours and the second in which it ends, and is signed with a key that the operator's
//! own systems have, too: `connections link` makes one, and so can they. It may be followed more than once while it
//! holds; each time a person has to consent.

use secrecy::{ExposeSecret as _, SecretString};

use crate::model::id::User;
use crate::vendors::wire::hmac::{Key, hex_over};

/// Why a link is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is none of ours.
    Forged,
    /// It has ended.
    Ended,
}

/// What is signed; none of its parts can hold a line's end.
fn parts<'a>(vendor: &'a str, user: &'a str, until: &'a str) -> [&'a [u8]; 6] {
    [b"connect\n", vendor.as_bytes(), b"\n", user.as_bytes(), b"\n", until.as_bytes()]
}

/// Path and query of a link that holds until this second.
#[must_use]
pub fn make(key: &SecretString, vendor: &str, user: &User, until_s: i64) -> String {
    let until = until_s.to_string();
    let key = Key::new(key.expose_secret().as_bytes());
    let signature = key.hex(&parts(vendor, user.as_str(), &until));
    format!("/connect/{vendor}?user={user}&until={until}&signature={signature}")
}

/// Whose link it is, of the parameters of its query.
///
/// # Errors
/// Why it is not followed.
pub fn read(
    key: &Key,
    vendor: &str,
    parameters: &[(String, String)],
    now_s: i64,
) -> Result<User, Refused> {
    let one = |name| super::door::one(parameters, name).ok_or(Refused::Forged);
    let (user, until, signature) = (one("user")?, one("until")?, one("signature")?);
    let named = User::parse(user).ok_or(Refused::Forged)?;
    if !hex_over(&parts(vendor, user, until), key, signature) {
        return Err(Refused::Forged);
    }
    let until: i64 = until.parse().map_err(|_text| Refused::Forged)?;
    if now_s < until { Ok(named) } else { Err(Refused::Ended) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hydrator::fetch::parameters;

    const KEY: &str = "not-a-secret-test-key, thirty-two bytes";

    fn read_link(link: &str, vendor: &str, now_s: i64) -> Result<User, Refused> {
        let (_, query) = link.split_once('?').expect("a query");
        read(&Key::new(KEY.as_bytes()), vendor, &parameters(query), now_s)
    }

    #[test]
    fn a_link_is_for_one_user_and_one_vendor_and_it_ends() {
        let user = User::parse("user-1").expect("a user");
        let link = make(&KEY.into(), "whoop", &user, 1_000);
        assert_eq!(read_link(&link, "whoop", 999), Ok(user.clone()));
        assert_eq!(read_link(&link, "whoop", 1_000), Err(Refused::Ended));
        assert_eq!(read_link(&link, "oura", 999), Err(Refused::Forged));
        for (from, to) in [("user-1", "user-2"), ("until=1000", "until=9000"), ("&until=1000", "")]
        {
            let forged = link.replace(from, to);
            assert_eq!(read_link(&forged, "whoop", 999), Err(Refused::Forged), "{from}");
        }
        let twice = format!("{link}&user=user-1");
        assert_eq!(read_link(&twice, "whoop", 999), Err(Refused::Forged), "which of two?");
        let another = make(&"not-a-secret-test-key, another of them".into(), "whoop", &user, 1_000);
        assert_eq!(read_link(&another, "whoop", 999), Err(Refused::Forged));
    }

    #[test]
    fn a_key_that_is_none_signs_for_nobody() {
        let user = User::parse("user-1").expect("a user");
        let link = make(&"".into(), "whoop", &user, 1_000);
        let (_, query) = link.split_once('?').expect("a query");
        assert_eq!(read(&Key::new(b""), "whoop", &parameters(query), 0), Err(Refused::Forged));
    }
}
