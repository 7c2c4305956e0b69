-- Asked before what is asked of one run: when it began, by which all tables find its rows. Of two runs
-- with the same hash both times.
SELECT DISTINCT started_at
FROM run_places
WHERE run_hash = cityHash64({run:String})
