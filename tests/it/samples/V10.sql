-- What came to the samples before while V10 was the latest migration: a course with a note of an edit, one that waits for
-- a recount, and appended lessons.

update courses set
    version = version + 1, open_during = '{[2026-02-10T08:00:00.123456Z,)}', updated_at = '2026-04-01T08:00:00Z'
where id = '00000000-0000-7000-8000-0000000000c1';

insert into course_edits (course_id, version, edited_at, change)
select courses.id, courses.version, courses.updated_at, '{"fields":[]}'
from courses
where courses.id = '00000000-0000-7000-8000-0000000000c1';

insert into course_recounts (course_id, tree_version, version, section_count)
select courses.id, courses.tree_version, courses.version, courses.section_count
from courses
where courses.id = '00000000-0000-7000-8000-0000000000c1';

insert into lesson_additions (user_id, idempotency_key, request_hash, body) values
('tess', 'more stones', sha256('{"lessons":[]}'), '{}');
