"""The tasks of Hugging Face's pipelines: what each takes, what it gives, and how its results become tensors.

Names and types follow the schemas in which model servers publish these tasks; a list of unknown length is a free axis.
Shapes are of one row. Images are ``(height, width, 3)``, audio is ``(samples,)`` at the rate of the model's extractor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lakemill_udfs.models.model import Specs
from lakemill_udfs.tensors.spec import TensorSpec

Row = Mapping[str, Any]
Kind = Literal["text", "image", "audio"]

LABELS = TensorSpec("candidate_labels", "string", (None,))
TEMPLATE = TensorSpec("hypothesis_template", "string", nullable=True)
THRESHOLD = TensorSpec("threshold", "float64", nullable=True)
TOP_K = TensorSpec("top_k", "int64", nullable=True)
SCORES = (TensorSpec("score", "float64", (None,)), TensorSpec("label", "string", (None,)))
BOXES = (*SCORES, TensorSpec("box", "int64", (None, 4)))
TEXTS = (TensorSpec("generated_text", "string", (None,)),)


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        kind: What its main input holds.
        parameters: Further inputs, given to the pipeline by name; one that is not nullable is required.
        outputs: What a row of results has.
        read: Returns the outputs by name of what the pipeline gives for one row.
        main: Names of the main inputs.
        forwards: Whether inputs that are not listed here are given to the model's ``generate``.
        batch_rows: Rows that go through the network at once; texts of one batch are padded to the longest.
    """

    kind: Kind
    parameters: Specs
    outputs: Specs
    read: Callable[[Any], Row]
    main: tuple[str, ...] = ("inputs",)
    forwards: bool = False
    batch_rows: int = 8

    @property
    def inputs(self) -> Specs:
        """All inputs, the main ones first."""
        dtype, shape = {"text": ("string", ()), "image": ("int64", (None, None, 3)), "audio": ("float32", (None,))}[
            self.kind
        ]
        return (*(TensorSpec(name, dtype, shape) for name in self.main), *self.parameters)


def _optional(**dtypes: str) -> Specs:
    return tuple(TensorSpec(name, dtype, nullable=True) for name, dtype in dtypes.items())


def _scored(found: Any) -> Row:
    rows = found if isinstance(found, list) else [found]
    return {"score": np.array([row["score"] for row in rows], float), "label": _texts(row["label"] for row in rows)}


