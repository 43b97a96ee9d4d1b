//! Figures per course: reading them, refreshing those of changed courses, and checking all of them from the ground.
//!
//! Whoever writes something that may move a course's figures appends a row to `course_changes` in the same transaction.
//! A refresh takes the courses that have such rows, and those whose window of activity is due; it deletes the rows and
//! stores the figures under one lock and one snapshot, so that a write is either in the figures or still has its row.
//! Where only the window has moved on, only those who have left it are counted: a large course loses somebody every few
//! minutes.

use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio_postgres::types::Type;
use uuid::Uuid;

mod figures;

pub use self::figures::{Detail, figures};
use crate::{
    app::App,
    cache::Generation,
    catalogue, courses,
    db::{Failure, Param, Repeat, Statement, column},
    error::Error,
    ledger,
    recount::{self, Settled},
    roster::BUCKETS,
    telemetry::{self, Metric},
};

/// Learners count as active for so long after their last event.
const WINDOW_DAYS: i32 = 30;
/// Courses that are refreshed in one transaction: few enough to lock briefly, many enough to save round trips.
const BATCH: i64 = 50;

/// Counting what is left comes after the deadline, within the margin that is kept for the answer.
const COUNT_LIMIT: Duration = Duration::from_secs(1);

/// The changed courses, and those that are due at $1, behind $2, $3 of them at the most.
///
/// There may be millions of marks for a few courses: the recursion steps from course to course of
/// `course_changes_course_idx`. The due ones come from `course_analytics_due_idx`.
macro_rules! pending {
    ($select:literal) => {
        concat!(
            "with recursive changed as (
                (
                    select course_changes.course_id
                    from course_changes
                    where $2 is null or course_changes.course_id > $2
                    order by course_changes.course_id
                    limit 1
                )
                union all
                select (
                    select course_changes.course_id
                    from course_changes
                    where course_changes.course_id > changed.course_id
                    order by course_changes.course_id
                    limit 1
                )
                from changed
                where changed.course_id is not null
            ), pending as (
                (select changed.course_id from changed where changed.course_id is not null limit $3)
                union
                (
                    select course_analytics.course_id
                    from course_analytics
                    join courses on courses.id = course_analytics.course_id and courses.analytics_enabled
                    where course_analytics.due_at <= $1 and ($2 is null or course_analytics.course_id > $2)
                    order by course_analytics.course_id
                    limit $3
                )
            )
            select ",
            $select
        )
    };
}

/// The next of them.
const PENDING: Statement = Statement {
    name: "analytics.pending",
    sql: pending!("pending.course_id from pending order by pending.course_id limit $3"),
};

/// How many there are.
const REMAINING: Statement =
    Statement { name: "analytics.remaining", sql: pending!("count(*) as remaining from pending") };

/// Every course behind $2, for a reconciliation; $1 is not needed and keeps the parameters alike.
const ALL: Statement = Statement {
    name: "analytics.all",
    sql: "select courses.id as course_id from courses
        where $1 is not null and ($2 is null or courses.id > $2) order by courses.id limit $3",
};

/// How many courses a reconciliation has not come to.
const UNVISITED: Statement = Statement {
    name: "analytics.unvisited",
    sql: "select count(*) as remaining from courses
        where $1 is not null and $3 is null and ($2 is null or courses.id > $2)",
};

/// Makes sure that each course has its row, which is what gets locked.
const PREPARE: Statement = Statement {
    name: "analytics.prepare",
    sql: "insert into course_analytics (course_id)
        select courses.id from courses where courses.id = any($1)
        on conflict (course_id) do nothing",
};

/// Locks the courses that no other refresh is at; that one will do them.
const LOCK: Statement = Statement {
    name: "analytics.lock",
    sql: "select course_analytics.course_id
        from course_analytics
        where course_analytics.course_id = any($1)
        order by course_analytics.course_id
        for update skip locked",
};

