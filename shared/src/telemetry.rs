//! Logs: JSON lines with Powertools' key names, and what one invocation is counted by.
//!
//! A failure is logged once, by whoever turns it into an answer. Never logged: bodies, tokens, parameters of statements,
//! user ids.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer, layer},
    layer::SubscriberExt,
    registry,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// JSON lines rather than text.
    pub json: bool,
    /// A level, or levels by module.
    pub level: String,
    /// The function's name, on every line.
    pub service: String,
}

static SERVICE: OnceLock<String> = OnceLock::new();
static WARM: AtomicBool = AtomicBool::new(false);

/// Installs the subscriber; a second call changes nothing.
pub fn init(settings: &LogSettings) {
    SERVICE.get_or_init(|| settings.service.clone());
    let filter = filter(&settings.level);
    let layer = layer().with_ansi(false);
    // Fails only where a subscriber is installed already, and then that one is used.
    let _ = if settings.json {
        registry().with(layer.event_format(JsonLines).with_filter(filter)).try_init()
    } else {
        registry().with(layer.with_target(false).with_filter(filter)).try_init()
    };
}

/// A level, or levels by module (`info,shared=debug`). Lambda knows one level more than we do.
fn filter(level: &str) -> Targets {
    let level = if level.eq_ignore_ascii_case("fatal") { "error" } else { level };
    let targets: Targets = level.parse().unwrap_or_default();
    // A list that says nothing of the other modules, or a word that is no level, must not silence them.
    if targets.default_level().is_some() { targets } else { targets.with_default(Level::INFO) }
}

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
    trace: Trace,
    cold: bool,
    started: Instant,
    statements: AtomicU32,
    database_micros: AtomicU64,
    pool_wait_micros: AtomicU64,
    retries: AtomicU32,
    cache_failures: AtomicU32,
    lost_bumps: AtomicU32,
    parking_failures: AtomicU32,
}

tokio::task_local! {
    static CURRENT: Arc<Invocation>;
}

impl Invocation {
    /// Runs `work` as one invocation: what it logs and counts is told apart from others running beside it.
    pub async fn scope<F: Future>(trace: Trace, work: impl FnOnce(Arc<Self>) -> F) -> F::Output {
        let invocation = Arc::new(Self {
            trace,
            cold: !WARM.swap(true, Ordering::Relaxed),
            started: Instant::now(),
            statements: AtomicU32::new(0),
            database_micros: AtomicU64::new(0),
            pool_wait_micros: AtomicU64::new(0),
            retries: AtomicU32::new(0),
            cache_failures: AtomicU32::new(0),
            lost_bumps: AtomicU32::new(0),
            parking_failures: AtomicU32::new(0),
        });
        CURRENT.scope(invocation.clone(), work(invocation)).await
    }

    /// The one summary line of an invocation.
    pub fn summarise(&self, route: &str, status: u16, code: Option<&str>, cache: Option<&str>) {
        tracing::info!(
            route,
            status,
            code,
            cache,
            duration_ms = millis(self.started.elapsed()),
            statements = self.statements.load(Ordering::Relaxed),
            database_ms = self.database_micros.load(Ordering::Relaxed) as f64 / 1e3,
            pool_wait_ms = self.pool_wait_micros.load(Ordering::Relaxed) as f64 / 1e3,
            database_retries = self.retries.load(Ordering::Relaxed),
            cache_failures = self.cache_failures.load(Ordering::Relaxed),
            lost_bumps = self.lost_bumps.load(Ordering::Relaxed),
            parking_failures = self.parking_failures.load(Ordering::Relaxed),
            "invocation"
        );
    }
}

/// Counts a statement and the time it took, in whatever invocation this runs.
pub fn count_statement(took: Duration) {
    let _ = CURRENT.try_with(|invocation| {
        invocation.statements.fetch_add(1, Ordering::Relaxed);
        invocation.database_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    });
}

/// Counts time spent waiting for a connection.
pub fn count_pool_wait(took: Duration) {
    let _ = CURRENT
        .try_with(|invocation| invocation.pool_wait_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed));
}

/// Counts a unit of work that was tried again.
pub fn count_retry() {
    let _ = CURRENT.try_with(|invocation| invocation.retries.fetch_add(1, Ordering::Relaxed));
}

/// Counts a step of the cache that failed or was too slow.
pub fn count_cache_failure() {
    let _ = CURRENT.try_with(|invocation| invocation.cache_failures.fetch_add(1, Ordering::Relaxed));
}

/// Counts a write that the cache did not hear of.
pub fn count_lost_bump() {
    let _ = CURRENT.try_with(|invocation| invocation.lost_bumps.fetch_add(1, Ordering::Relaxed));
}

/// Counts an operation on the parking table that failed or was too slow.
pub fn count_parking_failure() {
    let _ = CURRENT.try_with(|invocation| invocation.parking_failures.fetch_add(1, Ordering::Relaxed));
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

/// One JSON object a line.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Map::new();
        line.insert("timestamp".into(), chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true).into());
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("service".into(), SERVICE.get().map_or("lectern", String::as_str).into());
        let _ = CURRENT.try_with(|invocation| {
            let trace = &invocation.trace;
            line.insert("function_request_id".into(), trace.function_request_id.as_str().into());
            line.insert("cold_start".into(), invocation.cold.into());
            for (key, id) in [("correlation_id", &trace.correlation_id), ("xray_trace_id", &trace.xray_trace_id)] {
                if let Some(id) = id {
                    line.insert(key.into(), id.as_str().into());
                }
            }
        });
        line.insert("location".into(), event.metadata().target().into());
        event.record(&mut Fields(&mut line));
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_level_that_lambda_can_be_set_to_means_something() {
        for (level, enabled) in [("TRACE", true), ("info", true), ("WARN", false), ("FATAL", false), ("nonsense", true)]
        {
            assert_eq!(filter(level).would_enable("shared", &Level::INFO), enabled, "{level}");
        }
        assert!(filter("warn,shared=debug").would_enable("shared::db", &Level::DEBUG));
    }

    #[tokio::test]
    async fn a_summary_is_one_json_line_that_names_its_invocation() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).event_format(JsonLines).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let trace =
            Trace { function_request_id: "id-1".into(), correlation_id: Some("id-2".into()), ..Trace::default() };
        Invocation::scope(trace, |invocation| async move {
            count_statement(Duration::from_millis(2));
            invocation.summarise("GET /courses", 200, None, Some("miss"));
        })
        .await;
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["function_request_id"], &line["correlation_id"]), (&"id-1".into(), &"id-2".into()));
        assert_eq!(line["message"], "invocation");
        assert_eq!((&line["statements"], &line["database_ms"]), (&1.into(), &2.0.into()));
        assert_eq!(line["cache"], "miss");
    }
}
