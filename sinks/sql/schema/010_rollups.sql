-- Counts for dashboards, by minute and by day. They are no running sums: a minute in which something
-- changed is counted anew from the tables, and the new row replaces the old one. So what comes twice,
-- late or out of order counts once, and a count can be made again at any time. Days add up minutes.
-- Keys never lose their rows, since runs, attempts, costs and events are never taken back. Counts are
-- kept when the rows themselves are removed for their age.
CREATE TABLE IF NOT EXISTS runs_rollup
(
    span Enum8('minute' = 1, 'day' = 2) COMMENT 'How long it is',
    time DateTime64(0, 'UTC') COMMENT 'When it begins',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    version UInt32 COMMENT 'Version of the workflow',
    runs UInt64 COMMENT 'Runs that started in it',
    succeeded UInt64 COMMENT 'Of these, SUCCESS by now',
    failed UInt64 COMMENT 'Of these, FAILED by now',
    cancelled UInt64 COMMENT 'Of these, CANCELLED by now',
    timed_out UInt64 COMMENT 'Of these, TIMED_OUT by now',
    open UInt64 COMMENT 'Of these, under way or waiting',
    duration_ms UInt64 COMMENT 'Milliseconds from start to end, of those that ended, added up',
    durations AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float32) COMMENT 'Percentiles of the milliseconds, unfinished',
    counted_at DateTime64(6, 'UTC') COMMENT 'When it was counted; the last count counts'
)
ENGINE = ReplacingMergeTree(counted_at)
ORDER BY (span, time, project, workflow, version)
COMMENT 'Runs by when they started, as they stand now: read the views runs_per_minute and runs_per_day';

CREATE OR REPLACE VIEW runs_per_minute
(
    minute DateTime64(0, 'UTC') COMMENT 'Beginning of the minute',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    version UInt32 COMMENT 'Version of the workflow',
    runs UInt64 COMMENT 'Runs that started in it',
    succeeded UInt64 COMMENT 'Of these, SUCCESS by now',
    failed UInt64 COMMENT 'Of these, FAILED by now',
    cancelled UInt64 COMMENT 'Of these, CANCELLED by now',
    timed_out UInt64 COMMENT 'Of these, TIMED_OUT by now',
    open UInt64 COMMENT 'Of these, under way or waiting',
    duration_ms UInt64 COMMENT 'Milliseconds from start to end, of those that ended, added up',
    p50_ms Nullable(Float64) COMMENT 'Milliseconds that 50 of 100 took at most; NULL if none has ended',
    p95_ms Nullable(Float64) COMMENT 'Milliseconds that 95 of 100 took at most; NULL if none has ended',
    p99_ms Nullable(Float64) COMMENT 'Milliseconds that 99 of 100 took at most; NULL if none has ended'
)
AS SELECT
    time AS minute,
    project,
    workflow,
    version,
    runs,
    succeeded,
    failed,
    cancelled,
    timed_out,
    open,
    duration_ms,
    if(isNaN(quantile[1]), NULL, quantile[1])::Nullable(Float64) AS p50_ms,
    if(isNaN(quantile[2]), NULL, quantile[2])::Nullable(Float64) AS p95_ms,
    if(isNaN(quantile[3]), NULL, quantile[3])::Nullable(Float64) AS p99_ms
FROM
(
    SELECT *, finalizeAggregation(durations) AS quantile
    FROM runs_rollup FINAL
    WHERE span = 'minute'
)
COMMENT 'Runs by when they started, as they stand now, by minute';

