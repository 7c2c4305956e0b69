-- Asked by the recorder when it takes over partitions: up to where is each one recorded?
SELECT partition, max(offset) AS offset
FROM events
WHERE topic = {topic:String}
GROUP BY partition
