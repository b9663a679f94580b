//! What goes wrong, by name and share.

use std::fmt;

/// A way in which the world misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A webhook that comes twice, byte for byte.
    Duplicate,
    /// A webhook that comes an hour late, behind later ones.
    Reorder,
    /// A record that is scored again hours later.
    Rescore,
    /// A record that is deleted.
    Delete,
    /// A record whose score comes later than it.
    Pending,
    /// A record that cannot be fetched yet when it is announced.
    NotReady,
    /// A call that is answered 429 within the quota.
    Throttle,
    /// A call that is answered 503.
    Unavailable,
    /// A call that is answered after seconds.
    Slow,
    /// A call that is never answered.
    Hang,
    /// A call that is answered 200 with a page for people.
    Html,
    /// A person who withdraws consent.
    Revoked,
    /// A refresh token that is exchanged while the answer gets lost.
    LostRefresh,
    /// A person who gets another id at the vendor.
    Renamed,
    /// A link to a record that is dead before anybody follows it.
    DeadLink,
    /// A vendor's subscription to webhooks that ends while nobody renews it: nothing is announced until it is made anew.
    Unsubscribed,
    /// A person whose clock changes in a night.
    ClockChange,
}

/// Every fault, its name, its share in `all` (percent of webhooks, records, calls or people), and what it does.
#[rustfmt::skip]
const ALL: [(Fault, &str, u32, &str); 17] = [
    (Fault::Duplicate, "duplicate", 10, "of webhooks: it comes twice, byte for byte"),
    (Fault::Reorder, "reorder", 4, "of webhooks: an hour late, behind later ones"),
    (Fault::Rescore, "rescore", 10, "of records: scored again hours later"),
    (Fault::Delete, "delete", 3, "of records: deleted"),
    (Fault::Pending, "pending", 10, "of records: there before their score is"),
    (Fault::NotReady, "not_ready", 4, "of records: 404 for twenty minutes after they were announced"),
    (Fault::Throttle, "throttle", 1, "of calls: 429 within the quota"),
    (Fault::Unavailable, "unavailable", 2, "of calls: 503"),
    (Fault::Slow, "slow", 1, "of calls: answered after three seconds"),
    (Fault::Hang, "hang", 1, "of calls: never answered"),
    (Fault::Html, "html", 1, "of calls: 200 with a page for people"),
    (Fault::Revoked, "revoked", 3, "of people: consent is withdrawn"),
    (Fault::LostRefresh, "lost_refresh", 3, "of people: a refresh token is exchanged and the answer lost"),
    (Fault::Renamed, "user_changed", 10, "of people: another id at the vendor (Terra's user_reauth)"),
    (Fault::DeadLink, "pointer_expired", 2, "of links in Terra's Kafka destination: dead before they are followed"),
    (Fault::Unsubscribed, "unsubscribed", 3, "of people, or with --subscriptions of those: webhooks stop, as if expired"),
    (Fault::ClockChange, "clock_change", 30, "of people: their clock changes in a night"),
];

/// What each fault does, for `--help`.
#[must_use]
pub fn described() -> String {
    let line = |(_, name, share, what): &(Fault, &str, u32, &str)| {
        format!("  {name:<16} {share:>3} %  {what}")
    };
    ALL.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The share of each fault, percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares([u32; ALL.len()]);

impl Shares {
    /// Reads `none`, `all`, or `name=percent,…`; `all` may be followed by what differs from it.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut shares = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None if part == "none" => shares = Self::default(),
                None if part == "all" => shares = Self(ALL.map(|(_, _, share, _)| share)),
                None => return Err(format!("`{part}`: name=percent, `all` or `none`")),
                Some((name, percent)) => {
                    let percent: u32 = percent
                        .parse()
                        .ok()
                        .filter(|percent| *percent <= 100)
                        .ok_or_else(|| format!("`{part}`: a whole number up to 100"))?;
                    let mut known = shares.0.iter_mut().zip(ALL);
                    let (share, _) = known
                        .find(|(_, (_, known, ..))| *known == name)
                        .ok_or_else(|| format!("`{name}`: one of {}", names().join(", ")))?;
                    *share = percent;
                }
            }
        }
        Ok(shares)
    }

    /// The share of a fault, percent.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u32 {
        let mut all = self.0.iter().zip(ALL);
        all.find(|(_, (known, ..))| *known == fault).map_or(0, |(share, _)| *share)
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares = self.0.iter().zip(ALL).filter(|(share, _)| **share > 0);
        let shown: Vec<String> =
            shares.map(|(share, (_, name, ..))| format!("{name}={share}")).collect();
        out.write_str(if shown.is_empty() { "none" } else { "" })?;
        out.write_str(&shown.join(","))
    }
}

/// The names of all faults.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|(_, name, ..)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_they_are_shown() {
        let some = Shares::parse("delete=5, html=1").expect("shares");
        assert_eq!((some.of(Fault::Delete), some.of(Fault::Html), some.of(Fault::Hang)), (5, 1, 0));
        assert_eq!(some.to_string(), "delete=5,html=1");
        let all = Shares::parse("all,html=0").expect("shares");
        assert_eq!((all.of(Fault::Rescore), all.of(Fault::Html)), (10, 0));
        assert_eq!(Shares::parse(&all.to_string()), Ok(all));
        assert_eq!(Shares::parse("none").map(|none| none.to_string()), Ok("none".to_owned()));
        for wrong in ["rescore", "rescore=101", "rescore=x", "meteor=1"] {
            assert!(Shares::parse(wrong).is_err(), "{wrong}");
        }
    }
}
