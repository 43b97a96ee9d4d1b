//! The gateway's part of the work: CORS, route, token, limits; then the function gets the same event as on AWS and its
//! answer takes the same way back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, SET_COOKIE, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use lambda_http::Body;
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use serde_json::{Value, json};
use shared::app::App;
use shared::config::Config;
use shared::telemetry;
use tokio::time::timeout;
use uuid::Uuid;

use crate::authorizer::{Authorizer, Refusal, SigningKey};
use crate::cors;
use crate::error::{Context, Error, Result};
use crate::event::{self, Arrival};
use crate::functions::{self, Function};
use crate::template::{self, Match, Template, decode_path};

/// The largest body that the gateway takes.
pub(crate) const MOST_BODY_BYTES: usize = 10 * 1024 * 1024;
/// The largest request line and headers that the gateway takes.
const MOST_HEADER_BYTES: usize = 10_240;
/// The largest event and the largest answer that Lambda takes, counted as JSON.
const MOST_PAYLOAD_BYTES: usize = 6 * 1024 * 1024;
/// What is left of a function's time for telling what was done, as in Lambda.
const DEADLINE_MARGIN: Duration = Duration::from_secs(2);

const REQUEST_ID: HeaderName = HeaderName::from_static("apigw-requestid");

/// The whole HTTP API, in this process.
#[derive(Debug)]
pub struct Api {
    app: Arc<App>,
    /// Those of functions that come to PostgreSQL in a role of their own.
    in_roles: BTreeMap<String, Arc<App>>,
    template: Template,
    authorizer: Authorizer,
}

/// Why a function without a route gave no result.
#[derive(Debug)]
pub enum InvokeError {
    /// There is no such function.
    Unknown,
    /// It failed; the type and message are those that Lambda would report.
    Failed {
        /// A stable name.
        error_type: String,
        /// A sentence.
        message: String,
    },
}

impl Api {
    /// Puts the API together.
    ///
    /// # Errors
    /// When the template has a function that is not in this build.
    pub fn new(app: Arc<App>, template: &Template, authorizer: Authorizer) -> Result<Self> {
        if let Some(function) = template.functions.iter().find(|function| functions::find(&function.binary).is_none()) {
            return Err(Error::new(format!("the template has a function {} that is not built in", function.binary)));
        }
        Ok(Self { app, in_roles: BTreeMap::new(), template: template.clone(), authorizer })
    }

    /// The API over the servers of a configuration, for tokens of this key.
    ///
    /// # Errors
    /// When the configuration cannot be used, or the template has a function that is not in this build.
    pub fn over(config: Config, template: &Template, key: SigningKey) -> Result<Self> {
        let authorizer = Authorizer::new(key, &config.groups_claim);
        let app = App::new(config).context(|| "the API cannot be put together")?;
        Self::new(Arc::new(app), template, authorizer)
    }

    /// Has the functions come to PostgreSQL each in its role, by the URL of each; they share the cache all the same. A
    /// function whose role has none comes as before.
    ///
    /// # Errors
    /// When a URL cannot be used.
    pub fn in_roles(mut self, urls: BTreeMap<String, String>) -> Result<Self> {
        for (role, url) in urls {
            let mut config = self.app.config.clone();
            config.postgres.url = url;
            let app = App::new(config).context(|| format!("the role {role} cannot be used"))?;
            self.in_roles.insert(role, Arc::new(App { cache: self.app.cache.clone(), ..app }));
        }
        Ok(self)
    }

    fn app_of(&self, function: &template::Function) -> Arc<App> {
        function.role.as_ref().map_or(&self.app, |role| self.app_in(role)).clone()
    }

    /// What the functions share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// What the functions of a role share.
    pub fn app_in(&self, role: &str) -> &Arc<App> {
        self.in_roles.get(role).unwrap_or(&self.app)
    }

