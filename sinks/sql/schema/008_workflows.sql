-- The workflows topic, a row for each record. Where two publishers wrote the same version, the first
-- record is the version: so an earlier offset replaces a later one. Read again it is the same rows.
CREATE TABLE IF NOT EXISTS workflows_log
(
    project LowCardinality(String) COMMENT 'Project of the workflow',
    name String COMMENT 'Name of the workflow',
    kind LowCardinality(String) COMMENT 'definition: a version; retirement: versions up to this one start no runs',
    version UInt32 COMMENT 'Version of the workflow',
    at DateTime64(3, 'UTC') COMMENT 'When it was published or retired',
    digest String COMMENT 'SHA-256 of the definition; empty for a retirement',
    definition String CODEC(ZSTD(1)) COMMENT 'The definition, JSON; empty for a retirement',
    offset UInt64 COMMENT 'Offset on the workflows topic',
    precedence UInt64 COMMENT 'The greatest one counts: 2^63 less the offset'
)
ENGINE = ReplacingMergeTree(precedence)
ORDER BY (project, name, kind, version)
COMMENT 'Records of the workflows topic; read the view workflows';

CREATE OR REPLACE VIEW workflows
(
    name String COMMENT 'Name of the workflow',
    version UInt32 COMMENT 'Version, from 1',
    project LowCardinality(String) COMMENT 'Project of the workflow',
    published_at DateTime64(3, 'UTC') COMMENT 'When the version was published',
    digest String COMMENT 'SHA-256 of the definition',
    latest Bool COMMENT 'Whether it is the newest version',
    retired Bool COMMENT 'Whether it starts no new runs because it was retired',
    trigger String COMMENT 'What starts it, JSON; empty if only people and programs do',
    nodes UInt32 COMMENT 'How many nodes it has',
    definition String COMMENT 'The whole definition, JSON'
)
AS SELECT
    d.name AS name,
    d.version AS version,
    d.project AS project,
    d.at AS published_at,
    d.digest AS digest,
    (d.version = max(d.version) OVER (PARTITION BY d.project, d.name))::Bool AS latest,
    (d.version <= r.upto)::Bool AS retired,
    JSONExtractRaw(d.definition, 'trigger') AS trigger,
    JSONLength(d.definition, 'nodes')::UInt32 AS nodes,
    d.definition AS definition
FROM (SELECT * FROM workflows_log FINAL WHERE kind = 'definition') AS d
LEFT JOIN
(
    SELECT project, name, max(version) AS upto
    FROM workflows_log
    WHERE kind = 'retirement'
    GROUP BY project, name
) AS r ON r.project = d.project AND r.name = d.name
COMMENT 'One row per version of a workflow'
