//! What an operator does with consents: makes the link by which one is asked for, and gives one back.

use std::io::Write;

use crate::commands::{complain, connections, say};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::hydrator::connect::link;
use crate::hydrator::connect::withdraw::{self, Withdrawn};
use crate::hydrator::fetch::Fetcher;
use crate::hydrator::tokens::Keyring;
use crate::model::id::{ConnectionId, User};
use crate::model::time::Micros;
use crate::postgres::consent::Standing;
use crate::postgres::queue::PostgresQueue;
use crate::postgres::register::PostgresRegister;
use crate::postgres::vault::PostgresVault;
use crate::roles;
use crate::stream::clock::now_us;
use crate::telemetry::metrics::Metrics;

/// The link by which a person connects as this user of ours, from now on for as long as the configuration says.
///
/// # Errors
/// [`Kind::ValidationError`] where nobody could follow it: no such vendor, no key, no address.
pub fn link(config: &Config, vendor: &str, user: &User, now_us: Micros) -> Result<String> {
    let wrong = |doing| Error::new(Kind::ValidationError, doing, "");
    if !roles::connect::desks(config).iter().any(|desk| desk.name == vendor) {
        return Err(wrong("read --vendor: one with consent, client_id and client_secret"));
    }
    let public = config.connect.public_url.as_deref();
    let public = public.ok_or_else(|| wrong("make a link; set connect.public_url"))?;
    let lives = i64::try_from(config.connect.link_s).unwrap_or(i64::MAX);
    let until_s = now_us.div_euclid(1_000_000).saturating_add(lives);
    let path = link::make(roles::connect::key(config)?, vendor, user, until_s);
    Ok(format!("{public}{path}"))
}

/// Ends the connection that holds now: its consent at the vendor, unless `here_only`, then itself and its tokens.
///
/// # Errors
/// [`Kind::UnknownUser`] where there is none; [`Kind::WearableApiError`] where the vendor does not withdraw the consent:
/// nothing has changed then, and it may be tried again. As every call of Postgres.
pub async fn remove(
    config: &Config,
    register: &mut PostgresRegister,
    (vendor, vendor_user): (&str, &str),
    here_only: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let at = now_us();
    let connection = connections::now(register, vendor, vendor_user, at).await?;
    if !here_only {
        withdraw(config, vendor, connection, vendor_user).await?;
    }
    let ended = connections::remove(register, vendor, vendor_user, at, json, out).await?;
    Standing::new(&config.postgres)?.forget(connection).await?;
    if ended { Ok(()) } else { Err(Error::new(Kind::UnknownUser, "end a connection", "")) }
}

/// Gives a connection's consent back at the vendor, and says so where that cannot be done from here.
async fn withdraw(
    config: &Config,
    vendor: &str,
    connection: ConnectionId,
    vendor_user: &str,
) -> Result<()> {
    let known = crate::vendors::find(vendor).and_then(|vendor| vendor.consent()).is_some();
    let desk = roles::connect::desks(config).into_iter().find(|desk| desk.name == vendor);
    let Some(desk) = desk.filter(|_| config.secrets.token_key.is_some()) else {
        if known {
            complain("no client or no secrets.token_key: the consent at the vendor stands");
        }
        return Ok(());
    };
    let fetcher = Fetcher::new(config.hydrator.limits())?;
    let vault = PostgresVault::new(&config.postgres, roles::hydrator::keys(config)?)?;
    let (clients, speed) = (roles::hydrator::clients(config), config.hydrator.speed);
    let keyring = Keyring::new(vault, fetcher.clone(), clients, Metrics::new(), speed);
    let queue = PostgresQueue::new(&config.postgres)?;
    let whose = (connection, vendor_user);
    match withdraw::withdraw(&fetcher, &queue, &keyring, &desk, whose, speed).await? {
        Withdrawn::Done => complain("the vendor has withdrawn the consent"),
        Withdrawn::Gone => complain("there was no consent at the vendor any more"),
        Withdrawn::NoWay => complain("the vendor lets only the person withdraw the consent"),
    }
    Ok(())
}

/// Pauses the connection that holds now, or resumes it.
///
/// # Errors
/// [`Kind::UnknownUser`] where there is none; as every call of Postgres.
pub async fn pause(
    config: &Config,
    register: &mut PostgresRegister,
    (vendor, vendor_user): (&str, &str),
    paused: bool,
    out: &mut impl Write,
) -> Result<()> {
    let connection = connections::now(register, vendor, vendor_user, now_us()).await?;
    let standing = Standing::new(&config.postgres)?;
    if paused {
        standing.pause(connection).await?;
        return say(out, "nothing is fetched for it until it is resumed\n");
    }
    standing.resume(connection).await?;
    say(out, "it is fetched for again\n")
}
