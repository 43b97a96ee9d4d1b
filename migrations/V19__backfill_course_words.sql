-- lectern: no transaction
-- The words of the courses that were there before them, in batches of 500, each committed by itself. Started again after a
-- kill it passes over those that have them.

do $$
declare
    batch constant integer := 500;
begin
    loop
        update courses set words = course_words_v1(courses.title, courses.description)
        where courses.id in (
            select wordless.id from courses as wordless where wordless.words is null order by wordless.id limit batch
        );
        exit when not found;
        commit;
    end loop;
end;
$$;
