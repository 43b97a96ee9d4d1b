//! `GET /courses/{courseId}/analytics?detail` by the course's owner or an admin: its figures as of the last refresh.
//!
//! 200; 400, 401, 403 `not_owner`, 404.

use std::sync::Arc;

use shared::{
    analytics::{self, Detail},
    app::App,
    auth::Caller,
    error::reason,
    http::{self, Audience, Request},
};

/// Answers the figures.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    let caller = Caller::of(&app, &request)?;
    let course = http::path_id(&request, "courseId", reason::COURSE_NOT_FOUND)?;
    let detail = Detail::parse(http::query(&request, "detail"))?;
    let figures = analytics::figures(&app, &caller, course, detail).await?;
    Ok(http::found(&request, Audience::Caller, figures))
}
