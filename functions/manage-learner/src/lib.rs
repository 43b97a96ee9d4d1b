//! All that is kept under one user id: handing it out, and erasing it.
//!
//! | route | caller | answers |
//! |---|---|---|
//! | `GET /learners/{userId}/data?limit&cursor` | admin | 200 a page of it; 400, 401, 403, 503 |
//! | `DELETE /learners/{userId}/data` | admin | 204 nothing is left; 400, 401, 403, 503 ask again: it goes on |

use std::sync::Arc;

use chrono::Utc;
use shared::{
    app::App,
    auth::Caller,
    erasure,
    error::{Error, reason},
    export,
    http::{self, Request},
};

/// Answers both routes.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    match http::route(&request) {
        "GET /learners/{userId}/data" => export(&app, &request).await,
        "DELETE /learners/{userId}/data" => erase(&app, &request).await,
        _ => Err(Error::NotFound(reason::ROUTE_NOT_FOUND)),
    }
}

async fn export(app: &App, request: &Request) -> http::Result {
    Caller::of(app, request)?.require_admin()?;
    let user = http::path_user(request, "userId")?;
    let (limit, cursor) = (http::query(request, "limit"), http::query(request, "cursor"));
    let page = export::export(app, &user, limit, cursor).await?;
    let path = format!("/learners/{}/data", http::user_segment(&user));
    Ok(http::found_personal(request, &path, page))
}

async fn erase(app: &App, request: &Request) -> http::Result {
    Caller::of(app, request)?.require_admin()?;
    let user = http::path_user(request, "userId")?;
    erasure::erase(app, &user, Utc::now()).await?;
    Ok(http::no_content())
}
