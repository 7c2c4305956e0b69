-- Asked by GET /api/runs/{id}/payloads/{digest}: an event of a run that refers to this payload.
SELECT *
FROM events
WHERE run_id = {run:String}
    AND position(payload, concat('"$blob":"', {digest:String}, '","size":')) > 0
ORDER BY seq
LIMIT 1
