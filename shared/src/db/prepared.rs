//! Statements that a connection knows by name: the server parses them once, and plans them for the first five requests
//! and then once, not for each. That is most of what it does for a read of a few rows.
//!
//! A name is known to one session of the server. Whatever gives a session to several clients in turn, as RDS Proxy and
//! `PgBouncer` do, would have to know it too, or run what somebody else has prepared under the same one: hence only where
//! `DB_PREPARE` says so.

use std::pin::pin;

use deadpool_postgres::ClientWrapper;
use futures_util::{FutureExt, future::join};
use tokio_postgres::{Error, Row, error::SqlState, types::Type};

use super::{Param, Statement};

/// Sends a statement by its name, or, the first time on this connection, with its text; it gets its name in the same
/// round trip.
pub(super) async fn query(
    connection: &ClientWrapper,
    statement: Statement,
    params: &[Param<'_>],
) -> Result<Vec<Row>, Error> {
    let types: Vec<Type> = params.iter().map(|(_, of)| of.clone()).collect();
    let mut preparing = pin!(connection.prepare_typed_cached(statement.sql, &types));
    // Ready at once if it has been prepared; sent, but not awaited, if it has not.
    let Some(prepared) = preparing.as_mut().now_or_never() else {
        return join(preparing, connection.query_typed(statement.sql, params)).await.1;
    };
    let prepared = prepared?;
    let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
    match connection.query(&prepared, &values).await {
        Err(error) if is_outdated(&error) => {
            drop(connection.statement_cache.remove(statement.sql, &types));
            connection.query_typed(statement.sql, params).await
        }
        result => result,
    }
}

/// Whether it may have failed because of what was prepared: a migration has changed a column's type meanwhile, or somebody
/// has made the session forget everything. Any error has taken back what the statement did, so nothing is done twice; and
/// what is not supported for another reason only fails once more.
fn is_outdated(error: &Error) -> bool {
    [Some(&SqlState::FEATURE_NOT_SUPPORTED), Some(&SqlState::INVALID_SQL_STATEMENT_NAME)].contains(&error.code())
}
