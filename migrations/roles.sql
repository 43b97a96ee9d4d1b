-- The roles in which Lectern comes to PostgreSQL, and their limits. What each may do is in grants.sql.
--
-- Run at the end of every migration, and before the first one by prepare-database, as the cluster's master. Roles belong
-- to the cluster, so another database may make them at the same moment. And whoever migrates may not be allowed to make
-- any: then those that are there are used, and migrate says which are missing.
--
-- They have no password: where AWS keeps the database they come by IAM, elsewhere by what a person gives them.

do $$
declare
    wanted record;
    setting text;
begin
    for wanted in
        select roles.name, roles.settings
        from (values
            -- A read is given up after 2.5 s by who asked, a range of a roster after 8.
            ('lectern_read', array['statement_timeout=10s', 'lock_timeout=1s']),
            -- POST /courses may take 15 s. A lock, less than the 1.8 s after which progress is parked.
            ('lectern_write', array['statement_timeout=20s', 'lock_timeout=1s']),
            -- A reconcile reads the whole ledger in one statement, and has four minutes: it sorts in memory what it can.
            ('lectern_refresh', array['statement_timeout=240s', 'lock_timeout=10s', 'work_mem=32MB']),
            -- Each migration sets its own.
            ('lectern_migrate', array[]::text [])
        ) as roles (name, settings)
    loop
        begin
            if not exists (select from pg_roles where pg_roles.rolname = wanted.name) then
                execute format('create role %I login', wanted.name);
            end if;
        exception
            when duplicate_object or unique_violation or insufficient_privilege then null;
        end;
        begin
            -- No statement of ours is so long that compiling it pays, and the largest are thought to be.
            foreach setting in array wanted.settings || array['idle_in_transaction_session_timeout=10s', 'jit=off']
            loop
                execute format(
                    'alter role %I in database %I set %s = %L',
                    wanted.name, current_database(), split_part(setting, '=', 1), split_part(setting, '=', 2)
                );
            end loop;
        exception
            when undefined_object or insufficient_privilege then null;
        end;
        begin
            -- A role of RDS: its members bring a token of IAM in place of a password.
            if exists (select from pg_roles where pg_roles.rolname = 'rds_iam')
                and not pg_has_role(wanted.name, 'rds_iam', 'member')
            then
                execute format('grant rds_iam to %I', wanted.name);
            end if;
        exception
            when undefined_object or insufficient_privilege then null;
        end;
    end loop;
end;
$$;
