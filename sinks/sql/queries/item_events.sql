-- Asked by GET /api/runs/{id}/nodes/{node}/items: all that happened to these items, in order, up to a
-- sequence number of the run.
SELECT *
FROM events
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND node = {node:String} AND has({items:Array(Int32)}, item)
    AND seq <= {until_seq:UInt32}
ORDER BY seq
