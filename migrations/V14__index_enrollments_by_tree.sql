-- lectern: no transaction
-- All enrollments of a course (COMPUTE in shared/src/analytics.rs), and of them those that were counted by an older tree
-- (shared/src/recount.rs). It takes the place of enrollments_course_idx.
--
-- A concurrent build keeps nobody out, and cannot be told a limit in one statement.
-- squawk-ignore require-lock-timeout, require-statement-timeout
create index concurrently if not exists enrollments_tree_idx on enrollments (course_id, tree_version);
