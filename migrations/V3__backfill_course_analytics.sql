-- lectern: no transaction
-- A row of analytics, and a mark for the first refresh, for every course that was there before them.
--
-- In batches of 1 000, each committed by itself, so that no lock is held long; started again after a kill it goes
-- through all courses again, and passes over those that have a row.

do $$
declare
    batch constant integer := 1000;
    behind uuid := '00000000-0000-0000-0000-000000000000';
begin
    loop
        with batch_of as materialized (
            select courses.id from courses where courses.id > behind order by courses.id limit batch
        ), rows_made as (
            insert into course_analytics (course_id)
            select batch_of.id from batch_of
            on conflict (course_id) do nothing
            returning course_id
        ), marked as (
            insert into course_changes (course_id)
            select rows_made.course_id from rows_made
        )
        select (array_agg(batch_of.id order by batch_of.id desc))[1] into behind from batch_of;
        commit;
        exit when behind is null;
    end loop;
end;
$$;
