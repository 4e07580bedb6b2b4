"""What machine 0 decides for all machines of a run: when it starts, and how it has ended.

It alone looks at all of them. The others look at its decisions, and at whether it is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from infra.launch.board import Board, Cancel, Ear, End, MachineState, Submission
from infra.lease import holder

PIPELINE = "pipeline"  # name of the lease that the stage's attempt holds
_QUIET = ("idle", "ended", "refuses")

States = Mapping[int, MachineState | None]


class Conductor:
    """Looks at the machines of the newest run, time and again."""

    def __init__(self, board: Board, say: Callable[[str], None]) -> None:
        self._board = board
        self._say = say
        self._ear = Ear()

    def turn(self, run: Submission) -> None:
        """Decide what can be decided now."""
        if self._board.ended(run.number) is not None:
            return
        states = {k: self._board.machine(k) for k in range(run.machines)}
        self._miss_pipeline(run)
        if self._board.may_go(run.number):
            end = self._outcome(run, states)
        else:
            end = self._gather(run, states)
        if end is not None:
            self._say(f"run {run.number}: {end.state}{f', {end.why}' if end.why else ''}")
            self._board.end(run.number, end)

    def _miss_pipeline(self, run: Submission) -> None:
        there = holder(self._board.store, PIPELINE) is not None
        gone = self._ear.silent(PIPELINE, there)
        if not there and gone > run.outlive:
            why = f"its pipeline has been gone for {run.outlive:.0f} s (outlive)"
            self._board.cancel(run.number, Cancel(grace=run.grace, why=why, final=True))

    def _gather(self, run: Submission, states: States) -> End | None:
        """Start the run when all are there; how it ends if they do not come."""
        cancel = self._board.cancelled(run.number)
        if cancel is not None:
            return End(state="cancelled", why=cancel.why, final=cancel.final)
        for machine, state in states.items():
            if state is not None and state.number == run.number and state.state == "refuses":
                why = f"machine {machine} ({state.host}) cannot join: {state.words}"
                return End(state="failed", why=why, permanent=True)
        missing = [k for k, state in states.items() if not self._is_ready(run, k, state)]
        if not missing:
            self._board.go(run.number)
        elif self._ear.silent("gathering", run.number) > run.patience:
            return End(state="failed", why=await_words(run, missing))
        return None

    def _is_ready(self, run: Submission, machine: int, state: MachineState | None) -> bool:
        silent = self._ear.silent(f"machine {machine}", state)
        here = state is not None and (state.number, state.state) == (run.number, "ready")
        return here and silent <= run.lifetime

    def _outcome(self, run: Submission, states: States) -> End | None:
        """How a started run has ended, if it has."""
        problems = {
            k: problem for k, state in states.items() if (problem := self._problem(run, k, state))
        }
        if not problems and all(state and state.state == "ended" for state in states.values()):
            return End(state="done", final=True)
        cancel = self._board.cancelled(run.number)
        if cancel is None:
            return End(state="failed", why="; ".join(problems.values())) if problems else None
        quiet = (s is None or s.number != run.number or s.state in _QUIET for s in states.values())
        if all(still or k in problems for k, still in enumerate(quiet)):
            return End(state="cancelled", why=cancel.why, final=cancel.final)
        return None

    def _problem(self, run: Submission, machine: int, state: MachineState | None) -> str | None:
        silent = self._ear.silent(f"machine {machine}", state)
        if state is None or silent > run.lifetime:
            return f"machine {machine} has not been heard of for {silent:.0f} s"
        name = f"machine {machine} ({state.host})"
        if state.number != run.number or state.state == "idle":
            return f"{name}: its `tapir join` was started anew in the middle of the run"
        if state.state == "ended" and state.status:
            return f"{name}: its ranks ended {how(state.status)}"
        return None


def await_words(run: Submission, missing: list[int]) -> str:
    """Who is missing, and what to type there."""
    names = ", ".join(str(machine) for machine in missing)
    plural = "s" if len(missing) > 1 else ""
    each = "on each of them, as that machine's number" if plural else "there"
    return (
        f"machine{plural} {names} of {run.machines} did not come within {run.patience:.0f} s"
        f" (patience); {each}, run: tapir join {run.folder} --machine {missing[0]}"
    )


def how(status: int) -> str:
    """An exit status in words."""
    return f"with status {status}" if status >= 0 else f"by signal {-status}"
