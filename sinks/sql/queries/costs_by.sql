-- Asked by GET /api/costs and the budgets: what do costs add up to, by the names in `by`, and in all?
-- One scan gives both, so that they agree whatever is being recorded: the rows of the totals have
-- `in_all`, and no names. By tag, a cost counts for each of its tags, in all once: where it is the first.
SELECT
    if(has({by:Array(String)}, 'month'), toStartOfMonth(c.day), toDate(0)) AS month,
    if(has({by:Array(String)}, 'day'), c.day, toDate(0)) AS day,
    if(has({by:Array(String)}, 'project'), c.project, '') AS project,
    if(has({by:Array(String)}, 'workflow'), c.workflow, '') AS workflow,
    if(has({by:Array(String)}, 'version'), c.version, 0) AS version,
    if(has({by:Array(String)}, 'run'), c.run_id, '') AS run,
    if(has({by:Array(String)}, 'node'), c.node, '') AS node,
    if(has({by:Array(String)}, 'agent'), c.agent, '') AS agent,
    if(has({by:Array(String)}, 'kind'), c.kind, '') AS kind,
    if(has({by:Array(String)}, 'source'), c.source, '') AS source,
    if(has({by:Array(String)}, 'model'), c.model, '') AS model,
    c.tag AS tag,
    c.currency AS currency,
    grouping(month, tag) > 0 AS in_all,
    if(in_all, sumIf(c.amount, c.is_first), sum(c.amount)) AS amount,
    if(in_all, sumIf(c.amount, c.is_first AND c.kind = 'compute'), sumIf(c.amount, c.kind = 'compute')) AS compute,
    if(in_all, sumIf(c.amount, c.is_first AND c.kind = 'tokens'), sumIf(c.amount, c.kind = 'tokens')) AS tokens,
    if(in_all, sumIf(c.amount, c.is_first AND c.kind = 'api'), sumIf(c.amount, c.kind = 'api')) AS api,
    if(in_all, countIf(c.is_first), count()) AS entries
FROM
(
    SELECT
        l.*,
        toDate(l.at, 'UTC') AS day,
        if(has({by:Array(String)}, 'tag') AND notEmpty(t.tags), t.tags, ['']) AS names,
        arrayJoin(arrayEnumerate(names)) AS place,
        names[place] AS tag,
        place = 1 AS is_first
    FROM costs_log AS l FINAL
    LEFT JOIN workflow_tags AS t ON t.project = l.project AND t.workflow = l.workflow AND t.version = l.version
    WHERE l.at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
        AND l.at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
        AND l.run_started_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
        AND ({project:String} = '' OR l.project = {project:String})
        AND ({workflow:String} = '' OR l.workflow = {workflow:String})
        AND ({run:String} = '' OR l.run_id = {run:String})
        AND ({agent:String} = '' OR l.agent = {agent:String})
        AND ({model:String} = '' OR l.model = {model:String})
        AND ({kind:String} = '' OR l.kind = {kind:String})
        AND ({tag:String} = '' OR has(t.tags, {tag:String}))
) AS c
GROUP BY GROUPING SETS
(
    (month, day, project, workflow, version, run, node, agent, kind, source, model, tag, currency),
    (currency)
)
ORDER BY
    in_all DESC, month, day, amount DESC, currency, project, workflow, version, run, node, agent,
    kind, source, model, tag
LIMIT {limit:UInt64} OFFSET {skip:UInt64}
