"""The embedded stand-in for Knative Eventing: delivers as the objects in `knative/` say, with Kafka as its storage.

Read in this order: `manifests` (what the YAML says), `filters`, `delivery`, `offsets` (pure rules), then `intake`
(Kafka in), `writer` (Kafka out), `source`, `courier` (HTTP out, retries, dead letters), `pump`, `ingress` (HTTP in),
`__main__` (wiring).
"""
