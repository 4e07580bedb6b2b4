"""The flow that runs any declaration: a stage starts when its inputs are there and it fits in.

One Prefect task is one stage, with its retries. Prefect's own caching is off: a stage that our
store knows returns the state `Cached`, so that its page says so.
"""

from __future__ import annotations

import contextvars
import os
import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT, SIGTERM
from textwrap import shorten
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from flows.artifacts import publish_artifacts
from flows.declaration import BoundPipeline, BoundStage, load_pipeline
from flows.months import scheduled_start
from flows.reporting import write_report
from flows.stage_runner import RunIds, StageRunner, references
from flows.web import serving
from infra.environment import Environment
from infra.errors import DamagedUnit, PermanentError
from infra.launch.stopping import stop_trainings
from infra.lineage import Lineage
from infra.manifests import read_metrics
from infra.store import Store
from infra.work import Event
from schemas.manifest import InputRef, Manifest

# (stage, state or event kind, values); states: waiting, running, cached, done, failed, retrying
Watcher = Callable[[str, str, dict[str, Any]], None]
WATCHER: contextvars.ContextVar[Watcher] = contextvars.ContextVar(
    "watcher", default=lambda stage, kind, values: None
)
_PERMANENT = (PermanentError, DamagedUnit, ValueError, TypeError)
_RUNNER: Any = ThreadPoolTaskRunner(max_workers=32)  # Prefect's types do not fit its own flow
_EXIT = {KeyboardInterrupt: 128 + SIGINT, TerminationSignal: 128 + SIGTERM}
_REASON = 300  # characters of an error in the run's state
_REPAIRS = 2  # how often a stage's damaged inputs are made again in one run


class PipelineFailed(Exception):
    """Some stages failed; `failures` has the error of each, by name."""

    def __init__(self, failures: Mapping[str, BaseException]) -> None:
        # Prefect's page of a run shows this and nothing else.
        reasons = [f"{name} ({_reason(error)})" for name, error in failures.items()]
        plural = "" if len(failures) == 1 else "s"
        super().__init__(f"stage{plural} failed: {', '.join(reasons)}")
        self.failures = dict(failures)


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    return shorten(f"{type(error).__name__}: {lines[0]}", _REASON)


@dataclass
class Execution:
    """One run of a pipeline: what is finished, what runs, what the machine has left."""

    pipeline: BoundPipeline
    runner: StageRunner
    lineage: Lineage
    parent: str
    watch: Watcher
    finished: dict[str, Manifest | None] = field(default_factory=dict)
    failures: dict[str, BaseException] = field(default_factory=dict)
    running: dict[str, PrefectFuture[Any]] = field(default_factory=dict)
    repairs: dict[str, int] = field(default_factory=dict)
    events: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)

    def run(self) -> None:
        """Run all stages; those that do not depend on a failed one still finish."""
        while True:
            for stage in self._admissible():
                self._start(stage)
            if not self.running:
                break
            self._settle(self.events.get())
        if self.failures:
            raise PipelineFailed(self.failures)

    def inputs(self, stage: BoundStage) -> dict[str, InputRef]:
        """References to what a stage takes, all of it finished."""
        found = {}
        for argument, link in stage.inputs.items():
            manifest = self.finished[link.stage]
            assert manifest is not None, f"{link.stage} is an effect and has no outputs"
            found[argument] = references(manifest)[link.output]
        return found

    def _admissible(self) -> list[BoundStage]:
        environment = self.runner.environment
        busy = [self.pipeline.stages[name].spec.resources for name in self.running]
        cores = environment.cores - sum(r.cores for r in busy)
        memory = environment.memory_gb - sum(r.memory_gb for r in busy)
        chosen: list[BoundStage] = []
        for stage in self.pipeline.stages.values():
            if self._is_ready(stage):
                wanted = stage.spec.resources
                alone = not busy and not chosen  # a stage larger than the machine runs by itself
                if alone or (wanted.cores <= cores and wanted.memory_gb <= memory):
                    chosen.append(stage)
                    cores -= wanted.cores
                    memory -= wanted.memory_gb
        return chosen

    def _is_ready(self, stage: BoundStage) -> bool:
        if stage.name in {**self.finished, **self.failures, **self.running}:
            return False
        return all(link.stage in self.finished for link in stage.inputs.values())

    def _start(self, stage: BoundStage) -> None:
        run = run_stage.with_options(
            name=stage.name,
            task_run_name=stage.name,
            retries=stage.spec.retries,
            retry_delay_seconds=exponential_backoff(stage.spec.retry_delay),
            retry_condition_fn=_is_transient,
        )
        future = run.submit(_Opaque(self), stage.name)
        self.running[stage.name] = future
        future.add_done_callback(lambda _: self.events.put(stage.name))

    def _settle(self, name: str) -> None:
        future = self.running.pop(name)
        future.wait()  # takes over the final state; before that `state` asks the server
        state = future.state
        if state.is_completed():
            return  # the task itself has put its manifest into `finished`
        error = _error(state)
        if isinstance(error, DamagedUnit) and self._repair(name, error):
            return
        self.failures[name] = error
        self.watch(name, "failed", {"error": error})

    def _repair(self, name: str, error: DamagedUnit) -> bool:
        """Have the stages that made a damaged unit make it again, and this one wait for them."""
        makers = [
            stage
            for stage, manifest in self.finished.items()
            if manifest and _holds(manifest, error.sha256)
        ]
        self.repairs[name] = self.repairs.get(name, 0) + 1
        if not makers or self.repairs[name] > _REPAIRS:
            return False
        for maker in makers:
            del self.finished[maker]
            self.watch(maker, "waiting", {"because": str(error)})
        self.watch(name, "waiting", {"because": f"{error}; it is made again"})
        return True


