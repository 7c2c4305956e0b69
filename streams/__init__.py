"""The contract (records, topics, definitions) and the run engine: a pure core in thin Faust shells."""
