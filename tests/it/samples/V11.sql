-- What came to the samples before while V11 was the latest migration: a course was edited. A lesson and its section were
-- retired, another section came back, and an enrollment has periods.

insert into lessons (id, course_id, title, position, created_at) values
(
    '00000000-0000-7000-8000-0000000001a9', '00000000-0000-7000-8000-0000000000c1', 'Taken out', null,
    '2026-02-01T08:00:00Z'
);

insert into sections (
    id, lesson_id, course_id, title, content, type, position, duration, created_at, restored_at, placed_during
) values
(
    '00000000-0000-7000-8000-0000000001b8', '00000000-0000-7000-8000-0000000001a9',
    '00000000-0000-7000-8000-0000000000c1', 'Taken out as well', '', 'text', null, null, '2026-02-01T08:00:00Z', null,
    '{(,3)}'
),
(
    '00000000-0000-7000-8000-0000000001b9', '00000000-0000-7000-8000-0000000001a3',
    '00000000-0000-7000-8000-0000000000c1', 'Back again', '', 'text', 900, null, '2026-02-01T08:00:00Z',
    '2026-04-02T08:00:00Z', '{(,3),[5,)}'
);

update courses set
    version = version + 1, tree_version = tree_version + 1, section_count = section_count + 1,
    updated_at = '2026-04-02T08:00:00Z'
where id = '00000000-0000-7000-8000-0000000000c1';

insert into course_recounts (course_id, tree_version, version, section_count)
select courses.id, courses.tree_version, courses.version, courses.section_count
from courses
where courses.id = '00000000-0000-7000-8000-0000000000c1';

update courses set
    open_during = '{[2026-04-03T08:00:00Z,)}', status = 'published', published_at = '2026-04-03T08:00:00Z'
where id = '00000000-0000-7000-8000-0000000000c2';

insert into enrollments (user_id, course_id, status, enrolled_at, tree_version, active_during)
select
    'ida', courses.id, 'cancelled', '2026-04-03T09:00:00Z', courses.tree_version,
    '{[2026-04-03T09:00:00Z,2026-04-03T10:00:00Z)}'
from courses
where courses.id = '00000000-0000-7000-8000-0000000000c2';
