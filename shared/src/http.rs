//! HTTP: from an API Gateway event to an answer. The only place where an error becomes a response.

use std::{borrow::Cow, convert::Infallible, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytewise::{json_string, json_value, json_values_at_most};
use lambda_http::{
    Body, RequestExt, Response as HttpResponse,
    aws_lambda_events::apigw::ApiGatewayV2httpRequest,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    request::{LambdaRequest, RequestContext},
};
use lambda_runtime::LambdaEvent;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IgnoredAny},
    ser::{Error as _, SerializeStruct},
};
use serde_json::{Value, json, value::RawValue};
use uuid::Uuid;

use crate::{
    app::App,
    auth::is_user,
    cache::{Body as Content, Coding, Document, Source},
    error::{Documented, Error, Fault, Reason, reason},
    gzip, ids,
    invocation::{self, caught},
    telemetry::{self, Invocation, Metric, Outcome, Trace},
    throttle,
};

/// A request as API Gateway passes it on.
pub type Request = lambda_http::Request;
/// An answer as API Gateway takes it.
pub type Response = HttpResponse<Body>;
/// What a function's handler comes to.
pub type Result = std::result::Result<Response, Error>;

/// Lambda takes and gives 6 MB, counted after escaping or base64. 4 MiB of body stay below that in base64.
pub const MOST_BYTES: usize = 4 * 1024 * 1024;
/// A text of so many bytes stays below 6 MB however much of it has to be escaped.
const MOST_ESCAPED: usize = 2 * 1024 * 1024;
/// Seconds after which a client may try again.
const RETRY_AFTER: &str = "2";

/// Who may keep an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// It is the same for everybody; shared caches may keep it for a minute.
    Everyone,
    /// It is the caller's own.
    Caller,
}

/// What an answer is written in, where a client can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `text/csv`.
    Csv,
}

/// Runs a function of HTTP routes on Lambda until the environment ends.
pub fn serve<F, Fut>(handle: F) -> std::process::ExitCode
where
    F: Fn(Arc<App>, Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result> + Send + 'static,
{
    invocation::run(async move |app| {
        // Not `lambda_http::run`, with which all functions would carry tables of every character set; and not
        // `lambda_runtime::run_concurrent`, which adds a span to each invocation that nobody logs.
        let service = lambda_runtime::service_fn(move |event: LambdaEvent<Event>| {
            let (app, handle) = (app.clone(), handle.clone());
            let LambdaEvent { payload: Event(mut event), context } = event;
            escape_query(&mut event.raw_query_string);
            let request = Request::from(LambdaRequest::ApiGatewayV2(event)).with_lambda_context(context);
            // On the heap, as in `invocation::caught`: the runtime wraps it in many more.
            let answer = Box::pin(answer(app, request, handle));
            async move { Ok::<_, Infallible>(Reply(answer.await)) }
        });
        lambda_runtime::Runtime::new(service).run_concurrent().await
    })
}

/// A request as API Gateway writes it: payload format 2.0.
struct Event(ApiGatewayV2httpRequest);

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        // The runtime keeps track of the path to every value that it reads: better that it sees only one.
        let text = Box::<RawValue>::deserialize(deserializer)?;
        serde_json::from_str(text.get()).map(Self).map_err(D::Error::custom)
    }
}

/// An answer as API Gateway reads it: payload format 2.0.
struct Reply(Response);

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let (body, is_base64) = match self.0.body() {
            Body::Text(text) => (json_string(text), false),
            Body::Binary(bytes) => (json_string(&STANDARD.encode(bytes)), true),
            _ => (json_string(""), false),
        };
        let mut reply = serializer.serialize_struct("Reply", 4)?;
        reply.serialize_field("statusCode", &self.0.status().as_u16())?;
        reply.serialize_field("headers", &Headers(self.0.headers()))?;
        reply.serialize_field("body", &body.map_err(S::Error::custom)?)?;
        reply.serialize_field("isBase64Encoded", &is_base64)?;
        reply.end()
    }
}

