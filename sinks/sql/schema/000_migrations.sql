-- Which of these files were applied, and with which text. It is there before all others.
CREATE TABLE IF NOT EXISTS schema_versions
(
    number UInt32 COMMENT 'Number of the file',
    name String COMMENT 'Its name',
    digest String COMMENT 'SHA-256 of its text',
    applied_at DateTime64(3, 'UTC') COMMENT 'When it was applied'
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY number
COMMENT 'Files of the schema that were applied'
