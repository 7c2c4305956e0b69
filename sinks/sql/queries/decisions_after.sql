-- Asked by the gateway to serve a cursor that is older than its live tail: what followed it in one
-- partition, decision by decision, in the order of the log. Empty filters let everything through.
SELECT
    partition,
    offset,
    any(events.run_id) AS run_id,
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
WHERE partition = {partition:UInt32}
    AND offset > {after:Int64}
    AND offset <= {until:Int64}
    AND topic = {topic:String}
    AND ({project:String} = '' OR events.project = {project:String})
    AND ({workflow:String} = '' OR events.workflow = {workflow:String})
    AND ({run:String} = '' OR events.run_id = {run:String})
    AND (empty({statuses:Array(String)}) OR has({statuses:Array(String)}, events.status))
GROUP BY partition, offset
ORDER BY partition, offset
LIMIT {limit:UInt32}
SETTINGS optimize_aggregation_in_order = 1 -- or all that follow would be grouped, for the first
