"""Tollgate: fraud decisions on Knative and KServe."""
