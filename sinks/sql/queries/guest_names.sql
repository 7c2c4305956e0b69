-- Asked before a guest's query that uses names which it has defined by itself (WITH): what has the engine
-- of these names? Where the definition does not reach, the engine would take its own.
SELECT name
FROM system.tables
WHERE database = currentDatabase() AND name IN {tables:Array(String)}
UNION DISTINCT
SELECT name
FROM system.functions
WHERE lower(name) IN {functions:Array(String)}
ORDER BY name
