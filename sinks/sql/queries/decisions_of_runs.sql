-- Asked by the recorder to compare duplicates with what is recorded: these runs' decisions.
SELECT
    partition,
    offset,
    run_id,
    any(events.project) AS project,
    any(events.workflow) AS workflow,
    any(events.version) AS version,
    min(seq) AS first_seq,
    toUnixTimestamp64Milli(any(at)) AS decided_at,
    any(events.status) AS status,
    any(previous_status) AS previous,
    arrayMap(pair -> pair.2, arraySort(groupUniqArray((seq, payload)))) AS payloads,
    any(events.traceparent) AS traceparent
FROM events
WHERE run_id IN {runs:Array(String)}
    AND run_started_at IN (
        SELECT started_at FROM run_places
        WHERE run_hash IN arrayMap(run -> cityHash64(run), {runs:Array(String)})
    )
GROUP BY partition, offset, run_id
