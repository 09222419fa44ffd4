"""Postgres: the only place with SQL. Tiles (features), the decision ledger and labels; all statements idempotent."""