def _boxed(found: Any) -> Row:
    corners = [[row["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] for row in found]
    return {**_scored(found), "box": np.array(corners, np.int64).reshape(len(found), 4)}


def _masked(found: Any) -> Row:
    scores = [np.nan if row["score"] is None else row["score"] for row in found]  # of semantic segmentation: none
    masks = [np.asarray(row["mask"], np.int64) for row in found]
    return {
        "score": np.array(scores, float),
        "label": _texts(row["label"] for row in found),
        "mask": np.stack(masks) if masks else np.empty((0, 0, 0), np.int64),
    }


def _ranked(found: Any) -> Row:
    return {
        "sequence": found["sequence"],
        "scores": np.array(found["scores"], float),
        "labels": _texts(found["labels"]),
    }


def _answered(found: Any) -> Row:
    best = found[0] if isinstance(found, list) else found
    return {name: best[name] for name in ("score", "start", "end", "answer")}


def _generated(found: Any) -> Row:
    return {"generated_text": _texts(row["generated_text"] for row in found)}


def _text_of(name: str) -> Callable[[Any], Row]:
    return lambda found: {name: found[0][name] if isinstance(found, list) else found[name]}


def _heard(found: Any) -> Row:
    chunks = found.get("chunks")
    return {"text": found["text"], "chunks": None if chunks is None else json.dumps(chunks)}


def _embedded(found: Any) -> Row:
    return {"output": np.asarray(found, float)[0]}


def _texts(values: Any) -> Any:
    return np.array(list(values), dtype=object)


CLEAN = ("clean_up_tokenization_spaces", "return_text", "return_tensors")

TASKS: dict[str, Task] = {
    "automatic-speech-recognition": Task(
        "audio",
        _optional(return_timestamps="string"),
        (TensorSpec("text", "string"), TensorSpec("chunks", "string", nullable=True)),
        _heard,
    ),
    "feature-extraction": Task(
        "text", (), (TensorSpec("output", "float64", (None, None)),), _embedded, batch_rows=1
    ),  # a batch's padding would be tokens of the result
    "image-classification": Task("image", (TOP_K,), SCORES, _scored),
    "image-segmentation": Task(
        "image",
        (THRESHOLD, *_optional(mask_threshold="float64", overlap_mask_area_threshold="float64")),
        (*SCORES, TensorSpec("mask", "int64", (None, None, None))),
        _masked,
    ),
    "image-to-text": Task("image", _optional(max_new_tokens="int64"), TEXTS, _generated, forwards=True),
    "object-detection": Task("image", (THRESHOLD,), BOXES, _boxed),
    "question-answering": Task(
        "text",
        (
            TOP_K,
            *_optional(doc_stride="int64", max_answer_len="int64", max_seq_len="int64", max_question_len="int64"),
            *_optional(handle_impossible_answer="bool", align_to_words="bool"),
        ),
        (
            TensorSpec("score", "float64"),
            TensorSpec("start", "int64"),
            TensorSpec("end", "int64"),
            TensorSpec("answer", "string"),
        ),
        _answered,
        main=("question", "context"),
    ),
    "summarization": Task(
        "text",
        _optional(**dict.fromkeys(CLEAN, "bool")),
        (TensorSpec("summary_text", "string"),),
        _text_of("summary_text"),
        forwards=True,
    ),
    "text-classification": Task(
        "text", (TOP_K, *_optional(function_to_apply="string")), SCORES, _scored, forwards=True
    ),
    "text-generation": Task(
        "text",
        _optional(
            **dict.fromkeys((*CLEAN, "return_full_text"), "bool"), prefix="string", handle_long_generation="string"
        ),
        TEXTS,
        _generated,
        forwards=True,
    ),
    "translation": Task(
        "text",
        _optional(**dict.fromkeys(CLEAN, "bool"), src_lang="string", tgt_lang="string"),
        (TensorSpec("translation_text", "string"),),
        _text_of("translation_text"),
        forwards=True,
    ),
    "zero-shot-classification": Task(
        "text",
        (LABELS, TEMPLATE, *_optional(multi_label="bool")),
        (
            TensorSpec("sequence", "string"),
            TensorSpec("scores", "float64", (None,)),
            TensorSpec("labels", "string", (None,)),
        ),
        _ranked,
    ),
    "zero-shot-image-classification": Task("image", (LABELS, TEMPLATE), SCORES, _scored),
    "zero-shot-object-detection": Task("image", (LABELS, THRESHOLD, TOP_K), BOXES, _boxed, main=("images",)),
}

ALIASES = {"sentiment-analysis": "text-classification"}

HEADS = {
    "ForSequenceClassification": "text-classification",
    "ForQuestionAnswering": "question-answering",
    "ForImageClassification": "image-classification",
    "ForSemanticSegmentation": "image-segmentation",
    "ForInstanceSegmentation": "image-segmentation",
    "ForUniversalSegmentation": "image-segmentation",
    "ForObjectDetection": "object-detection",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForCTC": "automatic-speech-recognition",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
}
"""The end of an architecture's name to the task that it was made for, where there is but one."""


def task_named(name: str | None) -> str | None:
    """Return a task's name here, None if it is none of these; ``translation_en_to_de`` is a translation."""
    known = ALIASES.get(name or "", name)
    if known is not None and known.startswith("translation_"):
        return "translation"
    return known if known in TASKS else None


def task_of(architecture: str) -> str | None:
    """Return the task of an architecture as ``config.json`` names it, None if it may be of several."""
    return next((task for end, task in HEADS.items() if architecture.endswith(end)), None)
