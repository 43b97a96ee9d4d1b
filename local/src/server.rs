//! The HTTP server: the API for whoever is on this machine, and beside it, under `/_local`, what only a local run has:
//! tokens for the asking, and functions by their names.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::api::{Api, InvokeError, MOST_BODY_BYTES, Refused};
use crate::authorizer::parse_grant;
use crate::page::Page;
use crate::query;

/// How long a client may take to send its headers, and then its body.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// How long requests in flight may take when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until `shutdown`, then finishes those in flight.
pub async fn serve(listener: TcpListener, api: Arc<Api>, page: Page, shutdown: impl Future<Output = ()>) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    let connections = GracefulShutdown::new();
    let page = Arc::new(page);
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (api, page) = (api.clone(), page.clone());
        let service = service_fn(move |request| {
            let (api, page) = (api.clone(), page.clone());
            async move { Ok::<_, Infallible>(answer(&api, &page, port, request).await.map(Full::new)) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(READ_PATIENCE)
            .serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection);
        // A connection that breaks is its client's affair.
        tokio::spawn(async move { drop(connection.await) });
    }
    drop(listener);
    let _ = timeout(STOP_PATIENCE, connections.shutdown()).await;
}

async fn answer(api: &Api, page: &Page, port: u16, request: Request<Incoming>) -> Response<Bytes> {
    if !is_local_host(request.uri(), request.headers(), port) {
        return problem(StatusCode::MISDIRECTED_REQUEST, "wrong_host", "Call this server as localhost or 127.0.0.1.");
    }
    let (parts, body) = request.into_parts();
    let body = match read_body(body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    if let Some(file) = page.answer(&parts.method, parts.uri.path(), &parts.headers).await {
        return file;
    }
    match parts.uri.path() {
        "/" => help(api, &parts.method),
        path if path.starts_with("/_local/") => answer_locally(api, port, &parts, &body).await,
        _ => api.call(Request::from_parts(parts, body)).await,
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, Response<Bytes>> {
    match timeout(READ_PATIENCE, Limited::new(body, MOST_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refused::TooLarge.answer()),
        Ok(Err(_)) => Err(problem(StatusCode::BAD_REQUEST, "broken_body", "The body did not arrive whole.")),
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "slow_body", "The body did not arrive in time.")),
    }
}

/// Whether a request was meant for this server. A page of another site can make a browser call 127.0.0.1 under that
/// site's own name; it must learn nothing, and get no token.
fn is_local_host(uri: &Uri, headers: &HeaderMap, port: u16) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    hosts.next().is_none()
        && host.is_some_and(|host| is_local_authority(host, port))
        && uri.authority().is_none_or(|authority| is_local_authority(authority.as_str(), port))
}

fn is_local_authority(authority: &str, port: u16) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
        let Some(rest) = authority.get(..name.len()).filter(|host| host.eq_ignore_ascii_case(name)) else {
            return false;
        };
        match authority[rest.len()..].strip_prefix(':') {
            Some(given) => given.parse() == Ok(port),
            None => authority.len() == name.len() && port == 80,
        }
    })
}

async fn answer_locally(api: &Api, port: u16, parts: &http::request::Parts, body: &Bytes) -> Response<Bytes> {
    if !is_own_origin(&parts.headers, port) {
        return problem(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "Pages of other sites may not use what is under /_local.",
        );
    }
    match (&parts.method, parts.uri.path().strip_prefix("/_local/functions/")) {
        (&Method::GET, None) if parts.uri.path() == "/_local/token" => token(api, &parts.uri),
        (&Method::POST, Some(name)) => invoke(api, name, body).await,
        _ => problem(
            StatusCode::NOT_FOUND,
            "not_found",
            "Only GET /_local/token and POST /_local/functions/{name} are here.",
        ),
    }
}

/// Browsers name the page that sends a POST; curl and scripts name none.
fn is_own_origin(headers: &HeaderMap, port: u16) -> bool {
    headers.get_all(ORIGIN).iter().all(|origin| {
        origin.to_str().is_ok_and(|origin| {
            origin.strip_prefix("http://").is_some_and(|authority| is_local_authority(authority, port))
        })
    })
}

fn token(api: &Api, uri: &Uri) -> Response<Bytes> {
    let minted = parse_grant(&query::pairs(uri.query().unwrap_or_default()))
        .and_then(|grant| api.authorizer().mint(&grant, Utc::now()));
    match minted {
        Ok(token) => text(token),
        Err(error) => problem(StatusCode::BAD_REQUEST, "invalid_parameter", &error.report()),
    }
}

