-- Asked by GET /api/runs/{id}/costs: what all that a run is charged adds up to, up to a sequence number
-- of the run.
SELECT currency, kind, sum(c.amount) AS amount
FROM costs_log AS c FINAL
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND seq <= {until_seq:UInt32}
GROUP BY currency, kind
