//! The one line in which an invocation is summed up: for a person to search, and for `CloudWatch` to take metrics from.
//!
//! It is a log line and a blob of the Embedded Metric Format at once. Every request writes one, so it is put together by
//! hand, in a buffer that is used again.

use std::{cell::RefCell, fmt::Write as _, time::Duration};

use chrono::{DateTime, Datelike, Timelike, Utc};

use super::{
    SETTINGS, Settings,
    invocation::Invocation,
    metric::{METRICS, TEXTS, Unit},
    millis,
};

/// In which `CloudWatch` keeps the metrics.
pub const NAMESPACE: &str = "Lectern";
/// All of a stack, and each function of it. Routes are none: each value of a dimension is paid for.
const DIMENSIONS: &str = r#"[["service"],["service","function"]]"#;
/// Most lines are shorter.
const USUAL_LENGTH: usize = 1_024;

thread_local! {
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(USUAL_LENGTH));
}

/// What an invocation came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome<'a> {
    /// The route, or what else invoked it.
    pub route: &'a str,
    /// The answer's status.
    pub status: u16,
    /// The error's code.
    pub code: Option<&'a str>,
    /// Where the answer was read from.
    pub cache: Option<&'a str>,
}

/// Writes the summary to where lines go: whatever level is logged, since metrics are no log.
pub(super) fn write(invocation: &Invocation, outcome: &Outcome<'_>) {
    match SETTINGS.get().filter(|settings| settings.metrics) {
        Some(settings) => LINE.with_borrow_mut(|line| {
            line.clear();
            write_blob(line, settings, Utc::now(), invocation, outcome);
            (settings.output)(line);
        }),
        None => write_text(invocation, outcome),
    }
}

/// The same for a person who looks on.
fn write_text(invocation: &Invocation, outcome: &Outcome<'_>) {
    let Outcome { route, status, code, cache } = *outcome;
    let mut counted = String::new();
    for ((name, unit), count) in METRICS.iter().zip(invocation.counts()).filter(|(_, count)| *count > 0) {
        let _ = match unit {
            Unit::Milliseconds => write!(counted, "{name}={} ", millis(Duration::from_micros(count))),
            Unit::Count | Unit::Seconds => write!(counted, "{name}={count} "),
        };
    }
    let cache_failures = Some(invocation.cache_failures()).filter(|failures| *failures > 0);
    tracing::info!(route, status, code, cache, cache_failures, counted = counted.trim_end(), "invocation");
}

