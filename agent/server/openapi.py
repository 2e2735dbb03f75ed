"""The OpenAPI 3.1 document that the server serves; a test holds it against the server."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from agent import __version__

_ERROR = {"$ref": "#/components/responses/Error"}
_EVENTS = {
    "description": "The core's events, one JSON object a line; the last is the result.",
    "content": {"application/jsonl": {"schema": {"$ref": "#/components/schemas/Event"}}},
}
_DRY_RUN = {
    "name": "dry_run",
    "in": "query",
    "description": "Tell what would be done, and change nothing.",
    "schema": {"type": "boolean", "default": False},
}

_OPERATOR = {
    "name": "Moorage-Operator",
    "in": "header",
    "description": "The operator's version: one from before the agent's changes nothing (409).",
    "schema": {"type": "string"},
}


def document() -> dict[str, Any]:
    """The document, with the plan's published schema inside."""
    plan = json.loads(files("agent").joinpath("plan.schema.json").read_text("utf-8"))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Moorage's resident agent",
            "version": __version__,
            "description": "Over TLS 1.3 with an operator's certificate of the fleet CA only.",
        },
        "paths": {
            "/healthz": {"get": _object("healthz", "Whether it serves.")},
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Prometheus metrics.",
                    "responses": {
                        "200": {
                            "description": "Text format 0.0.4.",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        },
                        "default": _ERROR,
                    },
                }
            },
            "/v1/openapi.json": {"get": _object("openapi", "This document.")},
            "/v1/facts": {"get": _events("facts", "Which runtimes are here.")},
            "/v1/status": {
                "get": _events("status", "What of ours is here, drift, and the agent itself.")
            },
            "/v1/history": {"get": _events("history", "The finished transactions, newest first.")},
            "/v1/apply": {
                "post": _with_plan("apply", "Bring the node into the plan's state.", True)
            },
            "/v1/untrust": {"post": _with_plan("untrust", "Take the trust away again.", True)},
            "/v1/verify": {"post": _with_plan("verify", "Prove the trust as it stands.", False)},
            "/v1/upgrade": {
                "post": {
                    **_object("upgrade", "Another archive, signed by the fleet CA."),
                    "parameters": [
                        _header("Moorage-Digest", "SHA-256 of the archive, in hexadecimal."),
                        _header("Moorage-Signature", "Its signature by the CA's key, in base64."),
                        _header("Moorage-Downgrade", "yes: also to an earlier version.", False),
                    ],
                    "requestBody": _body("application/octet-stream", {}),
                }
            },
            "/v1/certificate-request": {
                "post": _object("certificate-request", "A new key, and the request to sign it.")
            },
            "/v1/certificate": {
                "post": {
                    **_object("certificate", "The certificate for the last request."),
                    "requestBody": _body(
                        "application/json",
                        {
                            "type": "object",
                            "required": ["certificate", "until"],
                            "additionalProperties": False,
                            "properties": {
                                "certificate": {"type": "string"},
                                "until": {"type": "integer"},
                            },
                        },
                    ),
                }
            },
        },
        "components": {
            "schemas": {
                "Plan": plan,
                "Event": {
                    "type": "object",
                    "required": ["event"],
                    "properties": {"event": {"type": "string"}},
                },
                "Fault": {
                    "type": "object",
                    "required": ["code", "message", "cause", "cure"],
                    "properties": {
                        name: {"type": "string"} for name in ("code", "message", "cause", "cure")
                    },
                },
            },
            "responses": {
                "Error": {
                    "description": "Refused, and nothing was changed.",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["error"],
                                "properties": {"error": {"$ref": "#/components/schemas/Fault"}},
                            }
                        }
                    },
                }
            },
            "securitySchemes": {"operator": {"type": "mutualTLS"}},
        },
        "security": [{"operator": []}],
    }


def _object(name: str, summary: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {
                "description": "One JSON object.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            "default": _ERROR,
        },
    }


def _events(name: str, summary: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": _EVENTS, "default": _ERROR},
    }


def _with_plan(name: str, summary: str, dry: bool) -> dict[str, Any]:
    return {
        **_events(name, summary),
        **({"parameters": [_DRY_RUN, _OPERATOR]} if dry else {}),
        "requestBody": _body("application/json", {"$ref": "#/components/schemas/Plan"}),
    }


def _body(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {kind: {"schema": schema}}}


def _header(name: str, description: str, required: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": description,
        "schema": {"type": "string"},
    }
