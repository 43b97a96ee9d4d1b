-- Erasing everything that is kept under one user id (shared/src/erasure.rs).

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- Null once the owner was erased: the course is the admins'. Nobody's id is equal to null, so it gives nobody a right.
-- Binaries of before compare it only, and never read it.
-- squawk-ignore ban-drop-not-null
alter table courses alter column owner_id drop not null;

-- That something was erased, and how much: never whose it was, nor who asked for it.
create table erasures (
    -- Made for this purpose.
    id uuid constraint erasures_pkey primary key,
    began_at timestamptz not null,
    -- Null where it was cut short. Whoever asked for it was told so, and another one went on.
    finished_at timestamptz,
    enrollments bigint not null default 0,
    progress bigint not null default 0,
    events bigint not null default 0,
    -- Courses that have no owner any more.
    courses bigint not null default 0,
    -- With the answers that were kept under them.
    idempotency_keys bigint not null default 0,
    -- In DynamoDB, removed or rewritten.
    submissions bigint not null default 0
);

-- Erases a part of what is kept under a user id, in the transaction of the statement, and returns how many rows that
-- were. Whoever calls it until there was nothing more has erased everything, wherever another call was cut short.
--
-- * Enrollments first, locked in the order in which all others lock them. A batch that is being recorded comes before or
--   after; after, it finds no enrollment and counts for nothing. What it wrote before is seen here, because each
--   statement has a snapshot of its own.
-- * The ledger only when no enrollment is left: until then it is what progress is folded from.
-- * The courses of an author in a call that has locked no enrollment: editors lock a course before its enrollments.
create function erase_learner_v1(learner text, erasure uuid, began timestamptz, most_enrollments integer, most integer)
returns integer
language plpgsql volatile
as $$
declare
    taken uuid [];
    erased_progress integer := 0;
    erased_enrollments integer := 0;
    erased_events integer := 0;
    erased_creations integer := 0;
    erased_additions integer := 0;
    erased_courses integer := 0;
    erased integer;
begin
    -- By enrollments_pkey, as all that follows is by the user's range of a primary key.
    select array_agg(locked.course_id) into taken
    from (
        select enrollments.course_id
        from enrollments
        where enrollments.user_id = learner
        order by enrollments.user_id, enrollments.course_id
        limit most_enrollments
        for update
    ) as locked;

    delete from progress where progress.user_id = learner and progress.course_id = any (taken);
    get diagnostics erased_progress = row_count;
    delete from enrollments where enrollments.user_id = learner and enrollments.course_id = any (taken);
    get diagnostics erased_enrollments = row_count;
    insert into course_changes (course_id) select left_course.id from unnest(taken) as left_course (id);

    if erased_enrollments < most_enrollments then
        delete from progress_events
        where progress_events.ctid = any (array(
            select forgotten.ctid
            from progress_events as forgotten
            where forgotten.user_id = learner
            order by forgotten.event_id
            limit most
            -- Another erasure may be at the same rows: what it has taken is passed over, not counted as nothing left.
            for update
        ));
        get diagnostics erased_events = row_count;
    end if;

    if erased_enrollments = 0 and erased_events < most then
        with released as (
            delete from course_creations
            where course_creations.owner_id = learner and course_creations.idempotency_key = any (array(
                select used.idempotency_key
                from course_creations as used
                where used.owner_id = learner
                order by used.idempotency_key
                limit most
                for update
            ))
            returning course_creations.course_id
        ), forgotten as (
            delete from course_creation_answers
            using released
            where course_creation_answers.course_id = released.course_id
        )
        select count(*) into erased_creations from released;

        delete from lesson_additions
        where lesson_additions.user_id = learner and lesson_additions.idempotency_key = any (array(
            select used.idempotency_key
            from lesson_additions as used
            where used.user_id = learner
            order by used.idempotency_key
            limit most
            for update
        ));
        get diagnostics erased_additions = row_count;

        -- By courses_owner_idx.
        update courses set owner_id = null
        where courses.id = any (array(
            select owned.id
            from courses as owned
            where owned.owner_id = learner
            order by owned.id
            limit most
            for no key update
        ));
        get diagnostics erased_courses = row_count;
    end if;

    erased := erased_enrollments + erased_progress + erased_events + erased_creations + erased_additions
        + erased_courses;
    if erased > 0 then
        insert into erasures as begun (
            id, began_at, enrollments, progress, events, courses, idempotency_keys
        )
        values (
            erasure, began, erased_enrollments, erased_progress, erased_events, erased_courses,
            erased_creations + erased_additions
        )
        on conflict (id) do update set
            enrollments = begun.enrollments + excluded.enrollments,
            progress = begun.progress + excluded.progress,
            events = begun.events + excluded.events,
            courses = begun.courses + excluded.courses,
            idempotency_keys = begun.idempotency_keys + excluded.idempotency_keys;
    end if;
    return erased;
end;
$$;