/// One text for each name; no answer of ours has a header twice.
struct Headers<'a>(&'a HeaderMap);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let texts = self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        serializer.collect_map(texts)
    }
}

/// Escapes what a client left bare in its query and no URI may hold; `lambda_http` would panic over it.
fn escape_query(query: &mut Option<String>) {
    let is_bare = |byte: u8| {
        !byte.is_ascii_graphic() || matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    if let Some(query) = query.as_mut().filter(|query| query.bytes().any(is_bare)) {
        let escaped =
            query.bytes().map(|byte| if is_bare(byte) { format!("%{byte:02X}") } else { char::from(byte).to_string() });
        *query = escaped.collect();
    }
}

/// Answers one request. Never fails: an error, a panic too, is an answer.
pub async fn answer<F, Fut>(app: Arc<App>, request: Request, handle: F) -> Response
where
    F: FnOnce(Arc<App>, Request) -> Fut,
    Fut: Future<Output = Result>,
{
    let context = Context::of(&request);
    let trace = Trace {
        function_request_id: context.function_request_id.clone(),
        correlation_id: Some(context.request_id.clone()),
        xray_trace_id: context.xray_trace_id.clone(),
    };
    Invocation::scope(trace, |invocation| async move {
        let work = async {
            throttle::admit(&app, &request).await?;
            handle(app, request).await
        };
        let result = caught(work).await;
        let result = result.and_then(|response| match context.known_copy(&response) {
            Some(etag) => Ok(not_modified(response, etag)),
            None => fit(response, context.coding),
        });
        let (mut response, code) = match result {
            Ok(response) => (response, None),
            Err(error) => (problem(&error, &context.request_id), Some(error.code())),
        };
        if context.is_get {
            // A refusal never comes from the cache.
            response.headers_mut().entry(X_CACHE).or_insert(HeaderValue::from_static(Source::Bypass.as_str()));
        }
        let cache = response.headers().get(X_CACHE).and_then(|value| value.to_str().ok());
        let (route, status) = (context.route.as_str(), response.status().as_u16());
        invocation.summarise(&Outcome { route, status, code, cache });
        response
    })
    .await
}

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// What is needed of a request after its handler has taken it.
struct Context {
    request_id: String,
    function_request_id: String,
    xray_trace_id: Option<String>,
    route: String,
    is_get: bool,
    if_none_match: Option<String>,
    coding: Coding,
}

impl Context {
    fn of(request: &Request) -> Self {
        let id = match request.request_context_ref() {
            Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone(),
            _ => None,
        };
        let lambda = request.lambda_context_ref();
        let id = id.unwrap_or_default();
        Self {
            function_request_id: lambda.map_or_else(|| id.clone(), |lambda| lambda.request_id.clone()),
            xray_trace_id: lambda.and_then(|lambda| lambda.xray_trace_id.clone()),
            request_id: id,
            route: route(request).to_owned(),
            is_get: request.method() == Method::GET,
            if_none_match: header_text(request, &header::IF_NONE_MATCH).map(str::to_owned),
            coding: coding(request),
        }
    }
}

impl Context {
    /// The tag of the copy that the client has, if it is a copy of this answer, compressed or not.
    fn known_copy(&self, response: &Response) -> Option<HeaderValue> {
        let known = self.if_none_match.as_deref().filter(|_| self.is_get && response.status() == StatusCode::OK)?;
        let sent = response.headers().get(header::ETAG)?;
        let variants = [plain_etag(sent), Some(sent.clone()), compressed_etag(sent)];
        // A weak tag names as good a copy, and `*` any.
        let names = |etag: &HeaderValue| {
            known
                .split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"))
                .any(|tag| tag == "*" || tag.as_bytes() == etag)
        };
        variants.into_iter().flatten().find(names)
    }
}

/// The tag of the same answer, compressed: a strong tag names bytes.
fn compressed_etag(plain: &HeaderValue) -> Option<HeaderValue> {
    let plain = plain.to_str().ok()?.strip_suffix('"')?;
    HeaderValue::from_str(&format!("{plain}-gzip\"")).ok()
}

/// The tag of what was compressed.
fn plain_etag(compressed: &HeaderValue) -> Option<HeaderValue> {
    let plain = compressed.to_str().ok()?.strip_suffix("-gzip\"")?;
    HeaderValue::from_str(&format!("{plain}\"")).ok()
}

/// 304: the headers of the answer, but not its body.
fn not_modified(mut response: Response, etag: HeaderValue) -> Response {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = Body::Empty;
    // A cache may take these for what is said of its own copy, which the plain tag may name.
    response.headers_mut().remove(header::CONTENT_TYPE);
    response.headers_mut().remove(header::CONTENT_ENCODING);
    response.headers_mut().insert(header::ETAG, etag);
    response
}

/// The route by which the gateway sent the request here, such as `GET /courses/{courseId}`.
pub fn route(request: &Request) -> &str {
    match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.route_key.as_deref().unwrap_or_default(),
        _ => "",
    }
}

