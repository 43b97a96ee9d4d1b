-- What came to the samples before while V29 was the latest migration: an erasure that was cut short.

insert into erasures (id, began_at, enrollments) values (
    '00000000-0000-7000-8000-0000000000e2', '2026-05-04T08:00:00Z', 20
);
