//! The schema registry: ids at start, and what `schemas check|apply` asks and changes.
//!
//! # Why ids are looked up and never made while running
//! An id is found by the very text of our schema under its subject, so a newer version that another release has
//! registered meanwhile does not change what this one writes. Registering is an operator's step: a process that
//! could register would publish a schema that nobody has checked.

use std::path::PathBuf;
use std::time::Duration;

use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_subject_and_version, is_compatible_schema, perform_sr_call,
    post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{SchemaType, SrCall, SuppliedSchema};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Kind, Result};

/// What every subject promises: any version reads what any other wrote.
pub const LEVEL: &str = "FULL_TRANSITIVE";

/// Where the registry is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Its Confluent-compatible API, without a slash at the end.
    pub url: String,
    /// How long one question may take, ms.
    pub timeout_ms: u32,
    /// The user, where it asks for one.
    #[serde(default)]
    pub username: Option<String>,
    /// The password; in production only as a file.
    #[serde(default)]
    pub password: Option<SecretString>,
    /// A file that holds the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

impl Settings {
    /// What is wrong with these settings: the key and what is allowed.
    #[must_use]
    pub fn problems(&self, production: bool) -> Vec<(&'static str, &'static str)> {
        let http = self.url.starts_with("http://") || self.url.starts_with("https://");
        let rules = [
            ("url", !http || self.url.ends_with('/'), "http(s)://…, no slash at the end"),
            ("url", self.url.contains('@'), "without a user and a password: they have keys"),
            ("timeout_ms", self.timeout_ms < 100, "100 or more"),
            ("password", production && self.password.is_some(), "in production only password_file"),
        ];
        rules
            .into_iter()
            .filter(|(_, broken, _)| *broken)
            .map(|(key, _, allowed)| (key, allowed))
            .collect()
    }

    fn secret(&self) -> Result<Option<SecretString>> {
        let Some(file) = &self.password_file else { return Ok(self.password.clone()) };
        let text = std::fs::read_to_string(file).map_err(|_| {
            Error::new(Kind::AuthenticationError, "read registry.password_file", "unreadable")
        })?;
        Ok(Some(SecretString::from(text.trim_end_matches(['\n', '\r']).to_owned())))
    }
}

/// A client of the registry.
pub struct Registry {
    settings: Settings,
    password: Option<SecretString>,
    client: SrSettings,
    /// For the one thing that the client has no call for: a subject's compatibility level.
    http: reqwest::Client,
}

impl Registry {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// Where the password file cannot be read, or TLS cannot be set up.
    pub fn new(settings: &Settings) -> Result<Self> {
        const DOING: &str = "make a registry client";
        let password = settings.secret()?;
        let timeout = Duration::from_millis(settings.timeout_ms.into());
        let mut builder = SrSettings::new_builder(settings.url.clone());
        builder.no_proxy().set_timeout(timeout);
        if let Some(username) = &settings.username {
            builder.set_basic_authorization(
                username,
                password.as_ref().map(ExposeSecret::expose_secret),
            );
        }
        let client = builder.build().map_err(|error| failed(DOING, &error))?;
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| Error::internal(DOING))?;
        Ok(Self { settings: settings.clone(), password, client, http })
    }

    /// The id under which the subject has exactly this schema; absent where it has not.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub async fn find(&self, subject: &str, schema: &str) -> Result<Option<u32>> {
        const DOING: &str = "find a schema";
        let body = serde_json::json!({ "schema": schema, "schemaType": "AVRO" }).to_string();
        let call = SrCall::PostForVersion(subject, &body);
        let Some(found) = absent(DOING, perform_sr_call(&self.client, call).await)? else {
            return Ok(None);
        };
        // What the registry takes for the same must be the same to us: ids are what readers trust.
        let same = found.schema.as_deref().is_none_or(|found| same(found, schema));
        Ok(found.id.filter(|_| same))
    }

    /// The id with which to write, for a process that starts.
    ///
    /// # Errors
    /// `schema_error` where the registry does not have our schema, with what to run; `broker_unavailable` where it
    /// does not answer.
    pub async fn id(&self, subject: &str, schema: &str) -> Result<u32> {
        const DOING: &str = "find our schema's id; run `biometric-bridge schemas apply`";
        self.find(subject, schema)
            .await?
            .ok_or_else(|| Error::new(Kind::SchemaError, DOING, subject.to_owned()))
    }

    /// The subject's latest schema, if it has any.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub async fn latest(&self, subject: &str) -> Result<Option<(u32, String)>> {
        let asked = get_schema_by_subject_and_version(&self.client, subject, None).await;
        let found = absent("read a subject's latest schema", asked)?;
        Ok(found.map(|found| (found.id, found.schema)))
    }

    /// Whether the subject's level lets this schema in. Asks under the level that is in force now.
    ///
    /// # Errors
    /// Where the registry does not answer, or the schema is not Avro.
    pub async fn compatible(&self, subject: &str, schema: &str) -> Result<bool> {
        let asked = is_compatible_schema(&self.client, subject.to_owned(), avro(schema)).await;
        asked.map_err(|error| failed("ask whether a schema is compatible", &error))
    }

    /// Registers a schema and gives its id; the same schema again gives the same id.
    ///
    /// # Errors
    /// Where the registry does not answer or refuses it as incompatible.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32> {
        let posted = post_schema(&self.client, subject.to_owned(), avro(schema)).await;
        Ok(posted.map_err(|error| failed("register a schema", &error))?.id)
    }

    fn level_url(&self, subject: &str) -> String {
        format!("{}/config/{}", self.settings.url, subject.replace('/', "%2F"))
    }

    async fn level_call(
        &self,
        doing: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, String)> {
        let request = match &self.settings.username {
            Some(username) => {
                let password = self.password.as_ref().map(ExposeSecret::expose_secret);
                request.basic_auth(username, password)
            }
            None => request,
        };
        let away = |_| Error::new(Kind::BrokerUnavailable, doing, "NoAnswer");
        let response = request.send().await.map_err(away)?;
        let status = response.status().as_u16();
        Ok((status, response.text().await.map_err(away)?))
    }

    /// The subject's own compatibility level; absent where it goes by the registry's default.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub async fn level(&self, subject: &str) -> Result<Option<String>> {
        const DOING: &str = "read a subject's compatibility level";
        let (status, body) = self.level_call(DOING, self.http.get(self.level_url(subject))).await?;
        match status {
            200 => Ok(level_of(&body)),
            404 => Ok(None),
            status => Err(Error::new(Kind::BrokerUnavailable, DOING, format!("HTTP {status}"))),
        }
    }

    /// Sets the subject's compatibility level to [`LEVEL`].
    ///
    /// # Errors
    /// Where the registry does not answer or refuses.
    pub async fn set_level(&self, subject: &str) -> Result<()> {
        const DOING: &str = "set a subject's compatibility level";
        let body = serde_json::json!({ "compatibility": LEVEL }).to_string();
        let request = self
            .http
            .put(self.level_url(subject))
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .body(body);
        match self.level_call(DOING, request).await? {
            (200, _) => Ok(()),
            (status, _) => {
                Err(Error::new(Kind::BrokerUnavailable, DOING, format!("HTTP {status}")))
            }
        }
    }
}