/// Takes from locked courses that nothing has marked, and whose window is due, those who have left it since.
///
/// By `enrollments_activity_idx`: what was read for the figures that stand, less what lies between the two beginnings of
/// the window. Marks and enrollments are of one snapshot, and each write that moves a figure leaves a mark: what the
/// figures stand on is still there.
const EXPIRE: Statement = Statement {
    name: "analytics.expire",
    sql: "with due as (
            select
                course_analytics.course_id,
                course_analytics.as_of - make_interval(hours => 24 * $3) as began,
                $2 - make_interval(hours => 24 * $3) as begins
            from course_analytics
            join courses on courses.id = course_analytics.course_id and courses.analytics_enabled
            where course_analytics.course_id = any($1) and course_analytics.window_days = $3
                and course_analytics.due_at <= $2 and course_analytics.as_of <= $2
                and not exists (
                    select from course_changes where course_changes.course_id = course_analytics.course_id
                )
        )
        update course_analytics set
            active_learners = course_analytics.active_learners - moved.gone,
            as_of = $2,
            due_at = moved.next_at + make_interval(hours => 24 * $3)
        from (
            select
                due.course_id,
                (
                    select count(*)
                    from enrollments
                    where enrollments.course_id = due.course_id and enrollments.status <> 'cancelled'
                        and enrollments.last_activity_at is not null
                        and coalesce(enrollments.last_activity_at, enrollments.enrolled_at) > due.began
                        and coalesce(enrollments.last_activity_at, enrollments.enrolled_at) <= due.begins
                ) as gone,
                (
                    select enrollments.last_activity_at
                    from enrollments
                    where enrollments.course_id = due.course_id and enrollments.status <> 'cancelled'
                        and enrollments.last_activity_at is not null
                        and coalesce(enrollments.last_activity_at, enrollments.enrolled_at) > due.begins
                    order by coalesce(enrollments.last_activity_at, enrollments.enrolled_at), enrollments.user_id
                    limit 1
                ) as next_at
            from due
        ) as moved
        where course_analytics.course_id = moved.course_id
        returning course_analytics.course_id",
};

/// How many enrollments have completed so many hundredths of a per cent of their course at least; of one without
/// sections, none.
macro_rules! at_least {
    ($hundredths:literal) => {
        concat!(
            "count(*) filter (where courses.section_count > 0
                and enrollments.completed_sections * 10000::bigint >= courses.section_count * ",
            $hundredths,
            ")"
        )
    };
}

/// How many have completed so many, and fewer than so many more.
macro_rules! between {
    ($from:literal, $to:literal) => {
        concat!(at_least!($from), " - ", at_least!($to))
    };
}

