-- lectern: no transaction
-- The retired sections of a course, which recording and counting leave out: few, most often none.
--
-- A concurrent build keeps nobody out, and cannot be told a limit in one statement.
-- squawk-ignore require-lock-timeout, require-statement-timeout
create index concurrently if not exists sections_retired_idx on sections (course_id, id) where position is null;
