-- Asked by GET /api/runs/{id}/nodes/{node}/items: how many items' last event is which, up to a
-- sequence number of the run. What an item cost may be told later.
SELECT last, reused, count() AS items
FROM
(
    SELECT item, argMax(type, seq) AS last, max(type = 'node.reused') AS reused
    FROM events
    WHERE run_id = {run:String} AND node = {node:String} AND item >= 0 AND seq <= {until_seq:UInt32}
        AND type != 'node.charged'
    GROUP BY item
)
GROUP BY last, reused