/// Deletes the marks and stores the figures of locked courses; runs after the lock, so its snapshot is newer.
///
/// By `enrollments_tree_idx`: one course's enrollments each. A course whose analytics are off keeps its figures. $4 to
/// $8 are the lower bounds of all ranges of progress but the first.
/// `strayed` counts the courses whose figures come out other than they stood although nothing has marked them since.
const COMPUTE: Statement = Statement {
    name: "analytics.compute",
    sql: concat!(
        "with cleared as (
            delete from course_changes where course_changes.course_id = any($1) returning course_changes.course_id
        ), figures as (
            select
                courses.id as course_id,
                count(enrollments.user_id)::integer as total_enrollments,
                (count(*) filter (where enrollments.last_activity_at > windows.begins))::integer as active_learners,
                count(enrollments.completed_at)::integer as completed_enrollments,
                case when count(enrollments.user_id) > 0 then
                    floor(count(enrollments.completed_at) * 10000.0 / count(enrollments.user_id)) / 100
                end::numeric(5, 2) as completion_rate,
                round(avg(times.seconds))::bigint as avg_completion_time,
                round((percentile_cont(0.5) within group (order by times.seconds))::numeric)::bigint
                    as median_completion_time,
                round((percentile_cont(0.25) within group (order by times.seconds))::numeric)::bigint
                    as p25_completion_time,
                round((percentile_cont(0.75) within group (order by times.seconds))::numeric)::bigint
                    as p75_completion_time,
                round(avg(enrollments.time_spent) filter (where enrollments.completed_at is not null))::bigint
                    as avg_time_spent,
                min(enrollments.last_activity_at) filter (where enrollments.last_activity_at > windows.begins)
                    + make_interval(hours => 24 * $3) as due_at,
                greatest(course_analytics.as_of, $2) as as_of,
                array[",
        between!("0", "$4"),
        ", ",
        between!("$4", "$5"),
        ", ",
        between!("$5", "$6"),
        ", ",
        between!("$6", "$7"),
        ", ",
        between!("$7", "$8"),
        ", ",
        at_least!("$8"),
        "]::integer[] as learners_by_progress
            from courses
            join course_analytics on course_analytics.course_id = courses.id
            -- Figures do not go back in time: a run that began later may have been here first.
            cross join lateral (
                select greatest(course_analytics.as_of, $2) - make_interval(hours => 24 * $3) as begins
            ) as windows
            left join enrollments on enrollments.course_id = courses.id and enrollments.status <> 'cancelled'
            cross join lateral (
                select extract(epoch from enrollments.completed_at - enrollments.enrolled_at) as seconds
            ) as times
            where courses.id = any($1) and courses.analytics_enabled
            group by courses.id, course_analytics.course_id
        ), before as (
            select course_analytics.* from course_analytics where course_analytics.course_id = any($1)
        ), stored as (
            update course_analytics set
                total_enrollments = figures.total_enrollments,
                active_learners = figures.active_learners,
                completed_enrollments = figures.completed_enrollments,
                completion_rate = figures.completion_rate,
                avg_completion_time = figures.avg_completion_time,
                median_completion_time = figures.median_completion_time,
                p25_completion_time = figures.p25_completion_time,
                p75_completion_time = figures.p75_completion_time,
                avg_time_spent = figures.avg_time_spent,
                learners_by_progress = figures.learners_by_progress,
                window_days = $3,
                as_of = figures.as_of,
                due_at = figures.due_at
            from figures
            where course_analytics.course_id = figures.course_id
        ), counted as (
            update courses set enrollment_count = figures.total_enrollments
            from figures
            where courses.id = figures.course_id and courses.id = any (array(
                -- In the order in which everybody locks several courses.
                select recounted.id
                from courses as recounted
                join figures on figures.course_id = recounted.id
                where recounted.enrollment_count <> figures.total_enrollments
                order by recounted.id
                for no key update of recounted
            ))
            returning courses.id
        )
        select
            coalesce((select array_agg(counted.id) from counted), '{}') as recounted,
            (
                select count(*)
                from figures
                join before on before.course_id = figures.course_id and before.as_of is not null
                where figures.course_id not in (select cleared.course_id from cleared) and (
                    figures.total_enrollments, figures.active_learners, figures.completed_enrollments,
                    figures.completion_rate, figures.avg_completion_time, figures.median_completion_time,
                    figures.p25_completion_time, figures.p75_completion_time, figures.avg_time_spent, figures.learners_by_progress
                ) is distinct from (
                    before.total_enrollments, before.active_learners, before.completed_enrollments,
                    before.completion_rate, before.avg_completion_time, before.median_completion_time,
                    before.p25_completion_time, before.p75_completion_time, before.avg_time_spent, before.learners_by_progress
                )
            ) as strayed"
    ),
};

/// Adds up what has become of the completions of locked courses' sections, for their figures. By
/// `section_completion_changes_pkey` and `section_completions_pkey`.
///
/// A course whose analytics are off goes on being counted, and its figures stay: nothing piles up meanwhile.
const ADD_UP: Statement = Statement {
    name: "analytics.add_up",
    sql: "with come as (
            delete from section_completion_changes
            where section_completion_changes.course_id = any($1)
            returning
                section_completion_changes.course_id, section_completion_changes.section_id,
                section_completion_changes.difference
        ), moved as (
            select come.course_id, come.section_id, come.difference from come
            union all
            -- What was counted while the analytics were off.
            select section_completions.course_id, section_completions.section_id, 0
            from section_completions
            join courses on courses.id = section_completions.course_id and courses.analytics_enabled
            where section_completions.course_id = any($1)
                and section_completions.completed is distinct from section_completions.counted
        )
        insert into section_completions as stored (course_id, section_id, counted, completed)
        select
            moved.course_id, moved.section_id, sum(moved.difference),
            case when courses.analytics_enabled then sum(moved.difference) end
        from moved
        join courses on courses.id = moved.course_id
        group by moved.course_id, moved.section_id, courses.analytics_enabled
        on conflict (course_id, section_id) do update set
            counted = stored.counted + excluded.counted,
            completed = case
                when excluded.completed is null then stored.completed
                else stored.counted + excluded.counted
            end",
};

