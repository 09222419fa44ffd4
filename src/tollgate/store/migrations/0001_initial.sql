-- Tiles, what the stream has merged, the decision ledger and labels. Amounts in minor units; times in tiles are epoch seconds.

CREATE TABLE tiles (
    entity_kind  smallint NOT NULL,            -- 1 customer, 2 terminal (tollgate.tiles.EntityKind)
    entity_id    text     NOT NULL,
    granularity  integer  NOT NULL,            -- 1, 60, 3600 or 86400 seconds
    tile_start   bigint   NOT NULL,
    n            bigint   NOT NULL,
    sum_minor    bigint   NOT NULL,
    sumsq_minor  bigint   NOT NULL,
    max_minor    bigint   NOT NULL,
    frauds       bigint   NOT NULL,
    PRIMARY KEY (entity_kind, entity_id, granularity, tile_start)
) WITH (fillfactor = 80);

-- Which transactions the tiles already hold: a transaction counts once, its fraud once, however often it is delivered.
CREATE TABLE tile_events (
    transaction_id text PRIMARY KEY,
    occurred_s     bigint  NOT NULL,
    counted        boolean NOT NULL,           -- the transaction itself is in the tiles
    fraud          boolean NOT NULL            -- its fraud is in the tiles
) WITH (fillfactor = 90);
CREATE INDEX tile_events_by_time ON tile_events USING brin (occurred_s);

-- Spark's foreachBatch is at least once: the batch id is written in the transaction that writes the tiles.
CREATE TABLE stream_progress (
    query          text PRIMARY KEY,
    batch_id       bigint NOT NULL,
    merged_at      timestamptz NOT NULL,
    max_occurred_s bigint NOT NULL             -- the newest event time merged: `features_as_of`
);

-- Every transaction id ever decided, with the digest of its body: what makes a decision happen once.
CREATE TABLE ledger_ids (
    transaction_id text  PRIMARY KEY,
    body_hash      bytea NOT NULL,
    occurred_on    date  NOT NULL
);

CREATE TABLE ledger (
    occurred_on    date             NOT NULL,  -- UTC day of the transaction: the partition
    transaction_id text             NOT NULL,
    customer_id    text             NOT NULL,
    terminal_id    text             NOT NULL,
    amount_minor   bigint           NOT NULL,
    currency       text             NOT NULL,
    occurred_at    timestamptz      NOT NULL,
    channel        text,
    country        text,
    outcome        text             NOT NULL CHECK (outcome IN ('approve', 'review', 'decline')),
    probability    double precision NOT NULL,
    features       double precision[] NOT NULL,
    features_hash  text             NOT NULL,
    reasons        jsonb            NOT NULL,
    model_name     text             NOT NULL,
    model_version  text             NOT NULL,
    model_revision text             NOT NULL,
    model_role     text             NOT NULL,
    policy_version text             NOT NULL,
    features_as_of timestamptz,
    degraded       boolean          NOT NULL,
    degraded_why   text,
    requested_at   timestamptz      NOT NULL,
    decided_at     timestamptz      NOT NULL,
    latency_ms     double precision NOT NULL,
    recorded_at    timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (occurred_on, transaction_id)
) PARTITION BY RANGE (occurred_on);

CREATE TABLE labels (
    transaction_id text        NOT NULL,
    source         text        NOT NULL,
    is_fraud       boolean     NOT NULL,
    labelled_at    timestamptz NOT NULL,
    received_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (transaction_id, source)
);
