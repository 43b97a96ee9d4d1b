-- erase_learner_v1 runs with the rights of its owner, so that who erases a learner may delete enrollments and events in no
-- other way (grants.sql). The names in it mean what they mean here, whatever its caller's search_path is.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

do $$
begin
    execute format(
        'alter function erase_learner_v1(text, uuid, timestamptz, integer, integer)
            security definer set search_path = %I, pg_temp',
        current_schema()
    );
end;
$$;

revoke execute on function erase_learner_v1(text, uuid, timestamptz, integer, integer) from public;
