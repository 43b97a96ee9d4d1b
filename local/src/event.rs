//! The event that an HTTP API sends to a function for a request: payload format 2.0.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::{
    CONNECTION, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::request::Parts;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::authorizer::{Claims, render_claims};
use crate::query;
use crate::template::Match;

/// Headers between two neighbours; the gateway keeps them to itself.
const HOP_BY_HOP: [HeaderName; 6] =
    [CONNECTION, HeaderName::from_static("keep-alive"), TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
/// Whoever calls, calls from this machine.
const CALLER: &str = "127.0.0.1";
/// The account that AWS writes its examples with.
const ACCOUNT: &str = "123456789012";

/// When a request came, and under which id.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) id: String,
    pub(crate) time: DateTime<Utc>,
}

impl Arrival {
    pub(crate) fn now() -> Self {
        Self { id: Uuid::now_v7().to_string(), time: Utc::now() }
    }
}

/// Builds the event. `path` is the decoded path; `claims` are there only where the route has the authorizer.
pub(crate) fn build(
    request: &Parts,
    body: &Bytes,
    path: &str,
    found: &Match<'_>,
    claims: Option<&Claims>,
    arrival: &Arrival,
) -> Value {
    let raw_query = request.uri.query().unwrap_or_default();
    let mut event = json!({
        "version": "2.0",
        "routeKey": found.route.key(),
        "rawPath": path,
        "rawQueryString": raw_query,
        "headers": headers(&request.headers, arrival),
        "requestContext": context(request, path, found, claims, arrival),
        "isBase64Encoded": false,
    });
    // What is empty, the gateway leaves out.
    if let Some(event) = event.as_object_mut() {
        let cookies = cookies(&request.headers);
        if !cookies.is_empty() {
            event.insert("cookies".to_owned(), json!(cookies));
        }
        let query = query_parameters(raw_query);
        if !query.is_empty() {
            event.insert("queryStringParameters".to_owned(), Value::Object(query));
        }
        if !found.parameters.is_empty() {
            event.insert("pathParameters".to_owned(), json!(found.parameters));
        }
        if !body.is_empty() {
            insert_body(event, &request.headers, body);
        }
    }
    event
}

fn context(request: &Parts, path: &str, found: &Match<'_>, claims: Option<&Claims>, arrival: &Arrival) -> Value {
    let mut context = json!({
        "accountId": ACCOUNT,
        "apiId": "local",
        "domainName": text_of(&request.headers, &HOST),
        "domainPrefix": "local",
        "http": {
            "method": request.method.as_str(),
            "path": path,
            "protocol": "HTTP/1.1",
            "sourceIp": CALLER,
            "userAgent": text_of(&request.headers, &USER_AGENT),
        },
        "requestId": arrival.id,
        "routeKey": found.route.key(),
        "stage": "$default",
        "time": arrival.time.format("%d/%b/%Y:%H:%M:%S %z").to_string(),
        "timeEpoch": arrival.time.timestamp_millis(),
    });
    if let Some(claims) = claims {
        // Scopes are those that the route asks for, and no route of ours asks for any.
        context["authorizer"] = json!({"jwt": {"claims": render_claims(claims), "scopes": null}});
    }
    context
}

/// Names in lower case, repeated ones as one with commas, and what the gateway adds.
fn headers(request: &HeaderMap, arrival: &Arrival) -> Map<String, Value> {
    let mut headers = Map::new();
    for name in request.keys().filter(|name| !HOP_BY_HOP.contains(name) && *name != COOKIE) {
        headers.insert(name.as_str().to_owned(), Value::String(text_of(request, name)));
    }
    let host =
        headers.entry(HOST.as_str()).or_insert_with(|| json!("localhost")).as_str().unwrap_or_default().to_owned();
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or(80);
    let forwarded_for = match headers.get("x-forwarded-for").and_then(Value::as_str) {
        Some(before) => format!("{before}, {CALLER}"),
        None => CALLER.to_owned(),
    };
    let trace = format!("Root=1-{:08x}-{}", arrival.time.timestamp(), &Uuid::now_v7().simple().to_string()[8..]);
    for (name, value) in [
        ("x-forwarded-for", forwarded_for),
        ("x-forwarded-port", port.to_string()),
        ("x-forwarded-proto", "http".to_owned()),
        ("x-amzn-trace-id", trace),
    ] {
        headers.insert(name.to_owned(), Value::String(value));
    }
    headers
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    values.join(",")
}

fn cookies(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(COOKIE).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    values.flat_map(|value| value.split(';').map(|cookie| cookie.trim().to_owned()).collect::<Vec<_>>()).collect()
}

/// Decoded values; those of a name that comes more than once are joined by commas.
fn query_parameters(raw: &str) -> Map<String, Value> {
    let mut parameters = Map::new();
    for (name, value) in query::pairs(raw) {
        match parameters.get_mut(&name) {
            Some(Value::String(before)) => {
                before.push(',');
                before.push_str(&value);
            }
            _ => {
                parameters.insert(name, Value::String(value));
            }
        }
    }
    parameters
}

fn insert_body(event: &mut Map<String, Value>, headers: &HeaderMap, body: &Bytes) {
    let text = if is_text(headers) { std::str::from_utf8(body).ok() } else { None };
    event.insert("isBase64Encoded".to_owned(), json!(text.is_none()));
    let body = text.map_or_else(|| STANDARD.encode(body), str::to_owned);
    event.insert("body".to_owned(), Value::String(body));
}

