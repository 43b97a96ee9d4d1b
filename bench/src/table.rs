//! The table, as Markdown.

use crate::{
    measure::{Measured, REFRESH, Report},
    sample::Rounds,
};

/// Prints all of it.
pub(crate) fn print(reports: &[Report]) {
    for report in reports {
        print_report(report);
    }
    if let [small, .., large] = reports {
        print_growth(small, large);
    }
}

fn print_report(report: &Report) {
    let scale = report.scale;
    line(&format!("## {} courses, {} enrollments\n", scale.courses, scale.enrollments));
    line("Milliseconds; the median of the rounds, in brackets the lowest and the highest round.\n");
    line("| call | p50 | p99 | empty function | floor | prepared | ratio | limit | | CPU, µs | MB |");
    line("|---|---|---|---|---|---|---|---|---|---|---|");
    for call in &report.calls {
        let limit = limit(call);
        let (name, what) = (&call.title, if call.cached { "CPU" } else { "time" });
        let cpu = if call.cached {
            format!("{:.0} ({:.0})", call.cpu.median(), call.floor_cpu.median())
        } else {
            format!("{:.0}", call.cpu.median())
        };
        let prepared = call.prepared.0.first().map_or("–".to_owned(), |_| format!("{:.3}", call.prepared.median()));
        line(&format!(
            "| `{name}` | {:.3} | {:.3} | {:.3} | {:.3} | {prepared} | {} {what} | {limit:.2} | {} | {cpu} | {:.1} |",
            call.handler.median(),
            call.worst.median(),
            call.empty.median(),
            call.floor.median(),
            with_spread(&call.ratio, 2),
            mark(call.ratio.median() <= limit),
            call.resident,
        ));
    }
    line("\n| without a floor | p50 | slowest | CPU, µs |\n|---|---|---|---|");
    for (name, step) in &report.journey {
        let [half, worst] = [&step.half, &step.worst].map(|rounds| with_spread(rounds, 2));
        line(&format!("| `{name}` | {half} | {worst} | {:.0} |", step.cpu.median()));
    }
    line("\n| ratio | | limit | |\n|---|---|---|---|");
    for (name, rounds, limit) in report.others.iter().filter(|(_, rounds, _)| !rounds.0.is_empty()) {
        line(&format!("| {name} | {} | {limit} | {} |", with_spread(rounds, 4), mark(rounds.median() <= *limit)));
    }
    line("\n| on a schedule | ms |\n|---|---|");
    for (name, rounds) in report.scheduled.iter().filter(|(_, rounds)| !rounds.0.is_empty()) {
        line(&format!("| {name} | {} |", with_spread(rounds, 1)));
    }
    line("\n| resident after | MB | limit | |\n|---|---|---|---|");
    for (name, megabytes, limit) in &report.memory {
        line(&format!("| `{name}` | {megabytes:.1} | {limit:.0} | {} |", mark(megabytes <= limit)));
    }
    line("\n| start of | to `/next`, ms | to the first answer, ms |\n|---|---|---|");
    for (name, ready, answered) in &report.starts {
        line(&format!("| {name} | {} | {} |", with_spread(ready, 1), with_spread(answered, 1)));
    }
    line("");
}

/// How much slower the larger database is: the medians' ratio, and that of each round of the one to the same round of the
/// other.
fn print_growth(small: &Report, large: &Report) {
    let (small_name, large_name) = (small.scale.name.to_uppercase(), large.scale.name.to_uppercase());
    line(&format!("| p50 at {large_name} ÷ p50 at {small_name} | | limit | |\n|---|---|---|---|"));
    let grown = |name: &str, before: &Rounds, after: &Rounds, limit: f64| {
        let ratio = after.median() / before.median();
        let rounds = Rounds(before.0.iter().zip(&after.0).map(|(before, after)| after / before).collect());
        let (low, high) = rounds.spread();
        line(&format!("| {name} | {ratio:.2} ({low:.2}–{high:.2}) | {limit} | {} |", mark(ratio <= limit)));
    };
    for (before, after) in small.calls.iter().zip(&large.calls) {
        grown(&format!("`{}`", before.title), &before.handler, &after.handler, 1.3);
    }
    for ((name, before), (_, after)) in small.journey.iter().zip(&large.journey) {
        grown(&format!("`{name}`"), &before.half, &after.half, 1.3);
    }
    for (before, after) in small.scheduled.iter().zip(&large.scheduled).filter(|((name, _), _)| name == REFRESH) {
        grown(REFRESH, &before.1, &after.1, 1.5);
    }
    line("");
}

fn limit(call: &Measured) -> f64 {
    match (call.cached, call.is_write) {
        (false, false) => 1.25,
        _ => 1.3,
    }
}

fn with_spread(rounds: &Rounds, digits: usize) -> String {
    if rounds.0.is_empty() {
        return "–".to_owned();
    }
    let (low, high) = rounds.spread();
    format!("{:.digits$} ({low:.digits$}–{high:.digits$})", rounds.median())
}

fn mark(holds: bool) -> &'static str {
    if holds { "✓" } else { "✗" }
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn line(text: &str) {
    println!("{text}");
}
