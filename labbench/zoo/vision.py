"""Vision families: ViT, ResNet, ConvNeXt, DETR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labbench.zoo.base import Family, Model, Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from labbench.cells import Workload

HUB = "Hugging Face hub, safetensors metadata of "
CLASSES = 1000  # ImageNet-1k
BOXES = 3  # objects in every made training image of DETR


def _classifier(config: str, model: str, size: Size, work: Workload, **further: Any) -> Model:
    import torch

    from labbench.zoo.building import configured, cross_entropy, forward_model, pixels

    module = configured(config, model, size, num_labels=CLASSES, **further)
    labels = torch.randint(0, CLASSES, (work.batch_size,))
    inputs = {"pixel_values": pixels(work)}
    return forward_model(module, inputs, ("logits",), labels, cross_entropy, work.batch_size)


def _vit(size: Size, work: Workload) -> Model:
    return _classifier("ViTConfig", "ViTForImageClassification", size, work, image_size=work.image_size)


def _detr(size: Size, work: Workload) -> Model:
    import torch
    import transformers

    from labbench.zoo.building import configured, forward_model, pixels

    settings = dict(size.config)
    made: Any = transformers.ResNetConfig
    backbone = made(**settings.pop("backbone"), out_features=["stage4"])
    module = configured(
        "DetrConfig", "DetrForObjectDetection", Size(settings),
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, num_labels=91,
    )  # fmt: skip
    boxes = torch.rand(work.batch_size, BOXES, 4) * 0.4 + 0.3  # centre, width, height: well inside the image
    labels = [{"class_labels": torch.randint(0, 91, (BOXES,)), "boxes": one} for one in boxes]
    outputs = ("logits", "pred_boxes")
    return forward_model(module, {"pixel_values": pixels(work)}, outputs, labels, _matched, work.batch_size)


def _matched(module: Any, outputs: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """DETR's loss: predicted boxes are matched with those of the image (Hungarian algorithm), then compared."""
    found = module.loss_function(
        outputs.logits, batch["labels"], outputs.logits.device, outputs.pred_boxes, module.config, None, None
    )
    loss: torch.Tensor = found[0]
    return loss


_RESNET50 = {"embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3]}
_SMALL_RESNET = {"embedding_size": 16, "hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 1, 1]}

FAMILIES = (
    Family(
        "vit", "ViT", "image-classification", "vision",
        {
            "tiny": Size({
                "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512,
            }),
            "base": Size({}, 86_567_656, HUB + "google/vit-base-patch16-224"),
            "large": Size(
                {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
                304_326_632, HUB + "google/vit-large-patch16-224",
            ),
        },
        {"image_size": 224}, _vit,
    ),
    Family(
        "resnet", "ResNet", "image-classification", "vision",
        {
            "tiny": Size({**_SMALL_RESNET, "layer_type": "basic"}),
            "50": Size(_RESNET50, 25_557_032, "torchvision model table, ResNet50_Weights.IMAGENET1K_V1"),
            "101": Size({**_RESNET50, "depths": [3, 4, 23, 3]}, 44_549_160, "torchvision model table, ResNet101_Weights"),
        },
        {"image_size": 224}, lambda size, work: _classifier("ResNetConfig", "ResNetForImageClassification", size, work),
    ),
    Family(
        "convnext", "ConvNeXt", "image-classification", "vision",
        {
            "micro": Size({"hidden_sizes": [24, 48, 96, 192], "depths": [1, 1, 2, 1]}),
            "tiny": Size({}, 28_589_128, "torchvision model table, ConvNeXt_Tiny_Weights"),
            "base": Size(
                {"hidden_sizes": [128, 256, 512, 1024], "depths": [3, 3, 27, 3]},
                88_591_464, "torchvision model table, ConvNeXt_Base_Weights",
            ),
        },
        {"image_size": 224}, lambda size, work: _classifier("ConvNextConfig", "ConvNextForImageClassification", size, work),
    ),
    Family(
        "detr", "DETR", "object-detection", "vision",
        {
            "tiny": Size({
                "d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
                "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_queries": 20,
                "backbone": _SMALL_RESNET,
            }),
            "resnet50": Size({"backbone": _RESNET50}, 41_524_768, HUB + "facebook/detr-resnet-50"),
        },
        {"image_size": 224}, _detr,
    ),
)  # fmt: skip
