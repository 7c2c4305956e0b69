-- Every table knows when the run of a row started: retention and rollups go by that, so that a run is
-- kept or removed, and counted, as a whole. Events recorded before this column existed count from when
-- they happened; `commandcenter rebuild` makes them exact.
ALTER TABLE events
    ADD COLUMN IF NOT EXISTS run_started_at DateTime64(3, 'UTC') DEFAULT at CODEC(Delta, LZ4)
        COMMENT 'When the run started'