/// Sections whose completions, stored and noted, differ from those that there are. They are put right on the way.
const COMPLETION_DRIFT: Statement =
    Statement { name: "analytics.completion_drift", sql: "select mend_section_completions_v1() as completion_drift" };

/// Rows of progress that differ from the fold of their attempt's events, and enrollments that differ from the fold of
/// their progress. One snapshot: writers at work do not look like drift.
///
/// All events of a section are in the ledger if the first occurred behind the horizon and the five minutes by which one
/// may be recorded too early. Where some are forgotten, the fold of the others must still fit into the row.
const FOLD_DRIFT: Statement = Statement {
    name: "analytics.fold_drift",
    sql: "with from_ledger as (
            select
                progress_events.user_id, progress_events.course_id, progress_events.section_id,
                sum(progress_events.time_spent) as time_spent,
                min(coalesce(progress_events.occurred_at, progress_events.recorded_at))
                    filter (where progress_events.completed) as completed_at,
                min(coalesce(progress_events.occurred_at, progress_events.recorded_at)) as first_at,
                max(coalesce(progress_events.occurred_at, progress_events.recorded_at)) as last_at
            from progress_events
            join enrollments on enrollments.user_id = progress_events.user_id
                and enrollments.course_id = progress_events.course_id
                and enrollments.attempt = progress_events.attempt
            group by progress_events.user_id, progress_events.course_id, progress_events.section_id
        ), from_progress as (
            select
                progress.user_id, progress.course_id,
                -- Those that were retired are few: no join for each row.
                count(progress.completed_at) filter (
                    where progress.section_id not in (select sections.id from sections where sections.position is null)
                ) as completed_sections,
                sum(progress.time_spent) as time_spent, max(progress.completed_at) as completed_at
            from progress
            group by progress.user_id, progress.course_id
        )
        select
            (
                select count(*)
                from from_ledger
                full join progress on progress.user_id = from_ledger.user_id
                    and progress.course_id = from_ledger.course_id and progress.section_id = from_ledger.section_id
                cross join ledger_horizon
                where case
                    when progress.first_at < ledger_horizon.pruned_before + interval '5 minutes' then
                        from_ledger.time_spent > progress.time_spent or from_ledger.first_at < progress.first_at
                        or from_ledger.last_at > progress.last_at
                        or from_ledger.completed_at < progress.completed_at
                        or from_ledger.completed_at is not null and progress.completed_at is null
                    else
                        (from_ledger.time_spent, from_ledger.completed_at, from_ledger.first_at, from_ledger.last_at)
                        is distinct from
                        (progress.time_spent, progress.completed_at, progress.first_at, progress.last_at)
                end
            ) as progress_drift,
            (
                select count(*)
                from enrollments
                join courses on courses.id = enrollments.course_id
                left join from_progress on from_progress.user_id = enrollments.user_id
                    and from_progress.course_id = enrollments.course_id
                where enrollments.time_spent <> coalesce(from_progress.time_spent, 0)
                    or enrollments.completed_at > from_progress.completed_at
                    -- Who is behind the tree is counted by whoever reads.
                    or enrollments.tree_version = courses.tree_version and (
                        enrollments.completed_sections <> coalesce(from_progress.completed_sections, 0)
                        or courses.section_count > 0 and enrollments.completed_at is null
                            and from_progress.completed_sections >= courses.section_count
                    )
            ) as enrollment_drift",
};

