//! A good request for every route of the template, and what every refusal looks like.

use local::template::{Route, Template};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Caller, Course, Lectern, course_body, event};

/// Every route there is.
pub(crate) fn routes() -> Vec<Route> {
    let template =
        Template::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../template.yaml").as_ref()).expect("a template");
    template.functions.into_iter().flat_map(|function| function.routes).collect()
}

/// A route's path for a course; its first lesson and section stand for the others, and its own id for a submission that
/// does not exist.
pub(crate) fn path(route: &Route, course: &Course) -> String {
    let path = route
        .path
        .replace("{courseId}", &course.id)
        .replace("{lessonId}", course.lessons.first().map_or("", String::as_str))
        .replace("{sectionId}", course.sections.first().map_or("", String::as_str))
        .replace("{submissionId}", &course.id)
        .replace("{userId}", "lena");
    assert!(!path.contains('{'), "what does {path} name?");
    path
}

/// A body that a route takes; `None` where it takes none.
pub(crate) fn good_body(route: &Route, course: &Course) -> Option<Value> {
    match route.key().as_str() {
        "POST /courses" => Some(course_body("Another", &[1], true)),
        "PATCH /courses/{courseId}" => Some(json!({"title": "Changed"})),
        "PUT /courses/{courseId}/content" => {
            let section = json!({"id": course.sections[0], "title": "Changed", "type": "text", "order": 7});
            Some(json!({"lessons": [{"id": course.lessons[0], "title": "L", "order": 2, "sections": [section]}]}))
        }
        "POST /courses/{courseId}/lessons" => {
            Some(json!({"lessons": [{"title": "Another", "order": 1_000, "sections": []}]}))
        }
        "POST /courses/{courseId}/enrollments" => Some(json!({"enrollments": [{"userId": "zoe"}]})),
        "POST /progress" => Some(json!({"events": [event(&course.sections[0], 1, false)]})),
        "PUT /courses/{courseId}/enrollment" => None,
        other if other.starts_with("GET ") || other.starts_with("DELETE ") => None,
        other => panic!("what does {other} take?"),
    }
}

/// A request in which nothing is wrong but, perhaps, who sends it and what it names.
pub(crate) fn ready(caller: &Caller<'_>, route: &Route, course: &Course) -> RequestBuilder {
    let request = caller.request(route.method.clone(), &path(route, course));
    match good_body(route, course) {
        None => request,
        Some(body) if [Method::PATCH, Method::PUT].contains(&route.method) => {
            request.header("if-match", "\"v1\"").json(&body)
        }
        Some(body) if route.path == "/courses" || route.path.ends_with("/lessons") => {
            request.header("idempotency-key", Uuid::now_v7().to_string()).json(&body)
        }
        Some(body) => request.json(&body),
    }
}

/// Whether the path names something that may not exist; a learner of whom nothing is known is not missing.
pub(crate) fn names_a_thing(route: &Route) -> bool {
    route.path.contains('{') && !route.path.contains("{userId}")
}

pub(crate) fn not_found_code(route: &Route) -> &'static str {
    if route.path.contains("{courseId}") {
        "course_not_found"
    } else if route.path.contains("{lessonId}") {
        "lesson_not_found"
    } else if route.path.contains("{submissionId}") {
        "submission_not_found"
    } else {
        "section_not_found"
    }
}

/// The problem of a refusal, after a look that it tells nothing of our insides.
#[track_caller]
pub(crate) fn refused(answer: &Answer, status: u16, code: &str) -> Value {
    let problem = answer.problem(status, code);
    assert_eq!(problem["type"], format!("urn:lectern:problem:{code}"));
    assert!(problem["requestId"].as_str().is_some_and(|id| !id.is_empty()), "{problem}");
    assert_eq!(answer.header("cache-control"), "no-store");
    problem
}

#[track_caller]
pub(crate) fn refused_by_gateway(answer: &Answer, what: &str) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}: {}", answer.text);
    assert_eq!(answer.text, r#"{"message":"Unauthorized"}"#, "{what}");
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
    assert!(answer.header("www-authenticate").starts_with("Bearer"), "{what}");
}

/// Everything that the database holds: a line for each table, with the number of its rows and a hash of them.
pub(crate) async fn contents(lectern: &Lectern) -> String {
    let tables = "select string_agg(table_name, ' ' order by table_name)
        from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'";
    let tables = lectern.fetch(tables).await;
    let lines: Vec<String> = tables
        .split(' ')
        .map(|table| {
            format!("(select '{table} ' || count(*) || ' ' || md5(coalesce(string_agg(t::text, ' ' order by t::text), '')) from {table} t)")
        })
        .collect();
    lectern.fetch(&lines.join(" || e'\\n' || ")).await
}

/// Without padding, as tokens and cursors are written.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0, |word, index| word << 8 | usize::from(chunk.get(index).copied().unwrap_or_default()));
        text.extend((0..=chunk.len()).map(|index| char::from(DIGITS[word >> (18 - 6 * index) & 63])));
    }
    text
}
