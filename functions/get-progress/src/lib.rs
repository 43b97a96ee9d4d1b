//! Progress: a learner's own, and that of a course's learners for who manages it.
//!
//! | route | caller | answers |
//! |---|---|---|
//! | `GET /courses/{courseId}/progress` | enrolled, or once enrolled | 200 the summary; 401, 404 |
//! | `GET /lessons/{lessonId}/progress` | enrolled, or once enrolled | 200 each section with its state; 401, 404 |
//! | `GET /progress/submissions/{submissionId}` | its sender | 200 what became of a parked batch; 401, 404 |
//! | `GET /courses/{courseId}/enrollments?limit&cursor&status&progress` | owner, admin | 200 a page of the roster, in JSON or CSV; 400, 401, 403, 404 |
//! | `GET /me/courses?limit&cursor` | any token | 200 a page of active enrollments; 400, 401 |

use std::sync::Arc;

use chrono::Utc;
use shared::{
    app::App,
    auth::Caller,
    error::{Error, reason},
    http::{self, Audience, Request},
    learning,
    roster::{self, Query},
    submissions,
};

/// Answers the five routes.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    match http::route(&request) {
        "GET /courses/{courseId}/progress" => summary(&app, &request).await,
        "GET /lessons/{lessonId}/progress" => lesson(&app, &request).await,
        "GET /progress/submissions/{submissionId}" => submission(&app, &request).await,
        "GET /courses/{courseId}/enrollments" => roster(&app, &request).await,
        "GET /me/courses" => my_courses(&app, &request).await,
        _ => Err(Error::NotFound(reason::ROUTE_NOT_FOUND)),
    }
}

async fn summary(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;
    let summary = learning::summary(app, &caller, course).await?;
    Ok(http::found(request, Audience::Caller, summary))
}

async fn lesson(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let lesson = http::path_id(request, "lessonId", reason::LESSON_NOT_FOUND)?;
    let lesson = learning::lesson(app, &caller, lesson).await?;
    Ok(http::found(request, Audience::Caller, lesson))
}

async fn submission(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let id = http::path_id(request, "submissionId", reason::SUBMISSION_NOT_FOUND)?;
    let status = submissions::status(app, &caller, id, Utc::now()).await?;
    Ok(http::found(request, Audience::Caller, status))
}

async fn roster(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;
    let query = Query {
        limit: http::query(request, "limit"),
        cursor: http::query(request, "cursor"),
        status: http::query(request, "status"),
        progress: http::query(request, "progress"),
    };
    let format = http::format(request);
    let page = roster::page(app, &caller, course, query, format).await?;
    Ok(http::found_as(request, Audience::Caller, format, page))
}

async fn my_courses(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let (limit, cursor) = (http::query(request, "limit"), http::query(request, "cursor"));
    let page = learning::my_courses(app, &caller, limit, cursor).await?;
    Ok(http::found(request, Audience::Caller, page))
}
