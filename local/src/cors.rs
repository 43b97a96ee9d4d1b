//! What an HTTP API does for pages of other origins: it answers preflights by itself, and it owns the CORS headers of
//! every other answer, whatever the function says.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::template::Cors;

/// Whether a request asks if another may be sent.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers of a preflight's answer; without any of them, a browser does not send the request.
pub(crate) fn preflight_headers(cors: &Cors, request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(origin) = allowed_origin(cors, request) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        insert_list(&mut headers, ACCESS_CONTROL_ALLOW_METHODS, &cors.allow_methods);
        insert_list(&mut headers, ACCESS_CONTROL_ALLOW_HEADERS, &cors.allow_headers);
        insert_list(&mut headers, ACCESS_CONTROL_EXPOSE_HEADERS, &cors.expose_headers);
        if let Some(seconds) = cors.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(seconds));
        }
    }
    headers
}

/// Replaces the CORS headers of an answer by the gateway's own.
pub(crate) fn apply(cors: &Cors, request: &HeaderMap, answer: &mut HeaderMap) {
    let of_function: Vec<HeaderName> =
        answer.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in of_function {
        answer.remove(name);
    }
    if let Some(origin) = allowed_origin(cors, request) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        insert_list(answer, ACCESS_CONTROL_EXPOSE_HEADERS, &cors.expose_headers);
    }
}

fn allowed_origin(cors: &Cors, request: &HeaderMap) -> Option<HeaderValue> {
    let origin = request.get(ORIGIN)?;
    if cors.allow_origins.iter().any(|allowed| allowed == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    cors.allow_origins.iter().any(|allowed| origin == allowed.as_str()).then(|| origin.clone())
}

fn insert_list(headers: &mut HeaderMap, name: HeaderName, list: &[String]) {
    if let Ok(value) = HeaderValue::try_from(list.join(","))
        && !list.is_empty()
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origin: &str) -> Cors {
        Cors {
            allow_origins: vec![origin.to_owned()],
            allow_methods: vec!["GET".to_owned(), "PUT".to_owned()],
            allow_headers: vec!["Authorization".to_owned()],
            expose_headers: vec!["ETag".to_owned()],
            max_age: Some(60),
        }
    }

    fn from(origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_str(origin).expect("a header"));
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"));
        headers
    }

    #[test]
    fn an_allowed_origin_learns_what_it_may_send() {
        let headers = preflight_headers(&cors("https://lms.example"), &from("https://lms.example"));
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://lms.example");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET,PUT");
        assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "60");
    }

    #[test]
    fn another_origin_learns_nothing() {
        assert!(preflight_headers(&cors("https://lms.example"), &from("https://evil.example")).is_empty());
    }

    #[test]
    fn the_gateways_headers_replace_the_functions() {
        let mut answer = HeaderMap::new();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://other.example"));
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("TRACE"));
        apply(&cors("*"), &from("https://lms.example"), &mut answer);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "ETag");
        assert_eq!(answer.get(ACCESS_CONTROL_ALLOW_METHODS), None);
    }

    #[test]
    fn a_request_of_no_origin_gets_no_cors_headers() {
        let mut answer = HeaderMap::new();
        apply(&cors("*"), &HeaderMap::new(), &mut answer);
        assert!(answer.is_empty());
        assert!(!is_preflight(&Method::OPTIONS, &HeaderMap::new()));
    }
}
