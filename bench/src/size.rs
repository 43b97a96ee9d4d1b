//! What each function weighs and what its start costs, against `bench/budget.json`: nothing gets heavier unseen.
//!
//! A start is counted in instructions, under valgrind, from the program's first one until it asks for its first event.
//! That comes out the same on a busy machine. It is told as a multiple of the empty function's.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

use flate2::{Compression, write::DeflateEncoder};
use serde_json::{Value, json};

use crate::{Fallible, callgrind::Counted, failed};

const BUDGET: &str = "bench/budget.json";
/// Compilers and libraries of another day come out a little otherwise.
const SLACK: f64 = 1.02;
/// What a start should cost at the most, as a multiple of the empty function's.
const MOST_START: f64 = 1.5;
/// Kilobytes that a zip should have at the most, and those of functions that speak to DynamoDB; a budget may say more, and
/// why is in docs/PERFORMANCE.md.
const MOST_ZIPPED: f64 = 1_500.0;
const MOST_ZIPPED_WITH_SDK: f64 = 3_500.0;
/// The functions that carry the AWS SDK.
const WITH_SDK: [&str; 4] = ["get-progress", "manage-learner", "record-progress", "replay-parked"];

/// Settings of a function in operation: all of its servers have an address, and none is there.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("DATABASE_URL", "postgres://lectern:secret@db.invalid/lectern"),
    ("REDIS_URL", "redis://127.0.0.1:1"),
    ("PARKING_TABLE", "parking"),
];

/// Prints the figures of every function, and fails where one is over its budget. Or writes them down as the budget.
pub(crate) async fn check(update: bool) -> Fallible<()> {
    let programs = std::env::current_exe()?;
    let programs = programs.parent().ok_or_else(|| failed("this program is nowhere"))?;
    let budget: Value = fs::read_to_string(BUDGET).ok().map_or(Ok(Value::Null), |text| serde_json::from_str(&text))?;
    let empty = instructions(&programs.join("empty")).await?;
    line(&format!("{:>20}  {:>9}  {:>9}  {:>12}  start ÷ empty", "", "binary kB", "zip kB", "instructions"));
    line(&format!(
        "{:>20}  {:>9}  {:>9}  {empty:>12}",
        "an empty function",
        kilobytes(&programs.join("empty"))?,
        zipped(&programs.join("empty"))?
    ));
    let (mut measured, mut over) = (BTreeMap::new(), Vec::new());
    for function in functions()? {
        let program = programs.join(&function);
        let (zip, count) = (zipped(&program)?, instructions(&program).await?);
        let start = (count as f64 / empty as f64 * 1e3).round() / 1e3;
        line(&format!("{function:>20}  {:>9}  {zip:>9}  {count:>12}  {start:.3}", kilobytes(&program)?));
        let most = if WITH_SDK.contains(&function.as_str()) { MOST_ZIPPED_WITH_SDK } else { MOST_ZIPPED };
        for (what, is, limit) in [("zipKilobytes", zip as f64, most), ("startOverEmpty", start, MOST_START)] {
            let budget = budget[&function][what].as_f64().map_or(limit, |budget| budget * SLACK);
            if is > budget {
                over.push(format!("{function}: {what} is {is}, more than {budget:.3}"));
            }
        }
        measured.insert(function, json!({"zipKilobytes": zip, "startOverEmpty": start}));
    }
    if update {
        fs::write(BUDGET, format!("{:#}\n", json!(measured)))?;
        return Ok(());
    }
    if over.is_empty() { Ok(()) } else { Err(failed(over.join("\n"))) }
}

fn functions() -> Fallible<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("functions")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn kilobytes(program: &Path) -> Fallible<u64> {
    Ok(fs::metadata(program).map_err(|error| failed(format!("{}: {error}", program.display())))?.len() / 1_000)
}

/// A zip is the same, and a hundred bytes.
fn zipped(program: &Path) -> Fallible<usize> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&fs::read(program)?)?;
    Ok(encoder.finish()?.len() / 1_000)
}

async fn instructions(program: &Path) -> Fallible<u64> {
    Counted::start(program, &ENVIRONMENT).await?.stop().await
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn line(text: &str) {
    println!("{text}");
}
