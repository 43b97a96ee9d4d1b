-- Where a learner left off and goes on in a course, kept with the enrollment: found once by whoever records (V26), and
-- no more by every reader among all that the learner has done.
--
-- They are notes, not truth: whoever writes the row without them makes them void by that. Who wrote them is kept beside
-- them, and the row itself says who wrote it last (xmin). So resets, cancellations, recounts and binaries of before,
-- which know nothing of these columns, need not.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

alter table enrollments
-- The current section with the latest activity; null where there is none.
add column last_section_id uuid,
-- The first current section, in course order, that is not complete; null where all are.
add column next_section_id uuid,
-- The version of the course in which both hold, and the transaction that wrote them.
add column resume_version bigint,
add column resume_xact xid8;
