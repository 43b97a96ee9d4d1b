//! One execution environment of all functions as a process of its own, so that a test can freeze, thaw and kill it.
//!
//! `environment <key file>` serves the HTTP API and, under `/_local`, the functions without a route, over the servers
//! that its variables name as those of any function do; the key is that of the tokens. It says its URL on the first
//! line of its output and ends with its input, that is, with whoever started it.

use std::{
    error::Error,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use local::{api::Api, authorizer::SigningKey, page::Page, server, template::Template};
use shared::{
    config::{Config, log_settings},
    telemetry::{self, LogSettings},
};
use tokio::{io::AsyncReadExt, net::TcpListener};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let key = std::env::args_os().nth(1).map(PathBuf::from).ok_or("say where the key is")?;
    telemetry::init(&LogSettings { json: false, metrics: false, ..log_settings() });
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let template = Template::read(&root.join("template.yaml"))?;
    let api = Arc::new(Api::over(Config::from_env()?, &template, SigningKey::load_or_generate(&key)?)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "http://{}", listener.local_addr()?)?;
    server::serve(listener, api, Page::of(root), end_of_input()).await;
    Ok(())
}

async fn end_of_input() {
    let mut input = tokio::io::stdin();
    while matches!(input.read(&mut [0; 64]).await, Ok(1..)) {}
}
