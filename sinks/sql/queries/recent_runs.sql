-- Asked by the recorder when it takes over a partition: the runs of its last decisions.
SELECT run_id, min(seq) AS first_seq, max(seq) + 1 AS next_seq, toUnixTimestamp64Milli(min(at)) AS first_at
FROM events
WHERE topic = {topic:String} AND partition = {partition:UInt32} AND offset >= {from_offset:UInt64}
GROUP BY run_id
ORDER BY max(offset)
