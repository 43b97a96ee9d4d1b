-- What came to the samples before while V18 was the latest migration: a course whose words are kept.

insert into courses (
    id, owner_id, title, description, difficulty, status, created_at, updated_at, published_at, open_during
) values (
    '00000000-0000-7000-8000-0000000000cb', 'uwe', 'Déjà-vu', 'Seen before.', 'beginner', 'published',
    '2026-05-01T08:00:00Z', '2026-05-01T08:00:00Z', '2026-05-01T08:00:00Z', opened_v1('{}', '2026-05-01T08:00:00Z')
);
