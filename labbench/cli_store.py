"""The commands on databases: merge, check, history, pins and retractions, import and export."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from labbench.cli import cells, grid, print_frame, print_json

if TYPE_CHECKING:
    import pandas as pd

# Written out, not read from labbench.importers: --help must not wait for pydantic. A test holds the two together.
IMPORT_FORMATS = ("jsonl", "timm", "neusight", "optimum-benchmark", "pyperf", "labbench-web")

Command = Callable[[str, Callable[[Any], int], str, str], argparse.ArgumentParser]
Option = Callable[[argparse.ArgumentParser], None]


def add(command: Command, store: Option, as_json: Option) -> None:
    """Add the commands; ``store`` and ``as_json`` add the options ``--store`` and ``--json``."""
    merge = command(
        "merge",
        _merge,
        "put the databases of several machines together; what is in more than one is kept once",
        "labbench merge laptop.h5 server.h5 -o all.h5",
    )
    merge.add_argument("databases", nargs="+", metavar="FILE", help="databases; the output may be among them")
    merge.add_argument("-o", "--output", required=True, metavar="FILE", help="what it holds already is kept")

    check = command(
        "check",
        _check,
        "verify everything in a database: checksums, structure, schema, references; exit status 1 if anything is wrong",
        "labbench check data/study.h5 --repair salvaged.h5",
    )
    check.add_argument("database", metavar="FILE")
    check.add_argument("--repair", metavar="FILE", help="write all that is intact into this new database")
    as_json(check)

    history = command(
        "history",
        _history,
        "results of a cell over time, on each machine, with the versions of the software that changed",
        "labbench history --model bert-base --runtime eager openvino",
    )
    history.add_argument("cell", nargs="?", metavar="CELL", help="id of a cell; or give its fields")
    history.add_argument("--retracted", action="store_true", help="show retracted records too, and why they were")
    cells(history)
    store(history)
    as_json(history)

    baseline = command(
        "baseline",
        _baseline,
        "list pinned baselines, show one, or pin the newest good record of each cell under a name",
        "labbench baseline v1.0 --pin --note 'before the new compiler'",
    )
    baseline.add_argument("name", nargs="?", metavar="NAME", help="default: list all")
    baseline.add_argument("--pin", action="store_true", help="pin the newest good record of each cell under this name")
    baseline.add_argument("--note", help="what the baseline is for")
    store(baseline)
    as_json(baseline)

    retract = command(
        "retract",
        _retract,
        "take a mistaken record back; it stays in the database, with the reason, but queries leave it out",
        "labbench retract 5f0c… --reason 'laptop was on battery'",
    )
    retract.add_argument("record", nargs="+", metavar="RECORD", help="record id, or enough of its start")
    retract.add_argument("--reason", required=True, help="what was wrong with it")
    store(retract)

    imported = command(
        "import",
        _import,
        "add records from JSON lines, or results of timm, NeuSight, optimum-benchmark or pyperf",
        "labbench import results/benchmark-infer-*.csv --store timm.h5",
    )
    imported.add_argument("files", nargs="+", metavar="FILE", help="files, or folders of them")
    imported.add_argument("--format", choices=IMPORT_FORMATS, help="default: what name and content say")
    imported.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="what the files do not tell, e.g. model=gpt2"
    )
    store(imported)

    export = command(
        "export",
        _export,
        "write records: whole as JSON lines, or the tidy table as Parquet or CSV",
        "labbench export --format jsonl > records.jsonl",
    )
    export.add_argument(
        "--format", choices=("jsonl", "parquet", "csv"), help="default: what the output's name says, or jsonl"
    )
    export.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    store(export)

    schema = command(
        "schema",
        _schema,
        "print the JSON Schema of exported lines, or of what `labbench select --json` prints",
        "labbench schema > docs/record.schema.json",
    )
    schema.add_argument("--of", choices=("record", "decision"), default="record", help="default: %(default)s")


def _merge(options: Any) -> int:
    from labbench.store.merge import merge
    from labbench.words import count

    records = merge(options.databases, options.output)
    print(f"{options.output}: {count(records, 'record')}, from {count(len(options.databases), 'database')}")
    return 0


def _check(options: Any) -> int:
    from labbench.store.check import check, repair
    from labbench.words import count

    output = options.repair
    report = repair(options.database, output, progress=True) if output else check(options.database, progress=True)
    if options.json:
        print_json(report.to_dict())
    else:
        print(report)
        if output:
            print(f"{output}: {count(len(report.contents), 'record')} saved; {report.lost_in_words()}")
    return 1 if report.lost or not (report.ok or output) else 0


def _history(options: Any) -> int:
    import pandas as pd

    from labbench.store import Store

    opened = Store(options.store)
    if options.cell:
        wanted = [options.cell]
    else:
        from labbench.campaign import resolve

        measured = opened.frame(["device", "runtime"])
        for name in ("device", "runtime"):  # not asked for: wherever something was measured
            if not getattr(options, name):
                setattr(options, name, sorted(measured[name].astype("str").unique()))
        wanted = [cell.id for cell in resolve(grid(options).cells())]
    tables = [opened.history(cell, retracted=options.retracted) for cell in wanted]
    table = pd.concat([part for part in tables if len(part)] or tables[:1], ignore_index=True)
    print_frame(table if options.json else _history_for_people(table), options.json)
    return 0


def _history_for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that tell one line from another."""
    table = table.assign(reference=(table["reference_id"] == table["record_id"]).map({True: "reference", False: ""}))
    constant = ["model", "mode", "batch_size", "precision", "seq_len", "threads", "series", "hostname", "provenance"]
    constant += ["reference"]
    versions = sorted(name for name in table if name.startswith("version_"))
    differing = [name for name in [*constant, *versions] if name in table and table[name].nunique(dropna=False) > 1]
    fixed = ["started_at", "platform", "status", "latency_s", "latency_ci_low_s", "latency_ci_high_s", "noise"]
    told = [name for name in ("reason", "retracted_because") if name in table and table[name].notna().any()]
    shown = table[["record_id", *fixed, *differing, *told]].copy()
    shown["record_id"] = shown["record_id"].str[:8]
    shown["started_at"] = shown["started_at"].dt.strftime("%Y-%m-%d %H:%M")
    return shown


