//! SQL through the RDS Data API: a statement is a signed request, and no network leads to the database itself.

use std::time::{Duration, Instant};

use chrono::Utc;
use hyper::body::Bytes;
use lambda_http::http::{Method, Request, Response, StatusCode, Uri, header::HOST};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cloudformation::RIGHTS_ARRIVE,
    config::{Config, Iam},
    error::Error,
    https,
    sigv4::Signer,
};

const SERVICE: &str = "rds-data";
/// AWS itself gives up a statement after 45 s.
const LIMIT: Duration = Duration::from_secs(50);
/// A cluster that was paused takes some fifteen seconds to wake up.
const PAUSE: Duration = Duration::from_secs(2);
/// Errors that pass: a cluster that wakes up, and what AWS calls its own fault.
const PASSING: [&str; 3] = ["DatabaseResumingException", "DatabaseUnavailableException", "ServiceUnavailableError"];

/// Errors that pass while the function's rights are new.
const DENIED: [&str; 2] = ["AccessDenied", "Forbidden"];

/// A database of a cluster, as whoever a secret names.
#[derive(Debug)]
pub struct Database<'a> {
    iam: &'a Iam,
    endpoint: String,
    cluster: String,
    secret: String,
    name: String,
}

impl<'a> Database<'a> {
    /// The one of the properties `ClusterArn`, `SecretArn` and `Database`.
    pub fn read(config: &'a Config, properties: &Value) -> Result<Self, Error> {
        let unusable = |what: String| Error::internal("the Data API", what);
        let text = |name: &str| {
            let text = properties[name].as_str().filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or_else(|| unusable(format!("the property {name} is missing")))
        };
        let iam = config.iam.as_ref().ok_or_else(|| unusable("there are no credentials of AWS".to_owned()))?;
        let of_region = || format!("https://{SERVICE}.{}.amazonaws.com", iam.region);
        Ok(Self {
            iam,
            endpoint: config.data_api_endpoint.clone().unwrap_or_else(of_region),
            cluster: text("ClusterArn")?,
            secret: text("SecretArn")?,
            name: text("Database")?,
        })
    }

    /// Runs one statement, and again while the cluster wakes up: it must be harmless to run twice.
    pub async fn execute(&self, statement: &str, deadline: Instant) -> Result<(), Error> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| Error::unavailable("the Data API", error);
        let body = json!({
            "resourceArn": self.cluster, "secretArn": self.secret, "database": self.name, "sql": statement,
        })
        .to_string();
        let started = Instant::now();
        loop {
            let request = self.request(&body).map_err(failed)?;
            let limit = LIMIT.min(deadline.saturating_duration_since(Instant::now()));
            let answer = https::send(request, limit).await.map_err(failed)?;
            if answer.status() == StatusCode::OK {
                return Ok(());
            }
            let refusal = Refusal::of(&answer);
            let passes = refusal.passes || (refusal.is_denied && started.elapsed() < RIGHTS_ARRIVE);
            if !passes || Instant::now() + PAUSE >= deadline {
                return Err(failed(refusal.text.into()));
            }
            tracing::info!(reason = refusal.text, "the Data API is asked once more");
            sleep(PAUSE).await;
        }
    }

    fn request(&self, body: &str) -> Result<Request<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
        let uri: Uri = format!("{}/Execute", self.endpoint.trim_end_matches('/')).parse()?;
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let signer =
            Signer { credentials: &self.iam.credentials, region: &self.iam.region, service: SERVICE, now: Utc::now() };
        let headers = signer.headers(host, uri.path(), body.as_bytes());
        let mut request = Request::builder().method(Method::POST).uri(&uri);
        // The host goes with every request.
        for (name, value) in headers.into_iter().filter(|(name, _)| *name != HOST.as_str()) {
            request = request.header(name, value);
        }
        Ok(request.body(Bytes::copy_from_slice(body.as_bytes()))?)
    }
}

/// What came instead of a result.
struct Refusal {
    text: String,
    passes: bool,
    is_denied: bool,
}

impl Refusal {
    fn of(answer: &Response<Bytes>) -> Self {
        let kind = answer.headers().get("x-amzn-errortype").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let message = [&body["message"], &body["Message"]].into_iter().find_map(Value::as_str).unwrap_or_default();
        Self {
            text: format!("{} {kind} {message}", answer.status().as_u16()),
            passes: answer.status().is_server_error() || PASSING.iter().any(|passing| kind.contains(passing)),
            is_denied: DENIED.iter().any(|denied| kind.contains(denied)),
        }
    }
}
