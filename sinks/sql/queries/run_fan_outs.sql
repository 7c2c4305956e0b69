-- Asked by GET /api/runs/{id}/nodes/{node}/items: the nodes of a run that have items, and which.
SELECT run_id, project, workflow, version, seq, type, at, status, payload, traceparent
FROM events
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND type = 'node.fannedOut'
ORDER BY seq
