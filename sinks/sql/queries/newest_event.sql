-- Asked before the first page of events: when was the newest one? By the index, without a condition.
SELECT at
FROM events
ORDER BY at DESC
LIMIT 1
