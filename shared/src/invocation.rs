//! Running a function on Lambda: start-up, the two kinds of events, shutdown.

use std::{
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::FutureExt;
use lambda_runtime::{Diagnostic, LambdaEvent};
use serde_json::Value;

use crate::{
    app::App,
    cloudformation,
    config::{Config, log_settings},
    error::Error,
    telemetry::{self, Invocation, Outcome, Trace},
};

/// What is left of the deadline for telling what was done.
const MARGIN: Duration = Duration::from_secs(2);

/// Runs a function of scheduled events on Lambda until the environment ends.
///
/// Unlike an HTTP function it reports failures to Lambda, which then retries and fills the dead-letter queue.
pub fn serve<F, Fut>(handle: F) -> ExitCode
where
    F: Fn(Arc<App>, Value, Instant) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Value, Error>> + Send + 'static,
{
    run(async move |app| {
        let service = lambda_runtime::service_fn(move |event: LambdaEvent<Value>| {
            let (app, handle) = (app.clone(), handle.clone());
            async move {
                let deadline = until(event.context.deadline());
                Box::pin(answer(app, trace(event.context), event.payload, deadline, handle)).await.map_err(diagnose)
            }
        });
        lambda_runtime::Runtime::new(service).run_concurrent().await
    })
}

/// The same for a function that a stack waits for: one that cannot start answers that, rather than nothing.
pub fn serve_resource<F, Fut>(handle: F) -> ExitCode
where
    F: Fn(Arc<App>, Value, Instant) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Value, Error>> + Send + 'static,
{
    start(async |app| {
        let app = app.map_err(|error| {
            tell(&error);
            telemetry::chain(&error)
        });
        let service = lambda_runtime::service_fn(move |event: LambdaEvent<Value>| {
            let (app, handle) = (app.clone(), handle.clone());
            async move {
                let deadline = until(event.context.deadline());
                match app {
                    Ok(app) => Box::pin(answer(app, trace(event.context), event.payload, deadline, handle)).await,
                    Err(what) => {
                        let work = async |_, _| Err(Error::internal("starting", what));
                        cloudformation::answer(event.payload, deadline, work).await
                    }
                }
                .map_err(diagnose)
            }
        });
        end(lambda_runtime::Runtime::new(service).run_concurrent().await)
    })
}

/// Runs one scheduled event; `deadline` is when the work must be done. A panic is an error, too.
pub async fn answer<F, Fut>(
    app: Arc<App>,
    trace: Trace,
    event: Value,
    deadline: Instant,
    handle: F,
) -> Result<Value, Error>
where
    F: FnOnce(Arc<App>, Value, Instant) -> Fut,
    Fut: Future<Output = Result<Value, Error>>,
{
    Invocation::scope(trace, |invocation| async move {
        let result = caught(async { handle(app, event, deadline).await }).await;
        if let Err(error) = &result {
            tracing::error!(code = error.code(), error = telemetry::chain(error), "invocation failed");
        }
        let (status, code) = (if result.is_ok() { 200 } else { 500 }, result.as_ref().err().map(Error::code));
        invocation.summarise(&Outcome { route: "event", status, code, cache: None });
        result
    })
    .await
}

/// What `work` comes to; a panic is an error, too.
pub(crate) fn caught<T>(work: impl Future<Output = Result<T, Error>>) -> impl Future<Output = Result<T, Error>> {
    // On the heap at once, not when it is first polled: until then, what holds it would be as large. And the compiler
    // gives up on a future that holds another in another for more than 128 levels.
    let work = AssertUnwindSafe(Box::pin(work));
    async { work.catch_unwind().await.unwrap_or(Err(Error::Internal { context: "panic", source: None })) }
}

/// Runs `work` with the function's environment, unless that cannot be made.
pub(crate) fn run<Fut>(work: impl FnOnce(Arc<App>) -> Fut) -> ExitCode
where
    Fut: Future<Output = Result<(), lambda_runtime::Error>>,
{
    start(async |app| match app {
        Ok(app) => end(work(app).await),
        Err(error) => fail(&error),
    })
}

/// Starts telemetry, reads the configuration and runs `work` on one thread: Lambda gives a function one event at a time,
/// or many that wait for the same two servers.
fn start<Fut>(work: impl FnOnce(Result<Arc<App>, Error>) -> Fut) -> ExitCode
where
    Fut: Future<Output = ExitCode>,
{
    telemetry::init(&log_settings());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    runtime.block_on(async {
        let config = Config::from_env().map_err(|error| Error::internal("starting", error));
        work(config.and_then(App::new).map(Arc::new)).await
    })
}

fn end(result: Result<(), lambda_runtime::Error>) -> ExitCode {
    result.map_or_else(|error| fail(error.as_ref()), |()| ExitCode::SUCCESS)
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    tell(error);
    ExitCode::FAILURE
}

fn tell(error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error = telemetry::chain(error), "cannot start");
}

fn trace(context: lambda_runtime::Context) -> Trace {
    Trace { function_request_id: context.request_id, correlation_id: None, xray_trace_id: context.xray_trace_id }
}

/// For operators, so with all causes; no client ever sees it.
fn diagnose(error: Error) -> Diagnostic {
    Diagnostic { error_type: error.code().to_owned(), error_message: telemetry::chain(&error) }
}

/// Lambda's deadline on our clock, less what is needed for an answer.
fn until(deadline: SystemTime) -> Instant {
    let left = deadline
        .duration_since(UNIX_EPOCH)
        .and_then(|_| deadline.duration_since(SystemTime::now()))
        .unwrap_or_default();
    Instant::now() + left.saturating_sub(MARGIN)
}
