-- How learners stand in courses whose tree has changed: read exactly at any moment, and put right for good in batches.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- An enrollment that was counted by an older tree, counted by today's. completed_at is what it has, or else what it
-- would have if it had been counted at each of the changes that wait in course_recounts, or now.
--
-- Not in plain SQL: that would be inlined, and then planned and begun for every enrollment that is read.
create function standing_v1(enrollment enrollments, out completed_sections integer, out completed_at timestamptz)
returns record
language plpgsql stable
as $$
declare
    section_count integer := (select courses.section_count from courses where courses.id = enrollment.course_id);
    all_completed bigint;
    latest timestamptz;
begin
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
    if completed_at is null then
        -- The first tree of those it has missed that was complete. Most have not come far enough for a closer look.
        select complete.completed_at into completed_at
        from course_recounts
        cross join lateral (
            select count(progress.completed_at) as completed, max(progress.completed_at) as completed_at
            from unnest(course_recounts.section_ids) as held (section_id)
            join progress on progress.user_id = enrollment.user_id and progress.course_id = enrollment.course_id
                and progress.section_id = held.section_id
        ) as complete
        where course_recounts.course_id = enrollment.course_id
            and course_recounts.tree_version > enrollment.tree_version
            and course_recounts.section_count between 1 and all_completed
            and complete.completed = course_recounts.section_count
        order by course_recounts.tree_version
        limit 1;
    end if;
    if completed_at is null and section_count > 0 and completed_sections >= section_count then
        completed_at := latest;
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
