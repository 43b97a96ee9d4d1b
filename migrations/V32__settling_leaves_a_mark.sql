-- Whoever is settled changes the figures of their course, be it the refresh that settles them or a batch in which nothing is
-- recorded: in either case the course is marked here. So far the refresh marked by itself, and such a batch did not.
--
-- Replaced and not made anew, because record_progress_v3 and v4 call it, and a mark too many does no harm.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

create or replace function settle_standings_v1(course uuid, learners text [])
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
    if settled > 0 then
        insert into course_changes (course_id) values (course);
    end if;
    return settled;
end;
$$;
