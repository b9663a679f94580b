//! The two steps, pure.

pub mod plan;
pub mod revise;
pub mod score;
