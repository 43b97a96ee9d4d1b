-- lectern: no transaction
-- The roster of those who cancelled, last active first (ROSTER in shared/src/roster.rs). Without it, ten of them among
-- 200 000 take 170 ms; with it, 0.2 ms. Only cancelling and enrolling again write to it.
--
-- A concurrent build keeps nobody out, and cannot be told a limit in one statement.
-- squawk-ignore require-lock-timeout, require-statement-timeout
create index concurrently if not exists enrollments_cancelled_idx
on enrollments (course_id, coalesce(last_activity_at, enrolled_at) desc, user_id desc) where status = 'cancelled';
