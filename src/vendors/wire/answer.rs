//! Bodies of a vendor's API: one object, a page of objects, or several answers in one body
//! ([`crate::vendors::ask::joined`]).
//!
//! An object that is not what it said is bad alone: the others of its page live.

use crate::error::Reject;
use crate::vendors::wire::json::{At, Json};

/// Calls `found` with each object of a body and its position among all of them; a page has its objects in a list of
/// this name. Gives whether there was a page.
pub(crate) fn objects(
    root: &At<'_>,
    list: &'static str,
    found: &mut dyn FnMut(i32, &At<'_>),
) -> Result<bool, Reject> {
    let (mut index, mut paged) = (0, false);
    let mut each = |object: &At<'_>| {
        found(index, object);
        index = index.saturating_add(1);
    };
    if let Json::List(_) = root.json() {
        for answer in root.items()? {
            paged |= answered(&answer, list, &mut each)?;
        }
    } else {
        paged = answered(root, list, &mut each)?;
    }
    Ok(paged)
}

/// The same of one answer.
fn answered(
    answer: &At<'_>,
    list: &'static str,
    each: &mut dyn FnMut(&At<'_>),
) -> Result<bool, Reject> {
    let answer = answer.object()?;
    let Some(page) = answer.get(list) else {
        each(answer);
        return Ok(false);
    };
    for object in page.items()? {
        each(&object);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::wire::json;

    /// What is found: positions with paths, and whether there was a page.
    fn found(body: &str) -> Result<(Vec<(i32, String)>, bool), Reject> {
        let json = json::parse(body.as_bytes()).expect("JSON");
        let mut all = Vec::new();
        let paged = objects(&json.root(), "records", &mut |index, at| {
            all.push((index, at.path().as_str().to_owned()));
        })?;
        Ok((all, paged))
    }

    #[test]
    fn an_object_a_page_and_several_answers_are_told_apart() {
        let named = |places: &[&str]| -> Vec<(i32, String)> {
            (0..).zip(places.iter().map(|place| (*place).to_owned())).collect()
        };
        assert_eq!(found("{}"), Ok((named(&["$"]), false)));
        let page = r#"{"records":[{},7],"next_token":null}"#;
        assert_eq!(found(page), Ok((named(&["records[0]", "records[1]"]), true)));
        assert_eq!(found(r#"{"records":[]}"#), Ok((Vec::new(), true)));
        assert_eq!(found("[{},{}]"), Ok((named(&["[0]", "[1]"]), false)));
        let both = r#"[{"a":1},{"records":[{},{}]}]"#;
        let places = ["[0]", "[1].records[0]", "[1].records[1]"];
        assert_eq!(found(both), Ok((named(&places), true)));
    }

    #[test]
    fn what_is_no_answer_is_refused_where_it_stands() {
        for (body, at) in [("7", "$"), ("[[]]", "[0]"), (r#"[{},{"records":7}]"#, "[1].records")] {
            assert_eq!(found(body).expect_err("a reject").at.as_str(), at, "{body}");
        }
    }
}
