-- lectern: no transaction
-- enrollments_tree_idx begins with the same column, and each index makes every enrolment dearer.
-- squawk-ignore require-lock-timeout, require-statement-timeout
drop index concurrently if exists enrollments_course_idx;
