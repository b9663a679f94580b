//! What operators and developers run; each command ends. Data first, then the text that shows it.

pub mod connections;
pub mod migrate;
pub mod schemas;
pub mod topics;
