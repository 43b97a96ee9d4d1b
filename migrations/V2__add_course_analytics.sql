-- Figures per course, and what the refresh needs to know which courses to look at.
--
-- Both new columns have constant defaults, so `alter table` rewrites nothing and holds its lock for a moment only;
-- with the lock_timeout it gives up rather than queue everybody behind itself, and `migrate` tries again. Rows for the
-- courses that exist are made by the next migration, in batches.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

alter table courses
add column analytics_enabled boolean not null default true,
-- As of the last refresh; 0 at creation, when nobody can have enrolled.
add column enrollment_count integer not null default 0;

-- One row a course. Null means "never computed", which is not the same as nought.
create table course_analytics (
    course_id uuid constraint course_analytics_pkey primary key,
    total_enrollments integer,
    active_learners integer,
    completed_enrollments integer,
    completion_rate numeric(5, 2),
    -- Seconds from enrolledAt to completedAt.
    avg_completion_time bigint,
    median_completion_time bigint,
    p25_completion_time bigint,
    p75_completion_time bigint,
    -- Seconds, of those who completed.
    avg_time_spent bigint,
    window_days integer not null default 30,
    as_of timestamptz,
    -- When the first of today's active learners leaves the window: the refresh is due then even if nothing is written.
    due_at timestamptz,
    constraint course_analytics_course_fkey foreign key (course_id) references courses (id),
    constraint course_analytics_counts_check check (
        total_enrollments >= 0
        and active_learners between 0 and total_enrollments
        and completed_enrollments between 0 and total_enrollments
    ),
    constraint course_analytics_completion_rate_check check (completion_rate between 0 and 100)
);

-- refresh-analytics (PENDING): courses whose window is due.
create index course_analytics_due_idx on course_analytics (due_at) where due_at is not null;

-- One row for each write that may move a course's figures. Appended, never updated: a shared "dirty" flag would be
-- cleared together with a write that the refresh could not see yet. Deleted in the transaction that recomputes.
create table course_changes (
    id bigint generated always as identity constraint course_changes_pkey primary key,
    course_id uuid not null,
    changed_at timestamptz not null default now()
    -- No foreign key on purpose: every recorded batch appends here, and would lock the course's row to prove it exists.
);

-- refresh-analytics (PENDING, CLEAR): the changed courses, and one course's marks.
create index course_changes_course_idx on course_changes (course_id);
