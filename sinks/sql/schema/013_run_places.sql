-- When a run began is where its rows are in all tables. Without it each part of a table would have to be
-- asked whether the run may be there, ever more of them.
CREATE TABLE IF NOT EXISTS run_places
(
    run_id String EPHEMERAL COMMENT 'Id of the run; only its hash is kept',
    run_hash UInt64 DEFAULT cityHash64(run_id) COMMENT 'Of the id of the run',
    started_at DateTime64(3, 'UTC') COMMENT 'When the run started'
)
ENGINE = ReplacingMergeTree
ORDER BY (run_hash, started_at)
SETTINGS merge_selector_base = 20
COMMENT 'When each run began, to find it by its id'
;

INSERT INTO run_places (run_hash, started_at)
SELECT DISTINCT cityHash64(run_id), started_at
FROM runs_log
;

ALTER TABLE events
    ADD INDEX IF NOT EXISTS events_by_run_start run_started_at TYPE minmax GRANULARITY 1
;

ALTER TABLE events
    MATERIALIZE INDEX events_by_run_start
