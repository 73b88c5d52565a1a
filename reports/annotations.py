"""A comparison as GitHub workflow commands: what a reviewer must see beside the checks, worst first and few.

Escaping follows GitHub's own toolkit (actions/toolkit, packages/core/src/command.ts).
"""

from typing import Literal  # no "from __future__ import annotations" here: the function below has that name

from kerneldyno.bench.verdict import EXIT_CASES, EXIT_FINE, EXIT_REGRESSED, Outcome, worst_first

from . import units, verdicts

Level = Literal["error", "warning"]
LONGEST = 600
"""Characters of a message: GitHub shows about so many."""


def annotations(outcome: Outcome, most: int = 10) -> list[str]:
    """Lines to print, one command each, at most `most` (≥ 1); the last one says how many more there are."""
    found = _found(outcome)
    if len(found) <= most:
        return [_command(*one) for one in found]
    shown, hidden = found[: most - 1], found[most - 1 :]
    level: Level = "error" if any(level == "error" for level, *_ in hidden) else "warning"
    more = f"{len(hidden)} more: see the job's summary or verdict.json" if shown else f"{len(hidden)} findings: see the job's summary"
    return [*(_command(*one) for one in shown), _command(level, "kerneldyno compare", more, None)]


def _found(outcome: Outcome) -> list[tuple[Level, str, str, str | None]]:
    """(level, title, message, path), errors first, worst first."""
    found: list[tuple[Level, str, str, str | None]] = []
    if outcome.exit_code not in (EXIT_FINE, EXIT_REGRESSED, EXIT_CASES):
        found.append(("error", f"comparison: {outcome.meaning}", outcome.headline, None))
    for canary in outcome.canaries:
        if canary.word != "SAME":
            level: Level = "error" if canary.word == "DIFFERS" else "warning"
            found.append((level, f"canary {canary.word}", f"{verdicts.place(canary)}: {canary.reason}", None))
    for verdict in worst_first(outcome.verdicts):
        if verdict.fails or verdict.word in verdicts.BAD or verdict.word == "INCONCLUSIVE":
            ratio = f"; time {verdicts.number(verdict.latency)}" if verdict.latency else ""
            advisory = "" if verdict.fails or verdict.word == "INCONCLUSIVE" else "; it does not fail the comparison"
            message = f"{verdicts.place(verdict)}: {verdict.reason}{ratio}{advisory}"
            found.append(("error" if verdict.fails else "warning", verdict.word, message, verdict.source))
    found += [("warning", "kerneldyno compare", warning, None) for warning in outcome.warnings]
    if outcome.left_out:
        left = units.count(len(outcome.left_out), "cell")
        found.append(("warning", "budget", f"{left} left out: {', '.join(outcome.left_out)}", None))
    return sorted(found, key=lambda one: one[0] != "error")


def _command(level: Level, title: str, message: str, path: str | None) -> str:
    properties = ([f"file={_property(path)}"] if path else []) + [f"title={_property(title)}"]
    shown = message if len(message) <= LONGEST else message[: LONGEST - 1] + "…"
    return f"::{level} {','.join(properties)}::{_data(shown)}"


def _data(text: str) -> str:
    """Escaped for a message; a log has no use for characters that move its cursor."""
    shown = "".join(character if character.isprintable() or character in "\r\n" else " " for character in text)
    return shown.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