CREATE OR REPLACE VIEW runs_per_day
(
    day DateTime64(0, 'UTC') COMMENT 'Beginning of the day',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    version UInt32 COMMENT 'Version of the workflow',
    runs UInt64 COMMENT 'Runs that started in it',
    succeeded UInt64 COMMENT 'Of these, SUCCESS by now',
    failed UInt64 COMMENT 'Of these, FAILED by now',
    cancelled UInt64 COMMENT 'Of these, CANCELLED by now',
    timed_out UInt64 COMMENT 'Of these, TIMED_OUT by now',
    open UInt64 COMMENT 'Of these, under way or waiting',
    duration_ms UInt64 COMMENT 'Milliseconds from start to end, of those that ended, added up',
    p50_ms Nullable(Float64) COMMENT 'Milliseconds that 50 of 100 took at most; NULL if none has ended',
    p95_ms Nullable(Float64) COMMENT 'Milliseconds that 95 of 100 took at most; NULL if none has ended',
    p99_ms Nullable(Float64) COMMENT 'Milliseconds that 99 of 100 took at most; NULL if none has ended'
)
AS SELECT
    time AS day,
    project,
    workflow,
    version,
    runs,
    succeeded,
    failed,
    cancelled,
    timed_out,
    open,
    duration_ms,
    if(isNaN(quantile[1]), NULL, quantile[1])::Nullable(Float64) AS p50_ms,
    if(isNaN(quantile[2]), NULL, quantile[2])::Nullable(Float64) AS p95_ms,
    if(isNaN(quantile[3]), NULL, quantile[3])::Nullable(Float64) AS p99_ms
FROM
(
    SELECT *, finalizeAggregation(durations) AS quantile
    FROM runs_rollup FINAL
    WHERE span = 'day'
)
COMMENT 'Runs by when they started, as they stand now, by day';

CREATE TABLE IF NOT EXISTS steps_rollup
(
    span Enum8('minute' = 1, 'day' = 2) COMMENT 'How long it is',
    time DateTime64(0, 'UTC') COMMENT 'When it begins',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    version UInt32 COMMENT 'Version of the workflow',
    node LowCardinality(String) COMMENT 'Node of the workflow',
    agent LowCardinality(String) COMMENT 'Agent; empty where a run was started',
    action LowCardinality(String) COMMENT 'Its action',
    attempts UInt64 COMMENT 'Attempts of runs that started in it',
    succeeded UInt64 COMMENT 'Of these, SUCCESS by now',
    failed UInt64 COMMENT 'Of these, FAILED by now',
    cancelled UInt64 COMMENT 'Of these, CANCELLED by now',
    open UInt64 COMMENT 'Of these, at work or waiting for a worker',
    retried UInt64 COMMENT 'Of these, failed and tried again',
    duration_ms UInt64 COMMENT 'Milliseconds at work, added up',
    queued_ms UInt64 COMMENT 'Milliseconds from dispatch to the beginning of the work, added up',
    durations AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float32) COMMENT 'Percentiles of the milliseconds, unfinished',
    counted_at DateTime64(6, 'UTC') COMMENT 'When it was counted; the last count counts'
)
ENGINE = ReplacingMergeTree(counted_at)
ORDER BY (span, time, project, workflow, version, node, agent, action)
COMMENT 'Attempts at nodes by when their runs started, as they stand now: read the views steps_per_minute and steps_per_day';

CREATE OR REPLACE VIEW steps_per_minute
(
    minute DateTime64(0, 'UTC') COMMENT 'Beginning of the minute',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    version UInt32 COMMENT 'Version of the workflow',
    node LowCardinality(String) COMMENT 'Node of the workflow',
    agent LowCardinality(String) COMMENT 'Agent; empty where a run was started',
    action LowCardinality(String) COMMENT 'Its action',
    attempts UInt64 COMMENT 'Attempts of runs that started in it',
    succeeded UInt64 COMMENT 'Of these, SUCCESS by now',
    failed UInt64 COMMENT 'Of these, FAILED by now',
    cancelled UInt64 COMMENT 'Of these, CANCELLED by now',
    open UInt64 COMMENT 'Of these, at work or waiting for a worker',
    retried UInt64 COMMENT 'Of these, failed and tried again',
    duration_ms UInt64 COMMENT 'Milliseconds at work, added up',
    queued_ms UInt64 COMMENT 'Milliseconds from dispatch to the beginning of the work, added up',
    p50_ms Nullable(Float64) COMMENT 'Milliseconds that 50 of 100 took at most; NULL if none has ended',
    p95_ms Nullable(Float64) COMMENT 'Milliseconds that 95 of 100 took at most; NULL if none has ended',
    p99_ms Nullable(Float64) COMMENT 'Milliseconds that 99 of 100 took at most; NULL if none has ended'
)
AS SELECT
    time AS minute,
    project,
    workflow,
    version,
    node,
    agent,
    action,
    attempts,
    succeeded,
    failed,
    cancelled,
    open,
    retried,
    duration_ms,
    queued_ms,
    if(isNaN(quantile[1]), NULL, quantile[1])::Nullable(Float64) AS p50_ms,
    if(isNaN(quantile[2]), NULL, quantile[2])::Nullable(Float64) AS p95_ms,
    if(isNaN(quantile[3]), NULL, quantile[3])::Nullable(Float64) AS p99_ms
