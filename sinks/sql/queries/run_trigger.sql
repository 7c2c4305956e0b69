-- Asked by GET /api/runs/{id}: the event that started the run, whole.
SELECT JSONExtractRaw(payload, 'trigger') AS trigger
FROM events
WHERE run_id = {run:String} AND seq = 0 AND type = 'run.started'
LIMIT 1
