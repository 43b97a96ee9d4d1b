-- Recording progress in courses that change. Beside what record_progress_v2 did:
--
-- * Late and parked events are judged by how things stood when they happened, as far as that is known (V11).
-- * Retired sections keep what is recorded on them, and count for nothing; whoever is behind the tree is settled first
--   (V12).
-- * A completion that has been reached depends on the sections that were counted for it, be they retired since.
--
-- record_progress_v1 and v2, which running binaries still call, become v3 by this: counted by the rules of before, a
-- learner of an edited course would be completed for good who is not.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- Records a batch of events, given as parallel arrays, and answers with the body of `POST /progress`.
-- oldest and newest bound occurred_at; name_users adds the learner to each course of the answer (batches of a service);
-- was_parked says that the batch was accepted at accepted_at while PostgreSQL was away.
create function record_progress_v3(
    users text[],
    events uuid[],
    section_ids uuid[],
    times integer[],
    completions boolean[],
    occurrences timestamptz[],
    accepted_at timestamptz,
    oldest timestamptz,
    newest timestamptz,
    name_users boolean,
    was_parked boolean
)
returns table (
    answer text,
    recorded integer,
    duplicates integer,
    rejected integer,
    -- The (learner, course) pairs of all items that count, now or before: a repeated batch may be the one whose first
    -- answer, and with it the word to the cache, was lost.
    counted_users text[],
    counted_courses uuid[]
)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    locked_users text[];
    locked_courses uuid[];
    locked_statuses text[];
    locked_attempts integer[];
    locked_resets timestamptz[];
    locked_periods tstzmultirange[];
    behind record;
    item_courses uuid[];
    item_refusals text[];
    fresh_users text[];
    fresh_events uuid[];
    changed_users text[];
    changed_courses uuid[];
    -- An event may have been recorded up to five minutes before it occurred.
    horizon timestamptz := (select max(ledger_horizon.pruned_before) + interval '5 minutes' from ledger_horizon);