FROM
(
    SELECT *, finalizeAggregation(durations) AS quantile
    FROM steps_rollup FINAL
    WHERE span = 'minute'
)
COMMENT 'Attempts at nodes by when their runs started, as they stand now, by minute';

CREATE OR REPLACE VIEW steps_per_day
(
    day DateTime64(0, 'UTC') COMMENT 'Beginning of the day',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    version UInt32 COMMENT 'Version of the workflow',
    node LowCardinality(String) COMMENT 'Node of the workflow',
    agent LowCardinality(String) COMMENT 'Agent; empty where a run was started',
    action LowCardinality(String) COMMENT 'Its action',
    attempts UInt64 COMMENT 'Attempts of runs that started in it',
    succeeded UInt64 COMMENT 'Of these, SUCCESS by now',
    failed UInt64 COMMENT 'Of these, FAILED by now',
    cancelled UInt64 COMMENT 'Of these, CANCELLED by now',
    open UInt64 COMMENT 'Of these, at work or waiting for a worker',
    retried UInt64 COMMENT 'Of these, failed and tried again',
    duration_ms UInt64 COMMENT 'Milliseconds at work, added up',
    queued_ms UInt64 COMMENT 'Milliseconds from dispatch to the beginning of the work, added up',
    p50_ms Nullable(Float64) COMMENT 'Milliseconds that 50 of 100 took at most; NULL if none has ended',
    p95_ms Nullable(Float64) COMMENT 'Milliseconds that 95 of 100 took at most; NULL if none has ended',
    p99_ms Nullable(Float64) COMMENT 'Milliseconds that 99 of 100 took at most; NULL if none has ended'
)
AS SELECT
    time AS day,
    project,
    workflow,
    version,
    node,
    agent,
    action,
    attempts,
    succeeded,
    failed,
    cancelled,
    open,
    retried,
    duration_ms,
    queued_ms,
    if(isNaN(quantile[1]), NULL, quantile[1])::Nullable(Float64) AS p50_ms,
    if(isNaN(quantile[2]), NULL, quantile[2])::Nullable(Float64) AS p95_ms,
    if(isNaN(quantile[3]), NULL, quantile[3])::Nullable(Float64) AS p99_ms
FROM
(
    SELECT *, finalizeAggregation(durations) AS quantile
    FROM steps_rollup FINAL
    WHERE span = 'day'
)
COMMENT 'Attempts at nodes by when their runs started, as they stand now, by day';

CREATE TABLE IF NOT EXISTS costs_rollup
(
    span Enum8('minute' = 1, 'day' = 2) COMMENT 'How long it is',
    time DateTime64(0, 'UTC') COMMENT 'When it begins',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    version UInt32 COMMENT 'Version of the workflow',
    agent LowCardinality(String) COMMENT 'Agent that did the work',
    kind LowCardinality(String) COMMENT 'compute, tokens or api',
    source LowCardinality(String) COMMENT 'Who is paid',
    model LowCardinality(String) COMMENT 'Language model; empty where there is none',
    unit LowCardinality(String) COMMENT 'What is counted',
    currency LowCardinality(String) COMMENT 'Currency of the amount, ISO 4217',
    entries UInt64 COMMENT 'Entries of the ledger, of runs that started in it',
    quantity Decimal(38, 12) COMMENT 'Units, added up',
    amount Decimal(38, 12) COMMENT 'What they cost',
    counted_at DateTime64(6, 'UTC') COMMENT 'When it was counted; the last count counts'
)
ENGINE = ReplacingMergeTree(counted_at)
ORDER BY (span, time, project, workflow, version, agent, kind, source, model, unit, currency)
COMMENT 'Costs by when their runs started: read the views costs_per_minute and costs_per_day';

