//! What operators see: metrics, logs, health. No label and no line here can carry a person's data.

pub mod health;
pub mod log;
pub mod metrics;
