//! Bodies of a vendor's API: one object, a page of objects, or several answers in one body
//! ([`crate::vendors::ask::joined`]).
//!
//! An object that is not what it said is bad alone: the others of its page live.

use crate::error::Reject;
use crate::vendors::wire::json::{At, Json};

/// How an object stands in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// As an answer of its own.
    Alone,
    /// On a page.
    Paged,
}

/// Calls `found` with each object of a body, its position among all of them and how it stands there; a page has its
/// objects in a list of this name.
pub(crate) fn objects(
    root: &At<'_>,
    list: &'static str,
    found: &mut dyn FnMut(i32, Stands, &At<'_>),
) -> Result<(), Reject> {
    let mut index = 0;
    let mut each = |stands, object: &At<'_>| {
        found(index, stands, object);
        index = index.saturating_add(1);
    };
    if let Json::List(_) = root.json() {
        for answer in root.items()? {
            answered(&answer, list, &mut each)?;
        }
        return Ok(());
    }
    answered(root, list, &mut each)
}

/// The same of one answer.
fn answered(
    answer: &At<'_>,
    list: &'static str,
    each: &mut dyn FnMut(Stands, &At<'_>),
) -> Result<(), Reject> {
    let answer = answer.object()?;
    let Some(page) = answer.get(list) else {
        each(Stands::Alone, answer);
        return Ok(());
    };
    for object in page.items()? {
        each(Stands::Paged, &object);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::wire::json;

    /// What is found: positions with paths, and how each stands there.
    fn found(body: &str) -> Result<Vec<(i32, String, Stands)>, Reject> {
        let json = json::parse(body.as_bytes()).expect("JSON");
        let mut all = Vec::new();
        objects(&json.root(), "records", &mut |index, stands, at| {
            all.push((index, at.path().as_str().to_owned(), stands));
        })?;
        Ok(all)
    }

    #[test]
    fn an_object_a_page_and_several_answers_are_told_apart() {
        let named = |places: &[(&str, Stands)]| -> Vec<(i32, String, Stands)> {
            let place = |(index, (path, stands)): (i32, &(&str, Stands))| {
                (index, (*path).to_owned(), *stands)
            };
            (0..).zip(places).map(place).collect()
        };
        assert_eq!(found("{}"), Ok(named(&[("$", Stands::Alone)])));
        let page = r#"{"records":[{},7],"next_token":null}"#;
        let both = [("records[0]", Stands::Paged), ("records[1]", Stands::Paged)];
        assert_eq!(found(page), Ok(named(&both)));
        assert_eq!(found(r#"{"records":[]}"#), Ok(Vec::new()));
        let two = [("[0]", Stands::Alone), ("[1]", Stands::Alone)];
        assert_eq!(found("[{},{}]"), Ok(named(&two)));
        let mixed = r#"[{"a":1},{"records":[{},{}]}]"#;
        let places = [
            ("[0]", Stands::Alone),
            ("[1].records[0]", Stands::Paged),
            ("[1].records[1]", Stands::Paged),
        ];
        assert_eq!(found(mixed), Ok(named(&places)));
    }

    #[test]
    fn what_is_no_answer_is_refused_where_it_stands() {
        for (body, at) in [("7", "$"), ("[[]]", "[0]"), (r#"[{},{"records":7}]"#, "[1].records")] {
            assert_eq!(found(body).expect_err("a reject").at.as_str(), at, "{body}");
        }
    }
}
