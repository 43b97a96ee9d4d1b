-- lectern: no transaction
-- By which the catalogue is searched (SEARCH in shared/src/catalogue.rs).
--
-- A concurrent build keeps nobody out, and cannot be told a limit in one statement.
-- squawk-ignore require-lock-timeout, require-statement-timeout
create index concurrently if not exists courses_words_idx on courses using gin (words) where status = 'published';
