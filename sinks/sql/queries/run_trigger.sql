-- Asked by GET /api/runs/{id}: the event that started the run, whole.
SELECT JSONExtractRaw(payload, 'trigger') AS trigger
FROM events
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND seq = 0 AND type = 'run.started'
LIMIT 1
