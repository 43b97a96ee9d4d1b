//! Who may do what: every route against every kind of caller, in tables that a new route does not get around; tokens that
//! must not pass; and ways around the routes.
//!
//! What bad bodies, headers and parameters come to is told in `hostile`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
};

use chrono::{TimeDelta, Utc};
use local::{
    authorizer::{Claims, Grant, SigningKey},
    template::Route,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::ids;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use crate::{
    requests::{base64url, contents, not_found_code, ready, refused, refused_by_gateway, routes},
    round_trips::address,
    support::{Answer, Caller, Course, Lectern, event},
};

// ---- Every route, every caller --------------------------------------------------------------------------------------

/// The columns of the tables.
const CALLERS: [Who; 10] = [
    Who::Nobody,
    Who::BadToken,
    Who::IdToken,
    Who::Learner,
    Who::Enrolled,
    Who::Cancelled,
    Who::OtherTeacher,
    Who::Owner,
    Who::Service,
    Who::Admin,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Without a token.
    Nobody,
    /// With one that the gateway refuses: garbage, expired, of another key, audience or issuer, `alg: none` …
    BadToken,
    /// With one that is good, but for something else: an id token, one without a usable subject.
    IdToken,
    /// Never enrolled.
    Learner,
    Enrolled,
    /// Enrolled once.
    Cancelled,
    /// An instructor, of other courses.
    OtherTeacher,
    Owner,
    Service,
    /// Who is no instructor.
    Admin,
}

/// What each route answers about a published course.
#[rustfmt::skip]
const PUBLISHED: [(&str, [u16; 10]); 23] = [
    //                                           none bad  id   learn enrol canc teach owner serv admin
    ("GET /courses",                            [200, 200, 200, 200,  200,  200, 200,  200,  200, 200]),
    ("GET /courses/{courseId}",                 [200, 200, 200, 200,  200,  200, 200,  200,  200, 200]),
    ("GET /me/courses/{courseId}",              [401, 401, 401, 200,  200,  200, 200,  200,  200, 200]),
    ("GET /me/courses",                         [401, 401, 401, 200,  200,  200, 200,  200,  200, 200]),
    ("GET /me/authored-courses",                [401, 401, 401, 403,  403,  403, 200,  200,  403, 403]),
    ("GET /sections/{sectionId}",               [401, 401, 401, 403,  200,  403, 403,  200,  403, 200]),
    ("POST /courses",                           [401, 401, 401, 403,  403,  403, 201,  201,  403, 403]),
    ("PATCH /courses/{courseId}",               [401, 401, 401, 403,  403,  403, 403,  200,  403, 200]),
    ("DELETE /courses/{courseId}",              [401, 401, 401, 403,  403,  403, 403,  204,  403, 204]),
    ("PUT /courses/{courseId}/content",         [401, 401, 401, 403,  403,  403, 403,  200,  403, 200]),
    ("POST /courses/{courseId}/lessons",        [401, 401, 401, 403,  403,  403, 403,  201,  403, 201]),
    ("PUT /courses/{courseId}/enrollment",      [401, 401, 401, 201,  200,  200, 201,  201,  201, 201]),
    ("DELETE /courses/{courseId}/enrollment",   [401, 401, 401, 204,  204,  204, 204,  204,  204, 204]),
    ("GET /courses/{courseId}/enrollments",     [401, 401, 401, 403,  403,  403, 403,  200,  403, 200]),
    ("POST /courses/{courseId}/enrollments",    [401, 401, 401, 403,  403,  403, 403,  403,  200, 200]),
    // Each event is judged by itself; and a service has to say whose it is.
    ("POST /progress",                          [401, 401, 401, 200,  200,  200, 200,  200,  400, 200]),
    ("GET /courses/{courseId}/progress",        [401, 401, 401, 404,  200,  200, 404,  404,  404, 404]),
    ("DELETE /courses/{courseId}/progress",     [401, 401, 401, 404,  204,  204, 404,  404,  404, 404]),
    ("GET /lessons/{lessonId}/progress",        [401, 401, 401, 404,  200,  200, 404,  404,  404, 404]),
    // Nobody here has parked anything.
    ("GET /progress/submissions/{submissionId}",[401, 401, 401, 404,  404,  404, 404,  404,  404, 404]),
    ("GET /courses/{courseId}/analytics",       [401, 401, 401, 403,  403,  403, 403,  200,  403, 200]),
    ("GET /learners/{userId}/data",             [401, 401, 401, 403,  403,  403, 403,  403,  403, 200]),
    ("DELETE /learners/{userId}/data",          [401, 401, 401, 403,  403,  403, 403,  403,  403, 204]),
];

/// What is different while the course is a draft again, and learners are enrolled in it.
#[rustfmt::skip]
const DRAFT: [(&str, [u16; 10]); 15] = [
    //                                           none bad  id   learn enrol canc teach owner serv admin
    ("GET /courses/{courseId}",                 [404, 404, 404, 404,  404,  404, 404,  404,  404, 404]),
    ("GET /me/courses/{courseId}",              [401, 401, 401, 404,  404,  404, 404,  200,  404, 200]),
    ("GET /sections/{sectionId}",               [401, 401, 401, 404,  404,  404, 404,  200,  404, 200]),
    ("PATCH /courses/{courseId}",               [401, 401, 401, 404,  404,  404, 404,  200,  404, 200]),
    ("DELETE /courses/{courseId}",              [401, 401, 401, 404,  404,  404, 404,  204,  404, 204]),
    ("PUT /courses/{courseId}/content",         [401, 401, 401, 404,  404,  404, 404,  200,  404, 200]),
    ("POST /courses/{courseId}/lessons",        [401, 401, 401, 404,  404,  404, 404,  201,  404, 201]),
    ("PUT /courses/{courseId}/enrollment",      [401, 401, 401, 404,  404,  404, 404,  409,  404, 409]),
    // Whoever enrolled once may always leave.
    ("DELETE /courses/{courseId}/enrollment",   [401, 401, 401, 404,  204,  204, 404,  204,  404, 204]),
    ("GET /courses/{courseId}/enrollments",     [401, 401, 401, 404,  404,  404, 404,  200,  404, 200]),
    ("POST /courses/{courseId}/enrollments",    [401, 401, 401, 403,  403,  403, 403,  403,  200, 200]),
    ("GET /courses/{courseId}/progress",        [401, 401, 401, 404,  404,  404, 404,  404,  404, 404]),
    ("DELETE /courses/{courseId}/progress",     [401, 401, 401, 404,  404,  404, 404,  404,  404, 404]),
    ("GET /lessons/{lessonId}/progress",        [401, 401, 401, 404,  404,  404, 404,  404,  404, 404]),
    ("GET /courses/{courseId}/analytics",       [401, 401, 401, 404,  404,  404, 404,  200,  404, 200]),
];

/// And once it is archived.
#[rustfmt::skip]
const ARCHIVED: [(&str, [u16; 10]); 15] = [
    //                                           none bad  id   learn enrol canc teach owner serv admin
    ("GET /courses/{courseId}",                 [404, 404, 404, 404,  404,  404, 404,  404,  404, 404]),
    ("GET /me/courses/{courseId}",              [401, 401, 401, 404,  200,  404, 404,  200,  404, 200]),
    ("GET /sections/{sectionId}",               [401, 401, 401, 404,  200,  404, 404,  200,  404, 200]),
    ("PATCH /courses/{courseId}",               [401, 401, 401, 404,  403,  404, 404,  200,  404, 200]),
    ("DELETE /courses/{courseId}",              [401, 401, 401, 404,  403,  404, 404,  204,  404, 204]),
    ("PUT /courses/{courseId}/content",         [401, 401, 401, 404,  403,  404, 404,  200,  404, 200]),
    ("POST /courses/{courseId}/lessons",        [401, 401, 401, 404,  403,  404, 404,  201,  404, 201]),
    ("PUT /courses/{courseId}/enrollment",      [401, 401, 401, 404,  200,  409, 404,  409,  404, 409]),
    ("DELETE /courses/{courseId}/enrollment",   [401, 401, 401, 404,  204,  204, 404,  204,  404, 204]),
    ("GET /courses/{courseId}/enrollments",     [401, 401, 401, 404,  403,  404, 404,  200,  404, 200]),
    ("POST /courses/{courseId}/enrollments",    [401, 401, 401, 403,  403,  403, 403,  403,  200, 200]),
    ("GET /courses/{courseId}/progress",        [401, 401, 401, 404,  200,  200, 404,  404,  404, 404]),
    ("DELETE /courses/{courseId}/progress",     [401, 401, 401, 404,  204,  204, 404,  404,  404, 404]),
    ("GET /lessons/{lessonId}/progress",        [401, 401, 401, 404,  200,  200, 404,  404,  404, 404]),
    ("GET /courses/{courseId}/analytics",       [401, 401, 401, 404,  403,  404, 404,  200,  404, 200]),
];

/// Names that no text of ours holds by chance.
const ENROLLED: &str = "erin-who-is-enrolled";
const CANCELLED: &str = "carl-who-cancelled";
const OWNER: &str = "olga-who-owns";

#[tokio::test]
async fn every_route_of_a_published_course_answers_every_caller_as_the_table_says() {
    check(&PUBLISHED, None).await;
}

#[tokio::test]
async fn every_route_of_a_draft_answers_every_caller_as_the_table_says() {
    check(&DRAFT, Some("draft")).await;
}

#[tokio::test]
async fn every_route_of_an_archived_course_answers_every_caller_as_the_table_says() {
    check(&ARCHIVED, Some("archived")).await;
}

/// Calls every route as everybody. Whoever is refused has changed nothing, and nobody is told of others who may not know.
async fn check(table: &[(&str, [u16; 10])], status: Option<&str>) {
    let lectern = Lectern::start().await;
    let routes: Vec<Route> = routes().into_iter().filter(|route| status.is_none() || names_a_course(route)).collect();
    let expected: BTreeMap<&str, [u16; 10]> = table.iter().copied().collect();
    let known: BTreeSet<String> = routes.iter().map(Route::key).collect();
    let described: BTreeSet<String> = expected.keys().map(|key| (*key).to_owned()).collect();
    assert_eq!(known, described, "say in the table who may call each route");

    let course = course(&lectern, status).await;
    let before = contents(&lectern).await;
    for route in &routes {
        for (who, status) in CALLERS.into_iter().zip(expected[route.key().as_str()]) {
            if status < 400 {
                continue;
            }
            for (name, caller) in who.callers(&lectern) {
                let answer = Answer::of(ready(&caller, route, &course)).await;
                let what = format!("{name}: {} {}", route.key(), answer.text);
                assert_eq!(answer.status.as_u16(), status, "{what}");
                match who {
                    Who::Nobody | Who::BadToken if status == 401 => refused_by_gateway(&answer, &what),
                    Who::IdToken if status == 401 => {
                        assert_eq!(answer.header("www-authenticate"), "Bearer", "{what}");
                        refused(&answer, 401, "invalid_token");
                    }
                    _ => {
                        let told = answer.expect(answer.status)["code"].as_str().unwrap_or_default().to_owned();
                        assert!(codes(route, status).contains(&told.as_str()), "{what}");
                        refused(&answer, status, &told);
                    }
                }
                tells_of_nobody(&answer, &what, who);
            }
        }
    }
    assert_eq!(contents(&lectern).await, before);

    for route in &routes {
        for (who, expected) in CALLERS.into_iter().zip(expected[route.key().as_str()]) {
            if expected >= 400 {
                continue;
            }
            for (name, caller) in who.callers(&lectern) {
                // A course of its own each time, where calls change it.
                let course =
                    if route.method == Method::GET { course.clone() } else { self::course(&lectern, status).await };
                let answer = Answer::of(ready(&caller, route, &course)).await;
                let what = format!("{name}: {} {}", route.key(), answer.text);
                assert_eq!(answer.status.as_u16(), expected, "{what}");
                tells_of_nobody(&answer, &what, who);
            }
        }
    }
}

impl Who {
    /// All of this kind, each with a name for the failure's message.
    fn callers(self, lectern: &Lectern) -> Vec<(String, Caller<'_>)> {
        let forger = || Forger::new(lectern);
        let bearers = |tokens: Vec<(&str, String)>| {
            tokens.into_iter().map(|(name, token)| (name.to_owned(), lectern.bearer(&token))).collect()
        };
        let caller = match self {
            Self::BadToken => return bearers(forger().refused_by_gateway()),
            Self::IdToken => return bearers(forger().refused_by_functions()),
            Self::Nobody => lectern.anyone(),
            Self::Learner => lectern.learner("another-learner"),
            Self::Enrolled => lectern.learner(ENROLLED),
            Self::Cancelled => lectern.learner(CANCELLED),
            Self::OtherTeacher => lectern.teacher("another-teacher"),
            Self::Owner => lectern.teacher(OWNER),
            Self::Service => lectern.service(),
            Self::Admin => lectern.caller("root", &["admin"]),
        };
        vec![(format!("{self:?}"), caller)]
    }

    /// What is their own business to know.
    fn may_know(self, name: &str) -> bool {
        match self {
            Self::Enrolled => name == ENROLLED,
            Self::Cancelled => name == CANCELLED,
            Self::Owner | Self::Admin => true,
            _ => false,
        }
    }
}

/// A course with a learner, one who was, and the progress of both; published, unless it is said what it became.
async fn course(lectern: &Lectern, status: Option<&str>) -> Course {
    let course = lectern.course(OWNER, &[1]).await;
    for name in [ENROLLED, CANCELLED] {
        let learner = lectern.learner(name);
        learner.enrol(&course).await.expect(StatusCode::CREATED);
        learner.record(&[event(&course.sections[0], 5, false)]).await.expect(StatusCode::OK);
    }
    let path = format!("/courses/{}", course.id);
    lectern.learner(CANCELLED).delete(&format!("{path}/enrollment")).await.expect(StatusCode::NO_CONTENT);
    if let Some(status) = status {
        // Without another version, which the requests name.
        lectern.sql(&format!("update courses set status = '{status}' where id = '{}'", course.id)).await;
    }
    course
}

fn names_a_course(route: &Route) -> bool {
    ["{courseId}", "{lessonId}", "{sectionId}"].iter().any(|name| route.path.contains(name))
}

/// The code of a refusal that is not about the token: for what is not there, and for where the caller is not enrolled.
fn codes(route: &Route, status: u16) -> [&'static str; 2] {
    match (status, route.key().as_str()) {
        (400, _) => ["invalid_body"; 2],
        (403, "GET /sections/{sectionId}") => ["not_enrolled"; 2],
        (403, "GET /me/authored-courses" | "POST /courses" | "POST /courses/{courseId}/enrollments") => {
            ["forbidden"; 2]
        }
        (403, key) if key.ends_with("/learners/{userId}/data") => ["forbidden"; 2],
        (403, _) => ["not_owner"; 2],
        (409, _) => ["not_published", "archived"],
        (_, key) if key.ends_with("/progress") => [not_found_code(route), "not_enrolled"],
        _ => [not_found_code(route); 2],
    }
}

/// An answer names no learner whom its reader does not teach, and not who owns a course.
#[track_caller]
fn tells_of_nobody(answer: &Answer, what: &str, who: Who) {
    for name in [ENROLLED, CANCELLED, OWNER] {
        assert!(who.may_know(name) || !answer.text.contains(name), "{what} names {name}");
    }
}

// ---- Tokens ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_token_stands_in_one_authorization_header() {
    let lectern = Lectern::start().await;
    let token = lectern.token(&Grant::new("ada", &["instructor"]));
    let ask = |values: &[String]| {
        let request = lectern.anyone().request(Method::GET, "/me/courses");
        Answer::of(values.iter().fold(request, |request, value| request.header("authorization", value)))
    };
    ask(&[format!("Bearer {token}")]).await.expect(StatusCode::OK);
    ask(&[format!("bearer {token}")]).await.expect(StatusCode::OK);
    for values in [
        vec![String::new()],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![format!("Basic {token}")],
        vec![format!("Bearer {token} {token}")],
        vec![format!("Bearer {token},")],
        vec![format!("Bearer {token}"), format!("Bearer {token}")],
        vec![format!("Bearer {}", "x".repeat(5_000))],
    ] {
        refused_by_gateway(&ask(&values).await, &values.concat());
    }
    let in_query = lectern.anyone().get(&format!("/me/courses?access_token={token}&authorization={token}")).await;
    refused_by_gateway(&in_query, "in the query");
}

