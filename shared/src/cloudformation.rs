//! Custom resources of `CloudFormation`: functions that a stack waits for while it is created or changed.
//!
//! The stack hears of the end only by a `PUT` to an address that comes with the event. Until then it waits, for an hour
//! or what `ServiceTimeout` says, so every event is answered, whatever becomes of the work: done, failed, broken, out of
//! time. Deleting is always done at once: what has been made in a database stays.

use std::time::{Duration, Instant};

use hyper::body::Bytes;
use lambda_http::http::{Method, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{error::Error, https, invocation::caught, telemetry};

/// How long it takes at the most until rights that the stack gave a moment ago are known everywhere in AWS.
pub(crate) const RIGHTS_ARRIVE: Duration = Duration::from_secs(60);
/// What is kept of the function's time for answering.
const ANSWERING: Duration = Duration::from_secs(15);
/// How long one attempt to answer may take.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How often it is tried.
const ATTEMPTS: u32 = 4;
/// The pause after the first attempt; the next ones double it.
const PAUSE: Duration = Duration::from_millis(200);
/// The most of a reason that a person reads; `CloudFormation` takes 4 kB of everything.
const REASON_CHARACTERS: usize = 400;

/// What `CloudFormation` says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    request_type: RequestType,
    #[serde(rename = "ResponseURL")]
    response_url: String,
    stack_id: String,
    request_id: String,
    logical_resource_id: String,
    /// What we called the resource when it was created.
    physical_resource_id: Option<String>,
    #[serde(default)]
    resource_properties: Value,
}

#[derive(Deserialize, PartialEq, Eq)]
enum RequestType {
    Create,
    Update,
    Delete,
}

/// Whether a stack waits for an answer.
pub fn is_from_stack(event: &Value) -> bool {
    !event["ResponseURL"].is_null()
}

/// Does the work of a custom resource and answers the stack. `work` gets the resource's properties and the moment by which
/// it must be done; what it returns are the resource's attributes.
///
/// An event without an address to answer to, such as `{}` by hand, is work like any other: it is the properties itself.
pub async fn answer<F, Fut>(event: Value, deadline: Instant, work: F) -> Result<Value, Error>
where
    F: FnOnce(Value, Instant) -> Fut,
    Fut: Future<Output = Result<Value, Error>>,
{
    if !is_from_stack(&event) {
        return work(event, deadline).await;
    }
    let event: Event =
        serde_json::from_value(event).map_err(|error| Error::internal("reading CloudFormation's event", error))?;
    if event.request_type == RequestType::Delete {
        return event.answer(Ok(json!({})), deadline).await;
    }
    let due = deadline.checked_sub(ANSWERING).unwrap_or_else(Instant::now);
    let work = caught(work(event.resource_properties.clone(), due));
    let result = match timeout(due.saturating_duration_since(Instant::now()), work).await {
        Ok(result) => result,
        Err(error) => Err(Error::unavailable("a custom resource: out of time, update the stack again", error)),
    };
    event.answer(result, deadline).await
}

impl Event {
    /// Tells the stack, and Lambda only whether that has been possible: what failed is the stack's to repeat.
    async fn answer(&self, result: Result<Value, Error>, deadline: Instant) -> Result<Value, Error> {
        let (status, reason, data) = match result {
            Ok(data) => ("SUCCESS", String::new(), data),
            Err(error) => {
                tracing::error!(
                    code = error.code(),
                    error = telemetry::chain(&error),
                    "the stack is told of a failure"
                );
                ("FAILED", reason(&error), json!({}))
            }
        };
        let name = self.physical_resource_id.as_deref().unwrap_or(&self.logical_resource_id);
        let body = json!({
            "Status": status,
            "Reason": reason,
            "PhysicalResourceId": name,
            "StackId": self.stack_id,
            "RequestId": self.request_id,
            "LogicalResourceId": self.logical_resource_id,
            "Data": data,
        });
        self.put(&body.to_string(), deadline).await?;
        Ok(json!({ "status": status, "reason": reason, "data": data }))
    }

    async fn put(&self, body: &str, deadline: Instant) -> Result<(), Error> {
        let failed = |error| Error::unavailable("answering CloudFormation", error);
        let mut pause = PAUSE;
        for attempt in 1.. {
            // The address was signed for a request that says nothing of its type.
            let request = Request::builder().method(Method::PUT).uri(&self.response_url);
            let request =
                request.body(Bytes::copy_from_slice(body.as_bytes())).map_err(|error| failed(error.into()))?;
            let error = match https::send(request, ATTEMPT).await {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) => answer.status().as_str().into(),
                Err(error) => error,
            };
            if attempt == ATTEMPTS || Instant::now() + pause >= deadline {
                return Err(failed(error));
            }
            sleep(pause).await;
            pause *= 2;
        }
        Ok(())
    }
}

/// What a person needs who looks at the stack. What PostgreSQL says in detail may name a person's key, and stands on lines
/// of its own: that is for the log.
fn reason(error: &Error) -> String {
    let chain = telemetry::chain(error);
    let first = chain.lines().next().unwrap_or_default();
    first.chars().take(REASON_CHARACTERS).collect()
}
