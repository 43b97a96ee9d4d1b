-- The order in which `GET /courses?sort=popular` reads the catalogue (LIST_POPULAR).
--
-- Apart from the columns it is built on: `alter table` shuts out readers, and they should not wait for an index too.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- Courses are thousands, not millions: the index takes milliseconds and keeps only their authors waiting, while a
-- concurrent build that is interrupted leaves an invalid index behind.
-- squawk-ignore require-concurrent-index-creation
create index courses_popular_idx on courses (enrollment_count desc, id desc) where status = 'published';
