-- Asked by GET /api/runs/{id}/events: what happened in a run from a sequence number on, in order.
SELECT *
FROM events
WHERE run_id = {run:String} AND run_started_at IN {began:Array(DateTime64(3, 'UTC'))}
    AND seq >= {from_seq:UInt32}
ORDER BY seq
LIMIT {limit:UInt32}
