//! The program as Lambda runs it, for all functions: what it says of a bad configuration, and its summaries.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it stands")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};

use serde_json::Value;

const EVENT: &str = include_str!("../../../tests/events/list-courses.json");
/// Refuses, so that nothing else is needed here.
const NOWHERE: (&str, &str) = ("DATABASE_URL", "postgres://lectern:secret@127.0.0.1:1/lectern");

fn program(variables: &[(&str, &str)]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_list-courses"));
    program.env_clear().envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped());
    program
}

/// Serves the Runtime API: the same event again and again.
fn runtime_api() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        listener.incoming().for_each(|connection| drop(thread::spawn(|| serve(connection.unwrap()))))
    });
    address
}

fn serve(connection: TcpStream) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    loop {
        let head: Vec<String> =
            reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let Some(request) = head.first() else { return };
        let length = head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        reader.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
        let answer = if request.starts_with("GET") {
            format!(
                "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: 8476a536\r\nLambda-Runtime-Deadline-Ms: 9999999999999\r\n\
                 Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:123456789012:function:x\r\n\
                 Content-Length: {}\r\n\r\n{EVENT}",
                EVENT.len()
            )
        } else {
            "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_owned()
        };
        // When the test is over, nobody takes it any more.
        if (&connection).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The first lines that the program writes about the event.
fn lines(most: usize, variables: &[(&str, &str)]) -> Vec<String> {
    let api = runtime_api();
    let of_lambda = [
        ("AWS_LAMBDA_RUNTIME_API", api.as_str()),
        ("AWS_LAMBDA_FUNCTION_NAME", "school-a-list-courses"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        ("SERVICE_NAME", "school-a"),
        NOWHERE,
    ];
    let mut process = program(&[&of_lambda, variables].concat()).spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines().take(most).map(Result::unwrap).collect();
    process.kill().unwrap();
    process.wait().unwrap();
    lines
}

#[test]
fn a_bad_configuration_ends_it_at_the_start_with_all_problems_named_and_no_value_shown() {
    let output = program(&[
        ("DATABASE_URL", "sesame"),
        ("REDIS_URL", "sesame"),
        ("PROGRESS_MAX_EVENT_AGE_DAYS", "sesame"),
        ("SERVICE_NAME", "sesame öffne dich"),
        // Nobody listens there: what is wrong is known before Lambda is asked for anything.
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
    ])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let line: Value = serde_json::from_str(text.trim_end()).expect("one line");
    assert_eq!((&line["level"], &line["message"]), (&"ERROR".into(), &"cannot start".into()));
    let problems = line["error"].as_str().unwrap();
    for name in ["DATABASE_URL", "REDIS_URL", "PROGRESS_MAX_EVENT_AGE_DAYS", "SERVICE_NAME"] {
        assert!(problems.contains(name), "{problems}");
    }
    assert!(!problems.contains("sesame"), "{problems}");
}

#[test]
fn each_invocation_is_one_summary_and_the_first_is_a_cold_start() {
    let lines: Vec<Value> = lines(4, &[]).iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    // The database is away, which is told beside.
    let summaries: Vec<&Value> = lines.iter().filter(|line| line["message"] == "invocation").collect();
    assert_eq!(summaries.len(), 2, "{lines:?}");
    assert_eq!((&summaries[0]["ColdStart"], summaries[1].get("ColdStart")), (&1.into(), None));
    for line in &lines {
        assert_eq!((&line["service"], &line["function"]), (&"school-a".into(), &"list-courses".into()), "{line}");
        assert_eq!(
            (&line["function_request_id"], &line["correlation_id"]),
            (&"8476a536".into(), &"JKJaXmPLFiAEx01=".into())
        );
    }
}

#[test]
fn metrics_come_out_whatever_is_logged_and_in_whatever_format() {
    for (variables, level) in [
        (vec![("AWS_LAMBDA_LOG_LEVEL", "FATAL")], "FATAL"),
        (vec![("AWS_LAMBDA_LOG_LEVEL", "WARN"), ("AWS_LAMBDA_LOG_FORMAT", "Text")], "WARN"),
    ] {
        let lines = lines(4, &variables);
        let blobs = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let blobs: Vec<Value> = blobs.filter(|line| line["_aws"].is_object()).collect();
        assert_eq!(blobs.len(), 2, "{lines:?}");
        assert_eq!((&blobs[0]["level"], &blobs[0]["Errors"]), (&level.into(), &1.into()));
    }
}
