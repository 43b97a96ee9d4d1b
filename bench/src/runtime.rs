//! One function as Lambda runs it: a process that asks a Runtime API for its next event, and that API.

use std::{
    convert::Infallible,
    fs,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::{
        Mutex,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    time::timeout,
};

use crate::{Fallible, failed};

/// Nothing that is measured takes so long.
const PATIENCE: Duration = Duration::from_secs(600);

/// A running function.
pub(crate) struct Function {
    process: Child,
    events: UnboundedSender<Bytes>,
    from_process: UnboundedReceiver<Said>,
    /// From its start until it asked for its first event.
    pub(crate) started_in: Duration,
}

/// What the process says to its Runtime API.
enum Said {
    Ready(Instant),
    Answered(Instant, Bytes),
    Failed(String),
}

/// An answer, and how long it took.
pub(crate) struct Answer {
    /// From handing over the event until the answer was complete.
    pub(crate) took: Duration,
    /// What the function answered, as Lambda passes it on.
    pub(crate) payload: Bytes,
}

/// The end of the API that speaks with the process.
struct Api {
    events: Mutex<UnboundedReceiver<Bytes>>,
    said: UnboundedSender<Said>,
}

impl Function {
    /// Starts a binary and waits until it asks for an event. `prefix` is a command to run it under, or nothing.
    pub(crate) async fn start(prefix: &[&str], binary: &Path, environment: &[(&str, &str)]) -> Fallible<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (events, to_process) = unbounded_channel();
        let (said, from_process) = unbounded_channel();
        let api = Arc::new(Api { events: Mutex::new(to_process), said });
        tokio::spawn(serve(listener, api));

        let mut words = prefix.iter().map(AsRef::as_ref).chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).env_clear().kill_on_drop(true).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        for name in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // As Lambda sets them.
        command.env("AWS_LAMBDA_RUNTIME_API", &address).env("AWS_LAMBDA_FUNCTION_NAME", "bench");
        command.env("AWS_LAMBDA_FUNCTION_VERSION", "1").env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256");
        command.env("AWS_LAMBDA_LOG_FORMAT", "JSON").env("AWS_LAMBDA_LOG_LEVEL", "INFO").env("AWS_REGION", "us-east-1");
        command.envs(environment.iter().copied());
        let started = Instant::now();
        let process =
            command.spawn().map_err(|error| failed(format!("{} does not start: {error}", binary.display())))?;
        let mut function = Self { process, events, from_process, started_in: Duration::ZERO };
        function.started_in = function.ready().await?.duration_since(started);
        Ok(function)
    }

    /// Hands over one event. The function must be waiting for it: after its start, and after each answer.
    pub(crate) async fn invoke(&mut self, event: &Bytes) -> Fallible<Answer> {
        let handed_over = Instant::now();
        self.events.send(event.clone()).map_err(|_| failed("the Runtime API is gone"))?;
        let answer = match self.said().await? {
            Said::Answered(at, payload) => Answer { took: at.duration_since(handed_over), payload },
            Said::Ready(_) => return Err(failed("the function asked for the next event without answering")),
            Said::Failed(why) => return Err(failed(format!("the function failed: {why}"))),
        };
        self.ready().await?;
        Ok(answer)
    }

    /// Processor time that it has used.
    pub(crate) fn cpu(&self) -> Fallible<Duration> {
        let mut used = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()?))? {
            let times = fs::read_to_string(task?.path().join("schedstat"))?;
            used += times.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(Duration::from_nanos(used))
    }

    /// Memory that it has at this moment, in bytes.
    pub(crate) fn resident(&self) -> Fallible<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
        Ok(kilobytes * 1024)
    }

    /// Ends it as Lambda ends an environment whose time is over, and waits until it has ended.
    pub(crate) async fn stop(mut self) -> Fallible<ExitStatus> {
        let id = self.id()?.to_string();
        Command::new("kill").args(["-TERM", &id]).status().await?;
        Ok(timeout(PATIENCE, self.process.wait()).await??)
    }

    /// Its process.
    pub(crate) fn id(&self) -> Fallible<u32> {
        self.process.id().ok_or_else(|| failed("the function has ended"))
    }

    async fn ready(&mut self) -> Fallible<Instant> {
        match self.said().await? {
            Said::Ready(at) => Ok(at),
            Said::Answered(..) => Err(failed("the function answered what nobody asked")),
            Said::Failed(why) => Err(failed(format!("the function failed: {why}"))),
        }
    }

    async fn said(&mut self) -> Fallible<Said> {
        tokio::select! {
            said = timeout(PATIENCE, self.from_process.recv()) => said?.ok_or_else(|| failed("the Runtime API is gone")),
            status = self.process.wait() => Err(failed(format!("the function ended: {}", status?))),
        }
    }
}

async fn serve(listener: TcpListener, api: Arc<Api>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let api = api.clone();
        let service = service_fn(move |request| answer(api.clone(), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if request.method() == Method::GET && path.ends_with("/invocation/next") {
        let _ = api.said.send(Said::Ready(Instant::now()));
        let event = api.events.lock().await.recv().await.unwrap_or_default();
        let deadline = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default() + Duration::from_secs(240);
        let response = Response::builder()
            .header("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
            .header("Lambda-Runtime-Deadline-Ms", deadline.as_millis().to_string())
            .header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:bench")
            .header("Content-Type", "application/json");
        return Ok(response.body(Full::new(event)).unwrap_or_default());
    }
    let is_answer = path.ends_with("/response");
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let said = if is_answer {
        Said::Answered(Instant::now(), body)
    } else {
        Said::Failed(String::from_utf8_lossy(&body).into_owned())
    };
    let _ = api.said.send(said);
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}
