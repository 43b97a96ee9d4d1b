-- What came to the samples before while V4 was the latest migration: a learner who completed the new course, began it
-- anew, and is half way through it again.

insert into enrollments (
    user_id, course_id, enrolled_at, last_activity_at, reset_at, attempt, completed_sections, time_spent
) values
(
    'fay', '00000000-0000-7000-8000-0000000000c6', '2026-03-22T08:00:00Z', '2026-03-26T08:00:00.5Z',
    '2026-03-25T08:00:00Z', 2, 1, 7
);

insert into progress_events (
    user_id, event_id, course_id, section_id, time_spent, completed, occurred_at, recorded_at, attempt
) values
(
    'fay', '00000000-0000-7000-8000-00000000e00c', '00000000-0000-7000-8000-0000000000c6',
    '00000000-0000-7000-8000-0000000006b1', 100, true, '2026-03-23T08:00:00Z', '2026-03-23T08:00:01Z', 1
),
(
    'fay', '00000000-0000-7000-8000-00000000e00d', '00000000-0000-7000-8000-0000000000c6',
    '00000000-0000-7000-8000-0000000006b2', 200, true, '2026-03-24T08:00:00Z', '2026-03-24T08:00:01Z', 1
),
(
    'fay', '00000000-0000-7000-8000-00000000e00e', '00000000-0000-7000-8000-0000000000c6',
    '00000000-0000-7000-8000-0000000006b2', 7, true, '2026-03-26T08:00:00.5Z', '2026-03-26T08:00:01Z', 2
);

insert into progress (user_id, course_id, section_id, time_spent, completed_at, first_at, last_at) values
(
    'fay', '00000000-0000-7000-8000-0000000000c6', '00000000-0000-7000-8000-0000000006b2', 7,
    '2026-03-26T08:00:00.5Z', '2026-03-26T08:00:00.5Z', '2026-03-26T08:00:00.5Z'
);

insert into course_changes (course_id, changed_at) values
('00000000-0000-7000-8000-0000000000c6', '2026-03-26T08:00:01Z');
