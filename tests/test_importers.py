import copy
import gzip
import json
import os
import statistics
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labbench.config import ConfigError
from labbench.importers import FORMATS, Import, Skipped, Unreadable, read_foreign
from labbench.machine.report import machine_table
from labbench.records import Record

DATASETS = Path(os.environ.get("LABBENCH_DATASETS", Path(__file__).parents[2] / "shared" / "datasets"))

TIMM_NAME = "benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv"
TIMM_HEADER = (
    "model,infer_img_size,infer_samples_per_sec,infer_step_time,infer_batch_size,param_count,infer_gmacs,infer_macts"
)
TIMM_ROW = "made_net_a,160,2000.0,128.0,256,2.5,0.25,1.5"  # 256 in 0.128 s


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def timm(folder: Path, *rows: str, name: str = TIMM_NAME, header: str = TIMM_HEADER) -> Path:
    return written(folder, name, "\n".join([header, *rows]) + "\n")


def the_record(path: Path, *arguments, **options) -> Record:
    found = read_foreign(path, *arguments, **options)
    assert found.skipped == []
    (record,) = found.records
    assert set(found.environments) == {record.environment_id}
    assert Record.model_validate_json(record.model_dump_json()) == record
    return record


# timm


def test_a_row_of_timm_becomes_a_record_in_si_units(tmp_path):
    record = the_record(timm(tmp_path, TIMM_ROW))
    assert record.status == "ok"
    assert record.provenance == "imported"
    assert record.source == f"timm results: {TIMM_NAME}"
    assert record.licence == "Apache-2.0"
    assert record.started_at is None
    assert record.device_name == "RTX 3090"
    assert record.cell.label == "made_net_a inference b256 i160 amp on cuda:0/eager"
    assert record.cell.workload.task == "image-classification"
    assert record.metrics == {
        "macs_per_sample": 250_000_000,
        "activations_per_sample": 1_500_000,
        "parameters": 2_500_000,
    }
    (series,) = record.series
    assert (series.name, series.unit, series.items_per_call, series.n_samples) == ("forward", "samples", 256, 0)
    assert series.mean_s == 0.128
    assert series.median_s is None
    assert series.throughput == 2000
    assert record.protocol["layout"] == "nchw"


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("model,samples_per_sec,step_time,batch_size,img_size,param_count", "made_net_a,2000.0,128.0,256,160,2.5"),
        (
            "model,infer_img_size,infer_batch_size,infer_samples_per_sec,infer_step_time",
            "made_net_a,160,256.0,2000,128",
        ),
        (f"{TIMM_HEADER},train_step_time", "made_net_a.tag_in1k,160,2000.0,128.0,256,2.5,,,999"),
        (f"\ufeff{TIMM_HEADER}\r", "made_net_a,160,2000.0,128.0,256,2.5,,\r"),
    ],
    ids=["without prefix", "batch that looks like a float", "tag, both modes, no gmacs", "spreadsheet's line ends"],
)
def test_timm_files_of_every_layout_give_the_same_cell_and_times(tmp_path, header, row):
    record = the_record(timm(tmp_path, row, header=header))
    assert record.cell == the_record(timm(tmp_path, TIMM_ROW)).cell
    assert record.series[0].mean_s == 0.128
    assert "macs_per_sample" not in record.metrics


@pytest.mark.parametrize(
    ("name", "platform", "precision", "device_name", "software"),
    [
        ("infer-amp-nchw-pt113-cu117-rtx3090", "cuda:0/eager", "amp", "RTX 3090", {"torch": "1.13", "cuda": "11.7"}),
        ("infer-amp-nhwc-pt210-cu121-rtx3090", "cuda:0/eager-nhwc", "amp", "RTX 3090", {"torch": "2.1.0", "cuda": "12.1"}),
        ("infer-amp-nchw-pt291-cu128-4090-dynamo", "cuda:0/compile", "amp", "RTX 4090", {"torch": "2.9.1", "cuda": "12.8"}),
        ("infer-amp_bf16-nhwc-pt2101-cu130-m-dynamo", "cuda:0/compile-bf16-nhwc", "amp", "m", {"torch": "2.10.1", "cuda": "13.0"}),
        ("infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo", "cpu/compile", "fp32", "Core i9-10940X", {"torch": "2.4.0"}),
    ],
)  # fmt: skip
def test_the_name_of_a_timm_file_tells_the_platform(tmp_path, name, platform, precision, device_name, software):
    path = timm(tmp_path, TIMM_ROW, name=f"benchmark-{name}.csv")
    record = the_record(path)
    assert record.cell.platform.label == platform
    assert record.cell.workload.precision == precision
    assert record.device_name == device_name
    (environment,) = read_foreign(path).environments.values()
    assert environment.software == software
    assert environment.machine_id == record.machine_id


def test_a_training_file_gives_training_steps(tmp_path):
    path = timm(
        tmp_path,
        "made_net_a,1000.0,64.0,64,224,2.5",
        name="benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv",
        header="model,train_samples_per_sec,train_step_time,train_batch_size,train_img_size,param_count",
    )
    record = the_record(path)
    assert record.cell.workload.mode == "training"
    assert record.series[0].name == "step"


