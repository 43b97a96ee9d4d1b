-- What came to the samples before while V23 was the latest migration: a course whose owner was erased, and its record.

insert into courses (
    id, owner_id, title, description, difficulty, status, created_at, updated_at, published_at, open_during
) values (
    '00000000-0000-7000-8000-0000000000cc', null, 'Left behind', 'By its author.', 'advanced', 'published',
    '2026-05-02T08:00:00Z', '2026-05-02T08:00:00Z', '2026-05-02T08:00:00Z', opened_v1('{}', '2026-05-02T08:00:00Z')
);

insert into erasures (id, began_at, finished_at, enrollments, progress, events, courses, idempotency_keys, submissions)
values (
    '00000000-0000-7000-8000-0000000000e1', '2026-05-03T08:00:00Z', '2026-05-03T08:00:01Z', 1, 2, 3, 1, 1, 0
);
