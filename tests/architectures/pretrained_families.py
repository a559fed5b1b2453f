# SPDX-License-Identifier: Apache-2.0
"""Families whose code is in ``transformers``, built tiny from a config, with random weights."""

from collections.abc import Callable

import torch
import transformers as hub
from torch import Tensor, nn

from tests.architectures.architecture import Architecture, architecture, image, tokens

__all__ = ["FAMILIES"]

_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_PATCHES = {"image_size": 64, "patch_size": 16}


class Plain(nn.Module):
    """A ``transformers`` model that gives its first tensors instead of an object."""

    def __init__(self, inner: nn.Module, outputs: int = 1) -> None:
        super().__init__()
        self.inner, self.outputs = inner, outputs

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        result = self.inner(x, return_dict=False)
        return result[0] if self.outputs == 1 else tuple(result[: self.outputs])


def _vit() -> nn.Module:
    return hub.ViTForImageClassification(hub.ViTConfig(**_ENCODER, **_PATCHES))


def _deit() -> nn.Module:
    return hub.DeiTForImageClassification(hub.DeiTConfig(**_ENCODER, **_PATCHES))


def _swin() -> nn.Module:
    config = hub.SwinConfig(
        image_size=64, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4
    )
    return hub.SwinForImageClassification(config)


def _swin2() -> nn.Module:
    config = hub.Swinv2Config(
        image_size=64, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4
    )
    return hub.Swinv2ForImageClassification(config)


def _beit() -> nn.Module:
    config = hub.BeitConfig(**_ENCODER, **_PATCHES, use_relative_position_bias=True)
    return hub.BeitForImageClassification(config)


def _convnext2() -> nn.Module:
    config = hub.ConvNextV2Config(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1])
    return hub.ConvNextV2ForImageClassification(config)


def _mobilevit() -> nn.Module:
    config = hub.MobileViTConfig(
        image_size=64, hidden_sizes=[24, 32, 40], neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 64]
    )
    return hub.MobileViTForImageClassification(config)


def _mobilenet1() -> nn.Module:
    config = hub.MobileNetV1Config(
        image_size=64, depth_multiplier=0.25, classifier_dropout_prob=0.1
    )
    return hub.MobileNetV1ForImageClassification(config)


def _mobilenet2() -> nn.Module:
    config = hub.MobileNetV2Config(image_size=64, depth_multiplier=0.35)
    return hub.MobileNetV2ForImageClassification(config)


def _resnet() -> nn.Module:
    config = hub.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1])
    return hub.ResNetForImageClassification(config)


def _regnet() -> nn.Module:
    config = hub.RegNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1], groups_width=8
    )
    return hub.RegNetForImageClassification(config)


def _efficientnet() -> nn.Module:
    config = hub.EfficientNetConfig(
        width_coefficient=0.5,
        depth_coefficient=0.5,
        image_size=64,
        hidden_dim=640,
        dropout_rate=0.1,
    )
    return hub.EfficientNetForImageClassification(config)


def _segformer() -> nn.Module:
    config = hub.SegformerConfig(
        hidden_sizes=[8, 16, 32, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 4, 4],
        decoder_hidden_size=32,
    )
    return hub.SegformerForSemanticSegmentation(config)


def _yolos() -> nn.Module:
    config = hub.YolosConfig(**_ENCODER, image_size=[64, 64], patch_size=16, num_detection_tokens=6)
    return hub.YolosForObjectDetection(config)


def _detr() -> nn.Module:
    backbone = hub.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        out_features=["stage4"],
    )
    config = hub.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_queries=6,
    )
    return hub.DetrForObjectDetection(config)


def _levit() -> nn.Module:
    config = hub.LevitConfig(
        image_size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1]
    )
    return hub.LevitForImageClassification(config)


def _pvt() -> nn.Module:
    config = hub.PvtConfig(
        image_size=64,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 4, 4],
    )
    return hub.PvtForImageClassification(config)


def _poolformer() -> nn.Module:
    config = hub.PoolFormerConfig(hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1])
    return hub.PoolFormerForImageClassification(config)


def _focalnet() -> nn.Module:
    config = hub.FocalNetConfig(image_size=64, embed_dim=16, depths=[1, 1])
    return hub.FocalNetForImageClassification(config)