/// Resume points that are said to be known, and are not: all that comes before the next section, in course order, is
/// complete and the section itself is not; nothing is later than the last. Found by counting, for all learners at once.
const RESUME_DRIFT: Statement = Statement {
    name: "analytics.resume_drift",
    sql: "with places as materialized (
            select sections.id, row_number() over (
                partition by sections.course_id order by lessons.position, sections.position
            ) as place
            from sections
            join lessons on lessons.id = sections.lesson_id
            where sections.position is not null
        ), noted as (
            select
                learners.user_id, learners.course_id, learners.last_section_id, learners.next_section_id,
                next.place as next_place
            from standings_v2 as learners
            left join places as next on next.id = learners.next_section_id
            where learners.knows_resume
        ), from_progress as (
            select
                noted.user_id, noted.course_id, count(progress.completed_at) as completed,
                count(progress.completed_at) filter (where places.place < noted.next_place) as completed_before,
                count(progress.completed_at) filter (where places.place = noted.next_place) as completed_next,
                max(progress.last_at) as last_at,
                max(progress.last_at) filter (where places.id = noted.last_section_id) as noted_at
            from noted
            join progress on progress.user_id = noted.user_id and progress.course_id = noted.course_id
            join places on places.id = progress.section_id
            group by noted.user_id, noted.course_id
        )
        select count(*) as resume_drift
        from noted
        join courses on courses.id = noted.course_id
        left join from_progress as found on found.user_id = noted.user_id and found.course_id = noted.course_id
        where found.noted_at is distinct from found.last_at
            or (noted.last_section_id is null) <> (found.last_at is null)
            or case
                when noted.next_section_id is null then coalesce(found.completed, 0) <> courses.section_count
                else noted.next_place is null or found.completed_next > 0
                    or coalesce(found.completed_before, 0) <> noted.next_place - 1
            end",
};

/// What a refresh came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Courses whose figures were stored.
    pub refreshed: u64,
    /// Courses that could not be done; they are tried again the next time.
    pub failed: u64,
    /// Courses that are still to be done.
    pub remaining: i64,
    /// The moment that the figures speak of.
    pub as_of: DateTime<Utc>,
    /// Where edits left enrollments to be counted by their new trees: how many were, and how many wait still.
    pub recounted: Option<Settled>,
    /// After a reconciliation: how many stored values differed from what they are made of.
    pub drift: Option<i64>,
}

impl Refreshed {
    /// As the function answers it.
    pub fn to_json(self) -> Value {
        let mut answer = json!({
            "refreshed": self.refreshed,
            "failed": self.failed,
            "remaining": self.remaining,
            "asOf": self.as_of.to_rfc3339_opts(SecondsFormat::Micros, true),
        });
        if let Some(recounted) = self.recounted {
            answer["recounted"] = recounted.to_json();
        }
        if let Some(drift) = self.drift {
            answer["drift"] = drift.into();
        }
        answer
    }

    /// The same as metrics.
    fn counted(self) -> Self {
        telemetry::add(Metric::AnalyticsRefreshed, self.refreshed);
        telemetry::add(Metric::AnalyticsFailed, self.failed);
        telemetry::add(Metric::AnalyticsRemaining, self.remaining.try_into().unwrap_or_default());
        self
    }
}

/// Refreshes the courses that changed or are due, until all are done or the deadline is near.
pub async fn refresh(app: &App, as_of: DateTime<Utc>, deadline: Instant) -> Result<Refreshed, Error> {
    // Before the figures, which count whoever is completed by a changed tree; but half of the time is theirs.
    let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
    let recounted = recount::settle(app, half).await.unwrap_or_else(|error| {
        tracing::warn!(error = telemetry::chain(&error), "enrollments were not counted by their new trees");
        None
    });
    let mut pass = Pass::default();
    pass.walk(app, Walk::Pending, as_of, deadline).await?;
    if let Err(error) = ledger::prune(app, as_of, deadline).await {
        // The next run goes on where this one stopped.
        tracing::warn!(error = telemetry::chain(&error), "the ledger was not pruned");
    }
    // Whoever failed or came in meanwhile is still marked.
    let remaining = count(app, REMAINING, as_of, None).await?;
    let Pass { refreshed, failed, .. } = pass;
    Ok(Refreshed { refreshed, failed, remaining, as_of, recounted, drift: None }.counted())
}

