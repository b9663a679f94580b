//! Events without measurements: connections that begin, end or get another name, and what Terra
//! tells about itself.

use crate::error::Reject;
use crate::model::connection::Change;
use crate::model::id::User;
use crate::vendors::What;
use crate::vendors::terra::record::{id, text};
use crate::vendors::wire::json::At;

/// What an event of this type says; `user` is the vendor's user that it names.
pub(super) fn read(kind: &str, root: &At<'_>, user: Option<&str>) -> What {
    match kind {
        "auth" => begin(root, user).unwrap_or_else(What::Bad),
        "deauth" | "access_revoked" => match user {
            Some(user) => What::Connection(Change::End { vendor_user: user.to_owned() }),
            None => What::Ignored("no user"),
        },
        "user_reauth" => rename(root).unwrap_or_else(What::Bad),
        _ => What::Ignored(reason(kind)),
    }
}

fn begin(root: &At<'_>, user: Option<&str>) -> Result<What, Reject> {
    let success = text(root, &["status"])?.is_some_and(|status| status == "success");
    let Some(vendor_user) = user.filter(|_| success) else {
        return Ok(What::Ignored("auth without success"));
    };
    let holder = root.need("user")?;
    let Some(reference) = holder.get("reference_id") else {
        return Ok(What::Ignored("auth without a reference_id"));
    };
    let user = User::parse(reference.text()?)
        .ok_or_else(|| reference.invalid("not one of our users' ids"))?;
    Ok(What::Connection(Change::Begin { vendor_user: vendor_user.to_owned(), user }))
}

fn rename(root: &At<'_>) -> Result<What, Reject> {
    let new = root.need("new_user")?;
    let new = id(&new.object()?.need("user_id")?)?;
    let Some(old) = root.get("old_user") else {
        return Ok(What::Ignored("user_reauth without an old user"));
    };
    let old = id(&old.object()?.need("user_id")?)?;
    if old == new {
        return Ok(What::Ignored("user_reauth of the same user"));
    }
    Ok(What::Connection(Change::Rename { old, new }))
}

fn reason(kind: &str) -> &'static str {
    match kind {
        "auth_cancelled" => "auth was cancelled",
        "connection_error" => "a connection error",
        "permission_change" => "permissions changed",
        "healthcheck" => "a health check",
        "processing" => "a request is being processed",
        "large_request_processing" | "large_request_sending" => "a large request is under way",
        "rate_limit_hit" => "a rate limit was hit",
        "google_no_datasource" => "no data source",
        "s3_payload" | "s3_upload" => "a pointer: fetched by the hydrator",
        "lab_report.failed" => "a lab report failed",
        _ => "unknown type",
    }
}
