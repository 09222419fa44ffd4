-- The live view and the summary read what was recorded lately, whatever day the transactions are of.
CREATE INDEX ledger_by_recorded_at ON ledger (recorded_at);