/// An id in the path. A malformed one names nothing that exists.
pub fn path_id(request: &Request, name: &str, missing: Reason) -> std::result::Result<Uuid, Error> {
    let text = request.path_parameters_ref().and_then(|parameters| parameters.first(name));
    text.and_then(ids::parse).ok_or(Error::NotFound(missing))
}

/// A user id in the path, which may hold any character.
///
/// API Gateway decodes the path before it looks for a route: a slash has to be encoded twice to stay in its place, and
/// whoever encodes everything twice is always understood. What is taken for encoded is only what an encoder makes; any
/// other text, such as one with a bare `%`, was encoded once and stands there as it is.
pub fn path_user(request: &Request, name: &str) -> std::result::Result<String, Error> {
    let text = request.path_parameters_ref().and_then(|parameters| parameters.first(name)).unwrap_or_default();
    let user = decode_once_more(text).unwrap_or_else(|| text.to_owned());
    if !is_user(&user) {
        return Err(Error::invalid(reason::INVALID_USER_ID, name, "must have 1 to 255 characters and no controls"));
    }
    Ok(user)
}

/// A user id as a segment of a path; see [`path_user`].
pub fn user_segment(user: &str) -> String {
    let once = match user {
        // A client takes them for a way up, encoded once too.
        "." | ".." => user.replace('.', "%2E"),
        _ => utf8_percent_encode(user, RESERVED).to_string(),
    };
    utf8_percent_encode(&once, RESERVED).to_string()
}

/// What percent-encoding leaves as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn decode_once_more(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_good = match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let byte = u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?;
                digits.iter().all(u8::is_ascii_hexdigit)
                    && !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~'))
            }
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte),
        };
        if !is_good {
            return None;
        }
    }
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

/// A query parameter; an empty one counts as absent.
pub fn query<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.query_string_parameters_ref().and_then(|query| query.first(name)).filter(|value| !value.is_empty())
}

/// A header as text.
pub fn header_text<'a>(request: &'a Request, name: &HeaderName) -> Option<&'a str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

/// The format that the `Accept` header asks for. JSON, unless it wants CSV more.
pub fn format(request: &Request) -> Format {
    let accept = header_text(request, &header::ACCEPT).unwrap_or_default();
    if preference(accept, "text/csv") > preference(accept, "application/json") { Format::Csv } else { Format::Json }
}

/// What a parameter of an `Accept` or an `Accept-Encoding` says after `q=`, if it is that one.
fn weight(parameter: &str) -> Option<&str> {
    parameter.strip_prefix(['q', 'Q'])?.strip_prefix('=')
}

