//! A consent is given back at the vendor, so that it sends nothing more and our tokens end there, too.

use secrecy::ExposeSecret as _;

use super::{Desk, permit};
use crate::error::{Error, Kind, Result};
use crate::hydrator::fetch::{Credentials, Done, Fetcher};
use crate::hydrator::tokens::{Grant, Tokens};
use crate::model::id::ConnectionId;
use crate::stream::clock::now_us;
use crate::stream::hydration::Queue;
use crate::vendors::consent::Signer;
use crate::vendors::wire::hmac::Key;

/// What became of a consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// The vendor says that it is withdrawn.
    Done,
    /// There was none any more: no tokens, or none that the vendor takes.
    Gone,
    /// The vendor has no way for it: the person can end it there.
    NoWay,
}

/// Withdraws the consent of a connection, with another token where one is not taken.
///
/// # Errors
/// [`Kind::WearableApiError`] where the vendor does not answer, or refuses: it may be tried again. As the calls of
/// `tokens` and `queue`.
pub async fn withdraw(
    fetcher: &Fetcher,
    queue: &impl Queue,
    tokens: &impl Tokens,
    desk: &Desk,
    (connection, vendor_user): (ConnectionId, &str),
    speed: u32,
) -> Result<Withdrawn> {
    let Some(asked) = desk.consent.withdraw(vendor_user) else {
        return signed(fetcher, queue, desk, vendor_user, speed).await;
    };
    let mut grant = tokens.access(desk.name, connection).await?;
    for last in [false, true] {
        let Grant::Token(token) = grant else { return Ok(Withdrawn::Gone) };
        permit(queue, desk, speed).await?;
        let at_token = desk.consent.withdraws_at_token();
        let base = if at_token { &desk.client.url } else { &desk.base };
        let done = fetcher.send(base, &asked, Credentials::Person(&token.access)).await?;
        match done {
            Done::Well(_body) => return Ok(Withdrawn::Done),
            Done::Refused(401) if last => return Ok(Withdrawn::Gone),
            Done::Refused(401) => {
                grant = tokens.renew(desk.name, connection, token.version).await?;
            }
            Done::Refused(status) => return Err(failed(&status.to_string())),
            Done::Failed(outcome) => return Err(failed(outcome.name())),
        }
    }
    Ok(Withdrawn::Gone)
}

/// The most requests that this takes.
const STEPS_MAX: usize = 4;

/// Withdraws a consent by requests that we sign, one after the other's answer.
async fn signed(
    fetcher: &Fetcher,
    queue: &impl Queue,
    desk: &Desk,
    vendor_user: &str,
    speed: u32,
) -> Result<Withdrawn> {
    let client = &desk.client;
    let key = Key::new(client.secret.expose_secret().as_bytes());
    let signer = Signer { id: &client.id, key: &key, now_s: now_us().div_euclid(1_000_000) };
    let mut answers = Vec::new();
    while let Some(asked) = desk.consent.withdraw_signed(vendor_user, &signer, &answers) {
        if answers.len() >= STEPS_MAX {
            return Err(failed("steps"));
        }
        permit(queue, desk, speed).await?;
        let app = Credentials::App(&client.id, &client.secret);
        match fetcher.send(&desk.base, &asked, app).await? {
            Done::Well(body) => answers.push(body),
            Done::Refused(status) => return Err(failed(&status.to_string())),
            Done::Failed(outcome) => return Err(failed(outcome.name())),
        }
    }
    Ok(if answers.is_empty() { Withdrawn::NoWay } else { Withdrawn::Done })
}

fn failed(code: &str) -> Error {
    Error::new(Kind::WearableApiError, "withdraw a consent at the vendor", code)
}
