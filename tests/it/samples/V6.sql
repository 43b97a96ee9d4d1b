-- What came to the samples before while V6 was the latest migration: one more enrollment.

insert into enrollments (user_id, course_id, enrolled_at) values
('hal', '00000000-0000-7000-8000-0000000000c6', '2026-03-30T08:00:00Z');

insert into course_changes (course_id, changed_at) values
('00000000-0000-7000-8000-0000000000c6', '2026-03-30T08:00:00Z');
