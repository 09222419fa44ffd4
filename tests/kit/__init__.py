"""The test kit: the embedded platform as a fixture, oracles, small helpers."""
