-- What came to the samples before while V2 was the latest migration: a course whose figures had been computed and were
-- then switched off, and a course that was being learned from, marked by its writers and without a row of figures.

insert into courses (
    id, owner_id, title, description, difficulty, status, lesson_count, section_count, created_at, updated_at,
    published_at, analytics_enabled, enrollment_count
) values
(
    '00000000-0000-7000-8000-0000000000c5', 'uwe', 'Nobody counts here', 'Figures as they were in March.', 'beginner',
    'published', 1, 1, '2026-02-10T08:00:00Z', '2026-03-15T08:00:00Z', '2026-02-10T08:00:00Z', false, 1
);

insert into lessons (id, course_id, title, position, created_at) values
(
    '00000000-0000-7000-8000-0000000005a1', '00000000-0000-7000-8000-0000000000c5', 'One', 1, '2026-02-10T08:00:00Z'
);

insert into sections (id, lesson_id, course_id, title, content, type, position, created_at) values
(
    '00000000-0000-7000-8000-0000000005b1', '00000000-0000-7000-8000-0000000005a1',
    '00000000-0000-7000-8000-0000000000c5', 'Two', 'Three.', 'quiz', 1, '2026-02-10T08:00:00Z'
);

insert into course_analytics (
    course_id, total_enrollments, active_learners, completed_enrollments, completion_rate, avg_completion_time,
    median_completion_time, p25_completion_time, p75_completion_time, avg_time_spent, window_days, as_of, due_at
) values
(
    '00000000-0000-7000-8000-0000000000c5', 1, 1, 0, 0, null, null, null, null, null, 30, '2026-03-14T08:00:00Z',
    '2026-04-10T08:00:00Z'
);

-- Eve completed the course after its figures had been switched off.
insert into enrollments (
    user_id, course_id, enrolled_at, completed_at, last_activity_at, completed_sections, time_spent
) values
(
    'eve', '00000000-0000-7000-8000-0000000000c5', '2026-03-10T08:00:00Z', '2026-03-16T08:00:00Z',
    '2026-03-16T08:00:00Z', 1, 25
);

insert into progress_events (
    user_id, event_id, course_id, section_id, time_spent, completed, occurred_at, recorded_at, attempt
) values
(
    'eve', '00000000-0000-7000-8000-00000000e00a', '00000000-0000-7000-8000-0000000000c5',
    '00000000-0000-7000-8000-0000000005b1', 5, false, '2026-03-11T08:00:00Z', '2026-03-11T08:00:01Z', 1
),
(
    'eve', '00000000-0000-7000-8000-00000000e00b', '00000000-0000-7000-8000-0000000000c5',
    '00000000-0000-7000-8000-0000000005b1', 20, true, '2026-03-16T08:00:00Z', '2026-03-16T08:00:01Z', 1
);

insert into progress (user_id, course_id, section_id, time_spent, completed_at, first_at, last_at) values
(
    'eve', '00000000-0000-7000-8000-0000000000c5', '00000000-0000-7000-8000-0000000005b1', 25,
    '2026-03-16T08:00:00Z', '2026-03-11T08:00:00Z', '2026-03-16T08:00:00Z'
);

insert into course_changes (course_id, changed_at) values
('00000000-0000-7000-8000-0000000000c5', '2026-03-16T08:00:01Z'),
('00000000-0000-7000-8000-0000000000c1', '2026-03-16T08:00:02Z'),
('00000000-0000-7000-8000-0000000000c1', '2026-03-16T08:00:03Z');