class _Opaque:
    """Keeps Prefect from looking for futures inside the arguments of a task."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(run: _Opaque, name: str) -> State[Any]:
    """Run one stage and leave its manifest with the execution."""
    execution = run.execution
    stage = execution.pipeline.stages[name]
    context = TaskRunContext.get()
    prefect_run = str(context.task_run.id) if context else None
    if context and context.task_run.run_count > 1:
        execution.watch(name, "retrying", {"attempt": context.task_run.run_count})
    inputs = execution.inputs(stage)
    if stage.spec.effect:
        return _perform(execution, stage, inputs, prefect_run)
    identity, manifest = execution.runner.find(stage, inputs)
    if manifest:
        execution.runner.adopt(stage, manifest)
        execution.lineage.cached_stage(execution.parent, name, manifest)
        execution.finished[name] = manifest
        execution.watch(name, "cached", {"manifest": manifest})
        return Completed(name="Cached", message=f"published as {manifest.provenance}")
    manifest = _make(execution, stage, inputs, identity, prefect_run)
    execution.finished[name] = manifest
    return Completed(message=f"published as {manifest.provenance}")


def _make(
    execution: Execution, stage: BoundStage, inputs: dict[str, InputRef], identity: Any,
    prefect_run: str | None,
) -> Manifest:  # fmt: skip
    execution.watch(stage.name, "running", {})
    lineage = execution.lineage
    run = lineage.begin_stage(
        execution.parent, stage.name, stage.spec.name, identity.fingerprint,
        identity.params, prefect_run,
    )  # fmt: skip
    try:
        listen = _listener(execution, stage.name, run)
        ids = RunIds(prefect_run, run)
        manifest = execution.runner.make(stage, inputs, identity, ids, listen)
    except BaseException as error:
        lineage.fail_stage(run, f"{type(error).__name__}: {error}")
        raise
    lineage.finish_stage(run, manifest, read_metrics(execution.runner.store, manifest))
    execution.watch(stage.name, "done", {"manifest": manifest})
    return manifest


def _perform(
    execution: Execution, stage: BoundStage, inputs: dict[str, InputRef], prefect_run: str | None
) -> State[Any]:
    execution.watch(stage.name, "running", {})
    lineage = execution.lineage
    identity = execution.runner.identify(stage, inputs)
    run = lineage.begin_stage(
        execution.parent, stage.name, stage.spec.name, identity.fingerprint,
        identity.params, prefect_run,
    )  # fmt: skip
    try:
        execution.runner.perform(stage, inputs, identity, _listener(execution, stage.name, run))
    except BaseException as error:
        lineage.fail_stage(run, f"{type(error).__name__}: {error}")
        raise
    lineage.finish_effect(run)
    execution.finished[stage.name] = None
    execution.watch(stage.name, "done", {})
    return Completed(message="performed")


def _listener(execution: Execution, name: str, run: str) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if event.kind == "metrics":
            execution.lineage.log_metrics(run, event.values["entries"])
        execution.watch(name, event.kind, event.values)

    return listen


def _is_transient(task: Any, run: Any, state: State[Any]) -> bool:
    return not isinstance(_error(state), _PERMANENT)


def _error(state: State[Any]) -> BaseException:
    error = state.result(raise_on_failure=False)
    return error if isinstance(error, BaseException) else RuntimeError(str(state.message))


def _holds(manifest: Manifest, sha256: str) -> bool:
    units = [unit for output in manifest.outputs.values() for unit in output.units]
    return any(unit.sha256 == sha256 for unit in [*units, *manifest.side])


@flow(
    name="pipeline",
    flow_run_name="{pipeline}",
    persist_result=False,
    task_runner=_RUNNER,
)
def run_pipeline(
    pipeline: str,
    until: list[str] | None = None,
    overrides: list[str] | None = None,
    home: str = ".tapir",
    store: str = "",
    dask: str | None = None,
    month: str | None = None,
) -> dict[str, str]:
    """Run a declaration; provenance digests of the finished stages, by name.

    Args:
        pipeline: path of a declaration, or the name of a bundled one.
        until: last stages wanted; all of them if None.
        overrides: `STAGE.PARAM=VALUE` each.
        home: folder of local state.
        store: fsspec URL of the store; by default in home.
        dask: address of a scheduler; a local cluster by default.
        month: the last one that counts, where the declaration has months; by default that for
            which the run was scheduled.

    Raises:
        DeclarationError, PermanentError: before any work, for what can be known to be wrong.
        PipelineFailed: if stages failed.
    """
    bound = load_pipeline(pipeline, overrides or [], month, scheduled_start()).until(*until or ())
    environment = Environment(home=Path(home), store_url=store, dask=dask)
    watch = WATCHER.get()
    runner = StageRunner(bound.name, Store(environment.store_url), environment)
    try:
        with serving(bound, environment, lambda text: watch("web", "message", {"text": text})):
            for stage in bound.stages.values():
                runner.sources(stage)  # a missing source stops the run before any work
            return _execute(bound, runner, watch)
    except (KeyboardInterrupt, TerminationSignal) as signal:
        # Prefect would wait for the stages' threads, which nothing can stop. What they started ends
        # with this process, and what they had finished is kept, as after any kill.
        try:
            stop_trainings()  # but these get the time for a checkpoint, unless told to stop twice
        finally:
            watch("", "stopped", {"text": "stopped; the same command goes on from here"})
            os._exit(_EXIT[type(signal)])
    finally:
        environment.close()


def _execute(bound: BoundPipeline, runner: StageRunner, watch: Watcher) -> dict[str, str]:
    lineage = Lineage(runner.environment.tracking_uri, runner.store)
    lineage.repair(bound.name)
    context = FlowRunContext.get()
    prefect_run = str(context.flow_run.id) if context and context.flow_run else None
    parent = lineage.begin_pipeline(bound.name, dict(bound.declaration), prefect_run)
    execution = Execution(bound, runner, lineage, parent, watch)
    status = "FAILED"
    try:
        execution.run()
        status = "FINISHED"
    finally:
        try:
            # A run that stopped half-way shows its funnel all the same.
            report = write_report(bound, runner.store, runner.environment, publish_artifacts)
            lineage.log_files(parent, [report], "report")
        finally:
            lineage.end_pipeline(parent, status)
    return {name: m.provenance for name, m in execution.finished.items() if m}
