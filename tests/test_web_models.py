"""Browser models: what is exported computes what torch computes, at every shape that it takes."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from labbench.config import ConfigError  # noqa: E402
from labbench.web import export as exporting  # noqa: E402
from labbench.web.export import TOLERANCE, WrongExport, export, native  # noqa: E402
from labbench.web.families import SMALLEST, find, models  # noqa: E402
from labbench.web.models import WRITTEN, build, inputs_of  # noqa: E402

# A short chunk is as good a test as 30 s, and the files serve other tests too.
SHORT = [(name, 2.0 if name.startswith("whisper") else None) for name in SMALLEST]


@pytest.mark.parametrize(("name", "audio_s"), SHORT)
def test_an_export_is_torchs_model_at_two_shapes_and_is_made_once(name, audio_s, monkeypatch):
    made = export(name, audio_s)
    assert 0 < made.torch_error <= TOLERANCE
    assert 0 < made.second_shape_error <= TOLERANCE
    assert not list(made.path.parent.glob("*.data")), "weights are inside the one file that a browser downloads"
    monkeypatch.setattr(exporting, "_make", None)
    again = export(name, audio_s)
    outputs = native(again.path)(again.inputs)
    assert set(outputs) == set(again.outputs)
    for key, value in outputs.items():
        np.testing.assert_allclose(value, made.outputs[key], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "audio_s"), [*SHORT, ("kws-small", None)])
def test_outputs_depend_on_the_inputs_far_more_than_numbers_may_differ(name, audio_s):
    """Else a provider that ignores its input would agree with native."""
    made = export(name, audio_s)
    other = inputs_of(build(made.model, made.audio_s), 1, made.audio_s, seed=1)
    outputs = native(made.path)({key: value.numpy() for key, value in other.items()})
    for key, value in outputs.items():
        assert np.abs(value - made.outputs[key]).max() > 100 * TOLERANCE * np.abs(made.outputs[key]).max()


def test_chunks_of_another_length_share_the_file_where_the_model_allows():
    one, other = export("kws-tiny"), export("kws-tiny", 2.0)
    assert one.path == other.path
    assert other.dims["frames"] > one.dims["frames"]
    assert other.items_per_call == 2.0
    assert export("whisper-micro-encoder", 2.0).inputs["input_features"].shape == (1, 80, 200)


class Mean(torch.nn.Module):
    """A mean over frames whose author counted them in Python: torch's older exporter writes that number down."""

    def forward(self, *inputs):
        return inputs[0].sum(-1) / int(inputs[0].shape[-1])


@pytest.mark.filterwarnings("ignore")
def test_a_graph_that_is_right_at_one_shape_only_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def legacy(part, inputs, folder):
        path = folder / "model.onnx"
        names = {"input_names": list(inputs), "output_names": list(part.outputs), "dynamic_axes": part.dims}
        torch.onnx.export(part.module, tuple(inputs.values()), str(path), dynamo=False, **names)
        return path

    def built(*arguments):
        return replace(build(*arguments), module=Mean())

    monkeypatch.setattr("labbench.web.models.build", built)
    assert export("kws-tiny").second_shape_error <= TOLERANCE, "the exporter in use follows the shape"
    monkeypatch.setattr(exporting, "to_graph", legacy)
    with pytest.raises(WrongExport, match="kws-tiny at a second shape: the exported graph is off by"):
        export("kws-tiny", seed=1)
    assert len(list(tmp_path.rglob("*.onnx"))) == 1, "a wrong graph is not kept"


def test_a_step_with_the_cache_is_the_last_position_of_the_whole_text_read_again():
    model = find("whisper-micro-decoder")
    part = build(model, 2.0)
    whole, tokens, encoded = part.module, torch.randint(4, 4096, (2, WRITTEN + 1)), torch.randn(2, 100, 64)
    with torch.no_grad():
        logits = whole.head(whole.decoder(input_ids=tokens, encoder_hidden_states=encoded).last_hidden_state[:, -1])
        before = whole.decoder(input_ids=tokens[:, :-1], encoder_hidden_states=encoded, use_cache=True).past_key_values
        own, cross = (
            [x for layer in half.layers for x in (layer.keys, layer.values)]
            for half in (before.self_attention_cache, before.cross_attention_cache)
        )
        step, *grown = part.module(tokens[:, -1:], *own, *cross)
    torch.testing.assert_close(step, logits, rtol=0, atol=1e-5)
    names = list(part.dims)
    feed = {name: x.numpy() for name, x in zip(names, (tokens[:, -1:], *own, *cross), strict=True)}
    outputs = native(export("whisper-micro-decoder", 2.0).path)(feed)
    np.testing.assert_allclose(outputs["logits"], logits.numpy(), rtol=0, atol=1e-5)
    assert grown[0].shape[2] == WRITTEN + 1


def test_a_seed_gives_the_same_weights_and_inputs_again():
    model = find("kws-tiny")
    one, two = build(model, 1.0), build(model, 1.0)
    torch.testing.assert_close(one.module.state_dict(), two.module.state_dict(), rtol=0, atol=0)
    first, second, third = (inputs_of(one, 1, 1.0, seed)["mel"] for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_models_of_other_versions_go_when_nobody_used_them_for_long(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old, recent = (tmp_path / "labbench" / "web-models" / name for name in ("old", "recent"))
    for folder, age_s in ((old, exporting.UNUSED_S + 60), (recent, exporting.UNUSED_S - 60)):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age_s,) * 2)
    assert exporting._root().exists()
    assert recent.exists()
    assert not old.exists()


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'whisper-tiny-encoder'"):
        export("whisper-tiny-encode")
    assert {"whisper-small-encoder", "whisper-base-decoder", "wav2vec2-base", "clap-htsat-audio"} <= set(models())


@pytest.mark.full
@pytest.mark.parametrize(
    "name",
    [
        *(f"whisper-{size}-{part}" for size in ("tiny", "base", "small") for part in ("encoder", "decoder")),
        *("wav2vec2-base", "clap-htsat-audio", "kws-small"),
    ],
)
def test_published_sizes_are_exported_right(name):
    made = export(name)
    assert max(made.torch_error, made.second_shape_error) <= TOLERANCE
