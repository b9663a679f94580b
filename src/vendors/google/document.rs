//! What Google's lists say, as records.
//!
//! A list is all that there is of a type in the days that it was asked for. So a day in it is whole, and where a deletion
//! had it asked for, a day that is not in it has nothing any more, and a session that we had and that is not in it is
//! gone. That is not said where a point of the list is bad: it may have been that one.

use std::collections::BTreeSet;

use crate::error::{Path, Reject};
use crate::model::contract::header;
use crate::model::time::Day;
use crate::vendors::ask::Held;
use crate::vendors::consent::is_id;
use crate::vendors::google::day::{self, Days, Measured};
use crate::vendors::google::types::{self, Form, Type};
use crate::vendors::google::window::{Window, date};
use crate::vendors::google::{VENDOR, point, session};
use crate::vendors::wire::answer::{Stands, objects};
use crate::vendors::wire::json::{self, At, Json};
use crate::vendors::wire::sheet::Field;
use crate::vendors::wire::thin;
use crate::vendors::{Item, Raw, Vendor as _, What};

const POINTS: &str = "dataPoints";
const NEXT: &str = "nextPageToken";

/// What a body says that was fetched for this type of record.
pub(super) fn read(raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
    let kind = types::of_record(record_type)
        .ok_or_else(|| Reject::invalid(Path::root(), "no type of record of this vendor"))?;
    let json = json::parse(raw.body)?;
    let root = json.root();
    if goes_on(&root) {
        return Err(root.invalid("a list of more pages than are asked for"));
    }
    let mut list = List {
        raw,
        kind,
        asked: raw.headers.text(header::VENDOR_USER).map(str::to_owned),
        window: raw.headers.text(header::RECORD_ID).and_then(Window::parse),
        items: Vec::new(),
        days: Days::default(),
        seen: BTreeSet::new(),
        bad: false,
        after: 0,
    };
    objects(&root, POINTS, &mut |index, stands, at| {
        list.after = index.saturating_add(1);
        // An empty list has no list in it.
        let empty = stands == Stands::Alone
            && matches!(at.json(), Json::Object(members) if members.iter().all(|(name, _)| name == NEXT));
        if !empty {
            list.take(index, at);
        }
    })?;
    Ok(list.end())
}

/// Whether the last page names another.
fn goes_on(root: &At<'_>) -> bool {
    let last = match root.json() {
        Json::List(pages) => pages.last(),
        one => Some(one),
    };
    let Some(Json::Object(members)) = last else { return false };
    let mut next = members.iter().filter(|(name, _)| name == NEXT);
    next.any(|(_, token)| matches!(token, Json::Text(token) if !token.is_empty()))
}

/// A list on its way to items.
struct List<'a> {
    raw: &'a Raw<'a>,
    kind: &'static Type,
    /// For whom it was asked.
    asked: Option<String>,
    window: Option<Window>,
    items: Vec<Item>,
    days: Days,
    /// Days of which there is something.
    seen: BTreeSet<Day>,
    bad: bool,
    /// The position behind the last point.
    after: i32,
}

