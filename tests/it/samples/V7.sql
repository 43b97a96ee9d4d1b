-- What came to the samples before while V7 was the latest migration: a batch, recorded under a horizon that has moved.

update ledger_horizon set pruned_before = '2026-01-01T00:00:00Z';

select answer
from record_progress_v1(
    array['hal'], array['00000000-0000-7000-8000-00000000e014']::uuid[],
    array['00000000-0000-7000-8000-0000000006b1']::uuid[],
    array[10], array[true], array['2026-03-30T09:00:00Z']::timestamptz[],
    '2026-03-30T10:00:00Z', '2026-02-28T10:00:00Z', '2026-03-30T10:05:00Z', false
);