BAD_ROWS = {
    ",160,2000.0,128.0,256,2.5,,": "model is missing",
    "net,160,2000.0,-128.0,256,2.5,,": "step_time is -128, not above zero",
    "net,160,2000.0,0,256,2.5,,": "step_time is 0, not above zero",
    "net,160,2000.0,nan,256,2.5,,": "step_time is nan",
    "net,160,inf,128.0,256,2.5,,": "samples_per_sec is inf",
    "net,160,0.0,128.0,256,2.5,,": "samples_per_sec is 0, not above zero",
    "net,160,-2000.0,128.0,256,2.5,,": "samples_per_sec is -2000, not above zero",
    "net,160,2000.0,128.0,,2.5,,": "batch_size is missing",
    "net,160,2000.0,128.0,0,2.5,,": "batch_size is 0, not above zero",
    "net,160,2000.0,128.0,256.5,2.5,,": "batch_size is no whole number: 256.5",
    "net,160,2e13,128.0,2.56e12,2.5,,": "batch_size is 2.56e+12, which cannot be",
    "net,160,2000.0,12e,256,2.5,,": "step_time is no number: '12e'",
    "net,160,2000.0,1_28,256,2.5,,": "step_time is no number: '1_28'",
    'net,160,2000.0,"128,0",256,2.5,,': "step_time is no number: '128,0'",
    "net,0,2000.0,128.0,256,2.5,,": "img_size is 0, not above zero",
    "net,-160,2000.0,128.0,256,2.5,,": "img_size is -160, not above zero",
    "net,160,2000.0,120.0,256,2.5,,": "samples_per_sec is 2000, but batch_size / step_time is 2133.33: they contradict each other",
    "net,160,2000.0,128.0,256,some,,": "param_count is no number: 'some'",
    "net,160,2000.0,128.0,256,-2.5,,": "param_count is -2.5, below zero",
    "net,160,2000.0,128.0,256,2.5,1e300,": "gmacs is inf",
    "net,160,2000.0,1e-323,256,2.5,,": "step_time is 0, not above zero",
    "net,160,2000.0,128.0,256,2.5": "6 fields, but the header has 8",
    'net,160,"2000.0,128.0,256,2.5,,': "3 fields, but the header has 8",
}  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS.items(), ids=BAD_ROWS.values())
def test_a_row_that_makes_no_sense_is_reported_with_its_line_and_the_rest_goes_in(tmp_path, row, reason):
    path = timm(tmp_path, TIMM_ROW, "", row, TIMM_ROW.replace("net_a", "net_b"))
    found = read_foreign(path)
    assert found.skipped == [Skipped(str(path), 4, reason)]
    assert str(found.skipped[0]) == f"{path}:4: {reason}"
    assert [record.cell.workload.model for record in found.records] == ["made_net_a", "made_net_b"]


def test_a_throughput_that_timm_rounded_contradicts_nothing(tmp_path):
    the_record(timm(tmp_path, "made_net_a,1024,0.05,21270.331,1,637.03,,"))  # 0.047 samples/s in two decimals
    assert read_foreign(timm(tmp_path, "made_net_a,1024,0.05,30000,1,637.03,,")).skipped


def test_what_is_there_twice_becomes_one_record(tmp_path):
    path = timm(tmp_path, TIMM_ROW, TIMM_ROW.replace("160,", "192,"), TIMM_ROW.replace(",256,", ",256.0,"))
    found = read_foreign(path)
    assert len(found.records) == 2
    assert found.skipped == [Skipped(str(path), 4, "same as line 2")]
    path.unlink()
    for folder in ("a", "b"):
        timm(tmp_path / folder, TIMM_ROW)
    found = read_foreign(tmp_path)
    assert len(found.records) == 1
    assert found.skipped == [Skipped(f"b/{TIMM_NAME}", 2, f"same as a/{TIMM_NAME}:2")]


def test_ids_follow_from_content_wherever_the_file_lies_and_never_change(tmp_path):
    here = the_record(timm(tmp_path / "here", TIMM_ROW))
    there = the_record(timm(tmp_path / "there", TIMM_ROW))
    assert here == there
    assert here.record_id == "ee9c53b7a9ec8f34196eace7e4d315a7"
    assert the_record(timm(tmp_path, TIMM_ROW.replace("128.0", "128.1"))).record_id != here.record_id


def test_machines_of_different_devices_are_told_apart(tmp_path):
    one = the_record(timm(tmp_path, TIMM_ROW))
    newer = the_record(timm(tmp_path, TIMM_ROW, name="benchmark-infer-amp-nchw-pt291-cu128-rtx3090.csv"))
    other = the_record(timm(tmp_path, TIMM_ROW, name="benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv"))
    assert one.machine_id == newer.machine_id != other.machine_id
    assert one.environment_id != newer.environment_id


