-- Asked by GET /api/runs/{id}/nodes/{node}/items: the nodes of a run that have items, and which.
SELECT *
FROM events
WHERE run_id = {run:String} AND run_started_at IN {began:Array(DateTime64(3, 'UTC'))}
    AND type = 'node.fannedOut'
ORDER BY seq
