-- Courses, what they are made of, who learns from them and how far they got.
--
-- Why it looks as it does:
-- * Ids are UUIDv7 made by the application, so that one round trip can insert a whole tree.
-- * Text + CHECK instead of enum types: an enum column costs the driver an extra round trip.
-- * `order` is a keyword of SQL and therefore called `position` here.
-- * user ids are opaque text (the `sub` of a token) and compare byte by byte: locks are taken in that order.
-- * Nothing is ever deleted by cascade; a course is archived and history stays.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

create table courses (
    id uuid constraint courses_pkey primary key,
    owner_id text collate "C" not null,
    title text not null,
    description text not null,
    difficulty text not null,
    image_url text,
    estimated_hours double precision,
    status text not null default 'draft',
    version bigint not null default 1,
    -- Exact and written by whoever changes the tree, so that no list and no percentage has to count.
    lesson_count integer not null default 0,
    section_count integer not null default 0,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    -- The first publication; it stays when the course is unpublished.
    published_at timestamptz,
    constraint courses_owner_id_check check (char_length(owner_id) between 1 and 255),
    constraint courses_title_check check (title collate "C" ~ '\S' and char_length(title) <= 500),
    constraint courses_description_check check (char_length(description) <= 20000),
    constraint courses_difficulty_check check (difficulty in ('beginner', 'intermediate', 'advanced')),
    constraint courses_image_url_check check (image_url ~ '^https://' and char_length(image_url) <= 2000),
    constraint courses_estimated_hours_check check (estimated_hours between 0 and 10000),
    constraint courses_status_check check (status in ('draft', 'published', 'archived')),
    constraint courses_published_at_check check (status <> 'published' or published_at is not null),
    constraint courses_version_check check (version >= 1),
    constraint courses_counts_check check (lesson_count >= 0 and section_count >= 0)
);

-- list-courses, `GET /courses` (LIST_NEWEST): published courses, newest publication first.
create index courses_newest_idx on courses (published_at desc, id desc) where status = 'published';
-- list-courses, `GET /courses?difficulty=` (LIST_NEWEST with a difficulty).
create index courses_difficulty_newest_idx on courses (difficulty, published_at desc, id desc)
where status = 'published';
-- list-courses, `GET /courses?sort=title` (LIST_BY_TITLE).
create index courses_title_idx on courses (lower(title) collate "C", id) where status = 'published';
-- list-courses, `GET /me/authored-courses` (LIST_AUTHORED).
create index courses_owner_idx on courses (owner_id, created_at desc, id desc);

create table lessons (
    id uuid constraint lessons_pkey primary key,
    course_id uuid not null,
    title text not null,
    position integer not null,
    created_at timestamptz not null,
    -- Serves the outline: the lessons of a course in their order.
    constraint lessons_position_key unique (course_id, position),
    -- The target of the sections' foreign key: a section can only stand in a lesson of its own course.
    constraint lessons_course_key unique (id, course_id),
    constraint lessons_course_fkey foreign key (course_id) references courses (id),
    constraint lessons_title_check check (title collate "C" ~ '\S' and char_length(title) <= 500),
    constraint lessons_position_check check (position >= 1)
);

create table sections (
    id uuid constraint sections_pkey primary key,
    lesson_id uuid not null,
    -- The lesson's course again, so that one index range holds all sections of a course.
    course_id uuid not null,
    title text not null,
    content text not null,
    type text not null,
    position integer not null,
    -- Seconds.
    duration integer,
    created_at timestamptz not null,
    -- Serves the outline (course_id), a lesson's page (course_id, lesson_id) and "the next section in course order".
    constraint sections_position_key unique (course_id, lesson_id, position),
    constraint sections_lesson_fkey foreign key (lesson_id, course_id) references lessons (id, course_id),
    constraint sections_title_check check (title collate "C" ~ '\S' and char_length(title) <= 500),
    constraint sections_type_check check (type collate "C" ~ '\S' and char_length(type) <= 50),
    constraint sections_position_check check (position >= 1),
    constraint sections_duration_check check (duration >= 0)
);