#[tokio::test]
async fn roles_are_read_from_their_claims_alone() {
    let lectern = Lectern::start().await;
    let course = course(&lectern, None).await;
    let analytics = format!("/courses/{}/analytics", course.id);
    let enrollments = format!("/courses/{}/enrollments", course.id);
    let batch = json!({"enrollments": [{"userId": "zoe"}]});
    let before = contents(&lectern).await;
    let with = |name: &str, value: Value| {
        let mut claims = lectern.authorizer().claims(&Grant::new("eve", &[]), Utc::now());
        claims.insert(name.to_owned(), value);
        lectern.authorizer().key().sign(&claims).expect("a token")
    };
    for (name, value) in [
        ("cognito:groups", json!(["administrator", "Admin", "ADMIN"])),
        ("cognito:groups", json!(["x] [admin"])),
        ("cognito:groups", json!(["[admin]"])),
        ("cognito:groups", json!("x admin")),
        ("cognito:groups", json!(["instructor", "admin]"])),
        ("cognito:groups", json!({"admin": true})),
        ("groups", json!(["admin", "service"])),
        ("roles", json!(["admin"])),
        ("admin", json!(true)),
        ("scope", json!("lectern/services xlectern/service admin")),
        ("scope", json!("lectern/service,admin")),
        ("scp", json!(["lectern/service"])),
    ] {
        let caller = lectern.bearer(&with(name, value));
        refused(&caller.get(&analytics).await, 403, "not_owner");
        refused(&caller.post(&enrollments, &batch).await, 403, "forbidden");
    }
    assert_eq!(contents(&lectern).await, before);
    // What is meant to give a role does.
    lectern.bearer(&with("cognito:groups", json!(["staff", "admin"]))).get(&analytics).await.expect(StatusCode::OK);
    for (name, value) in [("cognito:groups", json!(["service"])), ("scope", json!("openid lectern/service"))] {
        lectern.bearer(&with(name, value)).post(&enrollments, &batch).await.expect(StatusCode::OK);
    }
}

