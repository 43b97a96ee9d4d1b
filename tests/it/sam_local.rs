//! Every function in a container, as SAM runs it, beside the same handlers in this process: `make sam-local`.
//!
//! Each sample event of `tests/events/` goes to both, in the order of their names, over two databases that hold the same.
//! SAM gets the binaries of FUNCTIONS and the template's functions; what these have of AWS is left out, and the variables of the
//! environment are others.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::DateTime;
use local::api::InvokeError;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use serde_yaml_ng::{Mapping, Value as Yaml};
use shared::{
    config::{Config, Iam},
    parking::Submission,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::sleep,
};
use uuid::Uuid;

use crate::{
    signatures::credentials,
    support::{Lectern, address_of, at_address, environment, required},
};

/// What all ids of the sample events begin with; every other id is made on the way.
const SAMPLE_IDS: &str = "019a9b1e-";
/// There is none here, nor in a container: prepare-database says so in both.
const NO_DATA_API: &str = "http://127.0.0.1:1";
/// Starting a container may take that long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a function may be started until it answers.
const STARTS: usize = 3;

/// What the sample events speak of: ida's course, published in its first version.
const SAMPLES: &str = "
    insert into courses (
        id, owner_id, title, description, difficulty, status, lesson_count, section_count, created_at, updated_at,
        published_at
    ) values (
        '019a9b1e-5a00-7000-8000-000000000001', 'ida', 'Sharpening tools', 'From blunt to sharp', 'beginner',
        'published', 2, 3, '2026-02-01T08:00:00Z', '2026-02-01T08:00:00Z', '2026-02-01T08:00:00Z'
    );
    insert into lessons (id, course_id, title, position, created_at)
    select id::uuid, '019a9b1e-5a00-7000-8000-000000000001', title, position, '2026-02-01T08:00:00Z'
    from (values
        ('019a9b1e-5a00-7000-8000-000000000002', 'Stones', 1), ('019a9b1e-5a00-7000-8000-000000000011', 'Angles', 3)
    ) as lessons (id, title, position);
    insert into sections (id, lesson_id, course_id, title, content, type, position, created_at)
    select
        id::uuid, lesson_id::uuid, '019a9b1e-5a00-7000-8000-000000000001', title, repeat(title, 200), 'text', position,
        '2026-02-01T08:00:00Z'
    from (values
        ('019a9b1e-5a00-7000-8000-000000000003', '019a9b1e-5a00-7000-8000-000000000002', 'Oil', 1),
        ('019a9b1e-5a00-7000-8000-000000000101', '019a9b1e-5a00-7000-8000-000000000011', 'Blunt', 1),
        ('019a9b1e-5a00-7000-8000-000000000102', '019a9b1e-5a00-7000-8000-000000000011', 'Sharp', 2)
    ) as sections (id, lesson_id, title, position)";

/// A Lectern of which all is there that the sample events speak of.
async fn with_samples() -> Lectern {
    let lectern = Lectern::start_with(|config| {
        config.iam = Some(Iam { region: "us-east-1".to_owned(), credentials: credentials() });
        config.data_api_endpoint = Some(NO_DATA_API.to_owned());
    })
    .await;
    lectern.sql(SAMPLES).await;
    let submission = Submission {
        id: Uuid::from_u128(0x019a_9b1e_5a00_7000_8000_0000_0000_1001),
        sender: "alice".to_owned(),
        accepted_at: "2026-11-22T10:00:00Z".parse().unwrap(),
        body: br#"{"service":false,"maxAgeDays":30,"events":[]}"#.to_vec(),
        attempts: 0,
    };
    lectern.app().parking.as_ref().unwrap().put(&submission).await.unwrap();
    lectern
}

