-- The registrations of the agents topic. As on the topic, the last one of a name counts, and a
-- tombstone takes the agent off the list.
CREATE TABLE IF NOT EXISTS agents_log
(
    name String COMMENT 'Name of the agent',
    version String COMMENT 'Version that was registered last',
    worker LowCardinality(String) COMMENT 'Worker that registered it',
    registered_at DateTime64(3, 'UTC') COMMENT 'When',
    descriptor String CODEC(ZSTD(1)) COMMENT 'Its actions and their JSON Schemas, JSON',
    offset UInt64 COMMENT 'Offset on the agents topic; the greatest one counts',
    removed UInt8 COMMENT '1: taken off the list'
)
ENGINE = ReplacingMergeTree(offset)
ORDER BY name
COMMENT 'Registrations of the agents topic; read the view agents';

CREATE OR REPLACE VIEW agents
(
    name String COMMENT 'Name of the agent',
    version String COMMENT 'Version that was registered last',
    type LowCardinality(String) COMMENT 'RULE LLM API or SCRIPT: what decides in it',
    description String COMMENT 'What it is for',
    actions Array(String) COMMENT 'Names of its actions',
    registered_at DateTime64(3, 'UTC') COMMENT 'When it was registered last',
    worker LowCardinality(String) COMMENT 'Worker that registered it',
    descriptor String COMMENT 'All that it says of itself, with JSON Schemas, JSON'
)
AS SELECT
    name,
    version,
    JSONExtractString(descriptor, 'type')::LowCardinality(String) AS type,
    JSONExtractString(descriptor, 'description') AS description,
    arrayMap(action -> JSONExtractString(action, 'name'), JSONExtractArrayRaw(descriptor, 'actions')) AS actions,
    registered_at,
    worker,
    descriptor
FROM agents_log FINAL
WHERE NOT removed
COMMENT 'One row per agent that some worker has registered'
