//! `GET /courses/{courseId}/analytics` by the course's owner or an admin: its figures as of the last refresh.
//!
//! 200; 401, 403 `not_owner`, 404.

use std::sync::Arc;

use shared::{
    analytics,
    app::App,
    auth::Caller,
    error::reason,
    http::{self, Audience, Request},
};

/// Answers the figures.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    let caller = Caller::of(&app, &request)?;
    let course = http::path_id(&request, "courseId", reason::COURSE_NOT_FOUND)?;
    let figures = analytics::figures(&app, &caller, course).await?;
    Ok(http::found(&request, Audience::Caller, figures))
}