#[tokio::test]
#[ignore = "needs a Docker engine, SAM and the functions as programs: `make sam-local`"]
async fn every_function_answers_in_its_container_as_it_does_here() {
    let (here, there) = (with_samples().await, with_samples().await);
    let (template, functions) = stage(&variables(&there.app().config).await);
    let sam = Sam::start(&template).await;
    let mut differing = Vec::new();
    for (name, event) in crate::template::events() {
        let (function, binary) = functions
            .iter()
            .filter(|(_, binary)| name.starts_with(binary.as_str()))
            .max_by_key(|(_, binary)| binary.len())
            .unwrap();
        let expected = comparable(here.deliver(binary, event.clone()).await.unwrap_or_else(as_lambda_tells));
        let answer = comparable(sam.invoke(function, &event).await);
        let status = answer["statusCode"].as_u64().unwrap_or(200);
        let agreement = if answer == expected { "in both" } else { "here, and otherwise there" };
        writeln!(std::io::stdout(), "{name}: {status} {agreement}").unwrap();
        if answer != expected || status >= 500 {
            differing.push(format!("{name}\n  here:  {expected}\n  there: {answer}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// What a function has of AWS, and what calls it: nothing that a container would know of.
const OF_AWS: [&str; 6] = ["DeploymentPreference", "Environment", "Events", "Layers", "Policies", "VpcConfig"];

/// The template's functions with these variables, and beside it each binary where SAM looks for it. With it, the names of
/// the functions in the template and those of their binaries.
fn stage(variables: &Mapping) -> (PathBuf, Vec<(String, String)>) {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let stage = root.join("target/sam-local");
    let built = PathBuf::from(required("FUNCTIONS"));
    let mut template: Yaml = serde_yaml_ng::from_str(&fs::read_to_string(root.join("template.yaml")).unwrap()).unwrap();
    let whole = template.as_mapping_mut().unwrap();
    ["Outputs", "Rules", "Metadata"].iter().for_each(|part| drop(whole.remove(*part)));
    let settings = template["Globals"]["Function"].as_mapping_mut().unwrap();
    OF_AWS.iter().for_each(|setting| drop(settings.remove(*setting)));
    settings.insert("Environment".into(), Mapping::from_iter([("Variables".into(), variables.clone().into())]).into());
    let mut functions = Vec::new();
    let resources = template["Resources"].as_mapping_mut().unwrap();
    resources.retain(|_, resource| resource["Type"] == "AWS::Serverless::Function");
    for (name, resource) in resources {
        let binary = resource["Metadata"]["BuildProperties"]["Binary"].as_str().unwrap().to_owned();
        let folder = stage.join(&binary);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(built.join(&binary), folder.join("bootstrap")).unwrap();
        let properties = resource["Properties"].as_mapping_mut().unwrap();
        OF_AWS.iter().for_each(|setting| drop(properties.remove(*setting)));
        properties.insert("CodeUri".into(), binary.as_str().into());
        functions.push((name.as_str().unwrap().to_owned(), binary));
    }
    let path = stage.join("template.yaml");
    fs::write(&path, serde_yaml_ng::to_string(&template).unwrap()).unwrap();
    (path, functions)
}

/// The variables by which functions find the same servers from within a container.
async fn variables(config: &Config) -> Mapping {
    let (redis, parking) = (config.redis.as_ref().unwrap(), config.parking.as_ref().unwrap());
    let mut variables = Mapping::new();
    // The containers' network is this machine, but not by its address.
    let database = format!("{}?sslmode=disable", config.postgres.url);
    for (name, url) in [
        ("DATABASE_URL", &database),
        ("REDIS_URL", &redis.url),
        ("AWS_ENDPOINT_URL_DYNAMODB", parking.endpoint.as_ref().unwrap()),
    ] {
        variables.insert(name.into(), at_address(url, forward(address_of(url)).await).into());
    }
    variables.insert("PARKING_TABLE".into(), parking.table.as_str().into());
    variables.insert("AWS_ENDPOINT_URL_RDS_DATA".into(), NO_DATA_API.into());
    variables
}

/// An address for containers that leads to a server of this machine, which listens for this machine alone.
async fn forward(server: SocketAddr) -> SocketAddr {
    let gateway = required("LECTERN_TEST_DOCKER_GATEWAY");
    let listener = TcpListener::bind((gateway.as_str(), 0)).await.expect("the address of the containers' network");
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut container, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(server).await {
                    let _ = copy_bidirectional(&mut container, &mut server).await;
                }
            });
        }
    });
    address
}

