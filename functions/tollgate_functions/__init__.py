"""What the functions share: serving, answering, metrics, the model client and the way into Postgres.

A function's own folder (`decide/`, `record/`, `label/`) holds only what it does; `python -m tollgate_functions decide`
serves it. Statuses are the same everywhere: 200 with a reply event, 204 without, 422 with a reason for a hopeless
event (dead letter), 503 for temporary trouble (try again), 500 for a bug.
"""
