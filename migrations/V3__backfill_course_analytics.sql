-- lectern: no transaction
-- A row of analytics, and a mark for the first refresh, for every course that was there before them.
--
-- In batches of 1 000, each committed by itself, so that no lock is held long; started again after a kill it goes on
-- where it stopped, because courses that have a row are passed over.

do $$
declare
    batch constant integer := 1000;
    made integer;
begin
    loop
        with missing as (
            select courses.id
            from courses
            where not exists (select 1 from course_analytics where course_analytics.course_id = courses.id)
            order by courses.id
            limit batch
        ), rows_made as (
            insert into course_analytics (course_id)
            select missing.id from missing
            on conflict (course_id) do nothing
            returning course_id
        )
        insert into course_changes (course_id)
        select rows_made.course_id from rows_made;
        get diagnostics made = row_count;
        commit;
        exit when made = 0;
    end loop;
end;
$$;
