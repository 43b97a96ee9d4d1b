-- What lectern_migrate needs to make the schema and to let the other roles see it. Run by prepare-database, as the
-- cluster's master.

do $$
begin
    execute format('grant connect, create on database %I to lectern_migrate', current_database());
    grant usage, create on schema public to lectern_migrate with grant option;
end;
$$;
