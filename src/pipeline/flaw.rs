//! What decide can be made to do wrong in a test build, so that the tests are seen to catch it (`make planted`).
//!
//! The bugs are named and chosen by the engine, which pure code does not know: a composition for tests hands them in.
//! Without the feature `planted` there is nothing to hand in, and the compiler drops the branches.

/// A promise of decide, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A sample of a derived id is replaced by whatever comes, from below its place, too.
    OrderIgnored,
    /// A session of which nothing is left stays.
    SessionStays,
    /// A deletion that comes before its sample is not kept.
    EarlyRemovalForgotten,
}

/// The flaw that is alive, if one is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flaws {
    #[cfg(feature = "planted")]
    alive: Option<Flaw>,
}

impl Flaws {
    /// This flaw, alive.
    #[cfg(feature = "planted")]
    #[must_use]
    pub const fn planted(alive: Option<Flaw>) -> Self {
        Self { alive }
    }

    /// Whether this flaw is alive.
    #[cfg(feature = "planted")]
    #[must_use]
    pub fn has(self, flaw: Flaw) -> bool {
        self.alive == Some(flaw)
    }

    /// Whether this flaw is alive.
    #[cfg(not(feature = "planted"))]
    #[must_use]
    #[inline]
    pub const fn has(self, _flaw: Flaw) -> bool {
        false
    }
}