// ---- Ways around ----------------------------------------------------------------------------------------------------

/// What a client's library would put right before it is sent.
async fn raw(server: &str, request: &str) -> String {
    let server: SocketAddr = address(server).parse().expect("an address");
    let mut stream = TcpStream::connect(server).await.expect("the server listens");
    stream.write_all(request.as_bytes()).await.expect("it takes the request");
    let mut answer = Vec::new();
    // A server that closes at once, with bytes of ours still unread, may reset the connection.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn no_way_of_writing_a_path_leads_past_its_authorization() {
    let lectern = Lectern::start().await;
    let course = course(&lectern, None).await;
    let (id, before) = (&course.id, contents(&lectern).await);
    let token = lectern.token(&Grant::new("another-learner", &[]));
    let secret = format!("/courses/{id}/analytics");
    for path in [
        secret.clone(),
        secret.replace('/', "%2F"),
        secret.replace('/', "%2f").replacen("%2f", "/", 1),
        secret.replace('/', "//"),
        secret.replace('/', "/./"),
        secret.replace('/', "/x/../"),
        secret.replace('/', "/%2e/"),
        format!("/courses/../courses/{id}/analytics"),
        format!("/courses%2f..%2fcourses%2f{id}%2fanalytics"),
        format!("{secret}/"),
        format!("{secret}/."),
        format!("{secret};x=y"),
        format!("{secret}%00"),
        format!("{secret}%20"),
        format!("{secret}%3Fx"),
        format!("{secret}#x"),
        format!("{secret}%0d%0aAuthorization:%20Bearer%20x"),
        format!("\\courses\\{id}\\analytics"),
        format!("http://127.0.0.1{secret}"),
        format!("/learners/{ENROLLED}/data"),
        format!("/me/courses/..%2f..%2flearners%2f{ENROLLED}%2fdata"),
        format!("/me/../learners/{ENROLLED}/data"),
        format!("/courses/{id}/../../learners/{ENROLLED}/data"),
        format!("/courses/{id}%2f..%2f..%2flearners%2f{ENROLLED}%2fdata"),
        "/_local/functions/refresh-analytics".to_owned(),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n",
            address(&lectern.url)
        );
        let answer = raw(&lectern.url, &request).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "403", "404", "405", "421"].contains(&status), "{path}: {answer}");
        for name in [ENROLLED, CANCELLED, OWNER, "totalEnrollments"] {
            assert!(!answer.contains(name), "{path}: {answer}");
        }
    }
    assert_eq!(contents(&lectern).await, before);
}