-- Which Idempotency-Key of `POST /courses` made which course. Claimed before anything else is written, in the same
-- transaction, so that a refused request leaves no row and a repeated one does no work. A key never expires.
create table course_creations (
    owner_id text collate "C" not null,
    idempotency_key text collate "C" not null,
    -- SHA-256 of the request body.
    request_hash bytea not null,
    course_id uuid not null,
    constraint course_creations_pkey primary key (owner_id, idempotency_key),
    constraint course_creations_course_fkey foreign key (course_id) references courses (id),
    constraint course_creations_key_check check (char_length(idempotency_key) between 1 and 255),
    constraint course_creations_hash_check check (octet_length(request_hash) = 32)
);

-- What `POST /courses` answered: the same key gets the same answer again, whatever has become of the course since.
create table course_creation_answers (
    course_id uuid constraint course_creation_answers_pkey primary key,
    body text not null,
    constraint course_creation_answers_course_fkey foreign key (course_id) references courses (id)
);

create table enrollments (
    user_id text collate "C" not null,
    course_id uuid not null,
    status text not null default 'active',
    enrolled_at timestamptz not null,
    -- Null until every section that the course had was complete; then never null again but by a reset.
    completed_at timestamptz,
    -- The latest occurrence among the learner's recorded events; a reset leaves it, the activity did happen.
    last_activity_at timestamptz,
    -- Events that occurred at or before this moment are refused as `before_reset`.
    reset_at timestamptz,
    -- Counts up with each reset. An event belongs to the attempt in which it was recorded.
    attempt integer not null default 1,
    -- The fold of this attempt's progress over the course, rewritten under this row's lock by whoever records.
    completed_sections integer not null default 0,
    time_spent bigint not null default 0,
    -- Serves every read of one learner, `GET /me/courses` included, and is the order in which locks are taken.
    constraint enrollments_pkey primary key (user_id, course_id),
    constraint enrollments_course_fkey foreign key (course_id) references courses (id),
    constraint enrollments_user_id_check check (char_length(user_id) between 1 and 255),
    constraint enrollments_status_check check (status in ('active', 'cancelled')),
    constraint enrollments_attempt_check check (attempt >= 1),
    constraint enrollments_completed_sections_check check (completed_sections >= 0),
    constraint enrollments_time_spent_check check (time_spent >= 0)
)
-- Every recorded batch rewrites its row; room on the page keeps those updates off the indexes (HOT).
with (fillfactor = 80);

-- refresh-analytics (COMPUTE): all enrollments of one course.
create index enrollments_course_idx on enrollments (course_id);

-- The fold of a learner's events on one section.
create table progress (
    user_id text collate "C" not null,
    course_id uuid not null,
    section_id uuid not null,
    -- Seconds.
    time_spent bigint not null,
    -- The earliest completing event; a later event never takes it back.
    completed_at timestamptz,
    first_at timestamptz not null,
    last_at timestamptz not null,
    -- One range a learner and course serves the rollup, a reset and the last section; the whole key all else.
    constraint progress_pkey primary key (user_id, course_id, section_id),
    -- There is no foreign key to sections on purpose: its row locks would make every learner of a lecture queue at the
    -- same section's row. Sections are never deleted, and record_progress_v1 only writes what it read from them.
    constraint progress_enrollment_fkey foreign key (user_id, course_id) references enrollments (user_id, course_id),
    constraint progress_time_spent_check check (time_spent >= 0),
    constraint progress_times_check check (first_at <= last_at and completed_at between first_at and last_at)
) with (fillfactor = 80);

-- The event ledger: which events have been counted, exactly as they were sent. Written in the transaction that counts.
create table progress_events (
    user_id text collate "C" not null,
    event_id uuid not null,
    course_id uuid not null,
    section_id uuid not null,
    -- Seconds.
    time_spent integer not null,
    completed boolean not null,
    -- As sent: null where the sender named no time, and then the event occurred when it was recorded.
    occurred_at timestamptz,
    recorded_at timestamptz not null,
    attempt integer not null,
    -- Serves the look-up by which a repeated event is known. No foreign key: this is the largest table, written only by
    -- record_progress_v1 under the lock of the enrollment that a key would check once more for each row.
    constraint progress_events_pkey primary key (user_id, event_id),
    constraint progress_events_time_spent_check check (time_spent between 0 and 86400)
);
