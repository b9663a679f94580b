//! Connections: which of our users a vendor's user is, and from when to when.
//!
//! Rows are only ever appended to: a beginning adds one, an end fills in its `valid_to`. Reading the same change
//! again changes nothing, so at-least-once is enough. A vendor user's first row reaches back without bound (what
//! was held before it is its own), a later one begins when it was made; what comes between an end and the next
//! beginning belongs to nobody. So a replay never hands old data to a vendor user's next owner.

use super::id::{ConnectionId, User};
use super::time::Micros;

/// `valid_from` of a vendor user's first row.
pub const FOR_EVER: Micros = i64::MIN;

/// One row: a vendor's user is our user's connection from one moment to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Derived, never drawn.
    pub id: ConnectionId,
    /// The vendor.
    pub vendor: String,
    /// The vendor's id of its user.
    pub vendor_user: String,
    /// Our user.
    pub user: User,
    /// From when, µs, inclusive; [`FOR_EVER`] for a vendor user's first.
    pub valid_from: Micros,
    /// Until when, µs, exclusive; absent while it holds.
    pub valid_to: Option<Micros>,
    /// False while it may turn out to be another connection of this person, under a new name ([`SETTLES_US`]). Read, and
    /// never written.
    pub settled: bool,
}

impl Connection {
    /// Whether it holds at this moment.
    #[must_use]
    pub fn holds_at(&self, at_us: Micros) -> bool {
        self.valid_from <= at_us && self.valid_to.is_none_or(|end| at_us < end)
    }
}

/// A change that a vendor announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The vendor's user is this user of ours from now on.
    Begin {
        /// The vendor's user.
        vendor_user: String,
        /// Our user.
        user: User,
    },
    /// The vendor's user is nobody's from now on.
    End {
        /// The vendor's user.
        vendor_user: String,
    },
    /// The vendor gave its user a new id; the connection goes on.
    Rename {
        /// The id so far.
        old: String,
        /// The id from now on.
        new: String,
    },
}

/// Ours: how far apart what a vendor tells of one change of a connection may come. A new id of somebody known is told
/// twice, as a beginning and as a new name, in either order: until then nobody knows whether the one that began beside
/// another is that other.
pub const SETTLES_US: Micros = 600 * 1_000_000;

/// How long after it got another name a connection is still told of under the one before: what was sent then and not taken
/// is sent again for a little over a day (Terra's webhooks; `vendors.md` §5).
pub const LATE_US: Micros = 25 * 3_600 * 1_000_000;

/// A time of which a connection's records are not known: it began, or went on under another name, by a vendor's own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The vendor.
    pub vendor: String,
    /// Whose.
    pub connection: ConnectionId,
    /// Since when, µs; from ever where absent.
    pub from: Option<Micros>,
    /// Until when, µs.
    pub to: Micros,
}

/// Ours: how long before it got another name a connection may have been broken. Nobody says since when it was; the person
/// mended it when they saw it, and what is asked for twice is recognised.
const BROKEN_US: Micros = 30 * 86_400 * 1_000_000;

/// What became of a vendor's user at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// This connection's.
    Connected(&'a Connection),
    /// Nobody's any more, or not yet again.
    Disconnected,
    /// Never heard of.
    Unknown,
}

/// The rows of the vendor users that a batch names, with the changes that the batch makes.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    rows: Vec<Connection>,
    /// Indexes of rows that are new or whose end was filled in.
    changed: Vec<usize>,
}

impl Connections {
    /// The rows as they were read.
    #[must_use]
    pub fn new(rows: Vec<Connection>) -> Self {
        Self { rows, changed: Vec::new() }
    }

