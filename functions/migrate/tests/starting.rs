//! The program itself, under a Runtime API: a stack is answered even where it cannot start.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it stands")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// Ends with the test, however that ends.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_configuration_that_cannot_be_used_is_what_the_stack_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_migrate"));
    command.env_clear().env("AWS_LAMBDA_RUNTIME_API", &address).env("DB_HOST", "db.example");
    for name in ["NAME", "VERSION", "MEMORY_SIZE"] {
        command.env(format!("AWS_LAMBDA_FUNCTION_{name}"), "1");
    }
    let _program = Program(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let event = json!({
        "RequestType": "Create",
        "ResponseURL": format!("http://{address}/answer"),
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "Schema",
        "ResourceProperties": {},
    });
    let told = loop {
        let (mut client, _) = listener.accept().unwrap();
        let (line, body) = read(&mut client);
        if line.starts_with("PUT /answer ") {
            break serde_json::from_slice::<Value>(&body).unwrap();
        }
        assert!(line.contains("/invocation/next "), "{line}");
        let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(60);
        let event = event.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: 1\r\nlambda-runtime-invoked-function-arn: arn\r\n\
            lambda-runtime-deadline-ms: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            deadline.as_millis(),
            event.len()
        );
        client.write_all(format!("{head}{event}").as_bytes()).unwrap();
    };
    let reason = told["Reason"].as_str().unwrap();
    assert_eq!(told["Status"], "FAILED");
    for name in ["DB_NAME is required", "DB_USER is required", "DB_PASSWORD is required"] {
        assert!(reason.contains(name), "{reason}");
    }
}

/// A request's first line and its body.
fn read(client: &mut TcpStream) -> (String, Vec<u8>) {
    let mut client = BufReader::new(client);
    let (mut first, mut length) = (String::new(), 0);
    client.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).unwrap();
    (first, body)
}
