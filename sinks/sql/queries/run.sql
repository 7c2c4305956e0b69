-- Asked by GET /api/runs/{id}: one run.
SELECT *
FROM runs
WHERE run_id = {run:String}
