-- What attempts cost, one row for each entry of an event's `costs`. A row's key is its place on the
-- log, (run_id, seq, entry), so one that is inserted again is the same row: the views read FINAL.
-- Sorted as runs_log and agent_runs_log are. Decimals of 38 digits: sums are exact.
CREATE TABLE IF NOT EXISTS costs_log
(
    run_started_at DateTime64(3, 'UTC') CODEC(Delta, LZ4) COMMENT 'When the run started',
    run_id String COMMENT 'Run that it belongs to',
    seq UInt32 COMMENT 'Sequence number of the event that tells it',
    entry UInt32 COMMENT 'Place among the costs of that event, from 0',
    at DateTime64(3, 'UTC') CODEC(Delta, LZ4) COMMENT 'When the attempt had ended',
    project LowCardinality(String) COMMENT 'Project of the run',
    workflow LowCardinality(String) COMMENT 'Workflow of the run',
    version UInt32 COMMENT 'Version of the workflow',
    node LowCardinality(String) COMMENT 'Node of the workflow',
    item Int32 COMMENT 'Item of the node, from 0; -1 where it has none',
    attempt UInt32 COMMENT 'Attempt at the node or item',
    agent LowCardinality(String) COMMENT 'Agent that did the work',
    kind LowCardinality(String) COMMENT 'compute, tokens or api',
    source LowCardinality(String) COMMENT 'Who is paid',
    model LowCardinality(String) COMMENT 'Language model',
    quantity Decimal(38, 12) COMMENT 'How many units',
    unit LowCardinality(String) COMMENT 'What is counted',
    unit_price Decimal(38, 12) COMMENT 'Price of one unit',
    amount Decimal(38, 12) COMMENT 'What it costs',
    currency LowCardinality(String) COMMENT 'Currency of price and amount',
    price_version LowCardinality(String) COMMENT 'Price list that the price is from',
    INDEX costs_by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
ORDER BY (run_started_at, run_id, seq, entry)
SETTINGS merge_selector_base = 20
COMMENT 'Costs as they are recorded; read the view costs';

CREATE OR REPLACE VIEW costs
(
    run_id String COMMENT 'Run that it belongs to',
    node LowCardinality(String) COMMENT 'Node of the workflow; of what undoes it, with .compensate behind',
    item Int32 COMMENT 'Item of the node, from 0; -1 where it has none',
    attempt UInt32 COMMENT 'Attempt at the node or item, from 1; what failed and was tried again counts too',
    agent LowCardinality(String) COMMENT 'Agent that did the work; empty where its result bills no compute',
    workflow LowCardinality(String) COMMENT 'Workflow of the run',
    version UInt32 COMMENT 'Version of the workflow',
    project LowCardinality(String) COMMENT 'Project of the run',
    kind LowCardinality(String) COMMENT 'compute (time at work), tokens (of a language model) or api',
    source LowCardinality(String) COMMENT 'Who is paid: the agent for compute, else a provider or API',
    model LowCardinality(String) COMMENT 'Language model; empty where there is none',
    quantity Decimal(38, 12) COMMENT 'How many units',
    unit LowCardinality(String) COMMENT 'What is counted: minute, input_token, output_token, request, …',
    unit_price Decimal(38, 12) COMMENT 'Price of one unit',
    amount Decimal(38, 12) COMMENT 'What it costs: quantity × unit_price',
    currency LowCardinality(String) COMMENT 'Currency of price and amount, ISO 4217',
    price_version LowCardinality(String) COMMENT 'Price list that the price is from',
    at DateTime64(3, 'UTC') COMMENT 'When the attempt had ended',
    run_started_at DateTime64(3, 'UTC') COMMENT 'When the run started',
    seq UInt32 COMMENT 'Sequence number of the event that tells it',
    entry UInt32 COMMENT 'Place among the costs of that event, from 0'
)
AS SELECT
    run_id, node, item, attempt, agent, workflow, version, project, kind, source, model, quantity,
    unit, unit_price, amount, currency, price_version, at, run_started_at, seq, entry
FROM costs_log FINAL
COMMENT 'What attempts cost, one row for each thing that is paid; waiting is free';

CREATE OR REPLACE VIEW run_costs
(
    run_id String COMMENT 'Run that it belongs to; runs that it started have costs of their own',
    workflow LowCardinality(String) COMMENT 'Workflow of the run',
    version UInt32 COMMENT 'Version of the workflow',
    project LowCardinality(String) COMMENT 'Project of the run',
    run_started_at DateTime64(3, 'UTC') COMMENT 'When the run started',
    currency LowCardinality(String) COMMENT 'Currency of the amounts, ISO 4217; one row for each',
    amount Decimal(38, 12) COMMENT 'What the run has cost so far',
    compute Decimal(38, 12) COMMENT 'Of that for time at work',
    tokens Decimal(38, 12) COMMENT 'Of that for tokens of language models',
    api Decimal(38, 12) COMMENT 'Of that for the rest'
)
AS SELECT
    run_id,
    workflow,
    version,
    project,
    run_started_at,
    currency,
    sum(c.amount) AS amount,
    sumIf(c.amount, kind = 'compute') AS compute,
    sumIf(c.amount, kind = 'tokens') AS tokens,
    sumIf(c.amount, kind = 'api') AS api
FROM costs_log AS c FINAL
GROUP BY run_id, workflow, version, project, run_started_at, currency
COMMENT 'What each run costs in all, by currency'
