//! Enrolling, cancelling, and loading a class.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    access::{Access, access_column},
    app::App,
    auth::Caller,
    body::{self, Node},
    db::{Param, Prepared, Repeat, Statement, column},
    error::{Error, reason},
    learning,
};

/// Rows in a batch at the most.
const MOST_ROWS: usize = 500;
/// JSON values in a body at the most, with room for what a client adds of its own.
pub const MOST_VALUES: usize = 20 * MOST_ROWS;
/// How far ahead of ours a client's clock may be.
pub const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);

/// What the routes answer about one enrollment.
macro_rules! enrollment_json {
    () => {
        "json_build_object(
            'courseId', written.course_id, 'userId', written.user_id, 'status', written.status,
            'enrolledAt', rfc3339_v1(written.enrolled_at), 'completedAt', rfc3339_v1(written.completed_at)
        )::text as body"
    };
}

/// Enrols one learner where the course takes them in; says what they see of it either way.
///
/// `xmax = 0` tells an inserted row from an updated one. The update also runs for an active enrollment: it takes the
/// row's lock and reads its present state, which a snapshot from before the lock would not show.
const ENROL: Prepared = Prepared(Statement {
    name: "enrollments.enrol",
    sql: concat!(
        "with course as (
            select courses.id, courses.status, courses.tree_version,
                ",
        access_column!(),
        ",
                coalesce(enrollments.status, 'none') as enrollment_status
            from courses
            left join enrollments on enrollments.course_id = courses.id and enrollments.user_id = $2
            where courses.id = $1
        ), written as (
            insert into enrollments as stored (user_id, course_id, enrolled_at, tree_version, active_during)
            select $2, course.id, $4, course.tree_version, opened_v1('{}', $4)
            from course
            where course.access <> 'none'
                and (course.status = 'published' or course.status = 'archived' and course.enrollment_status = 'active')
            on conflict (user_id, course_id) do update set
                status = 'active',
                active_during = opened_v1(trusted_v1(stored.active_during, stored.status = 'active'), $4),
                -- The resume points (V25) hold still: clients enrol their learners again at each start.
                resume_xact = case when stored.resume_xact::xid = stored.xmin then pg_current_xact_id() end
            where stored.status = 'active' or (select course.status from course) = 'published'
            returning
                stored.user_id, stored.course_id, stored.status, stored.enrolled_at, stored.xmax = 0 as inserted,
                case
                    when stored.tree_version < (select course.tree_version from course)
                        then (standing_v1(stored)).completed_at
                    else stored.completed_at
                end as completed_at
        ), marked as (
            insert into course_changes (course_id) select written.course_id from written
        )
        select course.access, course.status, written.inserted, ",
        enrollment_json!(),
        " from course left join written on true"
    ),
});

/// Cancels one enrollment, if there is one.
const CANCEL: Prepared = Prepared(Statement {
    name: "enrollments.cancel",
    sql: concat!(
        "with written as (
            update enrollments set
                status = 'cancelled',
                -- Where nobody kept count, it was active from the beginning.
                active_during = closed_v1(
                    coalesce(trusted_v1(enrollments.active_during, true), opened_v1('{}', enrollments.enrolled_at)), $4
                )
            where enrollments.user_id = $2 and enrollments.course_id = $1 and enrollments.status = 'active'
            returning enrollments.course_id
        ), marked as (
            insert into course_changes (course_id) select written.course_id from written
        )
        select ",
        access_column!(),
        ",
            enrollments.user_id is not null as enrolled
        from courses
        left join enrollments on enrollments.course_id = courses.id and enrollments.user_id = $2
        where courses.id = $1"
    ),
});

/// Enrols many learners; $2 users and $3 times are parallel. Rows are written in the order in which locks are taken.
const LOAD: Statement = Statement {
    name: "enrollments.load",
    sql: "with sent as (
            select distinct on (item.user_id collate \"C\") item.user_id, coalesce(item.enrolled_at, $4) as enrolled_at
            from unnest($2, $3) with ordinality as item (user_id, enrolled_at, position)
            order by item.user_id collate \"C\", item.position
        ), written as (
            insert into enrollments as stored (user_id, course_id, enrolled_at, tree_version, active_during)
            select
                sent.user_id, courses.id, sent.enrolled_at, courses.tree_version,
                -- From now on at the latest: whose clock is ahead does not bar their learners until then.
                opened_v1('{}', least(sent.enrolled_at, $4))
            from sent
            join courses on courses.id = $1 and courses.status = 'published'
            order by sent.user_id collate \"C\"
            on conflict (user_id, course_id) do update set
                status = 'active', active_during = opened_v1(trusted_v1(stored.active_during, false), $4)
            where stored.status <> 'active'
            returning stored.user_id, stored.course_id
        ), marked as (
            insert into course_changes (course_id) select written.course_id from written limit 1
        )
        select courses.status,
            coalesce((select array_agg(written.user_id) from written), '{}') as enrolled,
            -- Of a published course, whoever was not enrolled now was before.
            case when courses.status = 'published' then '{}' else coalesce((
                select array_agg(enrollments.user_id)
                from sent
                join enrollments on enrollments.user_id = sent.user_id and enrollments.course_id = courses.id
                where enrollments.status = 'active'
            ), '{}') end as active
        from courses
        where courses.id = $1",
};

/// An enrollment as the client gets it.
#[derive(Debug)]
pub struct Enrolled {
    /// The body.
    pub body: String,
    /// Whether this was the first time.
    pub first: bool,
}

