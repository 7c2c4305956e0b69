-- Asked by GET /api/runs/{id}/costs: what a run is charged, in the order of its events up to a sequence
-- number of the run, the page after the key (after_seq, after_entry).
SELECT
    seq, entry, node, item, attempt, kind, source, model, quantity, unit, unit_price, amount, currency,
    price_version
FROM costs_log FINAL
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND seq <= {until_seq:UInt32} AND (seq, entry) > ({after_seq:Int64}, {after_entry:Int64})
ORDER BY seq, entry
LIMIT {limit:UInt32}