# files that are not what they should be


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": is empty"),
        (b"model,infer_batch_size\nn\0et,1\n", ":2: holds NUL bytes"),
        (b"model,infer_batch_size\nnet\xe9,1\n", ":2: is not in UTF-8"),
        ("model,infer_batch_size,infer_samples_per_sec\nnet,1,2\n", ":1: no column step_time, img_size; it has model,"),
        (TIMM_HEADER.replace("gmacs", "step_time"), ":1: column step_time is there more than once"),
        (TIMM_HEADER + "\n\n", ":1: no rows below the header"),
    ],
    ids=["empty", "NUL", "Latin-1", "missing columns", "column twice", "header only"],
)
def test_a_damaged_table_is_refused_alone_and_noted_in_a_folder(tmp_path, content, message):
    path = written(tmp_path, TIMM_NAME, content)
    with pytest.raises(Unreadable) as caught:
        read_foreign(path)
    assert str(caught.value).startswith(f"{path}{message}")
    timm(tmp_path, TIMM_ROW, name=TIMM_NAME.replace("3090", "4090"))
    found = read_foreign(tmp_path)
    assert len(found.records) == 1
    assert [str(one) for one in found.skipped] == [str(caught.value).replace(str(path), TIMM_NAME)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.csv", "the name does not tell precision, layout, versions and device; rename it like benchmark-infer-"),
        ("benchmark-infer-int4-nchw-pt240-cu124-rtx3090.csv", "unknown precision 'int4' in the name; known: amp,"),
    ],
)
def test_a_timm_file_whose_name_does_not_tell_the_platform_is_refused(tmp_path, name, message):
    with pytest.raises(Unreadable, match=message):
        read_foreign(timm(tmp_path, TIMM_ROW, name=name))


def test_an_unknown_file_is_refused_with_the_known_formats_and_named_in_a_folder(tmp_path):
    path = written(tmp_path, "metadata.csv", "model,pretrain\nmade_net_a,in1k\n")
    with pytest.raises(Unreadable) as caught:
        read_foreign(path)
    assert all(name in str(caught.value) for name in FORMATS)
    assert "metadata.csv: not a format that can be imported (it begins with: model, pretrain)" in str(caught.value)
    with pytest.raises(Unreadable, match="no column samples_per_sec, step_time, batch_size, img_size"):
        read_foreign(path, "timm")
    with pytest.raises(Unreadable, match="no results in this folder"):
        read_foreign(tmp_path)
    timm(tmp_path, TIMM_ROW)
    written(tmp_path, "README.md", "not looked at")
    written(tmp_path, f".trash/{TIMM_NAME}", "hidden")
    found = read_foreign(tmp_path)
    assert len(found.records) == 1
    assert [one.file for one in found.skipped] == ["metadata.csv"]


def test_what_the_caller_mistypes_is_answered_with_the_nearest_name(tmp_path):
    path = timm(tmp_path, TIMM_ROW)
    with pytest.raises(ConfigError, match="unknown format 'tim'; did you mean 'timm'"):
        read_foreign(path, "tim")
    with pytest.raises(ConfigError, match="unknown import option 'modle'; did you mean 'model'"):
        read_foreign(path, modle="x")
    with pytest.raises(ConfigError, match="format 'timm' takes no options, 'model' was given"):
        read_foreign(path, "timm", model="x")
    with pytest.raises(Unreadable, match=r"missing\.csv: cannot be read: No such file"):
        read_foreign(tmp_path / "missing.csv")


# NeuSight

NEUSIGHT_HEADER = "device,model,mode,seq,batch,variant,e2e_latency,fw_latency,bwall_latency"


def neusight(folder: Path, *rows: str) -> Path:
    return written(folder, "end_to_end.csv", "\n".join([NEUSIGHT_HEADER, *rows]) + "\n")


def test_a_row_of_neusight_becomes_a_record_in_si_units(tmp_path):
    record = the_record(neusight(tmp_path, "AMD_Made_MI1,bert_made,train,512,2,,125.0,45.0,80.0"))
    assert record.cell.label == "bert_made training b2 s512 fp32 on rocm:0/eager"
    assert record.device_name == "AMD Made MI1"
    assert record.licence == "MIT"
    assert record.source == "NeuSight results: end_to_end.csv"
    assert record.metrics == {"forward_s": 0.045, "backward_s": 0.08}
    (series,) = record.series
    assert (series.name, series.mean_s, series.throughput, series.median_s) == ("step", 0.125, 16, None)


