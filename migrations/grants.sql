-- Who may do what: the whole of it, stated anew at the end of every migration, so that nothing is left of what was said
-- before. Roles that are not there are passed over; see roles.sql.
--
--   lectern_read      list-courses, get-course, get-progress, get-analytics
--   lectern_write     generate-course, update-course, enroll-learner, record-progress, replay-parked, manage-learner
--   lectern_refresh   refresh-analytics
--   lectern_migrate   migrate, which owns everything and needs no line
--
-- Nothing is granted by default. A new table or view stands here with what each role gets, or with null: a test fails for
-- one that does not. What `for update` locks takes the right to update some column of it.

do $$
declare
    wanted record;
begin
    execute format('revoke create on schema %I from public', current_schema());
    for wanted in
        select relations.name as relation, roles.name as role, roles.privileges
        from (values
            (
                'courses', 'select',
                -- Neither the owner, whom only an erasure takes away, nor the count that is of the last refresh.
                'select, insert, update (title, description, difficulty, image_url, estimated_hours, status, version, '
                'lesson_count, section_count, updated_at, published_at, analytics_enabled, tree_version, open_during)',
                'select, update (enrollment_count)'
            ),
            -- The refresh counts lessons and sections, and reads none.
            ('lessons', 'select', 'select, insert, update', 'select (id, course_id, position)'),
            ('sections', 'select', 'select, insert, update', 'select (id, course_id, lesson_id, position, placed_during)'),
            (
                'enrollments', 'select', 'select, insert, update',
                'select, update (completed_sections, completed_at, counted_version, tree_version)'
            ),
            ('standings_v1', 'select', 'select', 'select'),
            ('standings_v2', 'select', 'select', 'select'),
            -- A reset deletes a learner's.
            ('progress', 'select', 'select, insert, update, delete', 'select'),
            -- Recording adds to the ledger, and forgetting, which locks what it deletes, is for the refresh.
            ('progress_events', null, 'select, insert', 'select, delete, update (recorded_at)'),
            ('ledger_horizon', null, 'select', 'select, update'),
            ('course_analytics', 'select', 'insert (course_id)', 'select, insert, update'),
            -- Written by all who change something, read by who reckons.
            ('course_changes', null, 'insert (course_id)', 'select, insert, delete'),
            ('section_completions', 'select', null, 'select, insert, update'),
            -- By triggers, of whoever writes progress or enrollments.
            ('section_completion_changes', null, 'insert (course_id, section_id, difference)', 'select, insert, delete'),
            ('course_recounts', 'select', 'select, insert', 'select, delete'),
            ('course_edits', null, 'select, insert, delete', null),
            ('course_creations', null, 'select, insert', null),
            ('course_creation_answers', null, 'select, insert', null),
            ('lesson_additions', null, 'select, insert', null),
            ('erasures', null, 'select, insert, update', null),
            ('schema_migrations', null, null, null)
        ) as relations (name, may_read, may_write, may_refresh)
        cross join lateral (values
            ('lectern_read', relations.may_read),
            ('lectern_write', relations.may_write),
            ('lectern_refresh', relations.may_refresh)
        ) as roles (name, privileges)
        join pg_roles on pg_roles.rolname = roles.name
    loop
        execute format('revoke all on %I from %I', wanted.relation, wanted.role);
        if wanted.privileges is not null then
            execute format('grant %s on %I to %I', wanted.privileges, wanted.relation, wanted.role);
        end if;
    end loop;

    for wanted in
        select pg_roles.rolname as role
        from pg_roles
        where pg_roles.rolname in ('lectern_read', 'lectern_write', 'lectern_refresh')
    loop
        execute format('grant usage on schema %I to %I', current_schema(), wanted.role);
        if wanted.role = 'lectern_write' then
            -- The one way to delete an enrollment: all of one person, by a function that runs as its owner.
            execute format(
                'grant execute on function erase_learner_v1(text, uuid, timestamptz, integer, integer) to %I', wanted.role
            );
        end if;
    end loop;
end;
$$;