    /// Whose record this is, received at this moment. What came under a connection that turned out to be another of its
    /// person is that other's.
    #[must_use]
    pub fn at(&self, vendor: &str, vendor_user: &str, at_us: Micros) -> Lookup<'_> {
        match self.row_at(vendor, vendor_user, at_us) {
            Some(row) => Lookup::Connected(self.become_of(row)),
            None if self.of(vendor, vendor_user).next().is_some() => Lookup::Disconnected,
            None => Lookup::Unknown,
        }
    }

    fn row_at(&self, vendor: &str, vendor_user: &str, at_us: Micros) -> Option<&Connection> {
        self.of(vendor, vendor_user).find(|row| row.holds_at(at_us))
    }

    /// The row that took over where this one ended, for the same person: only a new name does that.
    fn become_of<'a>(&'a self, row: &'a Connection) -> &'a Connection {
        let next = self.of(&row.vendor, &row.vendor_user).find(|next| {
            let held = next.valid_to.is_none_or(|end| next.valid_from < end);
            held && row.valid_to == Some(next.valid_from)
                && next.user == row.user
                && next.id != row.id
        });
        next.map_or(row, |next| self.become_of(next))
    }

    /// Takes a change of this moment in; what follows in the same batch sees it. Gives what is not known of a connection
    /// that began with it, and nothing where the change was taken in before.
    pub fn apply(&mut self, vendor: &str, change: &Change, at_us: Micros) -> Option<Gap> {
        let gap =
            |connection, from| Some(Gap { vendor: vendor.to_owned(), connection, from, to: at_us });
        match change {
            Change::Begin { vendor_user, user } => {
                // Who was given another id is announced under it, too, and is the connection that he was.
                let known = self.at(vendor, vendor_user, at_us);
                if matches!(known, Lookup::Connected(row) if row.user == *user) {
                    return None;
                }
                let id = ConnectionId::derive(vendor, vendor_user, user);
                let own = self.of(vendor, vendor_user).filter(|row| row.id == id);
                let fed_until = own.filter_map(|row| row.valid_to).filter(|end| *end <= at_us);
                let fed_until = fed_until.max();
                if !self.begin(vendor, vendor_user, user.clone(), id, at_us) {
                    return None;
                }
                let beside = self.rows.iter().any(|row| {
                    row.vendor == vendor
                        && row.user == *user
                        && row.id != id
                        && row.valid_to.is_none()
                });
                if let Some(row) = self.rows.last_mut() {
                    row.settled = !beside;
                }
                gap(id, fed_until)
            }
            Change::End { vendor_user } => {
                self.end(vendor, vendor_user, at_us, at_us);
                None
            }
            Change::Rename { old, new } => {
                let Lookup::Connected(row) = self.at(vendor, old, at_us) else { return None };
                let (id, user) = (row.id, row.user.clone());
                self.end(vendor, old, at_us, at_us.saturating_add(LATE_US));
                let begun = self.begin(vendor, new, user, id, at_us);
                begun.then(|| gap(id, Some(at_us.saturating_sub(BROKEN_US))))?
            }
        }
    }

    /// The rows that this batch made or ended, to be written.
    pub fn changes(&self) -> impl Iterator<Item = &Connection> {
        self.changed.iter().filter_map(|at| self.rows.get(*at))
    }

    fn of(&self, vendor: &str, vendor_user: &str) -> impl Iterator<Item = &Connection> {
        self.rows.iter().filter(move |row| row.vendor == vendor && row.vendor_user == vendor_user)
    }

    /// Takes in that this vendor's user is this connection of our user from this moment on; nothing changes
    /// where it is already, and that is what it gives.
    pub fn begin(
        &mut self,
        vendor: &str,
        vendor_user: &str,
        user: User,
        id: ConnectionId,
        at: Micros,
    ) -> bool {
        match self.row_at(vendor, vendor_user, at) {
            Some(row) if row.id == id && row.user == user => return false,
            Some(_) => self.end(vendor, vendor_user, at, at),
            None => {}
        }
        let first = self.of(vendor, vendor_user).next().is_none();
        let later =
            self.of(vendor, vendor_user).map(|row| row.valid_from).filter(|from| *from > at);
        let row = Connection {
            id,
            vendor: vendor.to_owned(),
            vendor_user: vendor_user.to_owned(),
            user,
            valid_from: if first { FOR_EVER } else { at },
            valid_to: later.min(),
            settled: true,
        };
        self.changed.push(self.rows.len());
        self.rows.push(row);
        true
    }

    /// The row that holds at this moment holds until `until` at the longest.
    fn end(&mut self, vendor: &str, vendor_user: &str, at: Micros, until: Micros) {
        let found = self.rows.iter_mut().enumerate().find(|(_, row)| {
            row.vendor == vendor && row.vendor_user == vendor_user && row.holds_at(at)
        });
        if let Some((index, row)) = found {
            row.valid_to = Some(row.valid_to.map_or(until, |end| end.min(until)));
            if !self.changed.contains(&index) {
                self.changed.push(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> User {
        User::parse(name).expect("a user")
    }

    fn begin(name: &str) -> Change {
        Change::Begin { vendor_user: "v".into(), user: user(name) }
    }

    fn end() -> Change {
        Change::End { vendor_user: "v".into() }
    }

    #[test]
    fn the_first_row_reaches_back_and_a_later_one_does_not() {
        let mut all = Connections::default();
        assert_eq!(all.at("terra", "v", 5), Lookup::Unknown);
        all.apply("terra", &begin("a"), 10);
        assert!(matches!(all.at("terra", "v", 5), Lookup::Connected(_)));
        all.apply("terra", &end(), 20);
        assert_eq!(all.at("terra", "v", 25), Lookup::Disconnected);
        all.apply("terra", &begin("b"), 30);
        assert_eq!(all.at("terra", "v", 25), Lookup::Disconnected, "not the next owner's");
        assert!(
            matches!(all.at("terra", "v", 30), Lookup::Connected(row) if row.user == user("b"))
        );
    }

    #[test]
    fn reading_the_changes_again_changes_nothing() {
        let mut all = Connections::default();
        for (change, at) in [(begin("a"), 10), (end(), 20), (begin("a"), 30)] {
            all.apply("terra", &change, at);
        }
        let before = all.rows.clone();
        for (change, at) in [(begin("a"), 10), (end(), 20), (begin("a"), 30)] {
            all.apply("terra", &change, at);
        }
        assert_eq!(all.rows, before);
    }

    #[test]
    fn what_begins_leaves_a_gap_once_and_who_comes_back_the_one_since() {
        let mut all = Connections::default();
        let id = ConnectionId::derive("terra", "v", &user("a"));
        let gap = |from, to| Some(Gap { vendor: "terra".to_owned(), connection: id, from, to });
        let changes = [(begin("a"), 10), (end(), 20), (begin("a"), 30)];
        let mut apply = || changes.clone().map(|(change, at)| all.apply("terra", &change, at));
        assert_eq!(apply(), [gap(None, 10), None, gap(Some(20), 30)]);
        assert_eq!(apply(), [None, None, None], "read again");
        let to = 90 * 86_400_000_000;
        let rename = Change::Rename { old: "v".into(), new: "w".into() };
        let since = gap(Some(to - BROKEN_US), to);
        assert_eq!([(); 2].map(|()| all.apply("terra", &rename, to)), [since, None]);
        let other = all.apply("terra", &begin("b"), to + 1).expect("a gap");
        assert_eq!(other.from, None, "another's history is not this one's");
    }

    #[test]
    fn what_was_another_person_s_is_nobody_else_s_by_a_new_name() {
        let mut all = Connections::default();
        all.apply("terra", &begin("a"), 10);
        let other = Change::Begin { vendor_user: "w".into(), user: user("b") };
        all.apply("terra", &other, 11);
        all.apply("terra", &Change::Rename { old: "v".into(), new: "w".into() }, 20);
        let whose = |at| match all.at("terra", "w", at) {
            Lookup::Connected(row) => row.user.clone(),
            none => panic!("{none:?}"),
        };
        assert_eq!([whose(15), whose(20)], [user("b"), user("a")]);
    }

    #[test]
    fn a_rename_keeps_the_connection_whichever_comes_first() {
        let rename = Change::Rename { old: "v".into(), new: "w".into() };
        let auth = Change::Begin { vendor_user: "w".into(), user: user("a") };
        for [(first, at), (second, then)] in [
            [(&auth, 20), (&rename, 21)],
            [(&rename, 20), (&auth, 21)],
            // Received in one order, and read in the other.
            [(&auth, 21), (&rename, 20)],
            [(&rename, 21), (&auth, 20)],
        ] {
            let mut all = Connections::default();
            all.apply("terra", &begin("a"), 10);
            let id = ConnectionId::derive("terra", "v", &user("a"));
            all.apply("terra", first, at);
            all.apply("terra", second, then);
            // What came between the two, too, whenever it is looked at.
            for at in [20, 22] {
                assert!(matches!(all.at("terra", "w", at), Lookup::Connected(row) if row.id == id));
            }
            // And what comes late under the name before.
            assert!(
                matches!(all.at("terra", "v", 19 + LATE_US), Lookup::Connected(row) if row.id == id)
            );
            assert_eq!(all.at("terra", "v", 21 + LATE_US), Lookup::Disconnected);
        }
    }
}
