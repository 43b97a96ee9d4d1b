//! How often a caller may write. The one place for all routes: [`crate::http::answer`] asks here before a handler runs.

use crate::{
    app::App,
    auth::Caller,
    error::Error,
    http::Request,
    ids,
    telemetry::{self, Metric},
};

/// Refuses a write of a caller who has sent too many. Nothing of it has been looked at by then but who sends it.
///
/// Who cannot be told is let through, for the handler to refuse; reads are never counted.
pub async fn admit(app: &App, request: &Request) -> Result<(), Error> {
    if request.method().is_safe() {
        return Ok(());
    }
    let Ok(caller) = Caller::of(app, request) else { return Ok(()) };
    let [own, as_service] = keys(&caller.user);
    let (key, allowance) =
        if caller.service { (as_service, app.config.service_writes) } else { (own, app.config.writes) };
    let Some(allowance) = allowance else { return Ok(()) };
    match app.cache.spend(&key, allowance).await {
        None => Ok(()),
        Some(wait) => {
            telemetry::count(Metric::Throttled);
            Err(Error::RateLimited { wait })
        }
    }
}

/// The keys under which a user's writes are counted: their own, and those with the service role.
pub fn keys(user: &str) -> [String; 2] {
    let key = format!("v1:{{writer:{}}}", ids::hashed(user));
    [format!("{key}:own"), format!("{key}:service")]
}
