-- Asked by the ledger when all work is done: which runs, attempts and costs have no events? Of runs that
-- began before `kept_from` retention may have removed some and not the others yet.
SELECT run_id, 'runs' AS table_name
FROM runs
WHERE run_id NOT IN (SELECT run_id FROM events)
    AND started_at >= fromUnixTimestamp64Milli({kept_from:Int64}, 'UTC')
LIMIT 50
UNION ALL
SELECT DISTINCT run_id, 'agent_runs' AS table_name
FROM agent_runs
WHERE run_id NOT IN (SELECT run_id FROM events)
    AND run_started_at >= fromUnixTimestamp64Milli({kept_from:Int64}, 'UTC')
LIMIT 50
UNION ALL
SELECT DISTINCT run_id, 'costs' AS table_name
FROM costs
WHERE run_id NOT IN (SELECT run_id FROM events)
    AND run_started_at >= fromUnixTimestamp64Milli({kept_from:Int64}, 'UTC')
LIMIT 50