/// Refreshes, then computes everything again from the ground and counts what did not agree.
pub async fn reconcile(app: &App, as_of: DateTime<Utc>, deadline: Instant) -> Result<Refreshed, Error> {
    let mut first = Pass::default();
    first.walk(app, Walk::Pending, as_of, deadline).await?;
    let mut drift = Drift::default();
    let second = drift.look(app, as_of, deadline).await;
    // Also where there was no time to look at all of it: what has been found is to be known, and the figures are right now.
    let drift = drift.told(second.is_ok());
    let second = second?;
    let remaining = if second.finished { 0 } else { count(app, UNVISITED, as_of, second.behind).await? };
    let (refreshed, failed) = (second.refreshed, first.failed + second.failed);
    Ok(Refreshed { refreshed, failed, remaining, as_of, recounted: None, drift: Some(drift) }.counted())
}

/// How many stored values differ from what they are made of.
#[derive(Debug, Default)]
struct Drift {
    progress: i64,
    enrollments: i64,
    resume: i64,
    completions: i64,
    figures: i64,
}

impl Drift {
    async fn look(&mut self, app: &App, as_of: DateTime<Utc>, deadline: Instant) -> Result<Pass, Error> {
        let ask = async |statement: Statement| {
            let budget = deadline.saturating_duration_since(Instant::now());
            let rows = app.db.query_within(budget, statement, &[], Repeat::Safe).await?;
            rows.into_iter().next().ok_or(Error::Internal { context: "counting drift", source: None })
        };
        let row = ask(FOLD_DRIFT).await?;
        self.progress = column(&row, "progress_drift")?;
        self.enrollments = column(&row, "enrollment_drift")?;
        self.resume = column(&ask(RESUME_DRIFT).await?, "resume_drift")?;
        // What is put right here is added up by the pass behind it.
        self.completions = column(&ask(COMPLETION_DRIFT).await?, "completion_drift")?;
        // What a pass has just stored must come out the same again, for every course there is.
        let mut pass = Pass::default();
        let ended = pass.walk(app, Walk::All, as_of, deadline).await;
        self.figures = pass.strayed;
        ended.map(|()| pass)
    }

    fn told(self, is_all: bool) -> i64 {
        let Self { progress, enrollments, resume, completions, figures } = self;
        let all = progress + enrollments + resume + completions + figures;
        if all > 0 {
            tracing::error!(
                progress,
                enrollments,
                resume,
                completions,
                figures,
                "stored values differ from their sources"
            );
        }
        if all > 0 || is_all {
            telemetry::add(Metric::Drift, all.try_into().unwrap_or_default());
        }
        all
    }
}

async fn count(app: &App, what: Statement, as_of: DateTime<Utc>, behind: Option<Uuid>) -> Result<i64, Error> {
    let params: [Param<'_>; 3] = [(&as_of, Type::TIMESTAMPTZ), (&behind, Type::UUID), (&None::<i64>, Type::INT8)];
    let rows = app.db.query_within(COUNT_LIMIT, what, &params, Repeat::Safe).await?;
    column(rows.first().ok_or_else(|| Failure::fault(what.name, "no row"))?, "remaining")
}

/// Over which courses a pass goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// Those that changed or are due.
    Pending,
    /// All there are, each from the ground.
    All,
}

/// One walk over courses in the order of their ids.
#[derive(Default)]
struct Pass {
    refreshed: u64,
    failed: u64,
    /// Courses whose figures came out other than they stood, and nobody had marked them.
    strayed: i64,
    /// The last course of the last batch.
    behind: Option<Uuid>,
    /// Whether it came to the end.
    finished: bool,
}

