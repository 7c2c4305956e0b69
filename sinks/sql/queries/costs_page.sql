-- Asked by GET /api/costs/export: single costs with the tags of their workflow, in the order of the
-- table, the page after the key (after_at, after_run, after_seq, after_entry).
SELECT
    c.run_id AS run_id, c.seq AS seq, c.entry AS entry, c.at AS at, c.run_started_at AS run_started_at,
    c.project AS project, c.workflow AS workflow, c.version AS version, c.node AS node, c.item AS item,
    c.attempt AS attempt, c.agent AS agent, c.kind AS kind, c.source AS source, c.model AS model,
    c.quantity AS quantity, c.unit AS unit, c.unit_price AS unit_price, c.amount AS amount,
    c.currency AS currency, c.price_version AS price_version, t.tags AS tags
FROM costs_log AS c FINAL
LEFT JOIN workflow_tags AS t ON t.project = c.project AND t.workflow = c.workflow AND t.version = c.version
WHERE c.run_started_at >= fromUnixTimestamp64Milli({after_at:Int64}, 'UTC')
    AND (c.run_started_at, c.run_id, c.seq, c.entry)
        > (fromUnixTimestamp64Milli({after_at:Int64}, 'UTC'), {after_run:String}, {after_seq:Int64}, {after_entry:Int64})
    AND c.at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
    AND c.at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
    AND c.run_started_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
    AND ({project:String} = '' OR c.project = {project:String})
    AND ({workflow:String} = '' OR c.workflow = {workflow:String})
    AND ({run:String} = '' OR c.run_id = {run:String})
    AND ({agent:String} = '' OR c.agent = {agent:String})
    AND ({model:String} = '' OR c.model = {model:String})
    AND ({kind:String} = '' OR c.kind = {kind:String})
    AND ({tag:String} = '' OR has(t.tags, {tag:String}))
ORDER BY c.run_started_at, c.run_id, c.seq, c.entry
LIMIT {limit:UInt32}
