-- What came to the samples before while V26 was the latest migration: where a learner goes on is noted.

update enrollments set
    next_section_id = '00000000-0000-7000-8000-000000000f06', resume_version = 1, resume_xact = pg_current_xact_id()
where enrollments.user_id = 'cleo';