    /// The routes and limits.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The authorizer, which also issues tokens.
    pub fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// Answers a request as API Gateway and the function behind it would.
    pub async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        let arrival = Arrival::now();
        let asked = request.headers().clone();
        if cors::is_preflight(request.method(), &asked) {
            let mut answer = Response::new(Bytes::new());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            *answer.headers_mut() = cors::preflight_headers(&self.template.cors, &asked);
            return answer;
        }
        let mut answer = self.pass(request, &arrival).await.unwrap_or_else(Refused::answer);
        cors::apply(&self.template.cors, &asked, answer.headers_mut());
        if let Ok(id) = HeaderValue::try_from(arrival.id) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        answer
    }

    /// Runs a function that has no route.
    ///
    /// # Errors
    /// When there is no such function, or it fails or takes longer than the template allows.
    pub async fn invoke(&self, binary: &str, event: Value) -> std::result::Result<Value, InvokeError> {
        let settings = self.template.function(binary).ok_or(InvokeError::Unknown)?;
        let Some(Function::Event(run)) = functions::find(binary) else { return Err(InvokeError::Unknown) };
        let deadline = Instant::now() + settings.timeout.saturating_sub(DEADLINE_MARGIN);
        let work = run(self.app_of(settings), Uuid::now_v7().to_string(), event, deadline);
        let failed =
            |error_type: &str, message: String| InvokeError::Failed { error_type: error_type.to_owned(), message };
        match tokio::spawn(timeout(settings.timeout, work)).await {
            Ok(Ok(Ok(result))) => Ok(result),
            Ok(Ok(Err(error))) => Err(failed(error.code(), telemetry::chain(&error))),
            Ok(Err(_)) => {
                Err(failed("Sandbox.Timedout", format!("Task timed out after {} seconds", settings.timeout.as_secs())))
            }
            Err(panic) => Err(failed("Runtime.ExitError", panic.to_string())),
        }
    }

    /// Gives an event to a function of either kind, as Lambda would, and answers what it says.
    ///
    /// # Errors
    /// When there is no such function, or it fails or does not understand the event.
    pub async fn deliver(&self, binary: &str, event: Value) -> std::result::Result<Value, InvokeError> {
        let Some(Function::Http(answer)) = functions::find(binary) else { return self.invoke(binary, event).await };
        let failed = |error: serde_json::Error| InvokeError::Failed {
            error_type: "Runtime.BadEvent".to_owned(),
            message: error.to_string(),
        };
        let request = lambda_http::request::from_str(&event.to_string()).map_err(failed)?;
        serde_json::to_value(to_lambda(answer(self.app.clone(), request).await)).map_err(failed)
    }

    /// Passes a request to its function, unless the gateway refuses it.
    async fn pass(&self, request: Request<Bytes>, arrival: &Arrival) -> std::result::Result<Response<Bytes>, Refused> {
        let (parts, body) = request.into_parts();
        check_size(&parts, &body)?;
        let path = decode_path(parts.uri.path());
        let found = self.template.find(&parts.method, &path).ok_or(Refused::NotFound)?;
        let claims = if found.route.needs_token {
            Some(self.authorizer.authorize(&parts.headers, arrival.time).map_err(Refused::Unauthorized)?)
        } else {
            None
        };
        let event = event::build(&parts, &body, &path, &found, claims.as_ref(), arrival).to_string();
        if event.len() > MOST_PAYLOAD_BYTES {
            return Err(Refused::TooLarge);
        }
        self.run(&found, event).await.ok_or(Refused::Broken)
    }

    /// Runs the function on its event, and to its end even if nobody waits for the answer any more, as Lambda would.
    /// `None` when it breaks, takes too long, or says more than Lambda passes on.
    async fn run(&self, found: &Match<'_>, event: String) -> Option<Response<Bytes>> {
        let Some(Function::Http(answer)) = functions::find(&found.function.binary) else { return None };
        let app = self.app_of(found.function);
        let invocation = async move {
            let request = lambda_http::request::from_str(&event).ok()?;
            Some(answer(app, request).await)
        };
        let answer = tokio::spawn(timeout(found.function.timeout, invocation)).await.ok()?.ok()??;
        pass_back(answer)
    }
}

fn check_size(parts: &http::request::Parts, body: &Bytes) -> std::result::Result<(), Refused> {
    let path_and_query = parts.uri.path_and_query().map_or(1, |text| text.as_str().len());
    let request_line = parts.method.as_str().len() + path_and_query + " HTTP/1.1  ".len();
    let headers: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": ".len()).sum();
    if request_line + headers > MOST_HEADER_BYTES {
        return Err(Refused::HeadersTooLarge);
    }
    if body.len() > MOST_BODY_BYTES { Err(Refused::TooLarge) } else { Ok(()) }
}

