-- What came to the samples before while V11 was the latest migration: states were noted with their times.

update courses set open_during = opened_v1('{}', '2026-04-03T08:00:00Z'), status = 'published',
published_at = '2026-04-03T08:00:00Z'
where id = '00000000-0000-7000-8000-0000000000c2';

insert into enrollments (user_id, course_id, status, enrolled_at, tree_version, active_during)
select
    'ida', courses.id, 'cancelled', '2026-04-03T09:00:00Z', courses.tree_version,
    closed_v1(opened_v1('{}', '2026-04-03T09:00:00Z'), '2026-04-03T10:00:00Z')
from courses
where courses.id = '00000000-0000-7000-8000-0000000000c2';