#[tokio::test]
async fn a_header_cannot_be_made_to_break_an_answer_or_to_name_another_caller() {
    let lectern = Lectern::start().await;
    let course = course(&lectern, None).await;
    let token = lectern.token(&Grant::new("another-learner", &[]));
    let host = address(&lectern.url);
    for header in [
        "X-Forwarded-User: root",
        "X-Amzn-Oidc-Identity: root",
        "X-Lectern-Sub: root\r\nX-Lectern-Groups: [admin]",
        "X-Original-Method: DELETE\r\nX-HTTP-Method-Override: DELETE",
        "X-Rewrite-URL: /learners/erin-who-is-enrolled/data",
        "If-None-Match: \"a\", *x\u{7f}",
        "Accept: text/csv;q=1\u{b}, */*",
        "Range: bytes=0-1",
        "Content-Length: 5\r\nContent-Length: 6",
        "X-Name: a\rSet-Cookie: b=c",
        "X-Name: a\nSet-Cookie: b=c",
        "X-Name: a\0b",
        "Bad Name: x",
        ": x",
    ] {
        let request = format!(
            "GET /courses/{}/analytics HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{header}\r\n\
             Connection: close\r\n\r\n",
            course.id
        );
        let answer = raw(&lectern.url, &request).await.to_lowercase();
        assert!(!answer.starts_with("http/1.1 2") && !answer.starts_with("http/1.1 5"), "{header:?}: {answer}");
        assert!(!answer.contains("set-cookie") && !answer.contains("totalenrollments"), "{header:?}: {answer}");
    }
    // What an answer repeats of a request stays one header.
    let answer = lectern.anyone().get("/courses?limit=1&x=%0d%0aSet-Cookie:%20b=c").await;
    answer.expect(StatusCode::OK);
    assert!(answer.headers.get("set-cookie").is_none());
}

