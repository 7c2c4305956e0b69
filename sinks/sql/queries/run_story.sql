-- Asked by GET /api/runs/{id}: what happened to a run and its nodes up to a sequence number, in order,
-- without what happened to items; of a node's signs of life the newest.
SELECT run_id, project, workflow, version, seq, type, at, status, payload, traceparent
FROM events
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND seq <= {until_seq:UInt32} AND item < 0
    AND (
        type != 'node.progressed'
        OR seq IN (
            SELECT max(seq)
            FROM events
            WHERE run_id = {run:String}
                AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
                AND seq <= {until_seq:UInt32} AND item < 0
                AND type = 'node.progressed'
            GROUP BY node
        )
    )
ORDER BY seq