def _bert() -> nn.Module:
    return hub.BertForSequenceClassification(hub.BertConfig(**_ENCODER, vocab_size=100))


def _distilbert() -> nn.Module:
    config = hub.DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    return hub.DistilBertForSequenceClassification(config)


def _albert() -> nn.Module:
    config = hub.AlbertConfig(**_ENCODER, vocab_size=100, embedding_size=16)
    return hub.AlbertForSequenceClassification(config)


def _mobilebert() -> nn.Module:
    config = hub.MobileBertConfig(
        **_ENCODER,
        vocab_size=100,
        embedding_size=16,
        intra_bottleneck_size=16,
        true_hidden_size=16,
    )
    return hub.MobileBertForSequenceClassification(config)


def _llama() -> nn.Module:
    config = hub.LlamaConfig(**_ENCODER, num_key_value_heads=2, vocab_size=100, use_cache=False)
    return hub.LlamaForCausalLM(config)


def _gpt2() -> nn.Module:
    config = hub.GPT2Config(
        vocab_size=100, n_positions=32, n_embd=32, n_layer=2, n_head=4, use_cache=False
    )
    return hub.GPT2LMHeadModel(config)


def _t5_encoder() -> nn.Module:
    config = hub.T5Config(
        vocab_size=100, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, use_cache=False
    )
    return hub.T5EncoderModel(config)


def _whisper_encoder() -> nn.Module:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = hub.WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=48,
        num_mel_bins=16,
        max_source_positions=24,
    )
    return WhisperEncoder(config)


def _wav2vec2() -> nn.Module:
    config = hub.Wav2Vec2Config(
        **_ENCODER,
        vocab_size=20,
        conv_dim=(16, 16, 24),
        conv_stride=(5, 4, 2),
        conv_kernel=(10, 8, 4),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        apply_spec_augment=False,
    )
    return hub.Wav2Vec2ForCTC(config)


def _mel() -> tuple[Tensor, ...]:
    return (torch.randn(2, 16, 48),)


def _wave() -> tuple[Tensor, ...]:
    return (torch.randn(2, 800),)


def _family(
    name: str,
    make: Callable[[], nn.Module],
    inputs: Callable[[], tuple[Tensor, ...]],
    family: str,
    outputs: int = 1,
) -> Architecture:
    return architecture(name, family, lambda: Plain(make(), outputs), inputs)


FAMILIES = (
    _family("vit", _vit, image(), "transformer"),
    _family("deit", _deit, image(), "transformer"),
    _family("swin", _swin, image(), "transformer"),
    _family("swin-v2", _swin2, image(), "transformer"),
    _family("beit", _beit, image(), "transformer"),
    _family("convnext-v2", _convnext2, image(), "cnn"),
    _family("mobilevit", _mobilevit, image(), "hybrid"),
    _family("mobilenet-v1", _mobilenet1, image(), "cnn"),
    _family("mobilenet-v2", _mobilenet2, image(), "cnn"),
    _family("resnet", _resnet, image(), "cnn"),
    _family("regnet", _regnet, image(), "cnn"),
    _family("efficientnet", _efficientnet, image(), "cnn"),
    _family("segformer", _segformer, image(), "segmentation"),
    _family("yolos", _yolos, image(), "detection", outputs=2),
    _family("detr", _detr, image(), "detection", outputs=2),
    _family("levit", _levit, image(), "hybrid"),
    _family("pvt", _pvt, image(), "transformer"),
    _family("poolformer", _poolformer, image(), "hybrid"),
    _family("focalnet", _focalnet, image(), "hybrid"),
    _family("bert", _bert, tokens(), "text"),
    _family("distilbert", _distilbert, tokens(), "text"),
    _family("albert", _albert, tokens(), "text"),
    _family("mobilebert", _mobilebert, tokens(), "text"),
    _family("llama", _llama, tokens(), "text"),
    _family("gpt2", _gpt2, tokens(), "text"),
    _family("t5-encoder", _t5_encoder, tokens(), "text"),
    _family("whisper-encoder", _whisper_encoder, _mel, "audio"),
    _family("wav2vec2", _wav2vec2, _wave, "audio"),
)
