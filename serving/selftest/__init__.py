"""SelfTest: what a model answers, held against what it must answer; engine only, no protobuf."""
