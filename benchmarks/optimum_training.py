"""The training step of optimum-benchmark, in turns that another process asks for; run by the interpreter it is installed in.

Its own backend loads the model, its own generator makes the data, its own callback tells the times of the steps; added is only
that it waits between turns. Clipping is off and AdamW is torch's default, so that a step is the same work as in a plain loop.
A line on stdin asks for a turn of so many seconds; the median step of it is printed.

    python benchmarks/optimum_training.py FOLDER TASK BATCH THREADS '{"sequence_length": 128}'
"""

import json
import os
import statistics
import sys
import tempfile
import time

MODEL, TASK, BATCH, THREADS, SHAPES = (
    sys.argv[1],
    sys.argv[2],
    int(sys.argv[3]),
    int(sys.argv[4]),
    json.loads(sys.argv[5]),
)
WARMUP = 10
os.environ["HF_HUB_OFFLINE"] = "1"
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-THREADS:])

import torch  # noqa: E402
from optimum_benchmark import PyTorchConfig  # noqa: E402
from optimum_benchmark.backends.pytorch.backend import PyTorchBackend  # noqa: E402
from optimum_benchmark.generators.dataset_generator import DatasetGenerator  # noqa: E402
from optimum_benchmark.scenarios.training.config import TrainingConfig  # noqa: E402
from optimum_benchmark.trackers.latency import StepLatencyTrackerTrainerCallback  # noqa: E402
from transformers import TrainerCallback, default_data_collator  # noqa: E402


class Turns(TrainerCallback):
    """After the warm-up and at the end of each turn: tell, and wait to be asked."""

    def __init__(self, latency):
        self.latency, self.first, self.end = latency, None, 0.0

    def on_step_end(self, args, state, control, **rest):
        done = len(self.latency.end_events)
        if done < WARMUP:
            return
        if self.first == done - 1:  # brings the caches back; not told
            self.end = time.perf_counter() + self.seconds
            return
        if time.perf_counter() < self.end:
            return
        if self.first is None:
            print("ready", flush=True)
        else:
            starts, ends = self.latency.start_events, self.latency.end_events
            print(statistics.median(ends[i] - starts[i] for i in range(self.first + 1, done)), flush=True)
        line = sys.stdin.readline()
        if not line:
            control.should_training_stop = True
            return
        self.seconds, self.first = float(line), done


config = PyTorchConfig(
    model=MODEL, task=TASK, library="transformers", device="cpu",
    inter_op_num_threads=THREADS, intra_op_num_threads=THREADS,
)  # fmt: skip
backend = PyTorchBackend(config)
torch.set_num_threads(THREADS)
scenario = TrainingConfig(
    max_steps=10**6,
    dataset_shapes=SHAPES,
    training_arguments={
        "per_device_train_batch_size": BATCH, "output_dir": tempfile.mkdtemp(), "disable_tqdm": True, "logging_strategy": "no",
        "optim": "adamw_torch", "max_grad_norm": 0.0,
    },
)  # fmt: skip
dataset = DatasetGenerator(task=TASK, model_shapes=backend.model_shapes, dataset_shapes=scenario.dataset_shapes)()
backend.load()
latency = StepLatencyTrackerTrainerCallback(device="cpu", backend="pytorch")
backend.train(
    training_dataset=dataset,
    training_callbacks=[latency, Turns(latency)],
    training_data_collator=default_data_collator,
    training_arguments=scenario.training_arguments,
)
