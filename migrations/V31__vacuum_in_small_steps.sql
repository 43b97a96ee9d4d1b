-- The tables that every batch writes, and the ledger, which is pruned every day, are vacuumed when a fiftieth of them is
-- dead. By PostgreSQL's own fifth, a table of 20 million rows keeps four million dead ones, and whoever prunes or reads the
-- first entries of an index steps over them.

set local lock_timeout = '1s';
set local statement_timeout = '10s';

alter table progress_events set (autovacuum_vacuum_scale_factor = 0.02);
alter table progress set (autovacuum_vacuum_scale_factor = 0.02);
alter table enrollments set (autovacuum_vacuum_scale_factor = 0.02);