/// The types that the gateway passes on as text. All others are base64, forms and bodies of no type among them.
fn is_text(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type.starts_with("text/")
        || matches!(media_type.as_str(), "application/json" | "application/xml" | "application/javascript")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, Request};
    use lambda_http::RequestExt;
    use lambda_http::request::RequestContext;

    use super::*;
    use crate::template::{Function, Route, Template, decode_path};

    fn template() -> Template {
        let route = |method: Method, path: &str| Route { method, path: path.to_owned(), needs_token: true };
        let routes = vec![route(Method::POST, "/courses/{courseId}/enrollments"), route(Method::POST, "/progress")];
        let function = Function {
            binary: "f".to_owned(),
            timeout: Duration::from_secs(1),
            routes,
            schedules: Vec::new(),
            role: None,
        };
        Template { functions: vec![function], cors: Default::default() }
    }

    fn event_of(request: http::request::Builder, body: &[u8], claims: Option<&Claims>) -> Value {
        let (parts, body) = request.method("POST").body(Bytes::copy_from_slice(body)).expect("a request").into_parts();
        let path = decode_path(parts.uri.path());
        let template = template();
        let found = template.find(&parts.method, &path).expect("a route");
        let time = DateTime::from_timestamp_millis(1_795_300_000_123).expect("a time");
        build(&parts, &body, &path, &found, claims, &Arrival { id: "id-1".to_owned(), time })
    }

    fn claims() -> Claims {
        json!({"sub": "alice", "cognito:groups": ["instructor", "admin"]}).as_object().expect("an object").clone()
    }

    #[test]
    fn the_event_is_what_the_gateway_sends() {
        let request = Request::builder()
            .uri("/courses/a%20b/enrollments?q=x%26y&q=z&flag")
            .header("Host", "127.0.0.1:3000")
            .header("Content-Type", "application/json; charset=utf-8")
            .header("Accept", "a")
            .header("Accept", "b")
            .header("Cookie", "one=1; two=2")
            .header("Connection", "keep-alive")
            .header("X-Forwarded-Proto", "gopher");
        let mut event = event_of(request, b"{\"a\":1}", Some(&claims()));
        let trace = event["headers"]["x-amzn-trace-id"].take();
        assert!(
            trace.as_str().is_some_and(|trace| trace.starts_with("Root=1-6b021aa0-") && trace.len() == 40),
            "{trace}"
        );
        let expected = json!({
            "version": "2.0",
            "routeKey": "POST /courses/{courseId}/enrollments",
            "rawPath": "/courses/a b/enrollments",
            "rawQueryString": "q=x%26y&q=z&flag",
            "cookies": ["one=1", "two=2"],
            "headers": {
                "accept": "a,b",
                "content-type": "application/json; charset=utf-8",
                "host": "127.0.0.1:3000",
                "x-amzn-trace-id": null,
                "x-forwarded-for": "127.0.0.1",
                "x-forwarded-port": "3000",
                "x-forwarded-proto": "http",
            },
            "queryStringParameters": {"q": "x&y,z", "flag": ""},
            "pathParameters": {"courseId": "a b"},
            "requestContext": {
                "accountId": ACCOUNT,
                "apiId": "local",
                "authorizer": {"jwt": {"claims": {"sub": "alice", "cognito:groups": "[instructor admin]"}, "scopes": null}},
                "domainName": "127.0.0.1:3000",
                "domainPrefix": "local",
                "http": {
                    "method": "POST",
                    "path": "/courses/a b/enrollments",
                    "protocol": "HTTP/1.1",
                    "sourceIp": "127.0.0.1",
                    "userAgent": "",
                },
                "requestId": "id-1",
                "routeKey": "POST /courses/{courseId}/enrollments",
                "stage": "$default",
                "time": "21/Nov/2026:22:26:40 +0000",
                "timeEpoch": 1_795_300_000_123_i64,
            },
            "body": "{\"a\":1}",
            "isBase64Encoded": false,
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let event = event_of(Request::builder().uri("/progress"), b"", None);
        for name in ["cookies", "queryStringParameters", "pathParameters", "body"] {
            assert_eq!(event.get(name), None, "{name}");
        }
        assert_eq!(event["requestContext"].get("authorizer"), None);
    }

    #[test]
    fn only_text_is_passed_on_as_text() {
        for (media_type, base64) in [
            ("application/json", false),
            ("Text/Plain;charset=utf-8", false),
            ("application/merge-patch+json", true),
            ("application/x-www-form-urlencoded", true),
            ("", true),
        ] {
            let event = event_of(Request::builder().uri("/progress").header("Content-Type", media_type), b"body", None);
            assert_eq!(event["isBase64Encoded"], base64, "{media_type}");
        }
        let event = event_of(Request::builder().uri("/progress").header("Content-Type", "text/plain"), b"\xff", None);
        assert_eq!((&event["isBase64Encoded"], &event["body"]), (&json!(true), &json!("/w==")));
    }

    #[test]
    fn a_function_reads_the_event_as_the_request_that_it_was() {
        let request =
            Request::builder().uri("/courses/%C3%A9%20%3C%5C%7C/enrollments?limit=5").header("Host", "localhost:3000");
        let event = event_of(request.header("Cookie", "a=1"), b"\x00\x01", Some(&claims())).to_string();
        let request = lambda_http::request::from_str(&event).expect("a request");
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.path_parameters().first("courseId"), Some("é <\\|"));
        assert_eq!(request.query_string_parameters().first("limit"), Some("5"));
        assert_eq!(request.headers()["cookie"], "a=1");
        assert_eq!(request.body().as_ref(), b"\x00\x01");
        let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() else { panic!("no context") };
        let jwt = context.authorizer.as_ref().and_then(|authorizer| authorizer.jwt.as_ref()).expect("claims");
        assert_eq!(jwt.claims["cognito:groups"], "[instructor admin]");
    }
}
