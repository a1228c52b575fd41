r"""Formulas between dollar signs: LaTeX's commands become words or symbols, and letters side by side are factors."""

from __future__ import annotations

import re

FORMULA = re.compile(
    r"(?<![\w$\\])\$\$?(?![\s\d$])([^$\n]{1,500}?)(?<![\s\\])\$\$?(?![\w$])"
    r"|\\\(((?:(?!\\\()[^\n]){1,500}?)\\\)|\\\[((?:(?!\\\[)[^\n]){1,500}?)\\\]"
)

_FRACTION = re.compile(r"\\d?frac\{([^{}]{1,100})\}\{([^{}]{1,100})\}")
_ROOT = re.compile(r"\\sqrt\{([^{}]{1,100})\}")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|operatorname)\{([^{}]{0,100})\}")
_COMMAND = re.compile(r"\\([A-Za-z]{1,30})")
_POWER = re.compile(r"\^\{([^{}]{1,50})\}")
_INDEX = re.compile(r"_\{?([A-Za-z0-9]{1,20})\}?")
_FACTORS = re.compile(r"(?<![A-Za-z])[A-Za-z]{2,3}(?![A-Za-z])")
_IN_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|operatorname)\{$")
_COMMANDS = {
    "times": "\u00d7", "cdot": "\u00d7", "div": "\u00f7", "le": "\u2264", "leq": "\u2264", "ge": "\u2265",
    "geq": "\u2265", "ne": "\u2260", "neq": "\u2260",
    "pm": "\u00b1", "approx": "\u2248", "to": "\u2192", "rightarrow": "\u2192", "infty": "infinity", "sum": "sum of",
    "int": "integral of",
    "left": "", "right": "", "quad": "", "ldots": "...", "cdots": "...", "in": "in", "sin": "sine", "cos": "cosine",
    "tan": "tangent",
    "log": "log", "ln": "natural log", "partial": "partial", "circ": "\u00b0",
}  # fmt: skip


def spoken(formula: str) -> str:
    """A formula without LaTeX; its operators are left to the symbols' stage."""
    formula = _FACTORS.sub(lambda letters: " ".join(letters[0]) if not _is_command(letters) else letters[0], formula)
    formula = _TEXT.sub(r" \1 ", formula)
    formula = _ROOT.sub(r" square root of \1 ", _FRACTION.sub(r" \1 over \2 ", formula))
    formula = _POWER.sub(r"^\1", formula)
    formula = _COMMAND.sub(lambda command: f" {_COMMANDS.get(command[1], command[1])} ", formula)
    return _INDEX.sub(r" \1", formula).replace("{", " ").replace("}", " ").replace("\\", " ")


def _is_command(letters: re.Match[str]) -> bool:
    before = letters.string[max(0, letters.start() - 20) : letters.start()]
    return before.endswith("\\") or _IN_TEXT.search(before) is not None