/// How much an `Accept` wants a media type, from 0 to 1: what it says of the type counts before what it says of the types
/// of its kind, and that before what it says of all. A weight that is none counts nothing, and so do other parameters.
fn preference(accept: &str, media_type: &str) -> f32 {
    let kind = media_type.split('/').next().unwrap_or_default();
    let of_range = |wanted: &str| {
        unquoted(accept, ',').find_map(|range| {
            let mut parts = unquoted(range, ';').map(str::trim);
            let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
            let weight = parts.find_map(weight);
            let weight = weight.map_or(Some(1.0), |weight| weight.parse().ok().filter(|w| (0.0..=1.0).contains(w)));
            weight.filter(|_| is_named)
        })
    };
    of_range(media_type).or_else(|| of_range(&format!("{kind}/*"))).or_else(|| of_range("*/*")).unwrap_or(0.0)
}

/// The parts of a header's value between separators that do not stand in a quoted string.
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut in_quotes, mut escaped) = (false, false);
    text.split(move |character| {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = in_quotes,
            '"' => in_quotes = !in_quotes,
            _ => {}
        }
        character == separator && !in_quotes
    })
}

/// The `Idempotency-Key` header: 1 to 255 visible ASCII characters.
pub fn idempotency_key(request: &Request) -> std::result::Result<Option<&str>, Error> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    let key =
        value.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()));
    key.map(Some).ok_or_else(|| Error::invalid_header("Idempotency-Key", "must be 1 to 255 visible ASCII characters"))
}

/// The `Idempotency-Key` header of a request that makes something; `hint` says what a key is for.
pub fn required_idempotency_key<'a>(request: &'a Request, hint: &str) -> std::result::Result<&'a str, Error> {
    let missing = || Error::invalid_header("Idempotency-Key", format!("is required: {hint}"));
    idempotency_key(request)?.ok_or_else(missing)
}

/// The version that `If-Match: "v<n>"` names.
pub fn if_match(request: &Request) -> std::result::Result<Option<i64>, Error> {
    let Some(value) = request.headers().get(header::IF_MATCH) else { return Ok(None) };
    let version = value
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("\"v")?.strip_suffix('"'))
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok());
    version.map(Some).ok_or_else(|| Error::invalid_header("If-Match", "must be \"v<n>\", n being the course's version"))
}

/// The bytes of a JSON body, checked for type and size.
pub fn json_bytes(request: &Request) -> std::result::Result<&[u8], Error> {
    let media_type = header_text(request, &header::CONTENT_TYPE).unwrap_or_default();
    if !media_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Error::UnsupportedMediaType);
    }
    let bytes = request.body().as_ref();
    if bytes.len() > MOST_BYTES {
        return Err(Error::TooLarge(reason::REQUEST_TOO_LARGE));
    }
    Ok(bytes)
}

/// The JSON body of a request whose bytes nobody else needs; see [`json_bytes`] and [`parse_json`].
pub fn json_body(request: &Request, most_values: usize) -> std::result::Result<Value, Error> {
    parse_json(json_bytes(request)?, most_values)
}

/// Parses bytes as JSON, unless they hold more values than the route could use: as a tree, each takes hundreds of bytes,
/// and four megabytes of small ones more memory than a function has.
pub fn parse_json(bytes: &[u8], most_values: usize) -> std::result::Result<Value, Error> {
    let malformed = |error: serde_json::Error| {
        let detail = format!("is not JSON at line {}, column {}", error.line(), error.column());
        Error::invalid(reason::MALFORMED_JSON, "", detail)
    };
    // Each value takes a byte at least.
    if bytes.len() > most_values && json_values_at_most(bytes) > most_values {
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(malformed)?;
        return Err(Error::TooLarge(reason::TOO_MANY_VALUES));
    }
    json_value(bytes).map_err(malformed)
}