@pytest.mark.parametrize(
    ("row", "label", "series"),
    [
        ("NVIDIA_Made,gpt_made,inf,1024,4,,500.0,500.0,0.0", "gpt_made inference b4 s1024 fp32 on cuda:0/eager", "forward"),
        ("Tesla_Made,gpt_made,inf,1024,4,fusion,500,500,0", "gpt_made inference b4 s1024 fp32 on cuda:0/compile", "forward"),
        ("NVIDIA_Made,gpt_made,train,1024,4,dp4,500,0.0,0.0", "gpt_made training b4 s1024 fp32 on cuda:0/eager-dp4×4", "step"),
        ("NVIDIA_Made,gpt_made,train,1024,4,pp4_1,500,0.0,0.0", "gpt_made training b4 s1024 fp32 on cuda:0/eager-pp4_1×4", "step"),
    ],
)  # fmt: skip
def test_variants_of_neusight_are_platforms(tmp_path, row, label, series):
    record = the_record(neusight(tmp_path, row))
    assert record.cell.label == label
    assert record.series[0].name == series
    assert record.metrics == {}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("NVIDIA_M,gpt,eval,64,4,,500,500,0", "unknown mode 'eval'; known: inf, train"),
        ("NVIDIA_M,gpt,inf,64,4,zz9,500,500,0", "unknown variant 'zz9'; known: none, fusion, dpN, tpN, ppN_M"),
        ("Who_Knows,gpt,inf,64,4,,500,500,0", "cannot tell whose device 'Who_Knows' is"),
        ("NVIDIA_M,,inf,64,4,,500,500,0", "model is missing"),
        ("NVIDIA_M,gpt,inf,0,4,,500,500,0", "seq is 0, not above zero"),
        ("NVIDIA_M,gpt,inf,64,,,500,500,0", "batch is missing"),
        ("NVIDIA_M,gpt,inf,64,4,,nan,500,0", "e2e_latency is nan"),
        ("NVIDIA_M,gpt,train,64,4,,500,-1,0", "fw_latency is -1, not above zero"),
    ],
)
def test_a_row_of_neusight_that_makes_no_sense_is_reported_with_its_line(tmp_path, row, reason):
    path = neusight(tmp_path, "NVIDIA_M,gpt,inf,64,4,,500,500,0", row)
    found = read_foreign(path)
    assert len(found.records) == 1
    (skipped,) = found.skipped
    assert str(skipped).startswith(f"{path}:3: {reason}")


def test_predictions_are_not_taken_for_measurements(tmp_path):
    path = written(
        tmp_path, "published.csv", "device,method,model,mode,seq,batch,variant,predicted_ms\nA,b,c,inf,1,1,,2\n"
    )
    with pytest.raises(Unreadable, match="not a format that can be imported"):
        read_foreign(path)


# optimum-benchmark


def latency(*values: float) -> dict:
    return {"unit": "s", "values": list(values), "count": len(values), "mean": statistics.fmean(values), "p50": 0.0}


def section(*values: float, per_s: float | None = None, unit: str = "samples/s", mb: float | None = None) -> dict:
    memory = {"unit": "MB", "max_ram": mb, "max_global_vram": 9.0, "max_process_vram": 0.0, "max_reserved": None}
    return {
        "memory": None if mb is None else {**memory, "max_allocated": mb / 2},
        "latency": latency(*values) if values else None,
        "throughput": None if per_s is None else {"unit": unit, "value": per_s},
        "energy": None,
        "efficiency": None,
    }


CONFIG = {
    "name": "made_bert",
    "backend": {
        "name": "pytorch",
        "version": "2.7.0",
        "task": "fill-mask",
        "library": "transformers",
        "model": "made/bert",
        "device": "cpu",
        "device_ids": None,
        "intra_op_num_threads": None,
        "torch_dtype": None,
        "torch_compile": False,
        "quantization_config": {},
    },
    "scenario": {
        "name": "inference",
        "iterations": 10,
        "duration": 10,
        "warmup_runs": 10,
        "input_shapes": {"batch_size": 4, "num_choices": 2, "sequence_length": 16},
        "generate_kwargs": {},
    },
    "launcher": {"name": "process"},
    "environment": {
        "cpu": " Made CPU @ 2.50GHz",
        "cpu_count": 8,
        "cpu_ram_mb": 16000.5,
        "system": "Linux",
        "python_version": "3.11.9",
        "gpu": ["Made GPU 0", "Made GPU 1"],
        "optimum_benchmark_version": "0.6.0",
        "transformers_version": "4.45.2",
        "diffusers_version": None,
    },
}
FORWARD = (0.1, 0.2, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2)  # mean and median 0.2
REPORT = {
    "load_model": section(1.5),
    "first_forward": section(0.9),
    "forward": section(*FORWARD, per_s=20.0, mb=512.25),
}
GENERATION = {
    "load_model": section(2.0),
    "first_generate": section(9.0),
    "generate": section(1.0, 1.2, 1.1, per_s=1.0),
    "prefill": section(0.5, 0.5, 0.5, per_s=8.0),
    "decode": section(0.9, 0.9, 0.9, per_s=40.0, unit="tokens/s"),  # 36 tokens: 4 sequences, 9 each after the prefill's
    "per_token": section(0.1, 0.1, 0.7, 0.1, 0.1),
}


def changed(original: dict, **parts: dict) -> dict:
    """A copy with fields of some parts changed."""
    found = copy.deepcopy(original)
    for part, fields in parts.items():
        found[part].update(fields)
    return found


def benchmark(folder: Path, config: dict = CONFIG, report: dict = REPORT) -> Path:
    return written(folder, "benchmark.json", json.dumps({"config": config, "report": report}))


