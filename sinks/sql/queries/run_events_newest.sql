-- Asked by GET /api/runs/{id}/events?order=newest: what happened in a run before a sequence number,
-- the newest first.
SELECT run_id, project, workflow, version, seq, type, at, status, payload, traceparent
FROM events
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND seq < {before_seq:UInt32}
ORDER BY seq DESC
LIMIT {limit:UInt32}