/// 200 with a document that was read; for a page of a list with a link to the next.
pub fn found(request: &Request, audience: Audience, (document, source): (Document, Source)) -> Response {
    let etag = HeaderValue::from_str(&format!("\"{}\"", document.etag));
    let mut response = json_response(StatusCode::OK, String::new());
    response.headers_mut().extend(etag.ok().map(|etag| (header::ETAG, etag)));
    match document.body {
        Content::Text(text) => *response.body_mut() = Body::Text(text),
        Content::Gzip(bytes) => compress_to(&mut response, bytes),
    }
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(X_CACHE, HeaderValue::from_static(source.as_str()));
    if let Source::Stale(age) = source {
        headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    }
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static(match audience {
            // Browsers ask each time, so that teachers see their own changes; shared caches take the load.
            Audience::Everyone => "public, max-age=0, s-maxage=60",
            Audience::Caller => "private, no-cache",
        }),
    );
    if let Some(link) = document.next.and_then(|cursor| next_link(request, request.uri().path(), &cursor)) {
        headers.insert(header::LINK, link);
    }
    response
}

/// The same on a route that answers in more than one [`Format`].
pub fn found_as(request: &Request, audience: Audience, format: Format, found: (Document, Source)) -> Response {
    let mut response = self::found(request, audience, found);
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if format == Format::Csv {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    }
    response
}

/// 200 with a page of what is personal, which nobody may keep; `path` is its own, as a client writes it.
pub fn found_personal(request: &Request, path: &str, document: Document) -> Response {
    let link = document.next.as_deref().and_then(|cursor| next_link(request, path, cursor));
    let mut response = found(request, Audience::Caller, (Document { next: None, ..document }, Source::Bypass));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.extend(link.map(|link| (header::LINK, link)));
    response
}

