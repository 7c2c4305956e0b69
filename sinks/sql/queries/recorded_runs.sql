-- Asked by the recorder about runs that it does not remember: how far are they recorded?
SELECT run_id, max(seq) + 1 AS next_seq, toUnixTimestamp64Milli(min(at)) AS started_at
FROM events
WHERE run_id IN {runs:Array(String)}
    AND run_started_at IN (
        SELECT started_at FROM run_places
        WHERE run_hash IN arrayMap(run -> cityHash64(run), {runs:Array(String)})
    )
GROUP BY run_id
