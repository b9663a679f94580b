//! What operators see: metrics, logs, health. No label and no line here can carry a person's data.

pub mod family;
pub mod health;
pub mod log;
pub mod metrics;
pub mod table;