/// An answer to a write.
pub fn done(status: StatusCode, body: String) -> Response {
    let mut response = json_response(status, body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 201 with `Location`; `Idempotent-Replayed` where it is the first answer again.
pub fn created(location: &str, body: String, replayed: bool) -> Response {
    let response = with_header(done(StatusCode::CREATED, body), header::LOCATION, location);
    if !replayed {
        return response;
    }
    telemetry::count(Metric::IdemReplay);
    with_header(response, HeaderName::from_static("idempotent-replayed"), "true")
}

/// 204.
pub fn no_content() -> Response {
    let mut response = HttpResponse::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Adds a header; a value that no header can hold is left out.
pub fn with_header(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

fn json_response(status: StatusCode, body: String) -> Response {
    let mut response = HttpResponse::new(Body::Text(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The same list with the same filters, from `cursor` on.
fn next_link(request: &Request, path: &str, cursor: &str) -> Option<HeaderValue> {
    let query = request.uri().query().unwrap_or_default();
    let is_cursor = |pair: &str| percent_decode_str(pair.split('=').next().unwrap_or_default()).eq(*b"cursor");
    let others = query.split('&').filter(|pair| !pair.is_empty() && !is_cursor(pair));
    let query: Vec<Cow<'_, str>> = others.map(Cow::Borrowed).chain([Cow::Owned(format!("cursor={cursor}"))]).collect();
    HeaderValue::from_str(&format!("<{path}?{}>; rel=\"next\"", query.join("&"))).ok()
}

/// Compresses where that is wanted and pays, and refuses what Lambda could not pass on.
fn fit(mut response: Response, coding: Coding) -> Result {
    let is_packed = response.headers().contains_key(header::CONTENT_ENCODING);
    if !is_packed && gzip::is_worth_it(response.body()) {
        response.headers_mut().entry(header::VARY).or_insert(HeaderValue::from_static("accept-encoding"));
        if coding == Coding::Gzip
            && let Some(packed) = gzip::compress_if_smaller(response.body())
        {
            compress_to(&mut response, packed);
        }
    }
    let size = AsRef::<[u8]>::as_ref(response.body()).len();
    if size > MOST_BYTES {
        return Err(Error::TooLarge(reason::ANSWER_TOO_LARGE));
    }
    if size > MOST_ESCAPED {
        // As text, quotes and line breaks are escaped once more for Lambda and may double it; base64 adds a third.
        let body = match std::mem::take(response.body_mut()) {
            Body::Text(text) => Body::Binary(text.into_bytes()),
            other => other,
        };
        *response.body_mut() = body;
    }
    Ok(response)
}

/// The same answer, as it was compressed.
fn compress_to(response: &mut Response, packed: Vec<u8>) {
    *response.body_mut() = Body::Binary(packed);
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    if let Some(etag) = response.headers().get(header::ETAG).and_then(compressed_etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
}

/// What the client takes.
pub fn coding(request: &Request) -> Coding {
    let takes_gzip = header_text(request, &header::ACCEPT_ENCODING).is_some_and(accepts_gzip);
    if takes_gzip { Coding::Gzip } else { Coding::Identity }
}

/// Whether an `Accept-Encoding` takes gzip: what it says of gzip counts before what it says of everything.
fn accepts_gzip(accept: &str) -> bool {
    let taken = |wanted: &str| {
        accept.split(',').find_map(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
            let quality = parts.find_map(|part| weight(part)?.trim().parse::<f32>().ok());
            named.then(|| quality.unwrap_or(1.0) > 0.0)
        })
    };
    taken("gzip").or_else(|| taken("*")).unwrap_or(false)
}

/// Every error with its status and what it tells the client, as a table in Markdown.
pub fn catalogue() -> String {
    let mut errors = Documented::all();
    errors.sort_by_key(|Documented { error, .. }| status(error).0);
    let rows = errors.iter().map(|Documented { error, when }| {
        format!("| {} | `{}` | {} | {} |\n", status(error).0.as_u16(), error.code(), when.trim(), detail(error))
    });
    "| status | `code` | when | `detail` |\n|---|---|---|---|\n".to_owned() + &rows.collect::<String>()
}

/// An error as RFC 9457 `application/problem+json`. Failures of ours are logged here, once, with their causes.
fn problem(error: &Error, request_id: &str) -> Response {
    let (status, title) = status(error);
    if status.is_server_error() {
        tracing::error!(code = error.code(), error = telemetry::chain(error), "request failed");
    }
    let faults: &[Fault] = if let Error::Invalid { faults, .. } = error { faults } else { &[] };
    let mut body = json!({
        "type": format!("urn:lectern:problem:{}", error.code()),
        "title": title,
        "status": status.as_u16(),
        "code": error.code(),
        "detail": detail(error),
        "requestId": request_id,
        "errors": faults,
    });
    if let Error::Stale { current, changes } = error {
        body["currentVersion"] = (*current).into();
        body["changes"] = changes.as_slice().into();
    }
    let mut response = HttpResponse::new(Body::Text(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match error {
        Error::Unavailable { .. } => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        Error::RateLimited { wait } => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(*wait)));
        }
        Error::Unauthenticated(_) => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    response
}

/// As `Retry-After` counts: whoever waits for so long has waited long enough.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn status(error: &Error) -> (StatusCode, &'static str) {
    match error {
        Error::Invalid { .. } => (StatusCode::BAD_REQUEST, "Bad request"),
        Error::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "Not authenticated"),
        Error::Forbidden(_) => (StatusCode::FORBIDDEN, "Forbidden"),
        Error::NotFound(_) => (StatusCode::NOT_FOUND, "Not found"),
        Error::Conflict(_) => (StatusCode::CONFLICT, "Conflict"),
        Error::Stale { .. } => (StatusCode::PRECONDITION_FAILED, "Changed meanwhile"),
        Error::IfMatchRequired => (StatusCode::PRECONDITION_REQUIRED, "If-Match required"),
        Error::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "Too large"),
        Error::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type"),
        Error::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "Idempotency key reused"),
        Error::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
        Error::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
        Error::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    }
}

/// The sentence for the client. Nothing of an inner error gets into it.
fn detail(error: &Error) -> Cow<'static, str> {
    match error {
        Error::Invalid { reason, .. }
        | Error::Unauthenticated(reason)
        | Error::Forbidden(reason)
        | Error::NotFound(reason)
        | Error::Conflict(reason)
        | Error::TooLarge(reason) => reason.detail.into(),
        Error::Stale { current, .. } => {
            format!("The course is at version {current} now. Read it again, and send `If-Match: \"v{current}\"`.")
                .into()
        }
        Error::IfMatchRequired => {
            "Send `If-Match: \"v<n>\"`, n being the `version` of the course that you read.".into()
        }
        Error::UnsupportedMediaType => "Send the body as `Content-Type: application/json`.".into(),
        Error::KeyReused => {
            "This `Idempotency-Key` was used with another body. Make a new key for a new request.".into()
        }
        Error::RateLimited { wait } => format!(
            "You have sent too many writes, and this one did nothing. Send it again in {} s, and put more into each \
             where the route takes a list.",
            whole_seconds(*wait)
        )
        .into(),
        Error::Unavailable { .. } => {
            "The service is not available right now. Send the same request again in a moment.".into()
        }
        Error::Internal { .. } => {
            "Something went wrong on our side. Tell us the `requestId` if it happens again.".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(response: &Response) -> Value {
        serde_json::from_slice(response.body().as_ref()).unwrap()
    }

    #[test]
    fn a_gateways_event_becomes_a_request_with_all_that_handlers_ask_for() {
        let event = json!({
            "version": "2.0", "routeKey": "POST /courses/{courseId}/lessons", "rawPath": "/courses/x/lessons",
            "rawQueryString": "limit=2&q=a%20b",
            "headers": {"content-type": "application/json", "idempotency-key": "key"},
            "queryStringParameters": {"limit": "2", "q": "a b"}, "pathParameters": {"courseId": "x"},
            "requestContext": {
                "http": {"method": "POST", "path": "/courses/x/lessons", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
                "authorizer": {"jwt": {"claims": {"sub": "ada"}, "scopes": null}},
                "requestId": "id-1", "routeKey": "POST /courses/{courseId}/lessons",
            },
            "body": "{\"a\":1}", "isBase64Encoded": false,
        });
        let Event(event) = serde_json::from_value(event).unwrap();
        let request = Request::from(LambdaRequest::ApiGatewayV2(event));
        assert_eq!((request.method(), route(&request)), (&Method::POST, "POST /courses/{courseId}/lessons"));
        assert_eq!((query(&request, "limit"), query(&request, "q")), (Some("2"), Some("a b")));
        assert_eq!(idempotency_key(&request).unwrap(), Some("key"));
        assert_eq!(request.body().as_ref(), br#"{"a":1}"#);
        assert!(serde_json::from_value::<Event>(json!({"routeKey": 7})).is_err());
    }

    #[test]
    fn an_answer_is_written_as_the_gateway_reads_it() {
        let reply = |response| serde_json::to_value(Reply(response)).unwrap();
        let text =
            with_header(json_response(StatusCode::CREATED, "{\"ü\":\"\"}".into()), header::LOCATION, "/courses/1");
        let headers = json!({"content-type": "application/json", "location": "/courses/1"});
        let body = "{\"ü\":\"\"}";
        let expected = json!({"statusCode": 201, "headers": headers, "body": body, "isBase64Encoded": false});
        assert_eq!(reply(text), expected);
        let expected = json!({"statusCode": 200, "headers": {}, "body": "AAH/", "isBase64Encoded": true});
        assert_eq!(reply(HttpResponse::new(Body::Binary(vec![0, 1, 255]))), expected);
        let expected = json!({"statusCode": 204, "headers": {}, "body": "", "isBase64Encoded": false});
        assert_eq!(reply(no_content()), expected);
    }

    #[test]
    fn a_problem_tells_the_client_what_to_do_and_nothing_of_our_insides() {
        let error = Error::internal("reading a column", "password=secret");
        let response = problem(&error, "id-1");
        let body = body(&response);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            (&body["code"], &body["requestId"], &body["status"]),
            (&"internal".into(), &"id-1".into(), &500.into())
        );
        assert!(!body.to_string().contains("secret"));
    }

    #[test]
    fn what_is_unavailable_says_when_to_come_back() {
        let response = problem(&Error::Unavailable { context: "PostgreSQL", source: None }, "");
        assert_eq!(response.headers()[header::RETRY_AFTER], RETRY_AFTER);
    }

    #[test]
    fn gzip_is_used_where_it_is_taken_and_pays() {
        for (accept, taken) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; Q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0, gzip", true),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(accept), taken, "{accept}");
        }
        let long = json_response(StatusCode::OK, "x".repeat(5_000));
        let long = fit(long, Coding::Gzip).unwrap();
        assert_eq!(long.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(long.headers()[header::VARY], "accept-encoding");
        let short = fit(json_response(StatusCode::OK, "{}".into()), Coding::Gzip).unwrap();
        assert!(!short.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[test]
    fn csv_is_for_those_who_want_it_more_than_json() {
        for (accept, is_csv) in [
            ("", false),
            ("*/*", false),
            ("application/json", false),
            ("text/html, image/*", false),
            ("text/csv", true),
            ("TEXT/CSV; charset=utf-8", true),
            ("text/*", true),
            ("text/csv, application/json", false),
            ("text/csv, */*", false),
            ("text/csv, */*;q=0.1", true),
            ("application/json;q=0.5, text/csv;q=0.6", true),
            ("application/json;q=0.6,text/csv;Q=0.5", false),
            ("text/*;q=0.9, text/csv;q=0.1, application/*;q=0.2", false),
            ("application/json;q=0, */*", true),
            ("text/csv;q=0", false),
            ("text/csv;q=0.000, text/*", false),
            ("text/csv;q=much, text/html", false),
            ("text/csv;q=2", false),
            ("text/csv;q=NaN", false),
            ("text/csvx", false),
            ("text/plain;note=\"a,text/csv,b\"", false),
            ("text/plain;note=\"a\\\",text/csv\"", false),
            ("text/csv;note=\"a,b;q=0\";q=0.7", true),
            (", ,text/csv,", true),
        ] {
            let wants_csv = preference(accept, "text/csv") > preference(accept, "application/json");
            assert_eq!(wants_csv, is_csv, "{accept}");
        }
    }

    #[test]
    fn a_query_is_made_fit_for_a_uri() {
        for (query, escaped) in [("q=a%20b&limit=1", "q=a%20b&limit=1"), ("q=<\"> é", "q=%3C%22%3E%20%C3%A9")] {
            let mut text = Some(query.to_owned());
            escape_query(&mut text);
            assert_eq!(text.as_deref(), Some(escaped));
        }
    }

    #[test]
    fn a_user_id_survives_a_path_whatever_it_holds() {
        for user in ["ada", "a/b", "100%", "%41", "a%2Fb", "é 🦀", "a+b", "auth0|5", "o'neil\"?#&=;", "..", "%", "%%25"]
        {
            let segment = user_segment(user);
            assert!(segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)), "{segment}");
            let after_gateway = percent_decode_str(&segment).decode_utf8().unwrap();
            assert_eq!(decode_once_more(&after_gateway).as_deref(), Some(user));
        }
        // Encoded once, and not to be taken for something else.
        for text in ["100%", "a%zz", "%41", "é%2F", "a b%20", "%ff", "a\"%22", "%2"] {
            assert_eq!(decode_once_more(text), None, "{text}");
        }
        assert_eq!(decode_once_more("auth0:5+x@y").as_deref(), Some("auth0:5+x@y"));
    }

    #[test]
    fn a_body_of_more_values_than_a_route_could_use_is_not_read() {
        assert!(matches!(parse_json(b"[1,2,3]", 3), Err(Error::TooLarge(_))));
        assert!(parse_json(b"[1,2,3]", 5).is_ok());
    }

    #[test]
    fn an_answer_that_lambda_could_not_pass_on_is_refused() {
        let large = || json_response(StatusCode::OK, "x".repeat(MOST_BYTES + 1));
        assert!(matches!(fit(large(), Coding::Identity), Err(Error::TooLarge(_))));
        assert!(fit(large(), Coding::Gzip).is_ok());
    }
}
