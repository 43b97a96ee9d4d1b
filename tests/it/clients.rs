//! Programs that know openapi.yaml alone, against a running Lectern: a client generated in TypeScript, and schemathesis.
//!
//! `make` installs what they need below `.lectern/tools`; see the Makefile.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tokio::process::Command;
use uuid::Uuid;

use crate::support::{Lectern, environment, required, say};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout")
}

/// Runs a program that `make` has installed, and panics with what it says unless it ends well.
async fn run(program: &str, arguments: &[&str], directory: &Path, url: &str) -> String {
    let tools = root().join(".lectern/tools");
    let bins = ["python/bin", "node/node_modules/.bin", "schemathesis/bin"].map(|bin| tools.join(bin));
    let system = env::split_paths(&environment("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let path = env::join_paths(bins.iter().cloned().chain(system)).expect("a PATH");
    assert!(
        bins.iter().any(|bin| bin.join(program).exists()),
        "{program} is not installed: run the tests by `make test`"
    );
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).env("PATH", path).env("LECTERN_URL", url).kill_on_drop(true);
    let output = command.output().await.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {}: {}\n{said}", arguments.join(" "), output.status);
    said
}

#[tokio::test]
async fn a_client_generated_in_typescript_creates_enrols_learns_and_handles_problems_by_their_codes() {
    let lectern = Lectern::start().await;
    let place = Path::new(&required("LECTERN_TEST_HOME")).join(format!("client-{}", Uuid::now_v7()));
    fs::create_dir(&place).expect("a directory");
    let packages = root().join(".lectern/tools/node/node_modules");
    symlink(packages, place.join("node_modules")).expect("a link to the packages");
    for file in ["client.mts", "tsconfig.json"] {
        fs::copy(root().join("tests/client").join(file), place.join(file)).expect("a copy");
    }
    let contract = root().join("openapi.yaml");
    let contract = contract.to_str().expect("a path in UTF-8");
    run("openapi-typescript", &[contract, "--output", "schema.d.ts"], &place, &lectern.url).await;
    run("tsc", &["--project", "."], &place, &lectern.url).await;
    run("node", &["client.mts"], &place, &lectern.url).await;
}

/// Lets schemathesis make requests, so many for each operation, and hold the answers against openapi.yaml. There must be so
/// many of them in all.
async fn fuzz(examples: &str, seed: &str, at_least: usize) {
    let lectern = Lectern::start().await;
    let arguments = [
        "--config-file",
        "schemathesis.toml",
        "run",
        "../../openapi.yaml",
        "--seed",
        seed,
        "--max-examples",
        examples,
        "--warnings",
        "off",
    ];
    let said = run("schemathesis", &arguments, &root().join("tests/fuzz"), &lectern.url).await;
    say(&said);
    for phase in ["Examples", "Coverage", "Fuzzing", "Stateful"] {
        assert!(said.contains(&format!("✅ {phase}")), "{phase} did not take place");
    }
    let generated = said.split(" generated").next().and_then(|text| text.split_whitespace().next_back());
    let generated: usize =
        generated.and_then(|number| number.replace(',', "").parse().ok()).expect("a number of cases");
    assert!(generated >= at_least, "only {generated} requests");
    assert_eq!(lectern.drift().await, 0, "what is stored agrees with what it is made of, whatever was sent");
}

#[tokio::test]
async fn no_request_that_schemathesis_makes_of_the_contract_gets_an_answer_that_is_not_in_it() {
    fuzz("5", "1", 1_000).await;
}

/// `make fuzz`.
#[tokio::test]
#[ignore = "takes ten minutes and more: make fuzz"]
async fn nor_do_ten_thousand() {
    let seed = environment("SEED").unwrap_or_else(|| (Uuid::new_v4().as_u128() % 1_000_000).to_string());
    say(&format!("SEED={seed}"));
    fuzz("600", &seed, 10_000).await;
}
