-- lectern: no transaction
-- Lessons and sections that can be retired, and what enrollments need to follow.
--
-- A retired lesson or section has no place: `position` is null. It leaves the outline, the counts and the uniqueness among
-- its siblings; its row and all progress on it stay, and a place brings it back.
--
-- One table at a time, each committed by itself: readers lock these tables in many orders, and whoever holds one while it
-- waits for another would deadlock with them. Started again it passes over what is done. Nothing is rewritten: the new
-- columns are nullable or have a constant default.

do $$
begin
    perform set_config('lock_timeout', '1s', true);
    alter table lessons alter column position drop not null;
    commit;

    perform set_config('lock_timeout', '1s', true);
    alter table sections
        alter column position drop not null,
        -- Since when a restored section stands in the outline again; null means: since it was created.
        add column if not exists restored_at timestamptz,
        -- In which versions of its course it had a place; null means: in all.
        add column if not exists placed_during int8multirange;
    commit;

    perform set_config('lock_timeout', '1s', true);
    alter table enrollments
        -- The tree by which completed_sections was counted.
        add column if not exists tree_version integer not null default 1,
        -- The version of the course by whose sections completed_at was counted; null means: by all there are.
        add column if not exists counted_version bigint,
        -- When it was active. Null means that nobody kept count, as for courses.open_during.
        add column if not exists active_during tstzmultirange;
    commit;
end;
$$;
