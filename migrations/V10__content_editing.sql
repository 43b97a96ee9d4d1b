-- What a course needs so that its tree can change while people learn from it.
--
-- * A retired lesson or section has no place: `position` is null. It leaves the outline, the counts and the uniqueness
--   among its siblings; its row and all progress on it stay, and a place brings it back.
-- * `tree_version` moves when sections that learners may have completed are retired or restored. An enrollment says by
--   which one its `completed_sections` was counted. Where it is behind its course, the number is counted afresh by
--   whoever reads it (V12), and put right by whoever records, or in batches (shared/src/recount.rs).
--
-- All new columns are nullable or have a constant default, so nothing is rewritten.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- No binary of before retires anything, so none meets a row without a place until those of after have taken over.
-- squawk-ignore ban-drop-not-null
alter table lessons alter column position drop not null;

-- squawk-ignore ban-drop-not-null
alter table sections alter column position drop not null;

alter table sections
-- Since when a restored section stands in the outline again; null means: since it was created.
add column restored_at timestamptz;

alter table courses add column tree_version integer not null default 1;

alter table enrollments add column tree_version integer not null default 1;

-- What each version changed, for whoever finds that theirs is no longer the current one. The latest hundred of a course
-- are kept.
create table course_edits (
    course_id uuid not null,
    -- The version that the change led to.
    version bigint not null,
    edited_at timestamptz not null,
    -- As the client gets it: which fields, lessons and sections.
    change text not null,
    constraint course_edits_pkey primary key (course_id, version),
    constraint course_edits_course_fkey foreign key (course_id) references courses (id)
);

-- Recounts that were left to the scheduled refresh, because many are enrolled: the sections that the course had at a
-- tree_version. Somebody who had completed all of them then is completed, even if more were added before their turn.
create table course_recounts (
    course_id uuid not null,
    tree_version integer not null,
    section_count integer not null,
    section_ids uuid [] not null,
    constraint course_recounts_pkey primary key (course_id, tree_version),
    constraint course_recounts_course_fkey foreign key (course_id) references courses (id)
);

-- Which Idempotency-Key of `POST /courses/{courseId}/lessons` has been used, and what was answered. As course_creations.
create table lesson_additions (
    user_id text collate "C" not null,
    idempotency_key text collate "C" not null,
    -- SHA-256 of the course's id and the request body.
    request_hash bytea not null,
    body text not null,
    constraint lesson_additions_pkey primary key (user_id, idempotency_key),
    constraint lesson_additions_key_check check (char_length(idempotency_key) between 1 and 255),
    constraint lesson_additions_hash_check check (octet_length(request_hash) = 32)
);