impl Pass {
    /// Goes on until the end or until the deadline. What it has done counts where it fails, too.
    async fn walk(&mut self, app: &App, walk: Walk, as_of: DateTime<Utc>, deadline: Instant) -> Result<(), Error> {
        let list = match walk {
            Walk::Pending => PENDING,
            Walk::All => ALL,
        };
        while Instant::now() < deadline {
            let params: [Param<'_>; 3] =
                [(&as_of, Type::TIMESTAMPTZ), (&self.behind, Type::UUID), (&BATCH, Type::INT8)];
            let rows = app.db.query(list, &params, Repeat::Safe).await?;
            let batch = rows.iter().map(|row| column(row, "course_id")).collect::<Result<Vec<Uuid>, _>>()?;
            let Some(last) = batch.last() else {
                self.finished = true;
                break;
            };
            if self.add(app, walk, &batch, as_of, deadline).await.is_err() {
                // Something in the batch cannot be done. One by one, the others can.
                self.add_each(app, walk, &batch, as_of, deadline).await;
            }
            self.behind = Some(*last);
        }
        Ok(())
    }

    /// Refreshes courses each by itself and counts those that cannot be done.
    async fn add_each(&mut self, app: &App, walk: Walk, courses: &[Uuid], as_of: DateTime<Utc>, deadline: Instant) {
        for course in courses {
            if Instant::now() >= deadline {
                return;
            }
            if let Err(failure) = self.add(app, walk, std::slice::from_ref(course), as_of, deadline).await {
                self.failed += 1;
                tracing::warn!(%course, error = telemetry::chain(&failure), "the figures of a course were not refreshed");
            }
        }
    }

    /// Refreshes a few courses in one transaction.
    async fn add(
        &mut self,
        app: &App,
        walk: Walk,
        courses: &[Uuid],
        as_of: DateTime<Utc>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut session = app.db.begin("analytics.refresh", deadline).await?;
        session.query(PREPARE, &[(&courses, Type::UUID_ARRAY)]).await?;
        let rows = session.query(LOCK, &[(&courses, Type::UUID_ARRAY)]).await?;
        let locked = rows.iter().map(|row| row.try_get("course_id")).collect::<Result<Vec<Uuid>, _>>();
        let locked = locked.map_err(|_| Failure::fault(LOCK.name, "no course_id"))?;
        let mut others = locked.clone();
        if walk == Walk::Pending {
            let params: [Param<'_>; 3] =
                [(&locked, Type::UUID_ARRAY), (&as_of, Type::TIMESTAMPTZ), (&WINDOW_DAYS, Type::INT4)];
            let expired = session.query(EXPIRE, &params).await?;
            let expired = expired.iter().map(|row| row.try_get("course_id")).collect::<Result<Vec<Uuid>, _>>();
            let expired = expired.map_err(|_| Failure::fault(EXPIRE.name, "no course_id"))?;
            others.retain(|course| !expired.contains(course));
        }
        let mut params: Vec<Param<'_>> =
            vec![(&others, Type::UUID_ARRAY), (&as_of, Type::TIMESTAMPTZ), (&WINDOW_DAYS, Type::INT4)];
        params.extend(BUCKETS.iter().skip(1).map(|(_, from, _)| -> Param<'_> { (from, Type::INT8) }));
        let rows = session.query(COMPUTE, &params).await?;
        session.query(ADD_UP, &params[..1]).await?;
        session.commit().await?;
        let row = rows.first().ok_or_else(|| Failure::fault(COMPUTE.name, "no row"))?;
        let recounted: Vec<Uuid> = row.try_get("recounted").unwrap_or_default();
        self.refreshed += locked.len() as u64;
        self.strayed += row.try_get::<_, i64>("strayed").unwrap_or_default();
        app.cache.bump(&shown_in(&recounted)).await;
        Ok(())
    }
}

/// Where an enrollmentCount that changed is shown: the courses' pages and the catalogue.
fn shown_in(recounted: &[Uuid]) -> Vec<Generation> {
    let mut generations: Vec<Generation> = recounted.iter().map(|course| courses::generation(*course)).collect();
    if !generations.is_empty() {
        generations.push(catalogue::generation());
    }
    generations
}
