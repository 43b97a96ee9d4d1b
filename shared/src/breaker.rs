//! A breaker: takes a server that fell silent as away for a while, so that not every caller has to wait for nothing.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long a silent server is taken as away. The first good answer has to come within 5 s of its return, whenever that
/// is: a second is left for who tries then.
pub const OPEN_FOR: Duration = Duration::from_secs(4);

/// Closed at first. Open, it admits nobody; when its time is over it admits one caller, whose luck decides for all.
#[derive(Debug)]
pub struct Breaker {
    epoch: Instant,
    /// Milliseconds since `epoch` until which it is open; 0 while it is closed.
    open_until: AtomicU64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { epoch: Instant::now(), open_until: AtomicU64::new(0) }
    }
}

impl Breaker {
    /// Whether a caller may try. The one that is let through when the time is over keeps the others out until it
    /// has [closed](Self::close) the breaker, or for as long again.
    pub fn admits(&self) -> bool {
        let until = self.open_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let now = self.millis(Instant::now());
        let again = now + OPEN_FOR.as_millis() as u64;
        now >= until && self.open_until.compare_exchange(until, again, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether callers are kept out right now.
    pub fn is_open(&self) -> bool {
        self.millis(Instant::now()) < self.open_until.load(Ordering::Relaxed)
    }

    /// Keeps callers out for [`OPEN_FOR`] since the server was asked in vain; says whether the breaker was closed before.
    pub fn open(&self, since: Instant) -> bool {
        let until = self.millis(since + OPEN_FOR);
        // What was asked so long ago says nothing of now.
        if until <= self.millis(Instant::now()) {
            return false;
        }
        self.open_until.fetch_max(until, Ordering::Relaxed) == 0
    }

    /// The server has answered.
    pub fn close(&self) {
        // Read first: a cache line that everybody writes is slower than one that everybody reads.
        if self.open_until.load(Ordering::Relaxed) != 0 {
            self.open_until.store(0, Ordering::Relaxed);
        }
    }

    fn millis(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ago(millis: u64) -> Instant {
        Instant::now().checked_sub(Duration::from_millis(millis)).unwrap()
    }

    /// One that has been there for long enough to have a past.
    fn breaker() -> Breaker {
        Breaker { epoch: ago(60_000), ..Breaker::default() }
    }

    #[test]
    fn a_silent_server_is_left_alone_from_the_moment_it_was_asked() {
        let breaker = breaker();
        assert!(breaker.admits() && breaker.admits());
        assert!(breaker.open(ago(2_000)));
        assert!(!breaker.admits() && breaker.is_open());
        assert!(!breaker.open(ago(1_000)), "opened already");
        breaker.close();
        assert!(breaker.admits() && breaker.admits());
    }

    #[test]
    fn when_the_time_is_over_one_caller_tries_for_all() {
        let breaker = breaker();
        breaker.open_until.store(breaker.millis(ago(1)), Ordering::Relaxed);
        assert!(breaker.admits());
        assert!(!breaker.admits());
        breaker.close();
        assert!(breaker.admits());
    }

    #[test]
    fn a_wait_that_was_long_on_purpose_opens_nothing() {
        let breaker = breaker();
        assert!(!breaker.open(ago(6_000)));
        assert!(breaker.admits());
    }
}
