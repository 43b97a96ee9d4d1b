-- How many learners have completed each section, and how the learners of a course are spread over its percentages: what
-- teachers see with GET /courses/{courseId}/analytics?detail=sections (shared/src/analytics.rs).
--
-- To count the completions of 200 000 learners takes seconds, and the refresh comes every five minutes. So the counts are
-- stored, and whoever gains or loses a completion appends the difference; the refresh adds up what has come since. Triggers
-- append (V28), because then no writer can forget it, binaries of before included.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- The learners with at least 0, 1, 26, 51, 76 and 100 per cent and less than the next, as the roster shows their progress.
-- Null until a refresh has counted them; nobody is in any of them while a course has no sections.
alter table course_analytics add column learners_by_progress integer []
constraint course_analytics_learners_by_progress_check check (cardinality(learners_by_progress) = 6);

-- Written by the refresh alone. No foreign keys: they would lock the course and each section at every refresh, and
-- neither is ever deleted. Sections that were retired stay, and their learners' completions with them.
create table section_completions (
    course_id uuid not null,
    section_id uuid not null,
    -- Learners who have completed it and not cancelled, by all differences that have been added up.
    counted bigint not null,
    -- The same as of the course's figures, which stay as they are while its analytics are off. Null: it has none yet.
    completed bigint,
    constraint section_completions_pkey primary key (course_id, section_id)
);

-- Appended, and added up by the refresh: a counter would be locked by every learner of a lecture at once. Every writer
-- also marks the course in course_changes.
create table section_completion_changes (
    course_id uuid not null,
    id bigint generated always as identity,
    section_id uuid not null,
    difference bigint not null,
    -- The refresh takes what has come of a course.
    constraint section_completion_changes_pkey primary key (course_id, id)
);

-- A learner has completed a section, or has not any more. What those who cancelled do is counted when they come back.
-- The writer holds the lock of the enrollment, so that nobody cancels meanwhile.
create function note_completion_v1() returns trigger
language plpgsql
as $$
declare
    moved progress := case when tg_op = 'DELETE' then old else new end;
begin
    insert into section_completion_changes (course_id, section_id, difference)
    -- Of a row that was deleted nothing is new.
    select moved.course_id, moved.section_id, case when new.completed_at is null then -1 else 1 end
    from enrollments
    where enrollments.user_id = moved.user_id and enrollments.course_id = moved.course_id
        and enrollments.status <> 'cancelled';
    return null;
end;
$$;

-- A learner cancels, or comes back: with all that they have completed.
create function note_completions_v1() returns trigger
language plpgsql
as $$
begin
    insert into section_completion_changes (course_id, section_id, difference)
    select progress.course_id, progress.section_id, case when new.status = 'cancelled' then -1 else 1 end
    from progress
    where progress.user_id = new.user_id and progress.course_id = new.course_id and progress.completed_at is not null;
    return null;
end;
$$;

-- Counts everything from the ground and appends what is missing or too much; returns of how many sections. One statement,
-- so one snapshot: whatever it does not see appends its own difference, and a refresh that adds up meanwhile moves numbers
-- from one table to the other, which changes no sum.
create function mend_section_completions_v1() returns bigint
language sql volatile
as $$
    with present as (
        select progress.course_id, progress.section_id, count(*) as number
        from progress
        join enrollments on enrollments.user_id = progress.user_id and enrollments.course_id = progress.course_id
        where progress.completed_at is not null and enrollments.status <> 'cancelled'
        group by progress.course_id, progress.section_id
    ), known as (
        select part.course_id, part.section_id, sum(part.number) as number
        from (
            select course_id, section_id, counted as number from section_completions
            union all
            select course_id, section_id, difference from section_completion_changes
        ) as part
        group by part.course_id, part.section_id
    ), wrong as (
        select course_id, section_id, coalesce(present.number, 0) - coalesce(known.number, 0) as difference
        from present
        full join known using (course_id, section_id)
        where coalesce(present.number, 0) <> coalesce(known.number, 0)
    ), mended as (
        insert into section_completion_changes (course_id, section_id, difference)
        select wrong.course_id, wrong.section_id, wrong.difference from wrong
    ), marked as (
        insert into course_changes (course_id) select distinct wrong.course_id from wrong
    )
    select count(*) from wrong;
$$;
