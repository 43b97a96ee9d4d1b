-- When a course was open and when an enrollment was active, so that progress which arrives late is judged by how things
-- stood when it happened.
--
-- Null means that nobody kept count: rows from before this migration, and those that older binaries write. Then what is
-- true now decides, or the learner's favour.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- Published or archived: learners' events count.
alter table courses add column open_during tstzmultirange;

alter table enrollments add column active_during tstzmultirange;

-- Marks periods as going on from a moment. Whoever switches back and forth a hundred times has the older periods taken
-- for one, which is in the learner's favour and keeps the row small. A late clock opens nothing twice.
create function opened_v1(periods tstzmultirange, moment timestamptz) returns tstzmultirange
language sql immutable parallel safe
return case
    when upper_inf(periods) then periods
    when (select count(*) from unnest(periods)) >= 100 then tstzmultirange(tstzrange(lower(periods), null))
    else periods + tstzmultirange(tstzrange(moment, null))
end;

-- Marks periods as over since a moment.
create function closed_v1(periods tstzmultirange, moment timestamptz) returns tstzmultirange
language sql immutable parallel safe
return periods - tstzmultirange(tstzrange(moment, null));