#[tokio::test]
async fn a_name_that_stands_twice_in_a_body_speaks_for_nobody_else() {
    let lectern = Lectern::start().await;
    let course = course(&lectern, None).await;
    let learner = lectern.learner("another-learner");
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    let send = async |names: &str| {
        let body = format!(
            r#"{{"events":[{{"eventId":"{}","sectionId":"{}","timeSpent":1,"completed":true,{names}}}]}}"#,
            Uuid::now_v7(),
            course.sections[0]
        );
        Answer::of(learner.request(Method::POST, "/progress").header("content-type", "application/json").body(body))
            .await
    };
    let (own, other) = (r#""userId":"another-learner""#, format!(r#""userId":"{ENROLLED}""#));
    let before = lectern.fetch("select count(*) from progress_events where user_id <> 'another-learner'").await;
    refused(&send(&format!("{own},{other}")).await, 403, "foreign_user");
    refused(&send(&format!(r#"{own},"user\u0049d":"{ENROLLED}""#)).await, 403, "foreign_user");
    // The last one counts, for all that read it alike.
    assert_eq!(send(&format!("{other},{own}")).await.expect(StatusCode::OK)["recorded"], 1);
    let after = lectern.fetch("select count(*) from progress_events where user_id <> 'another-learner'").await;
    assert_eq!(after, before);
}

// ---- The threat model -----------------------------------------------------------------------------------------------

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("../docs/SECURITY.md")).expect("the threat model");
    let mut named = 0;
    for (module, test) in text.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")) {
        // Types have capitals, tests have none.
        if !test.contains(char::is_uppercase) {
            let code = fs::read_to_string(root.join(format!("it/{module}.rs"))).expect(module);
            assert!(code.contains(&format!("fn {test}(")), "{module}::{test}");
            named += 1;
        }
    }
    assert!(named > 10, "{named}");
}

// ---- Bad tokens -----------------------------------------------------------------------------------------------------

#[test]
fn the_forger_signs_as_well_as_anybody() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let signature = hmac_sha256(b"key", b"The quick brown fox jumps over the lazy dog");
    assert_eq!(hex(signature), "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8");
    assert_eq!(base64url(b"\xff\xfe\xfd\xfc\xfb"), "__79_Ps");
}

