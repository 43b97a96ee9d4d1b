-- What came to the samples before while V10 was the latest migration: a course was edited. A section was retired while
-- many were enrolled, so that they wait for a recount, one section was restored, and lessons were appended.

insert into lessons (id, course_id, title, position, created_at) values
(
    '00000000-0000-7000-8000-0000000001a9', '00000000-0000-7000-8000-0000000000c1', 'Taken out', null,
    '2026-02-01T08:00:00Z'
);

insert into sections (
    id, lesson_id, course_id, title, content, type, position, duration, created_at, restored_at
) values
(
    '00000000-0000-7000-8000-0000000001b8', '00000000-0000-7000-8000-0000000001a9',
    '00000000-0000-7000-8000-0000000000c1', 'Taken out as well', '', 'text', null, null, '2026-02-01T08:00:00Z', null
),
(
    '00000000-0000-7000-8000-0000000001b9', '00000000-0000-7000-8000-0000000001a3',
    '00000000-0000-7000-8000-0000000000c1', 'Back again', '', 'text', 900, null, '2026-02-01T08:00:00Z',
    '2026-04-02T08:00:00Z'
);

update courses set
    version = version + 1, tree_version = tree_version + 1, section_count = section_count + 1,
    updated_at = '2026-04-02T08:00:00Z'
where id = '00000000-0000-7000-8000-0000000000c1';

insert into course_edits (course_id, version, edited_at, change)
select courses.id, courses.version, courses.updated_at, '{"fields":[]}'
from courses
where courses.id = '00000000-0000-7000-8000-0000000000c1';

insert into course_recounts (course_id, tree_version, section_count, section_ids)
select courses.id, courses.tree_version, courses.section_count, (
    select array_agg(sections.id) from sections
    where sections.course_id = courses.id and sections.position is not null
)
from courses
where courses.id = '00000000-0000-7000-8000-0000000000c1';

insert into lesson_additions (user_id, idempotency_key, request_hash, body) values
('tess', 'more stones', sha256('{"lessons":[]}'), '{}');
