"""What a gossip job leaves in its directory."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.connectors.files import FileSink

from connectors.files.atomic import replacing
from flows.gossip import DocumentOut, plain_document, row
from jobs.gossip_settings import GossipSettings
from operators.gossip import Refused
from state.crdt.document import Document


def write_feed(out: DocumentOut, directory: Path) -> None:
    """Write every change and every refusal as lines of JSON."""

    def change(item: tuple[str, Any]) -> tuple[str, str]:
        return item[0], _line({"peer": item[0], **row(item[1])})

    def refusal(item: tuple[str, Refused]) -> tuple[str, str]:
        name, refused = item
        content = refused.content
        if isinstance(content, bytes):
            content = content[:1000].hex()
        return name, _line(
            {"peer": name, "origin": refused.origin or refused.source}
            | {"operation": content, "reason": refused.reason}
        )

    op.output("changes", op.map("change", out.feed, change), FileSink(directory / "changes.ndjson"))
    op.output(
        "dead_letters",
        op.map("refusal", out.refused, refusal),
        FileSink(directory / "dead_letters.ndjson"),
    )


def write_document(directory: Path, state: bytes) -> dict[str, Any]:
    """Write `document.json`, and return what is in it."""
    plain = plain_document(Document.from_bytes(state).value)
    _write(directory / "document.json", plain)
    return plain


def write_record(directory: Path, settings: GossipSettings, counts: dict[str, Any]) -> None:
    """Write `run.json`."""
    record = {"job": "gossip", "settings": settings.model_dump(mode="json"), **counts}
    _write(directory / "run.json", record | {"finished": datetime.now(UTC).isoformat()})


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def _line(content: dict[str, Any]) -> str:
    return msgspec.json.encode(content, enc_hook=repr).decode()