CREATE OR REPLACE VIEW costs_per_minute
(
    minute DateTime64(0, 'UTC') COMMENT 'Beginning of the minute',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    version UInt32 COMMENT 'Version of the workflow',
    agent LowCardinality(String) COMMENT 'Agent that did the work',
    kind LowCardinality(String) COMMENT 'compute, tokens or api',
    source LowCardinality(String) COMMENT 'Who is paid',
    model LowCardinality(String) COMMENT 'Language model; empty where there is none',
    unit LowCardinality(String) COMMENT 'What is counted',
    currency LowCardinality(String) COMMENT 'Currency of the amount, ISO 4217',
    entries UInt64 COMMENT 'Entries of the ledger, of runs that started in it',
    quantity Decimal(38, 12) COMMENT 'Units, added up',
    amount Decimal(38, 12) COMMENT 'What they cost'
)
AS SELECT
    time AS minute,
    project,
    workflow,
    version,
    agent,
    kind,
    source,
    model,
    unit,
    currency,
    entries,
    quantity,
    amount
FROM costs_rollup FINAL
WHERE span = 'minute'
COMMENT 'Costs by when their runs started, by minute';

CREATE OR REPLACE VIEW costs_per_day
(
    day DateTime64(0, 'UTC') COMMENT 'Beginning of the day',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    version UInt32 COMMENT 'Version of the workflow',
    agent LowCardinality(String) COMMENT 'Agent that did the work',
    kind LowCardinality(String) COMMENT 'compute, tokens or api',
    source LowCardinality(String) COMMENT 'Who is paid',
    model LowCardinality(String) COMMENT 'Language model; empty where there is none',
    unit LowCardinality(String) COMMENT 'What is counted',
    currency LowCardinality(String) COMMENT 'Currency of the amount, ISO 4217',
    entries UInt64 COMMENT 'Entries of the ledger, of runs that started in it',
    quantity Decimal(38, 12) COMMENT 'Units, added up',
    amount Decimal(38, 12) COMMENT 'What they cost'
)
AS SELECT
    time AS day,
    project,
    workflow,
    version,
    agent,
    kind,
    source,
    model,
    unit,
    currency,
    entries,
    quantity,
    amount
FROM costs_rollup FINAL
WHERE span = 'day'
COMMENT 'Costs by when their runs started, by day';

CREATE TABLE IF NOT EXISTS events_rollup
(
    span Enum8('minute' = 1, 'day' = 2) COMMENT 'How long it is',
    time DateTime64(0, 'UTC') COMMENT 'When it begins',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    type LowCardinality(String) COMMENT 'What happened, for example run.succeeded',
    events UInt64 COMMENT 'Events that happened in it',
    counted_at DateTime64(6, 'UTC') COMMENT 'When it was counted; the last count counts'
)
ENGINE = ReplacingMergeTree(counted_at)
ORDER BY (span, time, project, workflow, type)
COMMENT 'Events by when they happened: read the views events_per_minute and events_per_day';

CREATE OR REPLACE VIEW events_per_minute
(
    minute DateTime64(0, 'UTC') COMMENT 'Beginning of the minute',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    type LowCardinality(String) COMMENT 'What happened, for example run.succeeded',
    events UInt64 COMMENT 'Events that happened in it'
)
AS SELECT
    time AS minute,
    project,
    workflow,
    type,
    events
FROM events_rollup FINAL
WHERE span = 'minute'
COMMENT 'Events by when they happened, by minute';

CREATE OR REPLACE VIEW events_per_day
(
    day DateTime64(0, 'UTC') COMMENT 'Beginning of the day',
    project LowCardinality(String) COMMENT 'Project',
    workflow LowCardinality(String) COMMENT 'Workflow',
    type LowCardinality(String) COMMENT 'What happened, for example run.succeeded',
    events UInt64 COMMENT 'Events that happened in it'
)
AS SELECT
    time AS day,
    project,
    workflow,
    type,
    events
FROM events_rollup FINAL
WHERE span = 'day'
COMMENT 'Events by when they happened, by day'
