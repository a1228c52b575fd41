"""Templates of CloudFormation, as cfn-lint reads them.

cfn-lint is imported when a test needs it: that takes seconds, which every process of a run would spend.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def load(template: Path) -> dict[str, Any]:
    """The template with its tags as functions: `!Ref` is {"Ref": …}, and so on."""
    from cfnlint.decode import cfn_yaml

    loaded: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(template))))
    return loaded


def lint(template: Path) -> list[str]:
    """What cfn-lint has to say of it."""
    import cfnlint.api

    return [str(match) for match in cfnlint.api.lint(template.read_text())]