/// Makes tokens that must not pass.
struct Forger {
    claims: Claims,
    expired: String,
    good: String,
    key: SigningKey,
    other: SigningKey,
}

impl Forger {
    fn new(lectern: &Lectern) -> Self {
        // Somebody who might do everything, were the token good.
        let grant = Grant { scope: Some("lectern/service".to_owned()), ..Grant::new("ada", &["instructor", "admin"]) };
        let (authorizer, now) = (lectern.authorizer(), Utc::now());
        Self {
            claims: authorizer.claims(&grant, now),
            expired: authorizer.mint(&grant, now - TimeDelta::hours(2)).expect("a token"),
            good: authorizer.mint(&grant, now).expect("a token"),
            key: authorizer.key().clone(),
            other: SigningKey::generate().expect("a key"),
        }
    }

    fn with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims.insert(name.to_owned(), value);
        self.key.sign(&claims).expect("a token")
    }

    fn without(&self, name: &str) -> String {
        let mut claims = self.claims.clone();
        claims.remove(name);
        self.key.sign(&claims).expect("a token")
    }

    /// A token whose header names an algorithm of ours, signed as we like.
    fn forged(&self, algorithm: &str, claims: &Claims, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let header = json!({"typ": "JWT", "alg": algorithm, "kid": self.key.id()}).to_string();
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(json!(claims).to_string().as_bytes()));
        let signature = sign(signed.as_bytes());
        format!("{signed}.{}", base64url(&signature))
    }

    fn refused_by_gateway(&self) -> Vec<(&'static str, String)> {
        let later = Utc::now().timestamp() + 600;
        let part = |token: &str, index: usize| token.split('.').nth(index).expect("three parts").to_owned();
        let [header, payload, signature] = [0, 1, 2].map(|index| part(&self.good, index));
        let foreign = self.other.sign(&self.claims).expect("a token");
        let mut promoted = self.claims.clone();
        promoted.insert("sub".to_owned(), json!("root"));
        let promoted = base64url(json!(promoted).to_string().as_bytes());
        vec![
            ("garbage", "garbage".to_owned()),
            ("dots", "..".to_owned()),
            ("three parts of garbage", "a.b.c".to_owned()),
            ("expired", self.expired.clone()),
            ("never expiring", self.without("exp")),
            ("not yet", self.with("nbf", json!(later))),
            ("issued in the future", self.with("iat", json!(later))),
            ("expiry that is no number", self.with("exp", json!("2099-01-01"))),
            ("wrong audience", self.with("aud", json!("another"))),
            ("wrong audiences", self.with("aud", json!(["another", "lectern"]))),
            ("no audience", self.without("aud")),
            ("wrong issuer", self.with("iss", json!("https://lectern.localhost.example"))),
            ("no issuer", self.without("iss")),
            ("other key", foreign.clone()),
            ("other key under our name", format!("{header}.{payload}.{}", part(&foreign, 2))),
            ("changed claims", format!("{header}.{promoted}.{signature}")),
            ("cut signature", format!("{header}.{payload}.")),
            ("two parts", format!("{header}.{payload}")),
            ("alg none", self.forged("none", &self.claims, |_| Vec::new())),
            ("alg None", self.forged("None", &self.claims, |_| Vec::new())),
            (
                "HS256 by the public key",
                self.forged("HS256", &self.claims, |signed| hmac_sha256(self.key.public_key(), signed)),
            ),
            (
                "RS256 with an HMAC",
                self.forged("RS256", &self.claims, |signed| hmac_sha256(self.key.public_key(), signed)),
            ),
        ]
    }

    /// The authorizer knows no `token_use` and no rules for a `sub`.
    fn refused_by_functions(&self) -> Vec<(&'static str, String)> {
        vec![
            ("id token", self.with("token_use", json!("id"))),
            ("refresh token", self.with("token_use", json!("refresh"))),
            ("no subject", self.without("sub")),
            ("empty subject", self.with("sub", json!(""))),
            ("subject with a control", self.with("sub", json!("a\u{0}b"))),
            ("long subject", self.with("sub", json!("x".repeat(256)))),
        ]
    }
}

/// RFC 2104, from the one hash that is at hand.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = if key.len() > 64 { ids::fingerprint(key) } else { key.to_vec() };
    block.resize(64, 0);
    let padded = |pad: u8| block.iter().map(|byte| byte ^ pad).collect::<Vec<u8>>();
    let inner = ids::fingerprint(&[padded(0x36), message.to_vec()].concat());
    ids::fingerprint(&[padded(0x5c), inner].concat())
}
