//! The two steps, pure.

pub mod bucket;
pub mod decide;
pub mod emit;
pub mod flaw;
pub mod normalise;
pub mod plan;
pub mod reject;
pub mod revise;
pub mod score;
pub mod sessions;
pub mod topology;
pub mod union;
