//! A course's outline, with or without the caller's progress, and a section's content.
//!
//! | route | caller | answers |
//! |---|---|---|
//! | `GET /courses/{courseId}` | anyone | 200 the outline of a published course; 404 |
//! | `GET /me/courses/{courseId}` | any token | 200 the outline and the caller's progress; 401, 404 |
//! | `GET /sections/{sectionId}` | enrolled, owner, admin | 200 one section; 401, 403 `not_enrolled`, 404 |

use std::sync::Arc;

use shared::{
    app::App,
    auth::Caller,
    courses,
    error::{Error, reason},
    http::{self, Audience, Request},
};

/// Answers the three routes.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    match http::route(&request) {
        "GET /courses/{courseId}" => outline(&app, &request).await,
        "GET /me/courses/{courseId}" => outline_for(&app, &request).await,
        "GET /sections/{sectionId}" => section(&app, &request).await,
        _ => Err(Error::NotFound(reason::ROUTE_NOT_FOUND)),
    }
}

async fn outline(app: &App, request: &Request) -> http::Result {
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;
    let outline = courses::outline(app, course, http::coding(request)).await?;
    Ok(http::found(request, Audience::Everyone, outline))
}

async fn outline_for(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;
    let outline = courses::outline_for(app, &caller, course).await?;
    Ok(http::found(request, Audience::Caller, outline))
}

async fn section(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let section = http::path_id(request, "sectionId", reason::SECTION_NOT_FOUND)?;
    let section = courses::section(app, &caller, section).await?;
    Ok(http::found(request, Audience::Caller, section))
}