/// Metrics at nought are left out: each is paid for, in each hour in which it is written.
fn write_blob(
    line: &mut Vec<u8>,
    settings: &Settings,
    now: DateTime<Utc>,
    invocation: &Invocation,
    outcome: &Outcome<'_>,
) {
    put(line, r#"{"_aws":{"Timestamp":"#);
    put_number(line, now.timestamp_millis().unsigned_abs(), 1);
    put(line, r#","CloudWatchMetrics":[{"Namespace":""#);
    put(line, NAMESPACE);
    put(line, r#"","Dimensions":"#);
    put(line, DIMENSIONS);
    put(line, r#","Metrics":["#);
    let mut separator = "";
    for ((declaration, _), _) in TEXTS.iter().zip(invocation.counts()).filter(|(_, count)| *count > 0) {
        put(line, separator);
        put(line, declaration);
        separator = ",";
    }
    put(line, r#"]}]},"timestamp":""#);
    put_time(line, now);
    put(line, r#"","level":""#);
    put(line, settings.summary_level);
    put(line, "\"");
    put_text(line, r#","service":"#, &settings.service);
    put_text(line, r#","function":"#, &settings.function);
    let trace = &invocation.trace;
    put_text(line, r#","function_request_id":"#, &trace.function_request_id);
    put(line, if invocation.cold { r#","cold_start":true"# } else { r#","cold_start":false"# });
    put_any(line, r#","correlation_id":"#, trace.correlation_id.as_deref());
    put_any(line, r#","xray_trace_id":"#, trace.xray_trace_id.as_deref());
    put_text(line, r#","message":"invocation","route":"#, outcome.route);
    put(line, r#","status":"#);
    put_number(line, outcome.status.into(), 1);
    put_any(line, r#","code":"#, outcome.code);
    put_any(line, r#","cache":"#, outcome.cache);
    if invocation.cache_failures() > 0 {
        put(line, r#","cache_failures":"#);
        put_number(line, invocation.cache_failures().into(), 1);
    }
    let described = METRICS.iter().zip(TEXTS).zip(invocation.counts()).filter(|(_, count)| *count > 0);
    for (((_, unit), (_, key)), count) in described {
        put(line, key);
        match unit {
            Unit::Milliseconds => {
                put_number(line, count / 1_000, 1);
                put(line, ".");
                put_number(line, count % 1_000, 3);
            }
            Unit::Count | Unit::Seconds => put_number(line, count, 1),
        }
    }
    put(line, "}\n");
}

fn put(line: &mut Vec<u8>, text: &str) {
    line.extend_from_slice(text.as_bytes());
}

/// A key, as it stands in the line, and a text of others.
fn put_text(line: &mut Vec<u8>, key: &str, text: &str) {
    put(line, key);
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        put(line, "\"");
        put(line, text);
        put(line, "\"");
    } else {
        // Nothing can go wrong when a text is written into memory.
        let _ = serde_json::to_writer(line, text);
    }
}

fn put_any(line: &mut Vec<u8>, key: &str, text: Option<&str>) {
    if let Some(text) = text {
        put_text(line, key, text);
    }
}

/// A number of so many digits at the least.
fn put_number(line: &mut Vec<u8>, mut number: u64, least: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    while number > 0 || digits.len() - first < least {
        first -= 1;
        digits[first] += (number % 10) as u8;
        number /= 10;
    }
    line.extend_from_slice(&digits[first..]);
}

/// RFC 3339 with milliseconds.
fn put_time(line: &mut Vec<u8>, time: DateTime<Utc>) {
    let (date, time) = (time.date_naive(), time.time());
    put_number(line, date.year().unsigned_abs().into(), 4);
    let rest = [
        ("-", date.month(), 2),
        ("-", date.day(), 2),
        ("T", time.hour(), 2),
        (":", time.minute(), 2),
        (":", time.second(), 2),
        (".", time.nanosecond() / 1_000_000 % 1_000, 3),
    ];
    for (separator, number, digits) in rest {
        put(line, separator);
        put_number(line, number.into(), digits);
    }
    put(line, "Z");
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::telemetry::{
        LogSettings, Trace,
        metric::{ALL, Metric},
    };

    fn settings(level: &str) -> Settings {
        let settings = LogSettings {
            json: true,
            level: level.to_owned(),
            service: "school-a".to_owned(),
            function: "get-course".to_owned(),
            metrics: true,
        };
        Settings::new(&settings, |_| {})
    }

    fn blob(level: &str, invocation: &Invocation, outcome: &Outcome<'_>) -> String {
        let mut line = Vec::new();
        let now = DateTime::from_timestamp_millis(1_795_341_600_042).unwrap();
        write_blob(&mut line, &settings(level), now, invocation, outcome);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_hit_is_one_short_line_to_the_byte() {
        let trace = Trace {
            function_request_id: "8476a536".to_owned(),
            correlation_id: Some("JKJaXmPLFiAEx14=".to_owned()),
            xray_trace_id: None,
        };
        let invocation = Invocation::new(trace, false);
        invocation.add(Metric::Latency, 412);
        invocation.add(Metric::CacheHit, 1);
        let outcome =
            Outcome { route: "GET /courses/{courseId}", status: 200, cache: Some("hit"), ..Outcome::default() };
        let expected = concat!(
            r#"{"_aws":{"Timestamp":1795341600042,"CloudWatchMetrics":[{"Namespace":"Lectern","#,
            r#""Dimensions":[["service"],["service","function"]],"Metrics":["#,
            r#"{"Name":"Latency","Unit":"Milliseconds"},{"Name":"CacheHit","Unit":"Count"}]}]},"#,
            r#""timestamp":"2026-11-22T10:00:00.042Z","level":"INFO","service":"school-a","function":"get-course","#,
            r#""function_request_id":"8476a536","cold_start":false,"correlation_id":"JKJaXmPLFiAEx14=","#,
            r#""message":"invocation","route":"GET /courses/{courseId}","status":200,"cache":"hit","#,
            r#""Latency":0.412,"CacheHit":1}"#,
            "\n"
        );
        assert_eq!(blob("info", &invocation, &outcome), expected);
    }

    #[test]
    fn every_metric_comes_out_in_its_unit() {
        let invocation = Invocation::new(Trace::default(), false);
        ALL.iter().for_each(|metric| invocation.add(*metric, 1_234_005));
        let line: Value = serde_json::from_str(&blob("info", &invocation, &Outcome::default())).unwrap();
        let declared = &line["_aws"]["CloudWatchMetrics"][0]["Metrics"];
        for (index, (name, unit)) in METRICS.iter().enumerate() {
            assert_eq!(declared[index], serde_json::json!({"Name": name, "Unit": unit.as_str()}));
            let expected = if *unit == Unit::Milliseconds { 1_234.005 } else { 1_234_005.0 };
            assert_eq!(line[name].as_f64(), Some(expected), "{name}");
        }
    }

    #[test]
    fn what_is_nought_is_left_out_and_paid_for_by_nobody() {
        let invocation = Invocation::new(Trace::default(), true);
        let line: Value = serde_json::from_str(&blob("info", &invocation, &Outcome::default())).unwrap();
        let declared = &line["_aws"]["CloudWatchMetrics"][0]["Metrics"];
        assert_eq!(declared, &serde_json::json!([{"Name": "ColdStart", "Unit": "Count"}]));
        assert!(METRICS.iter().filter(|(name, _)| line.get(name).is_some()).eq(&[("ColdStart", Unit::Count)]));
    }

    #[test]
    fn texts_of_others_cannot_break_the_line() {
        let nasty = "\"\\\n\u{7f}\u{1}é🦀";
        let trace = Trace { function_request_id: nasty.to_owned(), ..Trace::default() };
        let outcome = Outcome { route: nasty, code: Some(nasty), cache: Some(nasty), ..Outcome::default() };
        let text = blob("info", &Invocation::new(trace, false), &outcome);
        assert_eq!(text.lines().count(), 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        for key in ["function_request_id", "route", "code", "cache"] {
            assert_eq!(line[key], nasty);
        }
    }

    #[test]
    fn whatever_level_lambda_lets_through_it_lets_the_summary_through() {
        for (level, written) in
            [("TRACE", "INFO"), ("info", "INFO"), ("Warn", "WARN"), ("ERROR", "ERROR"), ("FATAL", "FATAL")]
        {
            let invocation = Invocation::new(Trace::default(), false);
            let line: Value = serde_json::from_str(&blob(level, &invocation, &Outcome::default())).unwrap();
            assert_eq!(line["level"], written);
        }
    }
}
