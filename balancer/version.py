"""The version of this server, which `/health`, the metrics, OpenAPI and `chorus --version` tell."""

from __future__ import annotations

from importlib.metadata import version

VERSION = version("chorus-tts")

_COMMIT = "$Format:%h$"
"""git puts a commit's hash here when it exports the commit (.gitattributes), as deploy/install has it do."""

REVISION = "" if _COMMIT.startswith("$") else _COMMIT
"""The commit that this server was exported from; empty in a checkout."""

FULL_VERSION = f"{VERSION}+{REVISION}" if REVISION else VERSION
"""The version, and the commit as its local part (PEP 440)."""
