import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from labbench import zoo
from labbench.cells import Workload
from labbench.config import ConfigError
from labbench.runtimes import Unsupported
from labbench.store import Store

FAMILIES = list(zoo.families())
PUBLISHED = [
    (f"{family.name}-{name}", size.published_parameters)
    for family in zoo.families().values()
    for name, size in family.sizes.items()
    if size.published_parameters
]
CONTRASTIVE = ("clip", "clap", "xclip")  # their loss needs a batch to contrast


def workload(model: str, **fields) -> Workload:
    return zoo.resolve(Workload(model=model, **fields))


def test_the_zoo_has_the_families_people_ask_for():
    wanted = "bert t5 llama qwen2 clip vit clap whisper wav2vec2 llava llava_next xclip detr resnet gpt2"
    assert set(wanted.split()) <= set(FAMILIES)
    assert all(len(family.sizes) >= 2 for family in zoo.families().values() if family.modality != "custom")


@pytest.mark.parametrize(("model", "published"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(model, published):
    family, size = zoo._find(model)
    assert size.source
    with torch.device("meta"):
        module = family.build(size, workload(model)).module
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_builds_the_same_model_and_inputs(family):
    work = workload(zoo.smallest(family))
    one, two, other = zoo.build(work, 0), zoo.build(work, 0), zoo.build(work, 1)
    outputs = []
    for model in (one, two, other):
        with torch.inference_mode():
            result = model.programs[0].module(*model.programs[0].inputs)
        outputs.append(result[0] if isinstance(result, tuple) else result)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_output_depends_on_the_inputs(family):
    for program in zoo.build(workload(zoo.smallest(family))).programs:
        changed = tuple(
            x.flip(-1) if x.is_floating_point() else torch.where(x > 3, x - 1, x + 1) for x in program.inputs
        )
        with torch.inference_mode():
            before, after = program.module(*program.inputs), program.module(*changed)
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), program.name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_step_changes_the_parameters_and_has_a_finite_loss(family):
    model = zoo.build(workload(zoo.smallest(family), mode="training", batch_size=2))
    before = [parameter.detach().clone() for parameter in model.module.parameters()]
    optimizer = torch.optim.SGD(model.module.train().parameters(), lr=0.1)
    loss = model.training.loss(model.module)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    changed = [not torch.equal(a, b) for a, b in zip(before, model.module.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2


# CLAP's second side compares texts with audio again in transformers 5.23; LLaVA's look for the image among the text.
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("clap", "llava", "llava_next")])
def test_the_loss_is_the_one_that_transformers_computes(family):
    model = zoo.build(workload(zoo.smallest(family), mode="training", batch_size=2))
    batch = {name: value for name, value in model.training.batch.items() if name != "decoder_input_ids"}
    own = {"return_loss": True} if family in CONTRASTIVE else {}
    with torch.no_grad():
        assert model.training.loss(model.module) == pytest.approx(float(model.module(**batch, **own).loss), rel=1e-5)


@pytest.mark.parametrize("family", CONTRASTIVE)
def test_a_contrastive_loss_of_one_sample_is_refused(family):
    model = zoo.build(workload(zoo.smallest(family), mode="training"))
    with pytest.raises(ValueError, match="batch of at least 2"):
        model.training.loss(model.module)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "t5", "whisper"])
def test_decoding_with_the_cache_agrees_with_reading_everything_at_once(family):
    model = zoo.build(workload(zoo.smallest(family)))
    prefill, decode = model.programs
    with torch.inference_mode():
        logits = decode.module(*decode.inputs)[0]
        token = decode.inputs[0]
        if len(prefill.inputs) == 1:
            whole = prefill.module(torch.cat([prefill.inputs[0], token], dim=1))[0]
        else:
            source, start = prefill.inputs
            whole = prefill.module(source, torch.cat([start, token], dim=1))[0]
    assert torch.allclose(logits, whole, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "t5", "whisper", "llava"])
def test_decoding_without_a_cache_gives_the_same_token(family):
    cached, uncached = (zoo.build(workload(zoo.smallest(family), kv_cache=flag)) for flag in (None, False))
    assert [p.name for p in uncached.programs] == ["prefill", "decode"]
    with torch.inference_mode():
        with_cache, without = (m.programs[1].module(*m.programs[1].inputs) for m in (cached, uncached))
    assert torch.allclose(with_cache[0], without, atol=1e-4)


