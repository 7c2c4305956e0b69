-- Asked by the ledger when all work is done: which runs, attempts and costs have no events?
SELECT run_id, 'runs' AS table_name
FROM runs
WHERE run_id NOT IN (SELECT run_id FROM events)
LIMIT 50
UNION ALL
SELECT DISTINCT run_id, 'agent_runs' AS table_name
FROM agent_runs
WHERE run_id NOT IN (SELECT run_id FROM events)
LIMIT 50
UNION ALL
SELECT DISTINCT run_id, 'costs' AS table_name
FROM costs
WHERE run_id NOT IN (SELECT run_id FROM events)
LIMIT 50
