-- What came to the samples before while V27 was the latest migration: two sections that are counted, one of them as of the
-- figures, and what is to be added up.

insert into section_completions (course_id, section_id, counted, completed) values
('00000000-0000-7000-8000-0000000000c1', '00000000-0000-7000-8000-000000000f01', 3, 2),
('00000000-0000-7000-8000-0000000000c1', '00000000-0000-7000-8000-000000000f02', 1, null);

insert into section_completion_changes (course_id, section_id, difference) values
('00000000-0000-7000-8000-0000000000c1', '00000000-0000-7000-8000-000000000f01', -1);
