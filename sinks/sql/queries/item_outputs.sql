-- Asked by GET /api/runs/{id}: the events that gave the items of these nodes their outputs, in order, up
-- to a sequence number of the run.
SELECT *
FROM events
WHERE run_id = {run:String} AND run_started_at IN {began:Array(DateTime64(3, 'UTC'))}
    AND has({nodes:Array(String)}, node) AND item >= 0
    AND type IN ('node.succeeded', 'node.reused') AND seq <= {until_seq:UInt32}
ORDER BY seq
