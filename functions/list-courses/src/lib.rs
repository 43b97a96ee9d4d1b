//! Lists of courses.
//!
//! | route | caller | answers |
//! |---|---|---|
//! | `GET /courses?limit&cursor&difficulty&q&sort` | anyone | 200 a page of published courses; 400 |
//! | `GET /me/authored-courses?limit&cursor&status` | instructor | 200 a page of their own; 400, 401, 403 |

use std::sync::Arc;

use shared::{
    app::App,
    auth::Caller,
    catalogue::{self, Query},
    error::{Error, reason},
    http::{self, Audience, Request},
};

/// Answers both lists.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    match http::route(&request) {
        "GET /courses" => published(&app, &request).await,
        "GET /me/authored-courses" => authored(&app, &request).await,
        _ => Err(Error::NotFound(reason::ROUTE_NOT_FOUND)),
    }
}

async fn published(app: &App, request: &Request) -> http::Result {
    let page = catalogue::published(app, query(request), http::coding(request)).await?;
    Ok(http::found(request, Audience::Everyone, page))
}

async fn authored(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    caller.require_instructor()?;
    let page = catalogue::authored(app, &caller, query(request)).await?;
    Ok(http::found(request, Audience::Caller, page))
}

fn query(request: &Request) -> Query<'_> {
    Query {
        limit: http::query(request, "limit"),
        cursor: http::query(request, "cursor"),
        difficulty: http::query(request, "difficulty"),
        search: http::query(request, "q"),
        sort: http::query(request, "sort"),
        status: http::query(request, "status"),
    }
}
