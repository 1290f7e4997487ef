-- How the sweep of each connection stands (docs/catching-up.md). Operational and no fact of the log: what a sweep finds
-- is recorded as events by the way that all messages take.
CREATE TABLE evosense_ops.connection_sweeps (
    connection_id uuid PRIMARY KEY, -- the stream's id
    tenant_id uuid NOT NULL,
    name text NOT NULL,
    not_before timestamptz NOT NULL, -- nothing older is fetched: it was registered, or last seen inactive, then
    swept_until timestamptz, -- everything up to then was fetched
    deep_at timestamptz, -- when it was last looked for what arrived late
    next_due_at timestamptz NOT NULL DEFAULT now(),
    catch_up boolean NOT NULL DEFAULT true, -- the next run follows a gap of ours: what it finds was lost by nobody
    claimed_by text, -- process that sweeps it
    claimed_until timestamptz,
    last_started_at timestamptz,
    last_ended_at timestamptz, -- well
    rows_seen bigint NOT NULL DEFAULT 0,
    found_only_by_sweep bigint NOT NULL DEFAULT 0,
    found_catching_up bigint NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0, -- in a row
    last_error text, -- of the last run; never what a server answered
    left_out_from timestamptz, -- a gap longer than what is caught up by itself
    left_out_until timestamptz,
    last_message_at timestamptz, -- as the last look at the connection's habit found it
    expected_gap_seconds bigint,
    silent_since timestamptz, -- its last message, from when it had been silent longer than its habit
    warned_at timestamptz
);
CREATE INDEX connection_sweeps_tenant ON evosense_ops.connection_sweeps (tenant_id);
