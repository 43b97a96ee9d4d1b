-- lectern: no transaction
-- By which refresh-analytics finds what the ledger may forget (PRUNE in shared/src/ledger.rs). The events of a batch
-- share their moment, and equal keys take hardly any room.
--
-- A concurrent build keeps nobody out, takes as long as the ledger is large, and cannot be told a limit in one statement.
-- squawk-ignore require-lock-timeout, require-statement-timeout
create index concurrently if not exists progress_events_recorded_idx on progress_events (recorded_at);