def test_an_optimum_report_becomes_a_record_with_its_samples(tmp_path):
    record = the_record(benchmark(tmp_path))
    assert record.cell.label == "made/bert inference b4 s16 fp32 on cpu/eager"
    assert record.cell.workload.task == "fill-mask"
    assert record.device_name == "Made CPU @ 2.50GHz"
    assert record.source == "optimum-benchmark results: made_bert"
    assert record.phases.load_s == 1.5
    assert record.phases.first_run_s == 0.9
    assert record.memory.peak_bytes == 512_250_000
    assert record.memory.method == "max_ram of optimum-benchmark"
    (series,) = record.series
    assert series.name == "forward"
    assert series.samples.seconds == list(FORWARD)
    assert series.median_s.value == 0.2
    assert series.median_s.ci_low <= 0.2 <= series.median_s.ci_high
    assert series.p90_s.value >= 0.2
    assert series.mean_s == pytest.approx(0.2)
    assert series.throughput == 20
    (environment,) = read_foreign(tmp_path).environments.values()
    assert environment.machine["memory_bytes"] == 16_000_500_000
    assert environment.software == {
        "python": "3.11.9", "optimum-benchmark": "0.6.0", "transformers": "4.45.2", "torch": "2.7.0",
    }  # fmt: skip


def test_a_report_with_its_configuration_beside_it_is_the_same_record(tmp_path):
    written(tmp_path, "benchmark_config.json", json.dumps(CONFIG))
    report = written(tmp_path, "benchmark_report.json", json.dumps(REPORT))
    record = the_record(report)
    assert record == the_record(benchmark(tmp_path))
    found = read_foreign(tmp_path)
    assert found.records == [record]
    assert [str(one) for one in found.skipped] == ["benchmark_report.json: same as benchmark.json"]


def test_a_report_alone_needs_the_caller_to_tell_what_ran_where(tmp_path):
    report = written(tmp_path, "benchmark_report.json", json.dumps(REPORT))
    with pytest.raises(
        Unreadable,
        match=r'precision; give it, e\.g\. model="gpt2", device="cpu", .* or put its benchmark_config\.json beside it',
    ):
        read_foreign(report)
    told = {"model": "mine", "device": "cpu", "runtime": "eager", "precision": "bf16"}
    record = the_record(report, **told)
    assert record.cell.label == "mine inference b4 bf16 on cpu/eager"  # the batch follows from the throughput
    assert record.source == "optimum-benchmark results: benchmark_report.json"
    with pytest.raises(Unreadable, match="unknown value 'fp31'"):
        read_foreign(report, **{**told, "precision": "fp31"})
    written(tmp_path, "benchmark_report.json", json.dumps({"forward": section(0.5)}))
    with pytest.raises(Unreadable, match="does not tell batch_size"):
        read_foreign(report, **told)


def test_the_caller_cannot_contradict_the_configuration(tmp_path):
    assert the_record(benchmark(tmp_path), model="made/bert").cell.workload.model == "made/bert"
    with pytest.raises(Unreadable, match="says model 'made/bert', but model='other' was given; leave it out"):
        read_foreign(tmp_path / "benchmark.json", model="other")


def test_a_configuration_alone_is_no_result(tmp_path):
    path = written(tmp_path, "benchmark_config.json", json.dumps(CONFIG))
    with pytest.raises(Unreadable, match="a configuration without results"):
        read_foreign(path)


def test_generation_gives_prefill_and_decode_of_single_tokens(tmp_path):
    config = changed(CONFIG, backend={"task": "text-generation"})
    record = the_record(benchmark(tmp_path, config, GENERATION))
    assert [series.name for series in record.series] == ["prefill", "decode", "generate"]
    prefill, decode, generate = record.series
    assert (prefill.unit, prefill.items_per_call, prefill.throughput) == ("tokens", 64, 128)
    assert (decode.unit, decode.items_per_call, decode.calls_per_sample) == ("tokens", 4, 9)
    assert decode.median_s.value == pytest.approx(0.1)
    assert decode.throughput == pytest.approx(40)
    assert (generate.unit, generate.median_s.value) == ("samples", 1.1)
    assert generate.median_s.ci_low is None  # three samples
    assert record.phases.first_run_s is None


def test_a_decode_of_unknown_length_is_noted_and_left_out(tmp_path):
    sections = {**GENERATION, "decode": section(0.9, 0.9, 0.9)}
    found = read_foreign(benchmark(tmp_path, CONFIG, sections))
    assert [series.name for series in found.records[0].series] == ["prefill", "generate"]
    assert "decode: neither throughput nor max_new_tokens" in found.skipped[0].reason
    told = changed(CONFIG, scenario={"generate_kwargs": {"max_new_tokens": 10}})
    assert the_record(benchmark(tmp_path, told, sections)).series[1].calls_per_sample == 9