async fn invoke(api: &Api, name: &str, body: &Bytes) -> Response<Bytes> {
    let event = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) };
    let Ok(event) = event else {
        return problem(StatusCode::BAD_REQUEST, "malformed_json", "The body is the event: JSON, or nothing for {}.");
    };
    match api.invoke(name, event).await {
        Ok(result) => json_answer(StatusCode::OK, "application/json", &result),
        Err(InvokeError::Unknown) => {
            problem(StatusCode::NOT_FOUND, "function_not_found", "There is no function of this name without a route.")
        }
        Err(InvokeError::Failed { error_type, message }) => json_answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            "application/json",
            &json!({"errorType": error_type, "errorMessage": message}),
        ),
    }
}

/// What can be called here, for who opens the server's address.
fn help(api: &Api, method: &Method) -> Response<Bytes> {
    if method != Method::GET {
        return problem(StatusCode::NOT_FOUND, "not_found", "Only GET is here.");
    }
    let mut lines = vec!["Lectern, running on this machine.".to_owned(), String::new()];
    let functions = &api.template().functions;
    for (function, route) in
        functions.iter().flat_map(|function| function.routes.iter().map(move |route| (function, route)))
    {
        let who = if route.needs_token { "token" } else { "anyone" };
        lines.push(format!("{:7}{:40}{who:8}{}", route.method.as_str(), route.path, function.binary));
    }
    lines.extend([
        String::new(),
        "A token:     GET  /_local/token?sub=alice[&groups=instructor,admin][&scope=lectern/service][&expires_in=3600]"
            .to_owned(),
        "             to be sent as the header `Authorization: Bearer <token>`".to_owned(),
    ]);
    for function in functions.iter().filter(|function| function.routes.is_empty()) {
        lines.push(format!("A function:  POST /_local/functions/{}", function.binary));
    }
    lines.extend(["RUST_LOG=info make run logs every request.".to_owned(), String::new()]);
    text(lines.join("\n"))
}

fn text(body: String) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn json_answer(status: StatusCode, content_type: &'static str, body: &Value) -> Response<Bytes> {
    let mut answer = text(body.to_string());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

pub(crate) fn problem(status: StatusCode, code: &str, detail: &str) -> Response<Bytes> {
    let body = json!({
        "type": format!("urn:lectern:problem:{code}"),
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
        "requestId": null,
        "errors": [],
    });
    json_answer(status, "application/problem+json", &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_is_local(uri: &str, hosts: &[&str], port: u16) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).expect("a header"));
        }
        is_local_host(&uri.parse().expect("a URI"), &headers, port)
    }

    #[test]
    fn this_machines_names_are_accepted_with_the_right_port() {
        for host in ["localhost:3000", "LOCALHOST:3000", "127.0.0.1:3000", "[::1]:3000"] {
            assert!(host_is_local("/courses", &[host], 3000), "{host}");
        }
        assert!(host_is_local("/courses", &["localhost"], 80));
        assert!(host_is_local("http://127.0.0.1:3000/courses", &["127.0.0.1:3000"], 3000));
    }

    #[test]
    fn any_other_name_is_refused() {
        for host in [
            "evil.example:3000",
            "localhost",
            "localhost:3001",
            "localhost:",
            "localhost.evil.example:3000",
            "localhost:3000@evil.example",
            "127.0.0.1.evil.example:3000",
            "",
            "é",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_bytes(host.as_bytes()).expect("a header"));
            assert!(!is_local_host(&Uri::from_static("/"), &headers, 3000), "{host}");
        }
        assert!(!host_is_local("/", &[], 3000));
        assert!(!host_is_local("/", &["localhost:3000", "localhost:3000"], 3000));
        assert!(!host_is_local("http://evil.example/", &["localhost:3000"], 3000));
    }

    #[test]
    fn pages_of_other_sites_are_told_apart_from_scripts() {
        let own = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_str(origin).expect("a header"));
            is_own_origin(&headers, 3000)
        };
        assert!(is_own_origin(&HeaderMap::new(), 3000));
        assert!(own("http://localhost:3000") && own("http://127.0.0.1:3000"));
        assert!(
            !own("http://evil.example")
                && !own("https://localhost:3000")
                && !own("http://localhost:3001")
                && !own("null")
        );
    }
}
