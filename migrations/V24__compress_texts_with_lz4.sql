-- lectern: no transaction
-- Contents, and answers that are kept, compressed by lz4: most of the time that it took to create a large course went
-- into PostgreSQL's own compression. What is stored already stays as it is and is read as before. A server that was built
-- without lz4 goes on as it did.
do $$
declare
    texts text;
begin
    foreach texts in array array[
        'sections alter column content', 'course_creation_answers alter column body', 'lesson_additions alter column body'
    ] loop
        perform set_config('lock_timeout', '1s', true);
        begin
            execute 'alter table ' || texts || ' set compression lz4';
        exception
            when feature_not_supported then null;
        end;
        commit;
    end loop;
end;
$$;
