-- lectern: no transaction
-- Whoever writes progress notes what becomes of the completions of sections (V27), and so does who cancels or comes back.
--
-- Row by row, and only for rows of which one begins or ends: most events complete nothing, and then there is nothing to
-- run. One table at a time, as in V11. Started again it replaces what is there.

do $$
begin
    perform set_config('lock_timeout', '1s', true);
    create or replace trigger progress_completed after insert on progress
        for each row when (new.completed_at is not null) execute function note_completion_v1();
    create or replace trigger progress_completed_later after update on progress
        for each row when ((old.completed_at is null) <> (new.completed_at is null))
        execute function note_completion_v1();
    create or replace trigger progress_cleared after delete on progress
        for each row when (old.completed_at is not null) execute function note_completion_v1();
    commit;

    perform set_config('lock_timeout', '1s', true);
    create or replace trigger enrollments_status_changed after update of status on enrollments
        for each row when ((old.status = 'cancelled') <> (new.status = 'cancelled'))
        execute function note_completions_v1();
    commit;
end;
$$;
