"""The OpenAPI 3.1 document that the server serves; a test holds it against the server."""

from __future__ import annotations

import json
from pkgutil import get_data
from typing import Any

from agent.wire.verbs import VERBS, Verb
from agent.wire.version import __version__

# What a viewer's certificate opens as well; tls.VIEWS has the same, held by a test.
_VIEW: dict[str, Any] = {"security": [{"operator": []}, {"viewer": []}]}
_ERROR = {"$ref": "#/components/responses/Error"}
_TEXT: dict[str, Any] = {"type": "string"}
_WORDS: dict[str, Any] = {"type": "array", "items": _TEXT}
_WHOLE: dict[str, Any] = {"type": "integer"}
_NUMBER: dict[str, Any] = {"type": "number"}
_FLAG: dict[str, Any] = {"type": "boolean"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _record(**fields: dict[str, Any]) -> dict[str, Any]:
    """An object with these fields, all of them, and no others."""
    return {
        "type": "object",
        "required": list(fields),
        "additionalProperties": False,
        "properties": fields,
    }


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_FAULT = {"$ref": "#/components/schemas/Fault"}
_CHANGES = _list(_record(path=_TEXT, action={"enum": ["created", "edited", "removed"]}))
# agent/wire/report.py as JSON; docs/plan.md says what each means.
_FIELDS: dict[str, dict[str, dict[str, Any]]] = {
    "facts": {"host": _TEXT, "runtime": _TEXT, "python": _TEXT, "agent": _TEXT},
    "change": {"path": _TEXT, "action": {"enum": ["created", "edited", "removed"]}, "diff": _TEXT},
    "restart": {"unit": _TEXT, "stops": _WORDS},
    "verify": {
        "step": {"enum": ["registry", "cri", "files", "pull"]},
        "ok": _FLAG,
        "seconds": _NUMBER,
        "detail": _TEXT,
    },
    "alive": {},
    "images": {
        "names": _WORDS,
        "unasked": _list(_record(part=_TEXT, because=_TEXT)),
        "time": _WHOLE,
    },
    "note": {"message": _TEXT},
    "status": {
        "trusted": _list(
            _record(
                registry=_TEXT,
                files=_list(
                    _record(path=_TEXT, state={"enum": ["as-left", "changed", "missing"]})
                ),
                ca_ends=_or_null(_WHOLE),
                unproven=_list(_record(part=_TEXT, because=_TEXT)),
                pulled=_or_null(_record(seconds=_NUMBER, time=_WHOLE)),
            )
        ),
        "waiting": _WORDS,
        "interrupted": _or_null(_TEXT),
        "holder": _or_null({"type": "object"}),
        "applied": _or_null(_TEXT),
        "pulled": _or_null(_record(registry=_TEXT, image=_TEXT, seconds=_NUMBER, time=_WHOLE)),
        "kept": _WORDS,
        "time": _WHOLE,
    },
    "history": {
        "records": _list(
            _record(
                number=_WHOLE, time=_TEXT, operation=_TEXT, registry=_TEXT, by=_TEXT,
                **{"from": _TEXT}, agent=_TEXT, changes=_CHANGES, restarts=_WORDS,
                undone_by=_or_null(_WHOLE),
            )
        )
    },
    "result": {
        "host": _TEXT,
        "status": {"enum": ["changed", "unchanged", "failed", "rolled-back"]},
        "changes": _CHANGES,
        "restarts": _WORDS,
        "stopped": _WORDS,
        "verified": _or_null(_FLAG),
        "pull_seconds": _or_null(_NUMBER),
        "error": _or_null(_FAULT),
        "unproven": _list(_record(part=_TEXT, because=_TEXT)),
    },
    "resident": {
        "id": _TEXT,
        "version": _TEXT,
        "digest": _TEXT,
        "certificate_ends": _WHOLE,
        "refused": _WHOLE,
        "drift": _record(
            state={"enum": ["watching", "healing", "failing", "stopped"]},
            healed=_WHOLE, lately=_WHOLE, last_time=_WHOLE, last_files=_WORDS, error=_TEXT,
            inotify=_FLAG,
        ),
        "last": {
            "type": "object",
            "additionalProperties": _record(
                status=_TEXT, code=_or_null(_TEXT), pull_seconds=_or_null(_NUMBER), time=_WHOLE
            ),
        },
    },
}  # fmt: skip


def _event() -> dict[str, Any]:
    """Any line of an answer."""
    return {"oneOf": [_record(event={"const": name}, **fields) for name, fields in _FIELDS.items()]}


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
    plan = json.loads(get_data("agent.wire", "plan.schema.json") or b"")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Moorage's resident agent",
            "version": __version__,
            "description": "Over TLS 1.3 with an operator's certificate of the fleet CA only; a "
            "viewer's opens what says so.",
        },
        "paths": {
            "/healthz": {
                "get": _VIEW
                | _object("healthz", "Whether it serves.", ok=_FLAG, version=_TEXT, digest=_TEXT)
            },
            "/metrics": {
                "get": {
                    **_VIEW,
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
            "/v1/openapi.json": {"get": _answer("openapi", "This document.", {"type": "object"})},
            **{verb.path: {verb.method.lower(): _operation(verb)} for verb in VERBS if verb.https},
            "/v1/certificate-request": {
                "post": _object(
                    "certificate-request",
                    "A new key, and the request to sign it.",
                    id=_TEXT,
                    request=_TEXT,
                )
            },
            "/v1/certificate": {
                "post": {
                    **_object(
                        "certificate",
                        "The certificate for the last request.",
                        certificate_ends=_WHOLE,
                    ),
                    "requestBody": _body(
                        "application/json", _record(certificate=_TEXT, until=_WHOLE)
                    ),
                }
            },
        },
        "components": {
            "schemas": {
                "Plan": plan,
                "Event": _event(),
                "Fault": _record(code=_TEXT, message=_TEXT, cause=_TEXT, cure=_TEXT),
            },
            "responses": {
                "Error": {
                    "description": "Refused, and nothing was changed.",
                    "content": {
                        "application/json": {
                            "schema": _record(error=_FAULT),
                        }
                    },
                }
            },
            "securitySchemes": {
                "operator": {"type": "mutualTLS"},
                "viewer": {"type": "mutualTLS"},
            },
        },
        "security": [{"operator": []}],
    }


def _object(name: str, summary: str, **fields: dict[str, Any]) -> dict[str, Any]:
    return _answer(name, summary, _record(**fields))


def _answer(name: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {
                "description": "One JSON object.",
                "content": {"application/json": {"schema": schema}},
            },
            "default": _ERROR,
        },
    }


def _operation(verb: Verb) -> dict[str, Any]:
    plan = _body("application/json", {"$ref": "#/components/schemas/Plan"})
    return {
        **(_VIEW if verb.viewer else {}),
        "operationId": verb.name,
        "summary": verb.summary,
        "responses": {"200": _EVENTS, "default": _ERROR},
        **({"parameters": [_DRY_RUN, _OPERATOR]} if verb.changes else {}),
        **({"requestBody": plan} if verb.plan else {}),
    }


def _body(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {kind: {"schema": schema}}}
