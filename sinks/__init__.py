"""The recorder and the store: the log's history in ClickHouse."""