fn avro(schema: &str) -> SuppliedSchema {
    SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned())
}

fn level_of(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    let level = body.get("compatibilityLevel").or_else(|| body.get("compatibility"))?;
    level.as_str().map(str::to_owned)
}

/// Whether two schemas are one text, but for the layout of their JSON.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    match (parsed(one), parsed(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// The HTTP status that an error of the client carries; its texts are not read for anything else.
fn status(error: &SRCError) -> Option<u16> {
    let (_, after) = error.error.split_once("failed with status ")?;
    after.split_whitespace().next()?.parse().ok()
}

fn failed(doing: &'static str, error: &SRCError) -> Error {
    match status(error) {
        Some(status @ (409 | 422)) => {
            Error::new(Kind::SchemaError, doing, format!("HTTP {status}"))
        }
        Some(status) => Error::new(Kind::BrokerUnavailable, doing, format!("HTTP {status}")),
        None => Error::new(Kind::BrokerUnavailable, doing, "NoAnswer"),
    }
}

fn absent<T>(doing: &'static str, result: Result<T, SRCError>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(failed(doing, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_no_difference_and_content_is() {
        assert!(same(r#"{"type":"string","name":"a"}"#, r#"{ "name": "a", "type": "string" }"#));
        assert!(!same(r#"{"type":"string"}"#, r#"{"type":"bytes"}"#));
        assert!(!same("not json", "{}"));
    }

    #[test]
    fn what_the_registry_answered_is_told_from_silence() {
        let said = |text: &str| SRCError::new(text, None, false);
        let refused = said("HTTP request to schema registry failed with status 409 Conflict");
        assert_eq!(failed("x", &refused).kind, Kind::SchemaError);
        let missing = said("HTTP request to schema registry failed with status 404 Not Found");
        assert_eq!(absent::<()>("x", Err(missing)), Ok(None));
        let silent = said("http call to schema registry failed");
        assert_eq!(failed("x", &silent).code, "NoAnswer");
    }

    #[test]
    fn both_spellings_of_a_level_are_read() {
        assert_eq!(level_of(r#"{"compatibilityLevel":"NONE"}"#).as_deref(), Some("NONE"));
        assert_eq!(level_of(r#"{"compatibility":"FULL"}"#).as_deref(), Some("FULL"));
        assert_eq!(level_of("<html>"), None);
    }

    #[test]
    fn every_problem_is_told() {
        let text =
            "url = \"127.0.0.1:8081/\"\ntimeout_ms = 1\npassword = \"not-a-secret-test-key\"";
        let settings: Settings = toml::from_str(text).unwrap();
        let keys: Vec<&str> = settings.problems(true).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["url", "timeout_ms", "password"]);
        assert!(!format!("{settings:?}").contains("not-a-secret"));
    }
}
