-- What came to the samples before while V8 was the latest migration: a batch that had been parked.

select answer
from record_progress_v2(
    array['hal'], array['00000000-0000-7000-8000-00000000e015']::uuid[],
    array['00000000-0000-7000-8000-0000000006b2']::uuid[],
    array[20], array[true], array['2026-03-30T09:30:00Z']::timestamptz[],
    '2026-03-30T10:00:00Z', '2026-02-28T10:00:00Z', '2026-03-30T10:05:00Z', false, true
);