/// `sam local start-lambda`, and with its end that of all its containers.
struct Sam {
    process: Child,
    url: String,
    http: reqwest::Client,
}

impl Sam {
    async fn start(template: &std::path::Path) -> Self {
        // SAM would take another port without a word only if this one were taken meanwhile.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
        let process = Command::new(environment("SAM").unwrap_or_else(|| "sam".to_owned()))
            .args(["local", "start-lambda", "--warm-containers", "LAZY", "--skip-pull-image"])
            .args(["--invoke-image", &required("LECTERN_TEST_LAMBDA_IMAGE")])
            .args(["--parameter-overrides", &format!("Architecture={architecture}")])
            .args(["--region", "us-east-1", "--port", &port.to_string(), "--template"])
            .arg(template)
            .spawn()
            .expect("SAM starts");
        let sam = Self { process, url: format!("http://127.0.0.1:{port}"), http: reqwest::Client::new() };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "SAM does not listen");
            sleep(Duration::from_millis(100)).await;
        }
        sam
    }

    /// On a busy machine, what stands in for Lambda in the container starts the function before it listens to it; then the
    /// function ends, and the answer is empty. One that cannot start at all does so each time.
    async fn invoke(&self, function: &str, event: &Value) -> Value {
        let url = format!("{}/2015-03-31/functions/{function}/invocations", self.url);
        let mut text = String::new();
        for _ in 0..STARTS {
            let request = self.http.post(&url).timeout(PATIENCE).body(event.to_string());
            text = request.send().await.expect("SAM answers").text().await.expect("an answer");
            if !text.is_empty() {
                break;
            }
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{function} answers {text:?}: {error}"))
    }
}

impl Drop for Sam {
    fn drop(&mut self) {
        // It takes its containers with it.
        let process = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process");
        let _ = kill_process(process, Signal::TERM);
        let _ = self.process.wait();
    }
}

/// An answer without what is made anew each time: ids, moments, and what is computed from them.
fn comparable(mut answer: Value) -> Value {
    // Causes of failures name addresses.
    if let Some(failure) = answer.get("errorType") {
        return failure.clone();
    }
    // A function without a route says what it likes.
    if answer.get("statusCode").is_none() {
        return masked(answer);
    }
    let body = answer["body"].as_str().unwrap_or_default().as_bytes().to_vec();
    let is_base64 = answer["isBase64Encoded"] == true;
    let mut bytes = if is_base64 { STANDARD.decode(&body).unwrap() } else { body };
    if answer["headers"]["content-encoding"] == "gzip" {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
        bytes = plain;
    }
    let headers = answer["headers"].as_object_mut().expect("headers");
    for computed in ["etag", "location"] {
        headers.entry(computed).and_modify(|value| *value = "<made anew>".into());
    }
    let text = String::from_utf8(bytes).unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    masked(
        json!({"statusCode": answer["statusCode"], "headers": answer["headers"], "isBase64Encoded": is_base64, "body": body}),
    )
}

/// A failure as Lambda tells it.
fn as_lambda_tells(failure: InvokeError) -> Value {
    match failure {
        InvokeError::Failed { error_type, message } => json!({"errorType": error_type, "errorMessage": message}),
        InvokeError::Unknown => panic!("a function that is not here"),
    }
}

fn masked(value: Value) -> Value {
    match value {
        Value::String(text) if Uuid::parse_str(&text).is_ok() && !text.starts_with(SAMPLE_IDS) => "<an id>".into(),
        Value::String(text) if DateTime::parse_from_rfc3339(&text).is_ok() => "<a moment>".into(),
        Value::Array(items) => items.into_iter().map(masked).collect(),
        Value::Object(items) => items.into_iter().map(|(key, value)| (key, masked(value))).collect(),
        value => value,
    }
}
