"""Everything that starts and wires processes: settings, CLI, local Kafka, supervisor, telemetry."""
