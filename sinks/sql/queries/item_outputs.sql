-- Asked by GET /api/runs/{id}: the events that gave the items of these nodes their outputs, in order, up
-- to a sequence number of the run.
SELECT *
FROM events
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND has({nodes:Array(String)}, node) AND item >= 0
    AND type IN ('node.succeeded', 'node.reused') AND seq <= {until_seq:UInt32}
ORDER BY seq
