-- Asked by GET /api/runs/{id}/payloads/{digest}: events of a run that name this payload, the first of them.
SELECT run_id, project, workflow, version, seq, type, at, status, payload, traceparent
FROM events
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND position(payload, {digest:String}) > 0
ORDER BY seq
LIMIT 20
