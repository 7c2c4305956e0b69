-- Asked by the rollups when they start: up to where is each partition counted?
SELECT partition, max(offset)::UInt64 AS offset
FROM positions
WHERE topic = {topic:String}
GROUP BY partition