/// Takes an answer the way that Lambda takes it: through JSON of a limited size, in which a header has one value.
fn pass_back(answer: Response<Body>) -> Option<Response<Bytes>> {
    let payload = serde_json::to_string(&to_lambda(answer)).ok()?;
    if payload.len() > MOST_PAYLOAD_BYTES {
        return None;
    }
    let answer: ApiGatewayV2httpResponse = serde_json::from_str(&payload).ok()?;
    let body = match answer.body {
        None => Bytes::new(),
        Some(body) if answer.is_base64_encoded => Bytes::from(STANDARD.decode(body.as_ref()).ok()?),
        Some(body) => Bytes::copy_from_slice(body.as_ref()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(u16::try_from(answer.status_code).ok()?).ok()?;
    *response.headers_mut() = answer.headers;
    for cookie in answer.cookies {
        response.headers_mut().append(SET_COOKIE, HeaderValue::try_from(cookie).ok()?);
    }
    Some(response)
}

/// What `lambda_http` makes of an answer before it is sent.
fn to_lambda(answer: Response<Body>) -> ApiGatewayV2httpResponse {
    let (mut parts, body) = answer.into_parts();
    let mut payload = ApiGatewayV2httpResponse::default();
    payload.status_code = parts.status.as_u16().into();
    payload.is_base64_encoded = matches!(body, Body::Binary(_));
    payload.body = match body {
        Body::Empty => None,
        body => Some(body),
    };
    let cookies = parts.headers.get_all(SET_COOKIE).iter();
    payload.cookies = cookies.map(|cookie| String::from_utf8_lossy(cookie.as_bytes()).into_owned()).collect();
    parts.headers.remove(SET_COOKIE);
    payload.headers = parts.headers;
    payload
}

/// Why the gateway answers by itself. It knows no problem documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NotFound,
    Unauthorized(Refusal),
    TooLarge,
    HeadersTooLarge,
    /// The function broke, took too long, or said too much.
    Broken,
}

impl Refused {
    pub(crate) fn answer(self) -> Response<Bytes> {
        let (status, message) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "Not Found"),
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large"),
            Self::HeadersTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large"),
            Self::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
        };
        let mut answer = Response::new(Bytes::from(json!({"message": message}).to_string()));
        *answer.status_mut() = status;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Self::Unauthorized(refusal) = self {
            answer.headers_mut().insert(WWW_AUTHENTICATE, refusal.challenge());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, HeaderMap, ORIGIN, VARY};

    use super::*;
    use crate::authorizer::Grant;
    use crate::testing::signing_key;

    /// The real API over a database that is not there: whatever the gateway answers by itself needs none.
    fn api() -> Api {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml");
        let template = Template::read(&path).expect("the template");
        let config = Config::for_database("postgres://nobody@127.0.0.1:1/none");
        let app = App::new(config).expect("an app");
        let authorizer = Authorizer::new(signing_key(), "cognito:groups");
        Api::new(Arc::new(app), &template, authorizer).expect("an API")
    }

    fn request(method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(path).header("Host", "localhost:3000")
    }

    async fn call(api: &Api, request: http::request::Builder, body: Vec<u8>) -> (StatusCode, HeaderMap, Value) {
        let answer = api.call(request.body(Bytes::from(body)).expect("a request")).await;
        let body = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
        (answer.status(), answer.headers().clone(), body)
    }

    #[tokio::test]
    async fn what_the_gateway_refuses_it_answers_by_itself() {
        let api = api();
        let long = "x".repeat(MOST_HEADER_BYTES);
        for (request, body, status, message) in [
            (request(Method::GET, "/nowhere"), vec![], 404, "Not Found"),
            (request(Method::HEAD, "/courses"), vec![], 404, "Not Found"),
            (request(Method::OPTIONS, "/courses"), vec![], 404, "Not Found"),
            (request(Method::GET, "/me/courses"), vec![], 401, "Unauthorized"),
            (request(Method::GET, "/me/courses").header(AUTHORIZATION, "Bearer x"), vec![], 401, "Unauthorized"),
            (request(Method::GET, "/courses").header("x-long", long), vec![], 431, "Request Header Fields Too Large"),
            (request(Method::POST, "/progress"), vec![b' '; MOST_BODY_BYTES + 1], 413, "Request Entity Too Large"),
        ] {
            let (answered, headers, body) = call(&api, request, body).await;
            assert_eq!((answered.as_u16(), &body), (status, &json!({"message": message})));
            assert!(headers.contains_key(REQUEST_ID));
            assert_eq!(headers.contains_key(WWW_AUTHENTICATE), status == 401);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_only_as_an_event_is_refused_like_one_that_is_too_large() {
        let api = api();
        let token = api.authorizer().mint(&Grant::new("alice", &[]), chrono::Utc::now()).expect("a token");
        // A quotation mark takes two bytes in the event.
        let body = vec![b'"'; MOST_PAYLOAD_BYTES / 2];
        let request =
            request(Method::POST, "/progress").header(AUTHORIZATION, token).header(CONTENT_TYPE, "application/json");
        assert_eq!(call(&api, request, body).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn pages_of_other_origins_may_ask_and_see_refusals_too() {
        let api = api();
        let preflight = request(Method::OPTIONS, "/courses")
            .header(ORIGIN, "https://lms.example")
            .header("Access-Control-Request-Method", "POST");
        let (status, headers, _) = call(&api, preflight, vec![]).await;
        assert_eq!((status, headers[ACCESS_CONTROL_ALLOW_ORIGIN].as_bytes()), (StatusCode::NO_CONTENT, &b"*"[..]));
        let refused = request(Method::GET, "/me/courses").header(ORIGIN, "https://lms.example");
        assert_eq!(call(&api, refused, vec![]).await.1[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }

    #[tokio::test]
    async fn a_function_gets_a_request_that_passed_and_answers_for_itself() {
        let api = api();
        let token = api.authorizer().mint(&Grant::new("alice", &[]), chrono::Utc::now()).expect("a token");
        let request = request(Method::POST, "/courses").header(AUTHORIZATION, format!("Bearer {token}"));
        let (status, headers, body) = call(&api, request, vec![]).await;
        assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(body["requestId"].as_str(), headers[REQUEST_ID].to_str().ok());
    }

    #[tokio::test]
    async fn no_path_or_query_breaks_the_way_to_a_function() {
        let api = api();
        for path in
            ["/courses/%00%ff", "/courses/..%5C..%3Fx%23y", "/courses/%E2%80%AE%7B%7D%22%3C", "/courses/a?%zz=%&&=+"]
        {
            let (status, _, body) = call(&api, request(Method::GET, path), vec![]).await;
            assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("course_not_found")), "{path}");
        }
    }

    #[tokio::test]
    async fn functions_without_a_route_are_called_by_name() {
        let api = api();
        for name in ["nothing", "list-courses"] {
            assert!(matches!(api.invoke(name, json!({})).await, Err(InvokeError::Unknown)), "{name}");
        }
        let failed = api.invoke("refresh-analytics", json!({})).await;
        assert!(matches!(failed, Err(InvokeError::Failed { error_type, .. }) if error_type == "unavailable"));
    }

    #[test]
    fn an_answer_comes_back_as_lambda_passes_it_on() {
        let answer = |body: Body| {
            let builder = Response::builder().status(201).header(SET_COOKIE, "a=1").header(SET_COOKIE, "b=2");
            builder.header(VARY, "accept-encoding").header(VARY, "origin").body(body).expect("an answer")
        };
        for body in [Body::Text("é".to_owned()), Body::Binary("é".into())] {
            let passed = pass_back(answer(body)).expect("passed on");
            assert_eq!((passed.status(), passed.body().as_ref()), (StatusCode::CREATED, "é".as_bytes()));
            assert_eq!(passed.headers().get_all(SET_COOKIE).iter().count(), 2);
            assert_eq!(
                passed.headers().get_all(VARY).iter().collect::<Vec<_>>(),
                ["accept-encoding"],
                "one value, the first"
            );
        }
        assert!(pass_back(answer(Body::Empty)).expect("passed on").body().is_empty());
        assert!(
            pass_back(answer(Body::Binary(vec![0; MOST_PAYLOAD_BYTES / 4 * 3]))).is_none(),
            "base64 makes it too large"
        );
    }
}
