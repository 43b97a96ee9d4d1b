-- Courses whose tree can change: what of it the course itself keeps. All of this locks one table that is there, courses;
-- a migration that waits for the lock of one table while it holds another's would deadlock with those who read both.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

alter table courses
-- Moves when sections that learners may have completed are retired or restored. An enrollment says by which one its
-- completed_sections was counted. Where it is behind its course, the number is counted afresh by whoever reads it (V12),
-- and put right by whoever records, or in batches (shared/src/recount.rs).
add column tree_version integer not null default 1,
-- When the course was published or archived, so that learners' events counted. Null means that nobody kept count: then
-- what is true now decides, or the learner's favour.
add column open_during tstzmultirange;

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

-- The changes of counts that enrollments may have missed. Somebody who had completed all sections of one of these trees is
-- completed, even if more were added before their turn.
create table course_recounts (
    course_id uuid not null,
    tree_version integer not null,
    -- The version of the course that had this tree first, and how many sections that was.
    version bigint not null,
    section_count integer not null,
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
