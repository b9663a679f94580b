//! What is looked up when it is first needed, once.

use std::fmt;

use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::error::Result;

type Find<T> = Box<dyn Fn() -> BoxFuture<'static, Result<T>> + Send + Sync>;

/// A value that most runs never need, and that is not there at once: nothing waits for it but who asks for it.
pub struct Late<T> {
    found: OnceCell<T>,
    find: Find<T>,
}

impl<T> Late<T> {
    /// A value that this finds.
    pub fn new(find: impl Fn() -> BoxFuture<'static, Result<T>> + Send + Sync + 'static) -> Self {
        Self { found: OnceCell::new(), find: Box::new(find) }
    }

    /// The value; the first who asks has it looked up, and where that fails the next one does.
    ///
    /// # Errors
    /// As the look-up.
    pub async fn get(&self) -> Result<&T> {
        self.found.get_or_try_init(|| (self.find)()).await
    }
}

impl<T> fmt::Debug for Late<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Late").field("is_found", &self.found.initialized()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn it_is_looked_up_until_it_is_found_and_then_no_more() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let late = Late::new(move || {
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { if nth == 0 { Err(Error::internal("test")) } else { Ok(nth) } })
        });
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        assert!(late.get().await.is_err());
        for _ in 0..2 {
            assert_eq!(*late.get().await.expect("found"), 1);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
