-- Recording in differences: what a batch costs depends on the batch, not on how much its learners have done before.
--
-- record_progress_v3 folded all of a learner's progress in the course again for each batch. v4 judges, writes the ledger,
-- folds sections and answers as v3 does, and then adds to the enrollment what the batch has changed:
--
-- * Sections count that were not complete before the batch, are now, and have a place. The enrollment has been counted by
--   today's tree (settled first, as before), so the sum is the count. Time adds up.
-- * completed_at is looked for among all sections in two cases only: when the last one is complete, and when an event
--   moves the completion of a section from behind the course's completion to an earlier moment. In all other cases the
--   latest of the sections that were counted is where it was.
-- * Beside them it keeps the resume points (V25).
--
-- v3 may run beside it, call by call: under the lock of the enrollment each finds what the other has left, and v3, which
-- folds everything, comes to the same counts.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- The current section of a course in which a learner was last active: by progress_pkey, all that they have done. Plans of
-- PL/pgSQL are kept by the session; in plain SQL this would be planned by every statement that may need it.
create function last_section_v1(learner text, course uuid) returns uuid
language plpgsql stable
as $$
begin
    return (
        select progress.section_id
        from progress
        where progress.user_id = learner and progress.course_id = course
            -- By sections_retired_idx, which is empty for most courses.
            and progress.section_id not in (
                select retired.id
                from sections as retired
                where retired.course_id = course and retired.position is null
            )
        order by progress.last_at desc, progress.section_id desc
        limit 1
    );
end;
$$;

-- The first section, in course order, that a learner has not completed. Whoever knows that all sections before a certain
-- one are complete names that one, and the search begins there. By lessons_position_key, sections_position_key and
-- progress_pkey: each lateral row ends its lesson at the first section that is open, and the first of those is the answer.
create function next_section_v1(learner text, course uuid, known uuid) returns uuid
language plpgsql stable
as $$
declare
    known_lesson uuid;
    lesson_place integer;
    section_place integer;
begin
    select lessons.id, lessons.position, sections.position into known_lesson, lesson_place, section_place
    from sections
    join lessons on lessons.id = sections.lesson_id
    where sections.id = known;
    return (
        select open.id
        from lessons
        cross join lateral (
            select sections.id
            from sections
            where sections.course_id = course and sections.lesson_id = lessons.id
                and sections.position >= case when lessons.id = known_lesson then section_place else 1 end
                and (
                    select progress.completed_at
                    from progress
                    where progress.user_id = learner and progress.course_id = course
                        and progress.section_id = sections.id
                ) is null
            order by sections.position
            limit 1
        ) as open
        where lessons.course_id = course and lessons.position >= coalesce(lesson_place, 1)
        order by lessons.position
        limit 1
    );
end;
$$;

-- How many of the current sections came, or came back, after a learner completed the course, and are open.
create function new_sections_v1(learner text, course uuid, since timestamptz) returns bigint
language plpgsql stable
as $$
begin
    return (
        select count(*)
        from sections
        where sections.course_id = course and sections.position is not null
            and coalesce(sections.restored_at, sections.created_at) > since
            and (
                select progress.completed_at
                from progress
                where progress.user_id = learner and progress.course_id = course and progress.section_id = sections.id
            ) is null
    );
end;
$$;

-- standings_v1, and whether the resume points are known: written by the transaction that wrote the row last, for the
-- course as it is.
create view standings_v2 as
select
    enrollments.user_id,
    enrollments.course_id,
    enrollments.status,
    enrollments.enrolled_at,
    enrollments.last_activity_at,
    enrollments.time_spent,
    coalesce(recounted.completed_sections, enrollments.completed_sections) as completed_sections,
    coalesce(enrollments.completed_at, recounted.completed_at) as completed_at,
    coalesce(
        enrollments.resume_version = courses.version and enrollments.resume_xact::xid = enrollments.xmin, false
    ) as knows_resume,
    enrollments.last_section_id,
    enrollments.next_section_id
