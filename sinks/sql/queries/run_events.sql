-- Asked by GET /api/runs/{id}/events: what happened in a run from a sequence number on, in order. When a
-- run began is where its rows are in all tables: run_places has it by the hash of the run's id. The columns
-- are those that answers have: each takes as long as all that is looked at to find the rows.
SELECT run_id, project, workflow, version, seq, type, at, status, payload, traceparent
FROM events
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND seq >= {from_seq:UInt32}
ORDER BY seq
LIMIT {limit:UInt32}