def test_training_steps_are_counted_over_all_processes(tmp_path):
    config = changed(CONFIG, launcher={"name": "torchrun", "nproc_per_node": 2}, backend={"device": "cuda"})
    config["scenario"] = {
        "name": "training",
        "max_steps": 4,
        "warmup_steps": 1,
        "dataset_shapes": {"sequence_length": 32},
        "training_arguments": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2},
    }
    steps = section(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, per_s=144.0)
    record = the_record(
        benchmark(tmp_path, config, {"overall": section(0.9, *[0.5] * 7), "warmup": section(0.9), "train": steps})
    )
    assert record.cell.label == "made/bert training b32 s32 fp32 on cuda:0/eager×2"
    (series,) = record.series
    assert (series.name, series.items_per_call, series.throughput) == ("step", 32, 64)
    assert series.samples.process == [0, 0, 0, 1, 1, 1]
    assert record.processes == 2


@pytest.mark.parametrize(
    ("backend", "platform", "precision"),
    [
        ({"torch_dtype": "bfloat16", "torch_compile": True}, "cpu/compile", "bf16"),
        ({"autocast_enabled": True, "attn_implementation": "sdpa"}, "cpu/eager-sdpa", "amp"),
        ({"name": "onnxruntime", "auto_quantization": "avx2", "auto_optimization": "O2"}, "cpu/onnxruntime-O2", "int8"),
        ({"name": "openvino", "half": True, "device": "gpu"}, "xpu/openvino", "fp16"),
        ({"device": "cuda", "device_ids": "1"}, "cuda:0/eager", "fp32"),
        ({"device": "cuda", "device_ids": "0,1", "device_map": "auto"}, "cuda:0/eager-auto-map×2", "fp32"),
        ({"intra_op_num_threads": 4}, "cpu/eager·4t", "fp32"),
    ],
)
def test_the_backend_of_optimum_is_a_platform(tmp_path, backend, platform, precision):
    record = the_record(benchmark(tmp_path, changed(CONFIG, backend=backend)))
    assert record.cell.platform.label == platform
    assert record.cell.workload.precision == precision
    if backend.get("device_ids") == "1":
        assert record.device_name == "Made GPU 1"
        assert record.memory.peak_bytes == 256_125_000
        assert record.memory.method == "max_allocated of optimum-benchmark"


@pytest.mark.parametrize(
    "backend",
    [{"torch_dtype": "auto"}, {"name": "py-txi", "dtype": None}, {"name": "openvino", "load_in_4bit": True}],
)
def test_a_precision_that_the_configuration_leaves_open_must_be_told(tmp_path, backend):
    path = benchmark(tmp_path, changed(CONFIG, backend=backend))
    with pytest.raises(Unreadable, match=r'does not tell precision; give it, e\.g\. precision="fp32"$'):
        read_foreign(path)
    assert the_record(path, precision="fp16").cell.workload.precision == "fp16"


def test_amd_gpus_are_known_by_their_names_and_their_memory_figures_are_not_believed(tmp_path):
    config = changed(CONFIG, backend={"device": "cuda"}, environment={"gpu": ["AMD Made MI1"]})
    report = copy.deepcopy(REPORT)
    report["forward"]["memory"] |= {"max_allocated": None, "max_process_vram": 1e6}
    record = the_record(benchmark(tmp_path, config, report))
    assert record.cell.platform.device == "rocm:0"
    assert record.memory.peak_bytes is None
    assert record.memory.reason == "the report has no max_allocated"


def test_energy_is_joules_of_one_call(tmp_path):
    report = copy.deepcopy(REPORT)
    report["forward"] |= {
        "energy": {"unit": "kWh", "cpu": 1e-6, "ram": 0, "gpu": 0, "total": 1e-6},
        "efficiency": {"unit": "samples/kWh", "value": 4e6},  # 4 samples in 1e-6 kWh
    }
    record = the_record(benchmark(tmp_path, CONFIG, report))
    assert record.energy.joules_per_call == pytest.approx(3.6)
    report["forward"]["efficiency"]["value"] = 0
    assert "zero" in the_record(benchmark(tmp_path, CONFIG, report)).energy.reason


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (section(0.1, -0.1), "forward: latency 1 is -0.1, not above zero"),
        (section(0.1, float("nan")), "forward: latency 1 is nan"),
        (
            section(*FORWARD, per_s=22.0),
            "forward: throughput is 22, but batch size / mean latency is 20: they contradict",
        ),
        (section(*FORWARD, per_s=float("inf")), "forward: throughput is inf"),
        ({"latency": {**latency(0.1), "count": 2}}, "forward: 1 latencies, but a count of 2"),
        ({"latency": {**latency(0.1), "unit": "ms"}}, "forward: latency in 'ms', not in seconds"),
        (section(), "no latency of forward, prefill, decode, generate, call or train"),
    ],
)
def test_a_report_that_makes_no_sense_is_reported(tmp_path, forward, reason):
    path = benchmark(tmp_path, CONFIG, {"load_model": section(1.0), "forward": forward})
    found = read_foreign(path)
    assert found.records == []
    (skipped,) = found.skipped
    assert str(skipped).startswith(f"{path}: {reason}")


