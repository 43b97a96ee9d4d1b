-- How far the event ledger reaches back: refresh-analytics prunes it (LedgerHorizon in shared/src/ledger.rs).
--
-- The horizon is remembered, not computed from today's settings: when the accepted age of events is raised, ids that are
-- gone would otherwise be taken for new ones and count twice.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

create table ledger_horizon (
    -- There is one.
    id boolean constraint ledger_horizon_pkey primary key default true,
    -- Of what was recorded before this moment, nothing needs to be there any more.
    pruned_before timestamptz not null,
    constraint ledger_horizon_id_check check (id)
);

insert into ledger_horizon (pruned_before) values ('-infinity');
