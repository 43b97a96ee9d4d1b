-- How learners stand in courses whose tree has changed: read exactly at any moment, and put right for good in batches. And
-- how periods are kept.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- Periods that are known to hold: those that a binary of before has left behind, when it changed a state and not the
-- periods, are not.
create function trusted_v1(periods tstzmultirange, goes_on boolean) returns tstzmultirange
language sql immutable parallel safe
return case when upper_inf(periods) = goes_on then periods end;

-- Marks periods as going on from a moment. Whoever switches back and forth a hundred times has the older periods taken
-- for one, which is in the learner's favour and keeps the row small.
create function opened_v1(periods tstzmultirange, moment timestamptz) returns tstzmultirange
language sql immutable parallel safe
return case
    when upper_inf(periods) then periods
    when (select count(*) from unnest(periods)) >= 100 then tstzmultirange(tstzrange(lower(periods), null))
    else periods + tstzmultirange(tstzrange(moment, null))
end;

-- Marks periods as over since a moment.
create function closed_v1(periods tstzmultirange, moment timestamptz) returns tstzmultirange
language sql immutable parallel safe
return periods - tstzmultirange(tstzrange(moment, null));

-- An enrollment that was counted by an older tree, counted by today's. completed_at is what it has, or else what it
-- would have if it had been counted at each of the changes that wait in course_recounts, or now.
--
-- Not in plain SQL: that would be inlined, and then planned and begun for every enrollment that is read.
create function standing_v1(
    enrollment enrollments,
    out completed_sections integer,
    out completed_at timestamptz,
    out counted_version bigint
)
returns record
language plpgsql stable
as $$
declare
    course courses;
    all_completed bigint;
    latest timestamptz;
begin
    select courses.* into course from courses where courses.id = enrollment.course_id;
    select
        count(progress.completed_at),
        count(progress.completed_at) filter (where retired.id is null),
        max(progress.completed_at) filter (where retired.id is null)
    into all_completed, completed_sections, latest
    from progress
    left join sections as retired on retired.course_id = enrollment.course_id and retired.position is null
        and retired.id = progress.section_id
    where progress.user_id = enrollment.user_id and progress.course_id = enrollment.course_id;

    completed_at := enrollment.completed_at;
    counted_version := enrollment.counted_version;
    -- The first tree of those it has missed that was complete. Most have not come far enough for a closer look.
    if completed_at is null and exists (
        select from course_recounts
        where course_recounts.course_id = enrollment.course_id
            and course_recounts.tree_version > enrollment.tree_version
            and course_recounts.section_count between 1 and all_completed
    ) then
        select missed.version, max(done.completed_at) into counted_version, completed_at
        from (
            select sections.placed_during, progress.completed_at
            from progress
            join sections on sections.id = progress.section_id
            where progress.user_id = enrollment.user_id and progress.course_id = enrollment.course_id
                and progress.completed_at is not null
        ) as done
        join course_recounts as missed on missed.course_id = enrollment.course_id
            and missed.tree_version > enrollment.tree_version
            and missed.section_count between 1 and all_completed
            and coalesce(done.placed_during @> missed.version, true)
        group by missed.version, missed.section_count
        having count(*) = missed.section_count
        order by missed.version
        limit 1;
    end if;
    if completed_at is null and course.section_count > 0 and completed_sections >= course.section_count then
        completed_at := latest;
        counted_version := course.version;
    end if;
end;
$$;

-- Enrollments as they stand: those that are up to date as they are stored, the others counted afresh. Only these cost
-- more than the row: the condition is decided before the lateral part is begun.
create view standings_v1 as
select
    enrollments.user_id,
    enrollments.course_id,
    enrollments.status,
    enrollments.enrolled_at,
    enrollments.last_activity_at,
    enrollments.time_spent,
    coalesce(recounted.completed_sections, enrollments.completed_sections) as completed_sections,
    coalesce(enrollments.completed_at, recounted.completed_at) as completed_at
from enrollments
join courses on courses.id = enrollments.course_id
left join lateral (
    select standing.completed_sections, standing.completed_at
    from standing_v1(enrollments) as standing
    where enrollments.tree_version < courses.tree_version
    -- Keeps the planner from looking inside, and then counting first and comparing afterwards.
    offset 0
) as recounted on true;

-- Stores how these learners stand in a course, and returns how many were behind. The caller has locked their rows, in
-- the order of their ids.
create function settle_standings_v1(course uuid, learners text [])
returns integer
language plpgsql volatile
as $$
declare
    settled integer;
begin
    update enrollments set
        completed_sections = standing.completed_sections,
        completed_at = standing.completed_at,
        counted_version = standing.counted_version,
        tree_version = behind.current_version
    from (
        select enrollments.user_id, courses.tree_version as current_version, enrollments as enrollment
        from enrollments
        join courses on courses.id = enrollments.course_id and enrollments.tree_version < courses.tree_version
        where enrollments.course_id = course and enrollments.user_id = any (learners)
    ) as behind
    cross join lateral standing_v1(behind.enrollment) as standing
    where enrollments.course_id = course and enrollments.user_id = behind.user_id;
    get diagnostics settled = row_count;
    return settled;
end;
$$;
