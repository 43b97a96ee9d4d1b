-- What came to the samples before while V5 was the latest migration: a learner whose progress was recorded, and once
-- cleared, by the functions themselves.

insert into enrollments (user_id, course_id, enrolled_at) values
('gus', '00000000-0000-7000-8000-0000000000c6', '2026-03-27T08:00:00Z');

insert into course_changes (course_id, changed_at) values
('00000000-0000-7000-8000-0000000000c6', '2026-03-27T08:00:00Z');

select answer
from record_progress_v1(
    array['gus', 'gus'],
    array['00000000-0000-7000-8000-00000000e012', '00000000-0000-7000-8000-00000000e013']::uuid[],
    array['00000000-0000-7000-8000-0000000006b1', '00000000-0000-7000-8000-0000000006b2']::uuid[],
    array[10, 20], array[true, true], array['2026-03-28T08:00:00Z', '2026-03-28T09:00:00Z']::timestamptz[],
    '2026-03-28T10:00:00Z', '2026-02-26T10:00:00Z', '2026-03-28T10:05:00Z', true
);

select access, enrolled
from reset_progress_v1('gus', '00000000-0000-7000-8000-0000000000c6', '2026-03-29T08:00:00Z', false);

select answer
from record_progress_v1(
    array['gus'],
    array['00000000-0000-7000-8000-00000000e014']::uuid[],
    array['00000000-0000-7000-8000-0000000006b1']::uuid[],
    array[30], array[true], array[null]::timestamptz[],
    '2026-03-30T08:00:00Z', '2026-02-28T08:00:00Z', '2026-03-30T08:05:00Z', false
);