from enrollments
join courses on courses.id = enrollments.course_id
left join lateral (
    select standing.completed_sections, standing.completed_at
    from standing_v1(enrollments) as standing
    where enrollments.tree_version < courses.tree_version
    -- Keeps the planner from looking inside, and then counting first and comparing afterwards.
    offset 0
) as recounted on true;

-- Records a batch of events, given as parallel arrays, and answers with the body of `POST /progress`.
-- oldest and newest bound occurred_at; name_users adds the learner to each course of the answer (batches of a service);
-- was_parked says that the batch was accepted at accepted_at while PostgreSQL was away.
create function record_progress_v4(
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
-- Plans for these arrays and no others are no better, and to make them took longer than to execute them.
set plan_cache_mode = force_generic_plan
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
    changed_sections uuid[];
    changed_times bigint[];
    changed_activities timestamptz[];
    -- When each changed section was completed, as of before the batch and as of now.
    completions_before timestamptz[];
    completions_now timestamptz[];
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
    -- Of the progress the snapshot of this statement shows what was before it. The lock keeps all others from these rows.
    changed as materialized (
        select
            fold.*, held.completed_at as completed_before,
            -- least() and greatest() pass over nulls.
            least(held.completed_at, fold.completed_at) as completed_now,
            greatest(held.last_at, fold.last_at) as active_at
        from (
            select
                fresh.user_id, fresh.course_id, fresh.section_id, sum(fresh.time_spent) as time_spent,
                min(fresh.happened_at) filter (where fresh.completed) as completed_at,
                min(fresh.happened_at) as first_at, max(fresh.happened_at) as last_at
            from fresh
            group by fresh.user_id, fresh.course_id, fresh.section_id
        ) as fold
        left join lateral (
            select progress.completed_at, progress.last_at
            from progress
            where progress.user_id = fold.user_id and progress.course_id = fold.course_id
                and progress.section_id = fold.section_id
            limit 1
        ) as held on true
    ),
    folded as (
        insert into progress (user_id, course_id, section_id, time_spent, completed_at, first_at, last_at)
        select
            changed.user_id, changed.course_id, changed.section_id, changed.time_spent, changed.completed_at,
            changed.first_at, changed.last_at
        from changed
        on conflict (user_id, course_id, section_id) do update set
            time_spent = progress.time_spent + excluded.time_spent,
            completed_at = least(progress.completed_at, excluded.completed_at),
            first_at = least(progress.first_at, excluded.first_at),
            last_at = greatest(progress.last_at, excluded.last_at)
    ),
    marked as (
        insert into course_changes (course_id)
        select distinct changed.course_id from changed
    )
    select
        (select array_agg(item.course_id order by item.position) from item),
        (select array_agg(item.refusal order by item.position) from item),
        (select array_agg(fresh.user_id order by fresh.event_id, fresh.user_id) from fresh),
        (select array_agg(fresh.event_id order by fresh.event_id, fresh.user_id) from fresh),
        changes.users, changes.courses, changes.sections, changes.times, changes.activities, changes.before, changes.now
    into
        item_courses, item_refusals, fresh_users, fresh_events, changed_users, changed_courses, changed_sections,
        changed_times, changed_activities, completions_before, completions_now
    from (
        select
            array_agg(changed.user_id) as users, array_agg(changed.course_id) as courses,
            array_agg(changed.section_id) as sections, array_agg(changed.time_spent) as times,
            array_agg(changed.active_at) as activities, array_agg(changed.completed_before) as before,
            array_agg(changed.completed_now) as now
        from changed
    ) as changes;

    -- The enrollment gets the differences. completed_at is set once, by whoever completes the last section; after that a
    -- late event may move it to an earlier moment, never to a later one. A tree that has changed since the learner was
    -- settled is left to whoever reads, and to the recount: they also see what was complete in between.
    if changed_users is not null then
        update enrollments set
            completed_sections = enrollments.completed_sections + change.completed_sections,
            time_spent = enrollments.time_spent + change.time_spent,
            last_activity_at = greatest(enrollments.last_activity_at, change.active_at),
            completed_at = case
                when change.latest_moved >= enrollments.completed_at then least(enrollments.completed_at, (
                    select max(done.completed_at)
                    from progress as done
                    join sections on sections.id = done.section_id
                    where done.user_id = enrollments.user_id and done.course_id = enrollments.course_id
                        and coalesce(sections.placed_during @> enrollments.counted_version, true)
                ))
                when enrollments.completed_at is not null then enrollments.completed_at
                when enrollments.completed_sections + change.completed_sections >= change.section_count
                    and change.section_count > 0 and enrollments.tree_version = change.tree_version then (
                    select max(done.completed_at)
                    from progress as done
                    where done.user_id = enrollments.user_id and done.course_id = enrollments.course_id
                        and done.section_id not in (
                            select retired.id
                            from sections as retired
                            where retired.course_id = enrollments.course_id and retired.position is null
                        )
                )
            end,
            counted_version = case
                when enrollments.completed_at is not null then enrollments.counted_version
                when enrollments.completed_sections + change.completed_sections >= change.section_count
                    and change.section_count > 0 and enrollments.tree_version = change.tree_version
                    then change.version
            end,
            (last_section_id, next_section_id) = (
                select
                    case
                        when not resume.is_known then last_section_v1(enrollments.user_id, enrollments.course_id)
                        -- The batch may have moved the one that was kept, too.
                        when (change.last_at, change.last_section_id) > (
                            select latest.last_at, latest.section_id
                            from progress as latest
                            where latest.user_id = enrollments.user_id and latest.course_id = enrollments.course_id
                                and latest.section_id = enrollments.last_section_id
                        ) or enrollments.last_section_id is null then change.last_section_id
                        else enrollments.last_section_id
                    end,
                    case
                        when not resume.is_known
                            then next_section_v1(enrollments.user_id, enrollments.course_id, null)
                        when change.completed_sections > 0 and enrollments.next_section_id is not null then
                            next_section_v1(
                                enrollments.user_id, enrollments.course_id, enrollments.next_section_id
                            )
                        else enrollments.next_section_id
                    end
                from (
                    select coalesce(
                        enrollments.resume_version = change.version
                        and enrollments.resume_xact::xid = enrollments.xmin, false
                    ) as is_known
                ) as resume
            ),
            resume_version = change.version,
            resume_xact = pg_current_xact_id()
        from (
            select
                changed.user_id, changed.course_id, courses.section_count, courses.tree_version, courses.version,
                (count(*) filter (
                    where changed.completed_before is null and changed.completed_now is not null
                        and sections.position is not null
                ))::integer as completed_sections,
                sum(changed.time_spent)::bigint as time_spent,
                max(changed.active_at) as active_at,
                -- The latest completion of a section that the batch has moved to an earlier moment.
                max(changed.completed_before) filter (
                    where changed.completed_now < changed.completed_before
                ) as latest_moved,
                max(changed.active_at) filter (where sections.position is not null) as last_at,
                (array_agg(changed.section_id order by changed.active_at desc, changed.section_id desc) filter (
                    where sections.position is not null
                ))[1] as last_section_id
            from unnest(
                changed_users, changed_courses, changed_sections, changed_times, changed_activities,
                completions_before, completions_now
            ) as changed (user_id, course_id, section_id, time_spent, active_at, completed_before, completed_now)
            join sections on sections.id = changed.section_id
            join courses on courses.id = changed.course_id
            group by changed.user_id, changed.course_id, courses.id
        ) as change
        where enrollments.user_id = change.user_id and enrollments.course_id = change.course_id;
    end if;

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
