"""The command line: run, plan, trace, verify, sample, vote, demo, join, report, croissant, accept,
reindex.

Heavy imports wait until a command needs them: `tapir plan` must answer in a second or two.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from flows import cost_options
from infra.errors import PermanentError
from schemas.pipeline import DeclarationError

app = typer.Typer(
    name="tapir",
    help="From web pages to ranked pictures: declared, cached, traced.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Home = Annotated[
    Path, typer.Option("--home", envvar="TAPIR_HOME", help="Folder of all local state.")
]
StoreUrl = Annotated[
    str, typer.Option("--store", envvar="TAPIR_STORE", help="fsspec URL of the artifact store.")
]
DaskAddress = Annotated[
    str | None, typer.Option("--dask", envvar="TAPIR_DASK", help="Address of a Dask scheduler.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="STAGE.PARAM=VALUE, validated like the file.")
]
LastMonth = Annotated[
    str | None,
    typer.Option("--month", help="YYYY-MM, the last that counts where `{month}` is declared."),
]
HERE = Path(".tapir")


def main() -> None:
    """Run the command line; errors that a user can mend are one sentence, without a traceback."""
    _quiet()
    try:
        app()
    except (DeclarationError, PermanentError) as error:
        _fail(str(error))


@app.command()
def run(
    pipeline: str,
    until: Annotated[str | None, typer.Option(help="Last stage wanted.")] = None,
    settings: Settings = None,
    home: Home = HERE,
    store: StoreUrl = "",
    dask: DaskAddress = None,
    month: LastMonth = None,
    profile: Annotated[
        int, typer.Option(min=0, help="Trace so many updates of every training that runs.")
    ] = 0,
) -> None:
    """Run a pipeline: a declaration's path, or the name of a bundled one."""
    settings = settings or []
    if profile:
        settings = [*settings, *_profiled(pipeline, settings, profile)]
    _run(pipeline, until, settings, home, store, dask, month)


@app.command()
def plan(  # noqa: PLR0913, PLR0917 - an argument is an option
    pipeline: str,
    settings: Settings = None,
    home: Home = HERE,
    store: StoreUrl = "",
    month: LastMonth = None,
    as_json: AsJson = False,
    cost: cost_options.Cost = False,
    machines: cost_options.Machines = None,
    gpus: cost_options.Gpus = None,
    gpu: cost_options.Gpu = None,
    price: cost_options.Price = None,
    utilisation: cost_options.Utilisation = None,
    tokens_per_second: cost_options.Speed = None,
    rank: cost_options.Rank = None,
    batch: cost_options.Batch = None,
    pairs: cost_options.Pairs = None,
    picture_kb: cost_options.PictureKb = None,
    mbit: cost_options.Mbit = None,
) -> None:
    """Show what is cached, what would run, and because of which change; or what it would cost."""
    from flows.declaration import load_pipeline
    from flows.plan import plan as plan_stages

    bound = load_pipeline(pipeline, settings or [], month)
    options = cost_options.CostOptions(
        machines, gpus, gpu, price, utilisation, tokens_per_second, rank, batch, pairs, picture_kb,
        mbit,
    )  # fmt: skip
    if cost:
        _show_costs(bound, options, as_json)
        return
    if options.given():
        _fail(f"{', '.join(options.given())}: has a meaning only with --cost")
    planned = plan_stages(bound, _runner(bound.name, home, store))
    if as_json:
        _print_json({"pipeline": bound.name, "stages": [one.as_json() for one in planned]})
        return
    for one in planned:
        inputs = f"  <- {', '.join(one.inputs.values())}" if one.inputs else ""
        typer.echo(f"{one.state:7} {one.name}{inputs}{f'  ({one.note})' if one.note else ''}")
        for change in one.because:
            typer.echo(f"          {change}")


def _show_costs(bound: Any, options: cost_options.CostOptions, as_json: bool) -> None:
    from flows import costs

    try:
        found = costs.costs(bound, options.assumptions())
    except ValueError as error:
        _fail(str(error))
    if as_json:
        _print_json({"pipeline": bound.name, "costs": costs.as_json(found)})
    else:
        typer.echo(costs.as_text(found))


@app.command()
def trace(ref: str, home: Home = HERE, store: StoreUrl = "", as_json: AsJson = False) -> None:
    """Walk from an artifact, PIPELINE/STAGE or models:/NAME@ALIAS back to the sources."""
    from infra.trace import chain, chain_json, render, resolve

    environment, opened = _open(home, store)
    found = chain(opened, resolve(opened, ref, environment.tracking_uri))
    if as_json:
        _print_json(chain_json(found))
    else:
        typer.echo(render(found))


