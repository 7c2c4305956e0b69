-- Asked by a rebuild: the tables that hold rows, of this database and of the one beside it, and where
-- the rows are: two tables that were exchanged have exchanged these folders.
SELECT database, name, arrayStringConcat(data_paths, ',') AS place
FROM system.tables
WHERE database IN (currentDatabase(), concat(currentDatabase(), {beside:String}))
    AND endsWith(engine, 'MergeTree') AND name NOT IN ('schema_versions', 'exchange')
ORDER BY name = 'events', database, name
