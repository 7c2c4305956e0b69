"""The contract (records, topics, definitions) and the engine: a pure core in thin Faust shells."""
