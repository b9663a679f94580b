//! Tests against the real stack (`make up`); a feature, so that they are never skipped silently.

mod cache_laws;
mod database;
mod migrations;
mod register_laws;
mod store_laws;