/// Enrols the caller; doing it again changes nothing, and after a cancellation it goes on with the first `enrolledAt`.
pub async fn enrol(app: &App, caller: &Caller, course: Uuid, now: DateTime<Utc>) -> Result<Enrolled, Error> {
    let params: [Param<'_>; 4] =
        [(&course, Type::UUID), (&caller.user, Type::TEXT), (&caller.admin, Type::BOOL), (&now, Type::TIMESTAMPTZ)];
    let row = app.db.query_opt(ENROL, &params, Repeat::Safe).await?;
    let row = row.ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
    let Some(first) = column::<Option<bool>>(&row, "inserted")? else {
        return Err(match (Access::of(&row)?, column::<&str>(&row, "status")?) {
            (Access::None, _) => Error::NotFound(reason::COURSE_NOT_FOUND),
            (_, "archived") => Error::Conflict(reason::ARCHIVED),
            _ => Error::Conflict(reason::NOT_PUBLISHED),
        });
    };
    app.cache.bump(&[learning::generation(&caller.user, course)]).await;
    Ok(Enrolled { body: column(&row, "body")?, first })
}

/// Cancels the caller's enrollment. What was learned stays, and who never enrolled has nothing to cancel.
pub async fn cancel(app: &App, caller: &Caller, course: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    let params: [Param<'_>; 4] =
        [(&course, Type::UUID), (&caller.user, Type::TEXT), (&caller.admin, Type::BOOL), (&now, Type::TIMESTAMPTZ)];
    let row = app.db.query_opt(CANCEL, &params, Repeat::Safe).await?;
    let row = row.ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
    // The enrolled may leave a course that has been unpublished; for others it is not there.
    if !column::<bool>(&row, "enrolled")? && Access::of(&row)? == Access::None {
        return Err(Error::NotFound(reason::COURSE_NOT_FOUND));
    }
    app.cache.bump(&[learning::generation(&caller.user, course)]).await;
    Ok(())
}

/// A learner to enrol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The learner's `sub`.
    pub user: String,
    /// Since when; the moment of the request where it is missing.
    pub enrolled_at: Option<DateTime<Utc>>,
}

/// Reads the body of `POST /courses/{courseId}/enrollments`.
pub fn parse_entries(body: &Value) -> Result<Vec<Entry>, Error> {
    body::parse(body, |root| root.object()?.field("enrollments").items(1..=MOST_ROWS, entry))
}

fn entry(node: &Node<'_>) -> Option<Entry> {
    let node = node.object()?;
    let user = node.field("userId").user();
    let enrolled_at = node.field("enrolledAt").optional_or(|node| node.time());
    Some(Entry { user: user?.to_owned(), enrolled_at: enrolled_at? })
}

/// Enrols many learners and answers row by row.
pub async fn load(app: &App, course: Uuid, entries: &[Entry], now: DateTime<Utc>) -> Result<String, Error> {
    let is_future = |entry: &Entry| entry.enrolled_at.is_some_and(|time| time > now + CLOCK_SKEW);
    let good: Vec<&Entry> = entries.iter().filter(|entry| !is_future(entry)).collect();
    let users: Vec<&str> = good.iter().map(|entry| entry.user.as_str()).collect();
    let times: Vec<Option<DateTime<Utc>>> = good.iter().map(|entry| entry.enrolled_at).collect();
    let params: [Param<'_>; 4] = [
        (&course, Type::UUID),
        (&users, Type::TEXT_ARRAY),
        (&times, Type::TIMESTAMPTZ_ARRAY),
        (&now, Type::TIMESTAMPTZ),
    ];
    let row = app.db.query_opt(LOAD, &params, Repeat::Safe).await?;
    let row = row.ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
    let enrolled: Vec<&str> = column(&row, "enrolled")?;
    let active: Vec<&str> = column(&row, "active")?;
    let closed = match column(&row, "status")? {
        "published" => None,
        "archived" => Some(reason::ARCHIVED.code),
        _ => Some(reason::NOT_PUBLISHED.code),
    };
    let mut fresh: std::collections::HashSet<&str> = enrolled.iter().copied().collect();
    let active: std::collections::HashSet<&str> = active.into_iter().collect();
    let results: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let user = entry.user.as_str();
            let (status, code) = match closed {
                _ if is_future(entry) => ("rejected", Some("in_future")),
                // A learner who stands twice in a batch is enrolled by the first row.
                _ if fresh.remove(user) => ("enrolled", None),
                Some(code) if !active.contains(user) => ("rejected", Some(code)),
                _ => ("already_enrolled", None),
            };
            serde_json::json!({ "userId": user, "status": status, "code": code })
        })
        .collect();
    let generations: Vec<_> = enrolled.iter().map(|user| learning::generation(user, course)).collect();
    app.cache.bump(&generations).await;
    Ok(serde_json::json!({ "results": results }).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_names_users_and_may_name_times() {
        let body = json!({"enrollments": [{"userId": "a"}, {"userId": "b", "enrolledAt": "2026-01-01T00:00:00Z"}]});
        let entries = parse_entries(&body).unwrap();
        assert_eq!(entries[0], Entry { user: "a".into(), enrolled_at: None });
        assert!(entries[1].enrolled_at.is_some());
    }

    #[test]
    fn a_batch_of_another_shape_is_refused() {
        for body in [
            json!([]),
            json!({}),
            json!({"enrollments": []}),
            json!({"enrollments": [{}]}),
            json!({"enrollments": [{"userId": ""}]}),
            json!({"enrollments": [{"userId": "a\u{1}"}]}),
            json!({"enrollments": [{"userId": "a", "enrolledAt": "soon"}]}),
            json!({"enrollments": vec![json!({"userId": "a"}); 501]}),
        ] {
            assert!(parse_entries(&body).is_err(), "{body}");
        }
    }
}