def test_cut_off_json_is_refused_with_its_line_and_noted_in_a_folder(tmp_path):
    whole = json.dumps({"config": CONFIG, "report": REPORT}, indent=1)
    path = written(tmp_path, "a/benchmark.json", whole[: whole.index('"report"')])
    with pytest.raises(
        Unreadable, match=rf"benchmark\.json:{whole[: whole.index('report')].count(chr(10)) + 1}: not valid JSON"
    ):
        read_foreign(path)
    benchmark(tmp_path / "b")
    found = read_foreign(tmp_path)
    assert len(found.records) == 1
    assert [one.file for one in found.skipped] == ["a/benchmark.json"]


# pyperf

PYPERF = {
    "version": "1.0",
    "metadata": {
        "cpu_model_name": "Made CPU",
        "hostname": "made-host",
        "platform": "Linux-6.1-x86_64-with-glibc2.36",
        "python_implementation": "cpython",
        "python_version": "3.12.1 (64-bit) revision abc",
        "perf_version": "2.6.1",
        "unit": "second",
    },
    "benchmarks": [
        {
            "metadata": {"name": "made_bench", "inner_loops": 5},
            "runs": [
                {"metadata": {"calibrate_loops": 8, "date": "2024-05-01 09:59:00.5", "duration": 0.5, "loops": 8},
                 "warmups": [[1, 0.2], [8, 0.1]]},
                {"metadata": {"date": "2024-05-01 10:00:00", "duration": 1.0, "loops": 8, "mem_max_rss": 1000},
                 "warmups": [[8, 0.1]], "values": [0.010, 0.012, 0.011]},
                {"metadata": {"date": "2024-05-01 10:00:02", "duration": 1.0, "loops": 8, "mem_max_rss": 3000},
                 "warmups": [[8, 0.1]], "values": [0.020, 0.022, 0.021]},
                {"metadata": {"date": "2024-05-01 10:00:04", "duration": 1.0, "loops": 8, "mem_max_rss": 2000},
                 "warmups": [[8, 0.1]], "values": [0.030, 0.032, 0.031]},
            ],
        }
    ],
}  # fmt: skip


def suite(folder: Path, data: dict = PYPERF, name: str = "bench.json") -> Path:
    return written(folder, name, json.dumps(data))


def test_a_pyperf_benchmark_becomes_a_record_of_all_its_processes(tmp_path):
    path = suite(tmp_path)
    record = the_record(path)
    assert record.cell.workload.model == "made_bench"
    assert record.cell.workload.task == "python"
    assert record.cell.platform.label == "cpu/cpython"
    assert record.device_name == "Made CPU"
    assert record.source == "pyperf results: bench.json"
    assert record.started_at == datetime(2024, 5, 1, 9, 59, 0, 500_000, tzinfo=UTC)
    assert record.duration_s == 3.5
    assert record.processes == 3
    assert record.memory.peak_bytes == 3000
    (series,) = record.series
    assert series.samples.seconds == [0.010, 0.012, 0.011, 0.020, 0.022, 0.021, 0.030, 0.032, 0.031]
    assert series.samples.process == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert series.calls_per_sample == 40
    assert series.warmup_calls == 120
    assert series.median_s.value == 0.021
    # each process differs from the others by more than its own values do: the interval must span processes
    assert series.median_s.ci_low <= 0.012
    assert series.median_s.ci_high >= 0.03
    (environment,) = read_foreign(path).environments.values()
    assert environment.hostname == "made-host"
    assert environment.software["python"] == "3.12.1"


def test_a_zipped_suite_of_pypy_is_read_alike(tmp_path):
    data = changed(
        PYPERF, metadata={"python_implementation": "pypy", "python_version": "PyPy 7.3.13 (Python 3.9.18) (64-bit)"}
    )
    path = written(tmp_path, "bench.json.gz", gzip.compress(json.dumps(data).encode()))
    record = the_record(path)
    assert record.cell.platform.runtime == "pypy"
    (environment,) = read_foreign(path).environments.values()
    assert environment.software["python"] == "3.9.18"
    assert environment.software["pypy"] == "7.3.13"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Unreadable, match="not a whole gzip file"):
        read_foreign(path)


