//! Mutexes of data that is valid at every moment, so that a panic of one thread does not end the others.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock that ignores poisoning: what the mutex protects is valid between any two statements that hold it.
pub trait MutexExt<T: ?Sized> {
    /// Locks, also after a thread panicked with the lock.
    fn acquire(&self) -> MutexGuard<'_, T>;
}

impl<T: ?Sized> MutexExt<T> for Mutex<T> {
    fn acquire(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_mutex_is_locked_after_a_panic() {
        let mutex = Arc::new(Mutex::new(7));
        let same = Arc::clone(&mutex);
        let panicked = std::thread::spawn(move || {
            let _held = same.lock();
            panic!("on purpose");
        });
        assert!(panicked.join().is_err() && mutex.is_poisoned());
        assert_eq!(*mutex.acquire(), 7);
    }
}
