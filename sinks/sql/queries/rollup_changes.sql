-- Asked by the rollups: in which minutes did something change in a range of offsets? Seconds since the
-- epoch: of the runs' starts, and of the events themselves.
SELECT
    groupUniqArray(intDiv(toUnixTimestamp64Milli(run_started_at), 60000) * 60) AS run_minutes,
    groupUniqArray(intDiv(toUnixTimestamp64Milli(at), 60000) * 60) AS event_minutes
FROM events
WHERE topic = {topic:String} AND partition = {partition:UInt32}
    AND offset > {after:Int64} AND offset <= {until:Int64}
