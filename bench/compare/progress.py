"""What the terminal shows while a comparison is measured: its stages, what failed, and the cell that is at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from ..terminal import STYLES, TerminalProgress

if TYPE_CHECKING:
    from ..manifest import Settings
    from ..plan import Group, Plan
    from ..records import Case, Measurement


class CompareProgress(TerminalProgress):
    """Each stage on a line; a case only when it does not work: numbers of single processes would be misread as results."""

    def begin(self, plan: Plan, settings: Settings, done: int) -> None:  # noqa: ARG002 - of the protocol
        on = f"on {plan.cases[0].device}, {settings.threads} threads" if plan.cases else "nothing differs"
        kernels = len({case.kernel for case in plan.cases})
        self.console.print(f"{kernels} kernels, {len({case.group for case in plan.cases})} problems {on}", highlight=False)
        self.start()

    def stage(self, text: str) -> None:
        """A comparison has come to another stage."""
        self.console.print(escape(text), highlight=False)

    def group(self, group: Group, number: int, of: int, left_s: float | None) -> None:  # noqa: ARG002 - of the protocol
        self._cell = f"{number}/{of} {group.operator} {group.label}"

    def doing(self, case: Case | None, phase: str) -> None:
        super().doing(case, f"{self._cell} {phase}" if case else phase)

    def done(self, case: Case, measurement: Measurement) -> None:
        if measurement.status != "ok":
            style = STYLES[measurement.status]
            what = f"{case.side} {case.kernel} at {case.label}: {measurement.reason}"
            self.console.print(f"  [{style}]{measurement.status}[/] {escape(what)}", highlight=False)

    def _line(self) -> str:
        return f"[cyan]{escape(self._what)}[/]"

    _cell = ""
