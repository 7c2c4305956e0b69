-- Asked by GET /api/runs/{id} and /api/runs/{id}/nodes/{node}/items: of how many items of a node, or of
-- all nodes where that is empty, the last event is which, up to a sequence number of the run. What an
-- item cost may be told later.
SELECT node, last, reused, count() AS items
FROM
(
    SELECT node, item, argMax(type, seq) AS last, max(type = 'node.reused') AS reused
    FROM events
    WHERE run_id = {run:String}
        AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
        AND ({node:String} = '' OR node = {node:String}) AND item >= 0
        AND seq <= {until_seq:UInt32} AND type != 'node.charged'
    GROUP BY node, item
)
GROUP BY node, last, reused
