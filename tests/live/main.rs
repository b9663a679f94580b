//! Tests against the real stack (`make up`); a feature, so that they are never skipped silently.