def with_benchmark(**fields: object) -> dict:
    """The suite with a second benchmark."""
    data = copy.deepcopy(PYPERF)
    data["benchmarks"].append(
        {"runs": [{"values": [0.5, 0.6]}, {"values": [0.7]}], "metadata": {"name": "other"}, **fields}
    )
    return data


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"metadata": {"name": "memory", "unit": "byte"}}, "benchmark 'memory': its values are in byte, not seconds"),
        ({"runs": [{"values": [0.5, -1]}]}, "benchmark 'other': run 0: value 1 is -1, not above zero"),
        ({"runs": [{"values": [0.5, float("nan")]}]}, "benchmark 'other': run 0: value 1 is nan"),
        ({"runs": [{"values": [True]}]}, "benchmark 'other': run 0: value 0 is no number: True"),
        ({"runs": [{"warmups": [[1, 0.5]]}]}, "benchmark 'other': no run has values: it was only calibrated"),
        ({"runs": []}, "benchmark 1: no runs"),
        ({"metadata": {}}, "benchmark 1: name is missing"),
        (
            {"runs": [{"values": [0.5], "metadata": {"date": "yesterday"}}]},
            "benchmark 'other': date: Invalid isoformat",
        ),
        ({"runs": [{"values": [0.5], "metadata": {"loops": 0}}]}, "benchmark 'other': loops is 0, not above zero"),
        (
            {"runs": [{"values": [0.5], "metadata": {"hostname": name}} for name in "ab"]},
            "benchmark 'other': its runs differ in hostname",
        ),
    ],
)
def test_a_pyperf_benchmark_that_is_no_time_is_reported_and_the_rest_goes_in(tmp_path, fields, reason):
    path = suite(tmp_path, with_benchmark(**fields))
    found = read_foreign(path)
    assert [record.cell.workload.model for record in found.records] == ["made_bench"]
    (skipped,) = found.skipped
    assert str(skipped).startswith(f"{path}: {reason}")


def test_what_pyperf_does_not_tell_stays_null(tmp_path):
    record = read_foreign(suite(tmp_path, with_benchmark())).records[1]
    assert record.started_at is None
    assert record.duration_s is None
    assert record.series[0].calls_per_sample is None
    assert record.series[0].median_s.ci_low is None
    assert record.memory.peak_bytes is None


def test_other_suites_of_benchmarks_are_not_taken_for_pyperfs(tmp_path):
    with pytest.raises(Unreadable, match=r"format version '9\.9' of pyperf is not known"):
        read_foreign(suite(tmp_path, {**PYPERF, "version": "9.9"}))
    pytest_benchmark = {"version": "4.0.0", "machine_info": {}, "benchmarks": [{"name": "made", "stats": {"mean": 1}}]}
    with pytest.raises(Unreadable, match="not a format that can be imported"):
        read_foreign(suite(tmp_path, pytest_benchmark))


# whatever comes


def leaves(value: object, path: tuple = ()) -> list[tuple]:
    """Paths of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [one for key, inner in items for one in leaves(inner, (*path, key))]


SHORT = {
    "forward": section(0.1, 0.1, per_s=40.0, mb=1.0),
    "decode": section(0.1, per_s=40.0),
    "load_model": section(1.0),
}
VICTIMS = {"optimum.json": {"config": CONFIG, "report": SHORT}, "pyperf.json": with_benchmark()}
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([1, {}]),
)


def outcome(path: Path) -> Import | ConfigError:
    try:
        return read_foreign(path)
    except ConfigError as error:
        return error


@pytest.mark.parametrize("name", VICTIMS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_to_any_part_of_a_json_file_never_gets_past_the_importer(tmp_path, name, data):
    damaged = copy.deepcopy(VICTIMS[name])
    path = data.draw(st.sampled_from(leaves(damaged)))
    holder = damaged
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(JUNK)
    found = outcome(written(tmp_path, name, json.dumps(damaged)))
    if isinstance(found, ConfigError):
        assert name in str(found)
        return
    assert found.records or found.skipped
    for record in found.records:
        assert Record.model_validate_json(record.model_dump_json()) == record


@given(
    fields=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12), min_size=8, max_size=8)
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_to_a_row_never_gets_past_the_importer(tmp_path, fields):
    row = ",".join(fields).replace("\n", " ").replace("\r", " ")
    found = read_foreign(timm(tmp_path, row, TIMM_ROW))
    assert len(found.records) + len(found.skipped) == 1 + bool(row.strip())


def test_the_machine_table_shows_imported_machines(tmp_path):
    timm(tmp_path, TIMM_ROW)
    timm(tmp_path, TIMM_ROW, name="benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv")
    benchmark(tmp_path)
    table = machine_table(read_foreign(tmp_path).environments)
    assert table.loc["accelerator cuda:0", "RTX 3090 (torch 2.4.0, cuda 12.4)"] == "RTX 3090"
    assert table.loc["processor", "Core i9-10940X (torch 2.4.0)"] == "Core i9-10940X"
    assert table.loc["memory", "Made CPU @ 2.50GHz (torch 2.7.0)"] == "14.9 GiB"


@pytest.mark.skipif(
    not (DATASETS / "timm").is_dir(), reason=f"no public data sets in {DATASETS}; set LABBENCH_DATASETS"
)
def test_every_row_of_the_public_data_sets_becomes_a_record_or_is_accounted_for():
    found = read_foreign(DATASETS)
    files = [*DATASETS.glob("timm/benchmark-*.csv"), DATASETS / "neusight" / "end_to_end.csv"]
    rows = sum(len(path.read_text().strip().splitlines()) - 1 for path in files)
    of_rows = [one for one in found.skipped if one.line]
    assert len(found.records) + len(of_rows) == rows
    assert len(of_rows) < rows / 1000
    assert all("missing" in one.reason for one in of_rows)
    assert len({record.record_id for record in found.records}) == len(found.records)
    assert {record.provenance for record in found.records} == {"imported"}
