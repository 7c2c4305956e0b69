-- Asked by whoever opens the store: what could the engine not read when it started?
SELECT table, name
FROM system.detached_parts
WHERE database = currentDatabase() AND startsWith(reason, 'broken')
ORDER BY table, name
