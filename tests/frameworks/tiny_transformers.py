"""Hugging Face pipelines with tiny random networks, made here: nothing is fetched."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

SIZE = 32
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", *string.ascii_lowercase, *"0123456789.,?!"]
WORDS += [f"##{letter}" for letter in string.ascii_lowercase]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def tokenizer(*, begins: bool = True) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate(WORDS)}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 -- a word's token
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    if begins:
        raw.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    named = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]", "eos": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
        **{f"{name}_token": word for name, word in named.items()},
    )


def _bert(head: str, **more: Any) -> Any:
    import transformers

    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **SMALL, **more)
    return getattr(transformers, head)(config)


def text_classification() -> Any:
    return _pipeline("text-classification", _bert("BertForSequenceClassification", num_labels=3), tokenizer())


def feature_extraction() -> Any:
    return _pipeline("feature-extraction", _bert("BertModel"), tokenizer())


def question_answering() -> Any:
    return _pipeline("question-answering", _bert("BertForQuestionAnswering"), tokenizer())


def zero_shot_classification() -> Any:
    labels = {0: "entailment", 1: "neutral", 2: "contradiction"}
    network = _bert("BertForSequenceClassification", id2label=labels, label2id={v: k for k, v in labels.items()})
    return _pipeline("zero-shot-classification", network, tokenizer())


def text_generation() -> Any:
    import transformers

    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=512, n_embd=16, n_layer=2, n_head=2, eos_token_id=6
    )
    network = transformers.GPT2LMHeadModel(config)
    network.generation_config.do_sample, network.generation_config.top_k = True, 1  # one choice: always the same
    return _pipeline("text-generation", network, tokenizer(begins=False))


def _t5() -> Any:
    import transformers

    config = transformers.T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=6,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def summarization() -> Any:
    return _pipeline("summarization", _t5(), tokenizer())


def translation() -> Any:
    return _pipeline("translation", _t5(), tokenizer())


def _images(name: str, **more: Any) -> Any:
    import transformers

    return getattr(transformers, name)(size={"height": SIZE, "width": SIZE}, **more)


def _vit() -> Any:
    import transformers

    return transformers.ViTConfig(image_size=SIZE, patch_size=8, num_labels=4, **SMALL)


def image_classification() -> Any:
    import transformers

    return _pipeline(
        "image-classification",
        transformers.ViTForImageClassification(_vit()),
        image_processor=_images("ViTImageProcessor"),
    )


def image_segmentation() -> Any:
    import transformers

    config = transformers.SegformerConfig(
        num_labels=3, depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16,
        num_attention_heads=[1, 1, 2, 2],
    )  # fmt: skip
    network = transformers.SegformerForSemanticSegmentation(config)
    return _pipeline("image-segmentation", network, image_processor=_images("SegformerImageProcessor"))


def image_to_text() -> Any:
    import transformers

    decoder = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=512, n_embd=16, n_layer=2, n_head=2, add_cross_attention=True
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(_vit(), decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 5, 0, 6
    network = transformers.VisionEncoderDecoderModel(config)
    network.generation_config.decoder_start_token_id, network.generation_config.pad_token_id = 5, 0
    return _pipeline("image-to-text", network, tokenizer(begins=False), image_processor=_images("ViTImageProcessor"))


def object_detection() -> Any:
    import transformers

    config = transformers.YolosConfig(
        image_size=[SIZE, SIZE], patch_size=8, num_detection_tokens=5, num_labels=3, **SMALL
    )
    processor = transformers.YolosImageProcessor(size={"height": SIZE, "width": SIZE}, do_pad=False)
    return _pipeline("object-detection", transformers.YolosForObjectDetection(config), image_processor=processor)


def _clip_parts() -> dict[str, Any]:
    small = {**SMALL, "projection_dim": 16}
    return {
        "text_config": {**small, "vocab_size": len(WORDS), "max_position_embeddings": 64, "eos_token_id": 3},
        "vision_config": {**small, "image_size": SIZE, "patch_size": 8},
        "projection_dim": 16,
    }


def zero_shot_image_classification() -> Any:
    import transformers

    network = transformers.CLIPModel(transformers.CLIPConfig(**_clip_parts()))
    processor = transformers.CLIPImageProcessor(
        size={"height": SIZE, "width": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    return _pipeline("zero-shot-image-classification", network, tokenizer(), image_processor=processor)


def zero_shot_object_detection() -> Any:
    import transformers

    network = transformers.OwlViTForObjectDetection(transformers.OwlViTConfig(**_clip_parts()))
    return _pipeline(
        "zero-shot-object-detection",
        network,
        tokenizer(),
        image_processor=_images("OwlViTImageProcessor", do_center_crop=False),
    )


def automatic_speech_recognition() -> Any:
    import transformers

    config = transformers.Wav2Vec2Config(
        vocab_size=len(WORDS), conv_dim=(16, 16), conv_kernel=(8, 4), conv_stride=(4, 4), num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, feat_extract_norm="layer", pad_token_id=0, **SMALL,
    )  # fmt: skip
    return _pipeline(
        "automatic-speech-recognition",
        transformers.Wav2Vec2ForCTC(config),
        tokenizer(begins=False),
        feature_extractor=transformers.Wav2Vec2FeatureExtractor(sampling_rate=16000),
    )


def _pipeline(task: str, network: Any, words: Any = None, **more: Any) -> Any:
    import transformers

    return transformers.pipeline(task, model=network.eval(), tokenizer=words, device="cpu", **more)


MADE: dict[str, Callable[[], Any]] = {
    "automatic-speech-recognition": automatic_speech_recognition,
    "feature-extraction": feature_extraction,
    "image-classification": image_classification,
    "image-segmentation": image_segmentation,
    "image-to-text": image_to_text,
    "object-detection": object_detection,
    "question-answering": question_answering,
    "summarization": summarization,
    "text-classification": text_classification,
    "text-generation": text_generation,
    "translation": translation,
    "zero-shot-classification": zero_shot_classification,
    "zero-shot-image-classification": zero_shot_image_classification,
    "zero-shot-object-detection": zero_shot_object_detection,
}


def stable_diffusion() -> Any:
    import diffusers
    import torch
    import transformers

    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip
    decoder = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
    )  # fmt: skip
    words = transformers.CLIPTextConfig(vocab_size=len(WORDS), max_position_embeddings=64, projection_dim=16, **SMALL)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=decoder, text_encoder=transformers.CLIPTextModel(words), tokenizer=tokenizer(), unet=network,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False),
        safety_checker=None, feature_extractor=None, image_encoder=None,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