begin
    -- From here on only these rows are enrollments: one that is made meanwhile is not locked, and counts the next time.
    select
        array_agg(locked.user_id), array_agg(locked.course_id), array_agg(locked.status), array_agg(locked.attempt),
        array_agg(locked.reset_at), array_agg(trusted_v1(locked.active_during, locked.status = 'active'))
    into locked_users, locked_courses, locked_statuses, locked_attempts, locked_resets, locked_periods
    from (
        select enrollments.*
        from enrollments
        join (
            select distinct item.user_id, sections.course_id
            from unnest(users, section_ids) as item (user_id, section_id)
            join sections on sections.id = item.section_id
        ) as touched on touched.user_id = enrollments.user_id and touched.course_id = enrollments.course_id
        order by enrollments.user_id, enrollments.course_id
        for no key update of enrollments
    ) as locked;

    -- Whoever missed a change of the tree is put right before anything is added: they may have been complete since.
    for behind in
        select courses.id as course, array_agg(locked.user_id) as learners
        from unnest(locked_users, locked_courses) as locked (user_id, course_id)
        join enrollments on enrollments.user_id = locked.user_id and enrollments.course_id = locked.course_id
        join courses on courses.id = locked.course_id and enrollments.tree_version < courses.tree_version
        group by courses.id
    loop
        perform settle_standings_v1(behind.course, behind.learners);
    end loop;

    -- Judge each item by itself, write the good ones that the ledger does not know, and fold exactly those.
    with item as (
        select
            sent.position, sent.user_id, sent.event_id, sent.section_id, sent.time_spent, sent.completed,
            sent.occurred_at, sections.course_id, enrollments.attempt,
            case
                when sections.id is null then 'unknown_section'
                when access.level = 'none' and enrollments.user_id is null then 'unknown_section'
                -- It counts if it was welcome when it was accepted, or when it occurred. How things stood at the
                -- acceptance of a parked event is not always known: then in the learner's favour.
                when not coalesce(
                    opened.during @> sent.occurred_at
                    or case
                        when not was_parked then courses.status <> 'draft'
                        when opened.during is not null then opened.during @> accepted_at
                        else courses.status <> 'draft' or courses.published_at <= accepted_at
                    end, false
                ) then 'not_published'
                when enrollments.user_id is null or not coalesce(
                    enrollments.periods @> sent.occurred_at
                    or case
                        when not was_parked then enrollments.status = 'active'
                        else enrollments.periods is null or enrollments.periods @> accepted_at
                    end, false
                ) then 'not_enrolled'
                -- What the ledger may have forgotten would count again.
                when sent.occurred_at < greatest(oldest, horizon) then 'too_old'
                when sent.occurred_at > newest then 'in_future'
                when coalesce(sent.occurred_at, accepted_at) <= enrollments.reset_at then 'before_reset'
            end as refusal
        from unnest(users, events, section_ids, times, completions, occurrences) with ordinality
            as sent (user_id, event_id, section_id, time_spent, completed, occurred_at, position)
        left join sections on sections.id = sent.section_id
        left join courses on courses.id = sections.course_id
        left join unnest(
            locked_users, locked_courses, locked_statuses, locked_attempts, locked_resets, locked_periods
        ) as enrollments (user_id, course_id, status, attempt, reset_at, periods)
            on enrollments.user_id = sent.user_id and enrollments.course_id = sections.course_id
        cross join lateral (
            select course_access_v1(courses.status, courses.owner_id = sent.user_id, enrollments.status) as level
        ) as access
        cross join lateral (
            select trusted_v1(courses.open_during, courses.status <> 'draft') as during
        ) as opened
    ),
    fresh as (
        insert into progress_events (
            user_id, event_id, course_id, section_id, time_spent, completed, occurred_at, recorded_at, attempt
        )
        select distinct on (item.user_id collate "C", item.event_id)
            item.user_id, item.event_id, item.course_id, item.section_id, item.time_spent, item.completed,
            item.occurred_at, accepted_at, item.attempt
        from item
        where item.refusal is null
        order by item.user_id collate "C", item.event_id, item.position
        on conflict (user_id, event_id) do nothing
        returning user_id, event_id, course_id, section_id, time_spent, completed,
            coalesce(occurred_at, recorded_at) as happened_at
    ),
    folded as (
        insert into progress (user_id, course_id, section_id, time_spent, completed_at, first_at, last_at)
        select
            fresh.user_id, fresh.course_id, fresh.section_id, sum(fresh.time_spent),
            min(fresh.happened_at) filter (where fresh.completed), min(fresh.happened_at), max(fresh.happened_at)
        from fresh
        group by fresh.user_id, fresh.course_id, fresh.section_id
        on conflict (user_id, course_id, section_id) do update set
            time_spent = progress.time_spent + excluded.time_spent,
            -- least() and greatest() pass over nulls.
            completed_at = least(progress.completed_at, excluded.completed_at),
            first_at = least(progress.first_at, excluded.first_at),
            last_at = greatest(progress.last_at, excluded.last_at)
    ),
    marked as (
        insert into course_changes (course_id)
        select distinct fresh.course_id from fresh
    )
    select
        (select array_agg(item.course_id order by item.position) from item),
        (select array_agg(item.refusal order by item.position) from item),
        (select array_agg(fresh.user_id order by fresh.event_id, fresh.user_id) from fresh),
        (select array_agg(fresh.event_id order by fresh.event_id, fresh.user_id) from fresh),
        (select array_agg(pair.user_id) from (select distinct fresh.user_id, fresh.course_id from fresh) as pair),
        (select array_agg(pair.course_id) from (select distinct fresh.user_id, fresh.course_id from fresh) as pair)
    into item_courses, item_refusals, fresh_users, fresh_events, changed_users, changed_courses;

    -- The enrollment carries the fold over its course. completed_at is set once, by whoever completes the last section;
    -- after that a late event may move it to an earlier moment, never to a later one. A tree that has changed since the
    -- learner was settled is left to whoever reads, and to the recount: they also see what was complete in between.
    update enrollments set
        completed_sections = fold.completed_sections,
        time_spent = fold.time_spent,
        last_activity_at = greatest(enrollments.last_activity_at, fold.last_at),
        completed_at = case
            when enrollments.completed_at is not null then least(enrollments.completed_at, (
                select max(done.completed_at)
                from progress as done
                join sections on sections.id = done.section_id
                where done.user_id = enrollments.user_id and done.course_id = enrollments.course_id
                    and coalesce(sections.placed_during @> enrollments.counted_version, true)
            ))
            when fold.is_complete and enrollments.tree_version = fold.tree_version then fold.completed_at
        end,
        counted_version = case
            when enrollments.completed_at is not null then enrollments.counted_version
            when fold.is_complete and enrollments.tree_version = fold.tree_version then fold.version
        end
    from (
        select
            progress.user_id, progress.course_id, courses.tree_version, courses.version,
            courses.section_count > 0
            and count(progress.completed_at) filter (where retired.id is null) >= courses.section_count as is_complete,
            (count(progress.completed_at) filter (where retired.id is null))::integer as completed_sections,
            sum(progress.time_spent)::bigint as time_spent,
            max(progress.last_at) as last_at,
            max(progress.completed_at) filter (where retired.id is null) as completed_at
        from (
            select distinct pair.user_id, pair.course_id
            from unnest(changed_users, changed_courses) as pair (user_id, course_id)
        ) as changed
        join courses on courses.id = changed.course_id
        join progress on progress.user_id = changed.user_id and progress.course_id = changed.course_id
        left join sections as retired on retired.course_id = progress.course_id and retired.position is null
            and retired.id = progress.section_id
        group by
            progress.user_id, progress.course_id, courses.section_count, courses.tree_version, courses.version
    ) as fold
    where enrollments.user_id = fold.user_id and enrollments.course_id = fold.course_id;

    -- What became of each item, read from the ledger as it stands now: another batch may have been first with an id.
    return query
    with item as (
        select sent.*
        from unnest(
            users, events, section_ids, times, completions, occurrences, item_courses, item_refusals
        ) with ordinality as sent (
            user_id, event_id, section_id, time_spent, completed, occurred_at, course_id, refusal, position
        )
    ),
    judged as (
        select
            item.position, item.user_id, item.event_id, item.course_id,
            case
                when ledger.event_id is null then 'rejected'
                when fresh.event_id is not null and item.refusal is null and item.position = min(item.position)
                    filter (where item.refusal is null) over (partition by item.user_id, item.event_id) then 'recorded'
                when ledger.section_id = item.section_id and ledger.time_spent = item.time_spent
                    and ledger.completed = item.completed
                    and ledger.occurred_at is not distinct from item.occurred_at then 'duplicate'
                else 'rejected'
            end as status,
            case when ledger.event_id is null then item.refusal else 'event_conflict' end as refusal
        from item
        left join progress_events as ledger
            on ledger.user_id = item.user_id and ledger.event_id = item.event_id
        left join unnest(fresh_users, fresh_events) as fresh (user_id, event_id)
            on fresh.user_id = item.user_id and fresh.event_id = item.event_id
    ),
    counted as (
        select distinct judged.user_id, judged.course_id from judged where judged.status <> 'rejected'
    ),
    summary as (
        select
            json_agg(
                case when name_users then json_build_object(
                    'courseId', courses.id,
                    'userId', enrollments.user_id,
                    'completedSections', enrollments.completed_sections,
                    'totalSections', courses.section_count,
                    'completionPercentage',
                    completion_percentage_v1(enrollments.completed_sections, courses.section_count),
                    'completedAt', rfc3339_v1(enrollments.completed_at)
                ) else json_build_object(
                    'courseId', courses.id,
                    'completedSections', enrollments.completed_sections,
                    'totalSections', courses.section_count,
                    'completionPercentage',
                    completion_percentage_v1(enrollments.completed_sections, courses.section_count),
                    'completedAt', rfc3339_v1(enrollments.completed_at)
                ) end
                order by enrollments.user_id, courses.id
            ) as courses
        from counted
        join courses on courses.id = counted.course_id and courses.status <> 'draft'
        join standings_v1 as enrollments on enrollments.user_id = counted.user_id
            and enrollments.course_id = counted.course_id
    ),
    counts as (
        select
            (count(*) filter (where judged.status = 'recorded'))::integer as recorded,
            (count(*) filter (where judged.status = 'duplicate'))::integer as duplicates,
            (count(*) filter (where judged.status = 'rejected'))::integer as rejected,
            json_agg(
                json_build_object(
                    'eventId', judged.event_id,
                    'status', judged.status,
                    'code', case when judged.status = 'rejected' then judged.refusal end
                )
                order by judged.position
            ) as results
        from judged
    )
    select
        json_build_object(
            'results', counts.results,
            'recorded', counts.recorded,
            'duplicates', counts.duplicates,
            'rejected', counts.rejected,
            'courses', coalesce(summary.courses, '[]'::json)
        )::text,
        counts.recorded, counts.duplicates, counts.rejected,
        (select coalesce(array_agg(counted.user_id), '{}') from counted),
        (select coalesce(array_agg(counted.course_id), '{}') from counted)
    from counts cross join summary;
end;
$$;

create or replace function record_progress_v2(
    users text[],
    events uuid[],
    section_ids uuid[],
    times integer[],
    completions boolean[],
    occurrences timestamptz[],
    accepted_at timestamptz,
    oldest timestamptz,
    newest timestamptz,
    name_users boolean,
    was_parked boolean
)
returns table (
    answer text, recorded integer, duplicates integer, rejected integer, counted_users text[], counted_courses uuid[]
)
language plpgsql volatile
as $$
begin
    return query select * from record_progress_v3(
        users, events, section_ids, times, completions, occurrences, accepted_at, oldest, newest, name_users, was_parked
    );
end;
$$;

create or replace function record_progress_v1(
    users text[],
    events uuid[],
    section_ids uuid[],
    times integer[],
    completions boolean[],
    occurrences timestamptz[],
    accepted_at timestamptz,
    oldest timestamptz,
    newest timestamptz,
    name_users boolean
)
returns table (
    answer text, recorded integer, duplicates integer, rejected integer, counted_users text[], counted_courses uuid[]
)
language plpgsql volatile
as $$
begin
    return query select * from record_progress_v3(
        users, events, section_ids, times, completions, occurrences, accepted_at, oldest, newest, name_users, false
    );
end;
$$;
