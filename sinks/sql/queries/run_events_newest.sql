-- Asked by GET /api/runs/{id}/events?order=newest: what happened in a run before a sequence number,
-- the newest first.
SELECT *
FROM events
WHERE run_id = {run:String} AND run_started_at IN {began:Array(DateTime64(3, 'UTC'))}
    AND seq < {before_seq:UInt32}
ORDER BY seq DESC
LIMIT {limit:UInt32}