def _baseline(options: Any) -> int:
    import pandas as pd

    from labbench.config import ConfigError
    from labbench.store import Store
    from labbench.words import count

    if options.pin:
        if not options.name:
            raise ConfigError("--pin needs a name: labbench baseline NAME --pin")
        with Store(options.store, writable=True) as opened:
            pinned = opened.pin(options.name, note=options.note)
        print(f"{options.name}: {count(len(pinned.record_ids), 'record')} pinned")
        return 0
    opened = Store(options.store)
    if options.name:
        table = opened.baseline(options.name)
        columns = [
            "record_id",
            "model",
            "platform",
            "mode",
            "batch_size",
            "precision",
            "series",
            "latency_s",
            "started_at",
        ]
        print_frame(table if options.json else table[columns], options.json)
        return 0
    pins = [{**one.model_dump(), "record_ids": len(one.record_ids)} for one in opened.baselines()]
    print_frame(pd.DataFrame(pins).rename(columns={"record_ids": "records"}), options.json)
    return 0


def _retract(options: Any) -> int:
    from labbench.records import PROVENANCES
    from labbench.store import Store, StoreError

    with Store(options.store, writable=True) as opened:
        everything = opened.frame(["record_id"], primary=True, references=True, provenance=PROVENANCES)
        known = [str(key) for key in everything["record_id"]]
        for start in options.record:
            found = [key for key in known if key.startswith(start)]
            if len(found) != 1:
                how = f"{len(found)} records that begin" if found else "no record that begins"
                raise StoreError(f"{options.store} has {how} with {start!r}; `labbench history` lists ids")
            opened.retract(found[0], options.reason)
            print(f"{found[0]} retracted: {options.reason}")
    return 0


def _import(options: Any) -> int:
    from pathlib import Path

    from labbench.config import ConfigError
    from labbench.store import Store
    from labbench.transfer import import_into

    if absent := [name for name in options.files if not Path(name).exists()]:
        raise ConfigError(f"no file or folder {absent[0]}")
    if wrong := [text for text in options.set if "=" not in text]:
        raise ConfigError(f"--set {wrong[0]}: write NAME=VALUE, e.g. --set model=gpt2")
    given = dict(text.split("=", 1) for text in options.set)
    facts: dict[str, Any] = {name: int(text) if text.isdecimal() else text for name, text in given.items()}
    with Store(options.store, writable=True) as opened:
        result = import_into(opened, options.files, options.format, progress=True, **facts)
    print(f"{options.store}: {result}")
    return 0 if result.new or result.known else 1


def _export(options: Any) -> int:
    from pathlib import Path

    from labbench.config import ConfigError
    from labbench.store import Store
    from labbench.transfer import FORMATS, export, export_to

    suffix = Path(options.output).suffix.lstrip(".") if options.output else ""
    format = options.format or (suffix if suffix in FORMATS else "jsonl")
    opened = Store(options.store)
    if options.output:
        export_to(opened, Path(options.output), format)
    elif format == "parquet" and sys.stdout.isatty():
        raise ConfigError("Parquet is nothing to look at; give -o FILE, or redirect the output")
    else:
        export(opened, sys.stdout.buffer, format)
    return 0


def _schema(options: Any) -> int:
    from labbench import records
    from labbench.selection import document

    print_json(document.json_schema() if options.of == "decision" else records.json_schema())
    return 0