impl List<'_> {
    fn take(&mut self, index: i32, at: &At<'_>) {
        let what = match self.whose(at) {
            Ok(user) => {
                // Whoever did not say for whom it was asked gets to know it by the first name.
                self.asked = self.asked.take().or(user);
                self.what(index, at).unwrap_or_else(|bad| Some(What::Bad(bad)))
            }
            Err(bad) => Some(What::Bad(bad)),
        };
        let Some(what) = what else { return };
        self.bad |= matches!(what, What::Bad(_));
        self.items.push(Item { index, vendor_user: self.asked.clone(), what });
    }

    /// Whose a point is, where its name says so.
    fn whose(&self, at: &At<'_>) -> Result<Option<String>, Reject> {
        let point = at.object()?;
        let Some((user, _)) = name(point)? else { return Ok(None) };
        match &self.asked {
            Some(asked) if user != "me" && user != asked => {
                Err(point.need("name")?.invalid("not the user that was asked for"))
            }
            _ => Ok(Some(user.to_owned()).filter(|user| user != "me")),
        }
    }

    /// What a point is; nothing where its day is to say it.
    fn what(&mut self, index: i32, at: &At<'_>) -> Result<Option<What>, Reject> {
        let within = at.need(self.kind.member)?;
        let data = within.object()?;
        let received_at = self.raw.received_at;
        let record = match self.kind.form {
            Form::Sleep => session::sleep(received_at, named(at)?, at, data)?,
            Form::Exercise => session::exercise(received_at, named(at)?, at, data)?,
            Form::Sample(fields) => return self.measured(index, (at, data), fields, false),
            Form::Interval(fields) => return self.measured(index, (at, data), fields, true),
            Form::Daily(fields, of) => {
                let day = date(&data.need("date")?)?;
                if let Some(why) = self.unwanted(day) {
                    return Ok(Some(What::Ignored(why)));
                }
                if !self.seen.insert(day) {
                    return Ok(Some(What::Ignored("a second point of one day")));
                }
                let head = point::head(received_at, None);
                day::daily(&head, (self.kind, of), day, (at, data), fields)?
            }
        };
        Ok(Some(What::Record(Box::new(record))))
    }

    /// Takes a sample, or what was counted over a while, to its day.
    fn measured(
        &mut self,
        index: i32,
        (at, data): (&At<'_>, &At<'_>),
        fields: &'static [Field],
        over: bool,
    ) -> Result<Option<What>, Reject> {
        let (start, end) =
            if over { point::interval(data)? } else { (point::sampled(data)?, None) };
        let day = Day::of_utc(start.at_us);
        if let Some(why) = self.unwanted(day) {
            return Ok(Some(What::Ignored(why)));
        }
        self.seen.insert(day);
        if over && end.is_none() {
            return Ok(Some(What::Ignored("it has not ended")));
        }
        let values = point::values(data, fields)?;
        if values.is_empty() {
            return Err(data.malformed("a point without a value"));
        }
        // Sources are told apart by all that is said of them, and none of that goes on.
        let source = at.get("dataSource").map(|source| format!("{:?}", source.json()));
        let source = source.unwrap_or_default();
        let origin = point::origin(at)?;
        self.days.take(index, day, Measured { start, end, values, origin, source });
        Ok(None)
    }

    /// Why a day is not to be spoken of: the list has a part of it at most.
    fn unwanted(&self, day: Day) -> Option<&'static str> {
        let outside = self.window.is_some_and(|window| !window.has(day));
        outside.then_some("outside of the days that were asked for")
    }

    fn end(self) -> Vec<Item> {
        let gone = self.gone();
        let (mut items, asked, after) = (self.items, self.asked, self.after);
        let mut add = |index, record| {
            let what = What::Record(Box::new(record));
            items.push(Item { index, vendor_user: asked.clone(), what });
        };
        let head = point::head(self.raw.received_at, None);
        for (index, record) in self.days.records(&head, self.kind) {
            add(index, record);
        }
        for record_id in gone {
            add(after, thin::tombstone(VENDOR.name(), self.kind.record_type(), record_id));
        }
        items.sort_by_key(|item| item.index);
        items
    }

    /// What a deletion asked for and is not there any more.
    fn gone(&self) -> Vec<String> {
        let Some(window) = self.window.filter(|window| window.gone && !self.bad) else {
            return Vec::new();
        };
        if !self.kind.is_session() {
            let days = window.days().filter(|day| !self.seen.contains(day));
            return days.map(|day| day.to_string()).collect();
        }
        let named = |record_id: &str| {
            self.items.iter().any(|item| match &item.what {
                What::Record(record) => record.record_id == record_id,
                _ => false,
            })
        };
        let held = self.raw.headers.get(header::HELD);
        let held: Vec<Held> =
            held.and_then(|held| serde_json::from_slice(held).ok()).unwrap_or_default();
        let of_window = held.into_iter().filter(|held| {
            let listed_by = self.kind.listed_by(held);
            listed_by.is_some_and(|at_us| window.has(Day::of_utc(at_us)))
        });
        of_window.map(|held| held.record_id).filter(|record_id| !named(record_id)).collect()
    }
}

/// `users/<user>/dataTypes/<type>/dataPoints/<id>`: the user and the id of a point that has a name.
fn name<'a>(point: &At<'a>) -> Result<Option<(&'a str, &'a str)>, Reject> {
    let Json::Object(members) = point.json() else { return Ok(None) };
    let Some((_, named)) = members.iter().find(|(key, _)| key == "name") else { return Ok(None) };
    let wrong = || Reject::malformed(point.path().key("name"), "not the name of a point");
    let text = match named {
        Json::Null => return Ok(None),
        // As points of most types have it.
        Json::Text(text) if text.is_empty() => return Ok(None),
        Json::Text(text) => text,
        _ => return Err(wrong()),
    };
    let mut parts = text.split('/');
    let mut part = || parts.next().unwrap_or_default();
    let shape = [part(), part(), part(), part(), part(), part()];
    match shape {
        ["users", user, "dataTypes", _, "dataPoints", id]
            if parts.next().is_none() && is_id(user) && is_id(id) =>
        {
            Ok(Some((user, id)))
        }
        _ => Err(wrong()),
    }
}

/// The id of a point that must have one.
fn named(point: &At<'_>) -> Result<String, Reject> {
    let found = name(point)?.map(|(_, id)| id.to_owned());
    found.ok_or_else(|| Reject::malformed(point.path().key("name"), "a required field is absent"))
}
