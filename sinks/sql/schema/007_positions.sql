-- How far the log is counted in the rollups. What is recorded follows from `events`; this place, which
-- is never ahead of that, says it when the events have been removed for their age. It only goes up: a
-- place that is written twice or late changes nothing.
CREATE TABLE IF NOT EXISTS positions
(
    topic LowCardinality(String) COMMENT 'Topic of the log',
    partition UInt32 COMMENT 'Partition of the topic',
    offset SimpleAggregateFunction(max, UInt64) COMMENT 'Last offset that is recorded, and counted in the rollups'
)
ENGINE = AggregatingMergeTree
ORDER BY (topic, partition)
COMMENT 'How far the log is counted; a partition may have several rows, the greatest offset counts'
