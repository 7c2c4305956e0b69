-- Asked by the gateway to serve a cursor that is older than its live tail: what followed it in one
-- partition, decision by decision, in the order of the log. Empty filters let everything through.
SELECT
    partition,
    offset,
    any(run_id) AS run_id,
    any(project) AS project,
    any(workflow) AS workflow,
    any(version) AS version,
    min(seq) AS first_seq,
    toUnixTimestamp64Milli(any(at)) AS decided_at,
    any(status) AS status,
    any(previous_status) AS previous,
    arrayMap(pair -> pair.2, arraySort(groupUniqArray((seq, payload)))) AS payloads,
    any(traceparent) AS traceparent
FROM events
WHERE partition = {partition:UInt32}
    AND offset > {after:Int64}
    AND offset <= {until:Int64}
    AND topic = {topic:String}
    AND ({project:String} = '' OR project = {project:String})
    AND ({workflow:String} = '' OR workflow = {workflow:String})
    AND ({run:String} = '' OR run_id = {run:String})
    AND (empty({statuses:Array(String)}) OR has({statuses:Array(String)}, status))
GROUP BY partition, offset
ORDER BY partition, offset
LIMIT {limit:UInt32}
