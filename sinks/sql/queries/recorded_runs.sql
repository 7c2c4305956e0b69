-- Asked by the recorder about runs that it does not remember: how far are they recorded?
SELECT run_id, max(seq) + 1 AS next_seq, toUnixTimestamp64Milli(min(at)) AS started_at
FROM events
WHERE run_id IN {runs:Array(String)}
GROUP BY run_id
