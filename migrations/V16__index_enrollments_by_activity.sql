-- lectern: no transaction
-- The roster, last active first (ROSTER in shared/src/roster.rs); who was never active stands where they enrolled.
--
-- A concurrent build keeps nobody out, and cannot be told a limit in one statement.
-- squawk-ignore require-lock-timeout, require-statement-timeout
create index concurrently if not exists enrollments_activity_idx
on enrollments (course_id, coalesce(last_activity_at, enrolled_at) desc, user_id desc);