def test_a_cache_is_the_default_and_only_of_models_that_generate():
    assert workload("gpt2-tiny", kv_cache=True) == workload("gpt2-tiny")
    with pytest.raises(Unsupported, match="does not generate"):
        zoo.build(workload("bert-tiny", kv_cache=False))


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_an_image_put_before_the_text_gives_what_transformers_gives_for_place_holders(family):
    model = zoo.build(workload(zoo.smallest(family)))
    prefill = model.programs[0]
    ids, pixels = prefill.inputs
    inner = model.module.model
    with torch.inference_mode():
        ours = prefill.module(ids, pixels)[0]
        places = prefill.items_per_call - ids.shape[1]
        full = torch.cat([torch.full((1, int(places)), inner.config.image_token_id), ids], dim=1)
        side = pixels.shape[-1]
        further = {"image_sizes": torch.tensor([[2 * side, 2 * side]])} if family == "llava_next" else {}
        theirs = inner(input_ids=full, pixel_values=pixels, **further).logits[:, -1]
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_shape_defaults_are_filled_in_and_foreign_shapes_refused():
    assert workload("bert-tiny").seq_len == 128
    assert workload("bert-tiny", seq_len=7).seq_len == 7
    with pytest.raises(ConfigError, match="image_size"):
        workload("bert-tiny", image_size=224)


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'bert-base'"):
        workload("bert-bse")


def test_listing_the_zoo_imports_no_framework():
    code = "import sys; from labbench import zoo; zoo.models(); print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


OWN = """
import torch
from labbench import zoo

class Mine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 16)
    def forward(self, x):
        return self.layer(x)

zoo.register_module("mine", Mine, lambda batch: (torch.randn(batch, 16),),
                    loss=lambda output: output.square().mean())
zoo.register_config_dir("small-bert", {folder!r})
"""


PACKAGE = """
import torch
from labbench import zoo
from labbench.zoo import Family, Model, Program, Size

def build(size, work):
    module = torch.nn.Linear(size.config["width"], 4).eval()
    inputs = (torch.randn(work.batch_size, size.config["width"]),)
    return Model(module, (Program("forward", module, inputs, work.batch_size, "samples"),), None)

FAMILY = Family("packed", "Packed", "custom", "custom", {"small": Size({"width": 8})}, {}, build)

def more():
    zoo.register_module("further", lambda: torch.nn.Linear(4, 4), lambda batch: (torch.randn(batch, 4),))
"""
ENTRY_POINTS = "[labbench.families]\none = their_models:FAMILY\ntwo = their_models:more\n"


@pytest.mark.slow
def test_what_users_bring_runs_through_the_command_line(tmp_path: Path):
    """A module and a configuration folder that a plugin registers, and the families of an installed distribution."""
    from transformers import BertConfig

    folder = tmp_path / "config"
    config = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=100
    )
    config.architectures = ["BertForMaskedLM"]
    config.save_pretrained(folder)
    plugin = tmp_path / "my_model.py"
    plugin.write_text(OWN.format(folder=str(folder)))
    site = tmp_path / "site"  # what pip leaves: the module, and a dist-info folder beside it
    info = site / "their_models-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "their_models.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-models\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    models = ["mine", "small-bert", "packed-small", "further"]
    command = [sys.executable, "-m", "labbench.cli", "run", "--plugin", str(plugin), "--model", *models]
    command += ["--runtime", "eager", "onnxruntime", "--protocol", "quick", "--store", str(tmp_path / "s.h5")]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert run.returncode == 0, run.stderr
    assert "leaked" not in run.stderr  # semaphores of killed workers
    assert "8 ok" in run.stdout, run.stdout + run.stderr
    [environment] = Store(tmp_path / "s.h5").environments().values()
    assert environment.software["model packed-small"] == "their-models 1.2"


def test_a_missing_plugin_or_config_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.py"):
        zoo.load_plugins(["nowhere.py"])
    with pytest.raises(ConfigError, match="no plugin module"):
        zoo.load_plugins(["no_such_module_anywhere"])
    with pytest.raises(ConfigError, match=r"config\.json"):
        zoo.register_config_dir("x", "/nowhere")
