"""What the dispatcher counts, for Prometheus. One place, so that rules, panels and the live view find the names.

In: calls from `intake`, `courier` and `ingress`. Out: GET /metrics (`ingress`).
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter(
    "tollgate_dispatcher_events",
    "Events a KafkaSource or Trigger is done with, by result: delivered, replied or dead_letter",
    ["consumer", "result"],
)
RETRIES = Counter("tollgate_dispatcher_retries", "Attempts after the first", ["consumer"])
IN_FLIGHT = Gauge("tollgate_dispatcher_in_flight", "Events under way, waiting for a retry included", ["consumer"])
LAG = Gauge("tollgate_dispatcher_lag_records", "Records of the topic that are not committed yet", ["consumer"])
DELIVERY_SECONDS = Histogram(
    "tollgate_dispatcher_delivery_seconds",
    "From a record's arrival here until it is durable elsewhere, retries included",
    ["consumer"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
INGRESS = Counter("tollgate_dispatcher_ingress_requests", "Answers to events POSTed to the Broker", ["code"])
DEAD_LETTERS = Counter("tollgate_dead_letters", "Events that went to the dead-letter sink", ["reason"])
