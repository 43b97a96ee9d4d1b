//! What README.md and docs/API.md tell people to type does what they say. Their commands are run as they stand, against a
//! fresh server, and the answers that are shown beside them are held against the real ones.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use serde_json::Value;
use tokio::process::Command;

use crate::support::Lectern;

/// The address that the documents speak of.
const SHOWN_URL: &str = "http://127.0.0.1:3000";
/// What the script says between two blocks.
const MARK: &str = "----8<----";

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(path).expect(file)
}

/// The part of a document from one heading to another.
fn part<'a>(document: &'a str, from: &str, to: &str) -> &'a str {
    let begin = document.find(&format!("\n{from}\n")).unwrap_or_else(|| panic!("there is a heading {from:?}"));
    let end = document.find(&format!("\n{to}\n")).unwrap_or_else(|| panic!("there is a heading {to:?}"));
    &document[begin..end]
}

/// A fenced block: its language and its text.
fn blocks(part: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut lines = part.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((language, text.join("\n")));
        }
    }
    blocks
}

/// Runs blocks one after another in one shell; answers what each of them printed.
async fn run(lectern: &Lectern, scripts: &[&str]) -> Vec<String> {
    let script = scripts.join(&format!("\necho '{MARK}'\n")).replace(SHOWN_URL, &lectern.url);
    let mut bash = Command::new("bash");
    bash.args(["-eu", "-c", &script]).stdin(Stdio::null()).kill_on_drop(true);
    let output = bash.output().await.expect("bash");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    printed.split(&format!("{MARK}\n")).map(str::to_owned).collect()
}

/// Whether an answer is what was shown, but for ids and times, which are others each time.
fn differences(shown: &Value, answered: &Value, path: &str, found: &mut Vec<String>) {
    match (shown, answered) {
        (Value::Object(shown), Value::Object(answered)) => {
            let keys: BTreeMap<&String, ()> = shown.keys().chain(answered.keys()).map(|key| (key, ())).collect();
            for key in keys.into_keys() {
                let path = format!("{path}/{key}");
                match (shown.get(key), answered.get(key)) {
                    (Some(shown), Some(answered)) => differences(shown, answered, &path, found),
                    (shown, _) => {
                        let where_it_is = if shown.is_some() { "shown" } else { "answered" };
                        found.push(format!("{path} is only {where_it_is}"));
                    }
                }
            }
        }
        (Value::Array(shown), Value::Array(answered)) if shown.len() == answered.len() => {
            for (index, (shown, answered)) in shown.iter().zip(answered).enumerate() {
                differences(shown, answered, &format!("{path}/{index}"), found);
            }
        }
        (Value::String(shown), Value::String(answered)) if kind(shown).is_some() && kind(shown) == kind(answered) => {}
        (Value::Number(shown), Value::Number(answered)) if shown.as_f64() == answered.as_f64() => {}
        (shown, answered) if shown == answered => {}
        (shown, answered) => found.push(format!("{path}: {shown} is shown, {answered} answered")),
    }
}

fn kind(text: &str) -> Option<&'static str> {
    if uuid::Uuid::parse_str(text).is_ok() {
        Some("id")
    } else if chrono::DateTime::parse_from_rfc3339(text).is_ok() {
        Some("time")
    } else {
        None
    }
}

fn json_lines(printed: &str) -> Vec<Value> {
    printed.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
}

#[tokio::test]
async fn the_five_steps_of_the_readme_complete_a_section_once() {
    let readme = read("README.md");
    let steps = blocks(part(&readme, "## Five steps", "## Routes"));
    let [("bash", script)] = &steps[..] else { panic!("one block of commands: {steps:?}") };
    let lectern = Lectern::start().await;
    lectern.course("ada", &[2]).await;
    let printed = run(&lectern, &[script]).await;
    let answers = json_lines(&printed[0]);
    let [enrolled, first, second, progress] = &answers[..] else { panic!("four answers: {printed:?}") };
    assert_eq!((&enrolled["status"], &enrolled["userId"]), (&"active".into(), &"kim".into()));
    assert_eq!((&first["recorded"], &first["duplicates"]), (&1.into(), &0.into()));
    assert_eq!((&second["recorded"], &second["duplicates"]), (&0.into(), &1.into()));
    assert_eq!((&progress["completedSections"], &progress["totalTimeSpent"]), (&1.into(), &90.into()));
}

#[tokio::test]
async fn the_commands_of_the_api_document_are_answered_as_it_shows() {
    let document = read("docs/API.md");
    let part = part(&document, "## A course, from its creation to its figures", "## Who may do what");
    let blocks = blocks(part);
    let scripts: Vec<&str> =
        blocks.iter().filter(|(language, _)| *language == "bash").map(|(_, text)| text.as_str()).collect();
    assert!(scripts.len() > 8, "{scripts:?}");
    let lectern = Lectern::start().await;
    let printed = run(&lectern, &scripts).await;
    assert_eq!(printed.len(), scripts.len());

    let mut asked = 0;
    let mut compared = 0;
    let mut found = Vec::new();
    for (language, text) in &blocks {
        match *language {
            "bash" => asked += 1,
            "json" => {
                let shown: Value = serde_json::from_str(text).expect(text);
                let answers = json_lines(&printed[asked - 1]);
                let tried = answers.iter().map(|answer| {
                    let mut found = Vec::new();
                    differences(&shown, answer, "", &mut found);
                    found
                });
                let nearest = tried.min_by_key(Vec::len);
                found
                    .extend(nearest.unwrap_or_else(|| vec![format!("nothing was answered to {}", scripts[asked - 1])]));
                compared += 1;
            }
            other => panic!("a block of {other:?} is neither run nor compared"),
        }
    }
    assert_eq!(found, Vec::<String>::new());
    assert!(compared > 5, "{compared}");

    let batches = json_lines(&printed[scripts.iter().position(|script| script.contains("batch=")).expect("a batch")]);
    assert_eq!((&batches[1]["recorded"], &batches[1]["duplicates"]), (&0.into(), &2.into()), "the second send");
    assert_eq!(printed.last().map(|reset| reset.trim()), Some("204"));
}

#[test]
fn what_differs_is_found() {
    let shown =
        serde_json::json!({"id": "01a20305-8842-7183-b314-4e7638a35086", "n": 1, "list": [{"a": null}], "x": 1});
    let answered =
        serde_json::json!({"id": "01a20306-e038-722c-99c8-d23a11136ba6", "n": 1.0, "list": [{"a": 2}], "y": 1});
    let mut found = Vec::new();
    differences(&shown, &answered, "", &mut found);
    assert_eq!(found, ["/list/0/a: null is shown, 2 answered", "/x is only shown", "/y is only answered"]);
}
