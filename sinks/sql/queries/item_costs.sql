-- Asked by GET /api/runs/{id}: what the items of each node cost, up to a sequence number of the run.
SELECT node, currency, kind, sum(c.amount) AS amount
FROM costs_log AS c FINAL
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND seq <= {until_seq:UInt32} AND item >= 0
GROUP BY node, currency, kind
