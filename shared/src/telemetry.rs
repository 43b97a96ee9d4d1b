//! Logs and metrics: JSON lines with Powertools' key names, and what one invocation is counted by.
//!
//! A failure is logged once, by whoever turns it into an answer. Each invocation ends with one line that sums it up, from
//! which `CloudWatch` takes the metrics. Never logged: bodies, tokens, parameters of statements, user ids.

mod invocation;
mod json;
mod metric;
mod summary;

use std::{
    io::{self, Write},
    sync::OnceLock,
    time::Duration,
};

use tracing::Level;
use tracing_subscriber::{Layer, filter::Targets, fmt::layer, layer::SubscriberExt, registry, util::SubscriberInitExt};

use self::json::JsonLines;
pub use self::{
    invocation::{Invocation, Trace, add, add_time, count, count_cache_failure},
    metric::{METRICS, Metric, Unit},
    summary::{NAMESPACE, Outcome},
};

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// JSON lines rather than text.
    pub json: bool,
    /// A level, or levels by module.
    pub level: String,
    /// The stack's name, on every line of JSON, and a dimension of the metrics.
    pub service: String,
    /// The function's name within it; the same.
    pub function: String,
    /// Whether invocations are summed up for `CloudWatch` rather than for a person.
    pub metrics: bool,
}

/// Takes whole lines, each with its end.
pub type Output = fn(&[u8]);

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// What of [`LogSettings`] is needed for each line.
#[derive(Debug)]
struct Settings {
    service: String,
    function: String,
    metrics: bool,
    summary_level: &'static str,
    output: Output,
}

impl Settings {
    fn new(settings: &LogSettings, output: Output) -> Self {
        // Lambda itself drops lines of JSON below the level that it was set to, and with them the metrics.
        let levels = ["WARN", "ERROR", "FATAL"];
        let summary_level = levels.into_iter().find(|level| settings.level.eq_ignore_ascii_case(level));
        Self {
            service: settings.service.clone(),
            function: settings.function.clone(),
            metrics: settings.metrics,
            summary_level: summary_level.unwrap_or("INFO"),
            output,
        }
    }
}

/// Logs to the standard output from now on; a second call changes nothing.
pub fn init(settings: &LogSettings) {
    init_to(settings, |line| {
        // Whoever closed it does not want to know.
        let _ = io::stdout().lock().write_all(line);
    });
}

/// The same to another place.
pub fn init_to(settings: &LogSettings, output: Output) {
    SETTINGS.get_or_init(|| Settings::new(settings, output));
    let filter = filter(&settings.level);
    let layer = layer().with_ansi(false).with_writer(move || Lines(output));
    // Fails only where a subscriber is installed already, and then that one is used.
    let _ = if settings.json {
        registry().with(layer.event_format(JsonLines).with_filter(filter)).try_init()
    } else {
        registry().with(layer.with_target(false).with_filter(filter)).try_init()
    };
}

/// An [`Output`] as `tracing` wants it, which writes a line at once.
struct Lines(Output);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (self.0)(line);
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A level, or levels by module (`info,shared=debug`). Lambda knows one level more than we do.
fn filter(level: &str) -> Targets {
    let level = if level.eq_ignore_ascii_case("fatal") { "error" } else { level };
    let targets: Targets = level.parse().unwrap_or_default();
    // A list that says nothing of the other modules, or a word that is no level, must not silence them.
    if targets.default_level().is_some() { targets } else { targets.with_default(Level::INFO) }
}

/// Milliseconds with three decimals.
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// An error and everything that caused it, in one line: `Display` of most drivers' errors leaves the causes out.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_that_lambda_can_be_set_to_means_something() {
        for (level, enabled) in [("TRACE", true), ("info", true), ("WARN", false), ("FATAL", false), ("nonsense", true)]
        {
            assert_eq!(filter(level).would_enable("shared", &Level::INFO), enabled, "{level}");
        }
        assert!(filter("warn,shared=debug").would_enable("shared::db", &Level::DEBUG));
    }
}
