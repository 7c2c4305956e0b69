-- Asked by GET /api/runs/{id}/payloads/{digest}: events of a run that name this payload, the first of them.
SELECT *
FROM events
WHERE run_id = {run:String} AND run_started_at IN {began:Array(DateTime64(3, 'UTC'))}
    AND position(payload, {digest:String}) > 0
ORDER BY seq
LIMIT 20
