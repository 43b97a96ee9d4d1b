-- The three rules that more than one statement needs, each in one place. Plain SQL functions, which PostgreSQL inlines.
-- A changed rule is a new function (…_v2): old and new binaries run side by side during a deploy.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- RFC 3339 in UTC with as many digits of the second as there are, whatever the session's time zone.
create function rfc3339_v1(moment timestamptz) returns text
language sql stable parallel safe
return rtrim(rtrim(to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '0'), '.') || 'Z';

-- Per cent with two decimals, rounded down: 100 only when everything is complete, null when there is nothing to complete.
create function completion_percentage_v1(completed integer, total integer) returns double precision
language sql immutable parallel safe
return case when total > 0 then (floor(least(completed, total) * 10000.0 / total) / 100)::double precision end;

-- Who may see what of a course: the one visibility rule, used by every statement that reads or writes for somebody.
--   manage         owner or admin: everything
--   learn          actively enrolled in a published or archived course: outline, contents, own progress
--   browse         anybody, of a published course: the outline
--   browse_former  the same, for who cancelled: the outline and their own progress
--   former         who cancelled, of an archived course: their own progress only
--   none           the course does not exist for them
create function course_access_v1(course_status text, manages boolean, enrollment_status text) returns text
language sql immutable parallel safe
return case
    when manages then 'manage'
    when course_status = 'draft' then 'none'
    when enrollment_status = 'active' then 'learn'
    when course_status = 'published' and enrollment_status = 'cancelled' then 'browse_former'
    when course_status = 'published' then 'browse'
    when enrollment_status = 'cancelled' then 'former'
    else 'none'
end;
