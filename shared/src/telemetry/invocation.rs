//! One invocation: by which it is found again, and what is counted of it as it goes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    metric::{METRICS, Metric},
    summary::{self, Outcome},
};

static WARM: AtomicBool = AtomicBool::new(false);

/// By which an invocation is found again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Lambda's id of the invocation.
    pub function_request_id: String,
    /// The gateway's id of the request, which the client knows too.
    pub correlation_id: Option<String>,
    /// The trace that this invocation is a part of.
    pub xray_trace_id: Option<String>,
}

/// What one invocation did, counted as it goes.
#[derive(Debug)]
pub struct Invocation {
    pub(super) trace: Trace,
    pub(super) cold: bool,
    started: Instant,
    /// In the order of [`Metric`]; times in microseconds.
    counts: [AtomicU64; METRICS.len()],
    cache_failures: AtomicU32,
}

tokio::task_local! {
    static CURRENT: Arc<Invocation>;
}

impl Invocation {
    /// Runs `work` as one invocation: what it logs and counts is told apart from others running beside it.
    pub async fn scope<F: Future>(trace: Trace, work: impl FnOnce(Arc<Self>) -> F) -> F::Output {
        let invocation = Arc::new(Self::new(trace, !WARM.swap(true, Ordering::Relaxed)));
        CURRENT.scope(invocation.clone(), work(invocation)).await
    }

    pub(super) fn new(trace: Trace, cold: bool) -> Self {
        let invocation = Self {
            trace,
            cold,
            started: Instant::now(),
            counts: [const { AtomicU64::new(0) }; METRICS.len()],
            cache_failures: AtomicU32::new(0),
        };
        invocation.add(Metric::ColdStart, cold.into());
        invocation
    }

    /// The one summary of an invocation. Nothing is counted after it.
    pub fn summarise(&self, outcome: &Outcome<'_>) {
        // Never nought, and so never left out: by it, invocations are counted too.
        self.add(Metric::Latency, (self.started.elapsed().as_micros() as u64).max(1));
        if outcome.status >= 500 {
            self.add(Metric::Errors, 1);
        }
        summary::write(self, outcome);
    }

    pub(super) fn add(&self, metric: Metric, amount: u64) {
        self.counts[metric as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// What was counted, in the order of [`Metric`]; times in microseconds.
    pub(super) fn counts(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed))
    }

    pub(super) fn cache_failures(&self) -> u32 {
        self.cache_failures.load(Ordering::Relaxed)
    }
}

/// The invocation that this runs in, if it runs in one.
pub(super) fn current<T>(look: impl FnOnce(&Invocation) -> T) -> Option<T> {
    CURRENT.try_with(|invocation| look(invocation)).ok()
}

/// Counts one, in whatever invocation this runs.
pub fn count(metric: Metric) {
    add(metric, 1);
}

/// Counts many.
pub fn add(metric: Metric, amount: u64) {
    current(|invocation| invocation.add(metric, amount));
}

/// Counts time, in a metric of milliseconds.
pub fn add_time(metric: Metric, took: Duration) {
    add(metric, took.as_micros() as u64);
}

/// Counts a step of the cache that failed or was too slow.
pub fn count_cache_failure() {
    current(|invocation| invocation.cache_failures.fetch_add(1, Ordering::Relaxed));
}
