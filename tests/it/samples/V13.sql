-- What came to the samples before while V13 was the latest migration: progress in an edited course.

select answer
from record_progress_v3(
    array['hal'], array['00000000-0000-7000-8000-00000000e016']::uuid[],
    array['00000000-0000-7000-8000-0000000006b2']::uuid[],
    array[20], array[true], array['2026-04-04T09:30:00Z']::timestamptz[],
    '2026-04-04T10:00:00Z', '2026-03-05T10:00:00Z', '2026-04-04T10:05:00Z', false, false
);
