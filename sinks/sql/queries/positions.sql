-- Asked by the recorder when it takes over partitions: up to where is each one recorded? The events
-- say so; `positions` as well, for when they have been removed for their age.
SELECT partition, max(offset) AS offset
FROM
(
    SELECT partition, offset
    FROM events
    WHERE topic = {topic:String}
    UNION ALL
    SELECT partition, offset::UInt64 AS offset
    FROM positions
    WHERE topic = {topic:String}
)
GROUP BY partition
