//! The port of connecting: consents that people are asked for now, and the connections that come of them.
//!
//! A consent is asked for in one request of a person's browser and comes back in another, perhaps at another replica. What
//! holds the two together is kept here in between: for whom it is asked, and that it is the same browser. It has one use.

use std::future::Future;
use std::time::Duration;

use secrecy::SecretString;

use crate::error::Result;
use crate::model::id::{ConnectionId, User};
use crate::model::time::Micros;

/// What a person's browser takes along.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Goes to the vendor and comes back.
    pub state: SecretString,
    /// Stays in the browser: who has only the state cannot answer with it.
    pub browser: SecretString,
    /// What the exchange of the code is to prove (RFC 7636); 43 characters.
    pub verifier: SecretString,
}

/// A consent that came back.
#[derive(Clone, Debug)]
pub struct Returned {
    /// For whom it was asked.
    pub user: User,
    /// As in [`Begun`].
    pub verifier: SecretString,
}

/// A connection that a consent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The one that there is or was, else the one that [`ConnectionId::derive`] gives.
    pub connection: ConnectionId,
    /// Until when we have had its records; absent where we have had none.
    pub fed_until: Option<Micros>,
}

/// What connecting keeps. Shared by all replicas.
pub trait Consents: Send + Sync + 'static {
    /// A person of this vendor is asked, and may answer for so long.
    fn begin(
        &self,
        vendor: &str,
        user: &User,
        lives: Duration,
    ) -> impl Future<Output = Result<Begun>> + Send;

    /// The answer came: the consent that was begun so, once; nothing where it was never begun, was used, has ended, was
    /// another vendor's or another browser's.
    fn end(
        &self,
        vendor: &str,
        state: &str,
        browser: &str,
    ) -> impl Future<Output = Result<Option<Returned>>> + Send;

    /// The connection of this user of ours with this user of the vendor's, as it is before its tokens are stored.
    fn find(
        &self,
        vendor: &str,
        vendor_user: &str,
        user: &User,
    ) -> impl Future<Output = Result<Found>> + Send;

    /// That connection holds from now on, with the tokens that are stored for it by then, and the gap in its history is
    /// noted. Somebody else's with this user of the vendor's ends, and its tokens are forgotten. What was given up for
    /// want of tokens is fetched again. Gives how many others ended.
    fn connect(
        &self,
        vendor: &str,
        vendor_user: &str,
        user: &User,
        found: Found,
    ) -> impl Future<Output = Result<usize>> + Send;

    /// The connections with this vendor that hold now.
    fn connected(&self, vendor: &str) -> impl Future<Output = Result<Vec<ConnectionId>>> + Send;

    /// The subscriptions of this vendor were all there at this moment (µs; absent where not all of them were), and those of
    /// these connections had to be made: what was announced since they were last there is asked for. Where they never
    /// were, nothing was announced to us.
    fn subscribed(
        &self,
        vendor: &str,
        made: &[ConnectionId],
        all_at: Option<Micros>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Whether this process, and no other one for so long, does what has this name.
    fn turn(&self, name: &str, lives: Duration) -> impl Future<Output = Result<bool>> + Send;
}
