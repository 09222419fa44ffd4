"""Benchmarks: `make bench NAME=end_to_end [QUICK=1]`; each writes bench/results/NAME.json."""
