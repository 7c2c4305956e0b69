-- Asked by GET /api/runs/{id}/nodes/{node}/items?status=: the items from {start} on, of which the last
-- event is one of {types}; '' is that of an item that has none.
SELECT number AS item
FROM numbers({start:UInt64}, {count:UInt64}) AS places
LEFT JOIN
(
    SELECT toUInt64(item) AS number, argMax(type, seq)::String AS last
    FROM events
    WHERE run_id = {run:String}
        AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
        AND node = {node:String} AND item >= 0 AND seq <= {until_seq:UInt32}
        AND type != 'node.charged'
    GROUP BY number
) AS known USING (number)
WHERE has({types:Array(String)}, last)
ORDER BY number
LIMIT {limit:UInt32}
