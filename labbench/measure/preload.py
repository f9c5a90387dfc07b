"""Imported once by the fork server, so that no worker has to: whatever a forked worker would import anyway.

Nothing here may start threads or open an accelerator: the server is forked for every cell.
"""

import contextlib
import importlib

MODULES = (
    "labbench.measure.worker",
    "labbench.measure.steady",
    "labbench.measure.memory",
    "labbench.runtimes.check",
    "labbench.runtimes.eager",
    "labbench.runtimes.export",
    "labbench.runtimes.step",
    "labbench.footprint",
    "labbench.zoo.building",
    "labbench.zoo.vision_language",
    "torch._inductor.compile_fx",
    "torch._dynamo",
    "torch.export",
    "torch.onnx._internal.exporter._core",
    "torch.utils.flop_counter",
    "onnxruntime",
    "onnxscript",
    "openvino",
)
# transformers imports a model's code when its class is first asked for.
ARCHITECTURES = (
    "BertForMaskedLM", "T5ForConditionalGeneration", "GPT2LMHeadModel", "LlamaForCausalLM", "Qwen2ForCausalLM",
    "ViTForImageClassification", "ResNetForImageClassification", "ConvNextForImageClassification",
    "DetrForObjectDetection", "WhisperForConditionalGeneration", "Wav2Vec2ForCTC", "ClapModel", "CLIPModel",
    "XCLIPModel", "LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration",
)  # fmt: skip

for _name in MODULES:
    with contextlib.suppress(ImportError):  # an optional runtime that is not installed
        importlib.import_module(_name)

import transformers  # noqa: E402

from labbench import zoo  # noqa: E402
from labbench.cells import Workload  # noqa: E402

for _name in ARCHITECTURES:
    getattr(transformers, _name)

# The first model that a process builds pays for look-ups that all later ones share (0.01 s).
zoo.build(zoo.resolve(Workload(model="bert-tiny")))
