-- Asked by GET /api/runs/{id}: what happened to a run and its nodes up to a sequence number, in order,
-- without what happened to items; of a node's signs of life the newest.
SELECT *
FROM events
WHERE run_id = {run:String} AND run_started_at IN {began:Array(DateTime64(3, 'UTC'))}
    AND seq <= {until_seq:UInt32} AND item < 0
    AND (
        type != 'node.progressed'
        OR seq IN (
            SELECT max(seq)
            FROM events
            WHERE run_id = {run:String} AND run_started_at IN {began:Array(DateTime64(3, 'UTC'))}
                AND seq <= {until_seq:UInt32} AND item < 0
                AND type = 'node.progressed'
            GROUP BY node
        )
    )
ORDER BY seq
