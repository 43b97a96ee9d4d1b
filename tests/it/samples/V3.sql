-- What came to the samples before while V3 was the latest migration: a course that nobody has refreshed yet.

insert into courses (
    id, owner_id, title, description, difficulty, status, lesson_count, section_count, created_at, updated_at,
    published_at, analytics_enabled, enrollment_count
) values
(
    '00000000-0000-7000-8000-0000000000c6', 'tess', 'Straight from the press', 'Two sections.', 'intermediate',
    'published', 1, 2, '2026-03-21T08:00:00Z', '2026-03-21T08:00:00Z', '2026-03-21T08:00:00Z', true, 0
);

insert into lessons (id, course_id, title, position, created_at) values
(
    '00000000-0000-7000-8000-0000000006a1', '00000000-0000-7000-8000-0000000000c6', 'Both', 1, '2026-03-21T08:00:00Z'
);

insert into sections (id, lesson_id, course_id, title, content, type, position, created_at) values
(
    '00000000-0000-7000-8000-0000000006b1', '00000000-0000-7000-8000-0000000006a1',
    '00000000-0000-7000-8000-0000000000c6', 'First', 'Read this.', 'text', 1, '2026-03-21T08:00:00Z'
),
(
    '00000000-0000-7000-8000-0000000006b2', '00000000-0000-7000-8000-0000000006a1',
    '00000000-0000-7000-8000-0000000000c6', 'Second', 'Then that.', 'text', 2, '2026-03-21T08:00:00Z'
);

insert into course_analytics (course_id) values ('00000000-0000-7000-8000-0000000000c6');

insert into enrollments (user_id, course_id, enrolled_at) values
('cleo', '00000000-0000-7000-8000-0000000000c6', '2026-03-22T08:00:00Z');

insert into course_changes (course_id, changed_at) values
('00000000-0000-7000-8000-0000000000c6', '2026-03-22T08:00:00Z');