@app.command()
def verify(ref: str, home: Home = HERE, store: StoreUrl = "", as_json: AsJson = False) -> None:
    """Hash a whole chain again; name each file that is missing or altered."""
    from infra.trace import resolve
    from infra.trace import verify as verify_chain

    environment, opened = _open(home, store)
    problems = verify_chain(opened, resolve(opened, ref, environment.tracking_uri))
    if as_json:
        _print_json({"ref": ref, "problems": problems})
    else:
        typer.echo("\n".join(problems) if problems else f"{ref}: all files are as they were made")
    raise typer.Exit(1 if problems else 0)


@app.command()
def sample(  # noqa: PLR0913, PLR0917
    model: str,
    prompt: str,
    candidates: Annotated[int, typer.Option("-n", min=1, help="Candidates drawn.")] = 16,
    keep: Annotated[int, typer.Option("-k", min=1, help="Best ones kept.")] = 4,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
    output: Annotated[Path, typer.Option("-o", help="Folder for PNGs and the sheet.")] = Path(
        "samples"
    ),
    image: Annotated[
        Path | None, typer.Option(help="A picture of which a part is kept and the rest drawn.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(help="Keep so many rows of its codes, from the top.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(help="Keep a box of its codes: TOP,LEFT,BOTTOM,RIGHT.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Write the files anew as rows are drawn.")
    ] = False,
    home: Home = HERE,
    store: StoreUrl = "",
    as_json: AsJson = False,
) -> None:
    """Draw pictures for a prompt with models:/NAME@ALIAS or a pipeline's own models."""
    from flows.row_bar import row_bar
    from flows.sampling import given_part, sample_pictures

    environment, opened = _open(home, store)
    try:
        given = given_part(image, rows, box)
        with row_bar() as progress:
            written = sample_pictures(
                opened, environment, model, prompt, candidates, keep, seed, output, given,
                partial, progress,
            )  # fmt: skip
    except ValueError as error:
        _fail(str(error))
    if as_json:
        _print_json(written)
        return
    typer.echo("\n".join([*written["pictures"], written["sheet"]]))


@app.command()
def vote(
    first: Annotated[str, typer.Argument(metavar="A", help="Model, pipeline, stage or folder.")],
    second: Annotated[str, typer.Argument(metavar="B", help="What its pictures compare with.")],
    captions: Annotated[
        int | None, typer.Option("-n", min=1, help="So many of the common captions.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of captions, order and sides.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    result: Annotated[bool, typer.Option("--result", help="Say how it stands, and end.")] = False,
    home: Home = HERE,
    store: StoreUrl = "",
    as_json: AsJson = False,
) -> None:
    """Ask people which pictures are more realistic and match their captions better."""
    from flows import voting

    environment, opened = _open(home, store)
    election = voting.prepare(opened, environment, first, second, captions, seed)
    if not result:
        typer.echo(f"{len(election.ballot.pairs)} pairs; open the address, and end with Ctrl-C")
        voting.serve(election, host, port, typer.echo)
    if as_json:
        _print_json(voting.as_json(election))
    else:
        typer.echo(voting.as_text(election))


@app.command()
def demo(home: Home = HERE) -> None:
    """Make the demo's web, run the whole pipeline on it, and write the report."""
    _run("shapes", None, [], home, "", None)


@app.command()
def join(
    folder: Annotated[Path, typer.Argument(help="The folder that the stage declares as `shared`.")],
    machine: Annotated[int, typer.Option(min=0, help="Number of this machine, from 0.")],
    interface: Annotated[
        str | None, typer.Option(help="Network interface; by default what leads to machine 0.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds without a run after which it leaves.")
    ] = 86_400,
) -> None:
    """Be one of the machines of a training, until it is done or cancelled."""
    from infra.launch import machine as launched

    leave = launched.leaving_at_a_signal()
    launched.join(folder, machine, patience, typer.echo, leave, interface)


@app.command()
def report(
    pipeline: str, settings: Settings = None, home: Home = HERE, store: StoreUrl = ""
) -> None:
    """Write the report of what a pipeline has made."""
    from flows.declaration import load_pipeline
    from flows.reporting import write_report

    environment, opened = _open(home, store)
    try:
        typer.echo(write_report(load_pipeline(pipeline, settings or []), opened, environment))
    finally:
        environment.close()


@app.command()
def croissant(
    ref: Annotated[str, typer.Argument(help="PIPELINE/STAGE that keeps images, or a digest.")],
    output: Annotated[
        Path | None, typer.Option("-o", help="File; by default beside the pipeline's report.")
    ] = None,
    base: Annotated[str, typer.Option(help="URL of the folder where copies of shards lie.")] = "",
    license_url: Annotated[
        str, typer.Option("--license", help="URL of the license of the whole, if there is one.")
    ] = "",
    home: Home = HERE,
    store: StoreUrl = "",
) -> None:
    """Describe a dataset of images in Croissant (JSON-LD): its files, fields and origins."""
    from infra.croissant import describe
    from infra.trace import chain, resolve

    environment, opened = _open(home, store)
    found = chain(opened, resolve(opened, ref, environment.tracking_uri))
    if found.broken or not found.manifests:
        _fail(f"{ref}: its origins cannot be told: {found.broken or 'nothing is known of it'}")
    last = found.manifests[0]
    path = output or environment.home / "reports" / last.pipeline / f"{last.stage}.croissant.json"
    described = describe(opened, found.manifests, path, base, license_url)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(path)


@app.command()
def accept(
    stage: Annotated[str, typer.Argument(help="PIPELINE/STAGE")],
    because: Annotated[str, typer.Option(help="Why the edit does not change the result.")],
    settings: Settings = None,
    home: Home = HERE,
    store: StoreUrl = "",
) -> None:
    """Adopt a stage's present artifact under its new fingerprint, with the reason on record."""
    from flows.accept import accept_stage
    from flows.declaration import load_pipeline

    pipeline, _, name = stage.rpartition("/")
    if not pipeline or not name:
        _fail(f"{stage!r}: write it as PIPELINE/STAGE")
    bound = load_pipeline(pipeline, settings or [])
    manifest = accept_stage(bound, name, because, _runner(bound.name, home, store))
    typer.echo(f"{stage} is {manifest.provenance} now")


@app.command()
def reindex(home: Home = HERE, store: StoreUrl = "") -> None:
    """Rebuild the index in MLflow from the manifests of the store."""
    from infra.lineage import Lineage

    environment, opened = _open(home, store)
    typer.echo(str(Lineage(environment.tracking_uri, opened).reindex()))


def _run(
    pipeline: str, until: str | None, settings: list[str], home: Path, store: str,
    dask: str | None, month: str | None = None,
) -> None:  # fmt: skip
    from flows.declaration import load_pipeline
    from flows.display import Display
    from infra.prefect_server import prefect_server

    last = [until] if until else []
    bound = load_pipeline(pipeline, settings, month).until(*last)  # refused before anything starts
    home = home.absolute()
    with prefect_server(home) as server:
        from flows import run as flow  # its imports take as long as the server's start

        if server:
            server.wait()
        with Display(bound.name, list(bound.stages)) as display:
            flow.WATCHER.set(display.watch)
            try:
                flow.run_pipeline(
                    pipeline, until=last, overrides=settings, home=str(home),
                    store=store, dask=dask, month=bound.month,
                )  # fmt: skip
            except flow.PipelineFailed as error:
                _show_failures(error.failures, home / "logs" / "failures.log")
                raise typer.Exit(1) from error
    typer.echo(f"report: {home / 'reports' / bound.name / 'index.html'}")


def _show_failures(failures: Mapping[str, BaseException], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        for stage, error in failures.items():
            typer.echo(f"{stage} failed: {type(error).__name__}: {error}", err=True)
            for note in getattr(error, "__notes__", ()):
                typer.echo(note, err=True)
            file.write(f"{stage}\n{''.join(traceback.format_exception(error))}\n")
    typer.echo(f"the whole story is in {log}", err=True)


def _open(home: Path, store: str) -> tuple[Any, Any]:
    from infra.environment import Environment
    from infra.store import Store

    environment = Environment(home=home, store_url=store)
    return environment, Store(environment.store_url)


def _profiled(pipeline: str, settings: list[str], updates: int) -> list[str]:
    """Settings that trace updates in every stage that trains; no part of any fingerprint."""
    from flows.declaration import load_pipeline

    stages = load_pipeline(pipeline, settings).stages.items()
    training = [name for name, stage in stages if hasattr(stage.params, "training")]
    return [f"{name}.training.profile={updates}" for name in training]


def _runner(pipeline: str, home: Path, store: str) -> Any:
    from flows.stage_runner import StageRunner

    environment, opened = _open(home, store)
    return StageRunner(pipeline, opened, environment)


def _quiet() -> None:
    """No telemetry, and no log lines between the lines of the progress display."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, sort_keys=True, default=str))


def _fail(text: str) -> NoReturn:
    typer.echo(f"tapir: {text}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
