"""Where transactions come from when no bank is attached: a simulated world, or a file that is replayed.

`world` makes the transactions, `history` writes the past as Parquet, `stream` publishes the present on Kafka
(with `mix` for bad input), `replay` reads a file instead, `run` is what the command line calls.
"""
