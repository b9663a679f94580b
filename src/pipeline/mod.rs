//! The two steps, pure.

pub mod decide;
pub mod emit;
pub mod normalise;
pub mod plan;
pub mod reject;
pub mod revise;
pub mod score;
pub mod topology;
pub mod union;
