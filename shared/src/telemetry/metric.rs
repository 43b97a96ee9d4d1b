//! What is counted of an invocation: the one list of names, by which the dashboard and the alarms read it.

/// In what a metric is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// So many of them.
    Count,
    /// Thousandths of a second, with three decimals.
    Milliseconds,
    /// Whole seconds.
    Seconds,
}

impl Unit {
    /// As `CloudWatch` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Milliseconds => "Milliseconds",
            Self::Seconds => "Seconds",
        }
    }
}

macro_rules! metrics {
    ($($(#[doc = $what:literal])+ $name:ident: $unit:ident,)+) => {
        /// What can be counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric {
            $($(#[doc = $what])+ $name,)+
        }

        /// The name and the unit of each, in the order of [`Metric`].
        pub const METRICS: &[(&str, Unit)] = &[$((stringify!($name), Unit::$unit),)+];

        /// Each of them.
        #[cfg(test)]
        pub(super) const ALL: [Metric; METRICS.len()] = [$(Metric::$name,)+];

        /// Of each, what declares it and what introduces its value.
        pub(super) const TEXTS: [(&str, &str); METRICS.len()] = [$((
            concat!(r#"{"Name":""#, stringify!($name), r#"","Unit":""#, stringify!($unit), r#""}"#),
            concat!(r#",""#, stringify!($name), r#"":"#),
        ),)+];
    };
}

metrics! {
    /// The first invocation of an execution environment.
    ColdStart: Count,
    /// From the event to the answer.
    Latency: Milliseconds,
    /// Time spent on statements.
    DbMs: Milliseconds,
    /// Statements that were sent.
    DbStatements: Count,
    /// Units of work that were tried again.
    DbRetries: Count,
    /// Time spent waiting for a connection.
    DbPoolWaitMs: Milliseconds,
    /// Reads that the cache answered.
    CacheHit: Count,
    /// Reads that it had no fresh copy for.
    CacheMiss: Count,
    /// Reads that were answered with a copy past its time.
    CacheStale: Count,
    /// Steps of the cache without an answer in time.
    CacheTimeout: Count,
    /// Reads that did not ask the cache, because it is left alone for a while.
    CacheBreakerOpen: Count,
    /// Writes that the cache did not hear of.
    LostBumps: Count,
    /// Submissions that were parked.
    Parked: Count,
    /// Submissions that wait no more, however they ended.
    Drained: Count,
    /// Those of them in which something was rejected.
    RejectedParked: Count,
    /// How long the oldest submission that still waits has waited.
    ParkedAgeMax: Seconds,
    /// Submissions that still wait.
    ParkedRemaining: Count,
    /// Batches that were parked for a trial and could not be replayed.
    LostCanaries: Count,
    /// Operations on the parking table that failed or were too slow.
    ParkingFailures: Count,
    /// First answers that were given again.
    IdemReplay: Count,
    /// Requests that were refused because their caller sends too many.
    Throttled: Count,
    /// Invocations that failed by our fault, or a server's.
    Errors: Count,
    /// Courses whose figures were refreshed.
    AnalyticsRefreshed: Count,
    /// Courses whose figures could not be refreshed.
    AnalyticsFailed: Count,
    /// Courses whose figures are still to be refreshed.
    AnalyticsRemaining: Count,
    /// Stored values that differed from what they are made of.
    Drift: Count,
}
