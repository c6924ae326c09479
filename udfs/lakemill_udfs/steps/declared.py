"""What a pipeline is declared of: steps and checks, as frozen values.

They hold no behaviour: ``images``, ``models``, ``functions``, ``formats`` and ``checks`` run them. pydantic validates
YAML onto these same classes on the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lakemill_udfs.arguments import as_text, check_arguments
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.callables import IMPORT_PATH, as_import_path, form_of, name_of
from lakemill_udfs.tensors.spec import TensorSpec

Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
FORBID = {"extra": "forbid"}  # pydantic's wish on the driver: unknown keys are errors


@dataclass(frozen=True)
class ImageStep:
    """Decode an encoded image, resize, crop and normalise it into one tensor.

    Pixel values are scaled to 0..1 for float dtypes, then ``(value - mean) / std``; integer dtypes keep 0..255.

    Args:
        column: Column with the encoded bytes (JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF, JPEG 2000, TGA, ICO; HEIC with
            the extra ``heic``).
        path_column: Column with the path that is read where ``column`` is null; not needed otherwise.
        mode: Pillow mode that the image is converted to.
        size: ``(height, width)`` to resize to, whatever the aspect ratio.
        resize_shorter: Pixels that the shorter side is resized to, keeping the aspect ratio.
        crop: ``(height, width)`` cut out of the centre.
        resample: Pillow's filter.
        mean: Per channel, in 0..1.
        std: Per channel, in 0..1.
        dtype: ``uint8``, ``float32``, ``float16`` or ``float64``.
        layout: ``NCHW``, ``NHWC`` or ``flat`` (one axis of ``height * width * channels``).
        orient: Turn the image as its EXIF orientation says.
        background: Red, green and blue, 0 to 255, that transparent pixels are laid on; null leaves the colours that lie
            under them. Mode RGBA keeps the transparency.
        value_range: The values that are black and white in grey images of more than 8 bits; values outside are cut off
            there. Not needed for unsigned integers of up to 16 bits, which use all their bits, and floats in 0..1.
        max_pixels: A larger image is an error of its row, before it is decoded.
        max_decoded_bytes: So is one whose decoding takes more memory.
        max_seconds: And one whose decoding takes longer.
        output: Name of the tensor.

    Raises:
        ConfigError: ``IMAGE_STEP`` if the output size is not determined or ``mean`` and ``std`` do not fit the mode.
    """

    __pydantic_config__ = FORBID

    column: str = "content"
    path_column: str = "path"
    mode: Literal["L", "RGB", "RGBA"] = "RGB"
    size: tuple[int, int] | None = None
    resize_shorter: int | None = None
    crop: tuple[int, int] | None = None
    resample: Resample = "bilinear"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dtype: Literal["uint8", "float16", "float32", "float64"] = "float32"
    layout: Literal["NCHW", "NHWC", "flat"] = "NCHW"
    orient: bool = True
    background: tuple[int, int, int] | None = (255, 255, 255)
    value_range: tuple[float, float] | None = None
    max_pixels: int = 178_956_970
    max_decoded_bytes: int = 2**30
    max_seconds: float = 60.0
    output: str = "image"

    def __post_init__(self) -> None:
        check_arguments(self, "IMAGE_STEP")
        if self.size is None and self.crop is None:
            raise ConfigError(
                "IMAGE_STEP",
                "the image step has neither 'size' nor 'crop', so its tensor has no fixed shape.",
                hint="size: [224, 224], or resize_shorter: 256 with crop: [224, 224]",
            )
        shorter = 1 if self.resize_shorter is None else self.resize_shorter
        if min(*(self.size or ()), *(self.crop or ()), shorter, 1) < 1:
            raise ConfigError("IMAGE_STEP", "'size', 'crop' and 'resize_shorter' are 1 pixel or more.")
        if self.size is not None and self.resize_shorter is not None:
            raise ConfigError("IMAGE_STEP", "the image step has both 'size' and 'resize_shorter'; give one.")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, len(self.mode)):
                raise ConfigError(
                    "IMAGE_STEP",
                    f"'{name}' needs 1 or {len(self.mode)} values for mode {self.mode}; got {len(values)}.",
                )
        if self.dtype == "uint8" and (self.mean or self.std):
            raise ConfigError("IMAGE_STEP", "'mean' and 'std' need a float dtype; got uint8.")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ConfigError("IMAGE_STEP", "'value_range' is the value that is black and a greater one that is white.")
        if self.background is not None and not all(0 <= value <= 255 for value in self.background):
            raise ConfigError("IMAGE_STEP", "'background' is red, green and blue, each 0 to 255.")

    @property
    def spec(self) -> TensorSpec:
        """The tensor that this step makes."""
        (height, width), channels = self.crop or self.size or (0, 0), len(self.mode)
        shapes: dict[str, tuple[int, ...]] = {
            "NCHW": (channels, height, width),
            "NHWC": (height, width, channels),
            "flat": (height * width * channels,),
        }
        return TensorSpec(self.output, self.dtype, shapes[self.layout])


@dataclass(frozen=True)
class ModelStep:
    """Run a model on tensors by name.

    Args:
        uri: ``models:/name@alias``, ``models:/name/3``, ``runs:/...``, an MLflow model's folder, or a model's file.
        inputs: Model input to the column or earlier output that feeds it; same names need no entry.
        outputs: Model output to its new name, or to its declaration (``{dtype, shape}``) where the model has none.
        sha256: Refuse any other file or folder (as the predictions' metadata shows it).
        runtime: Which runtime runs it, for example ``pyfunc``; null takes the model's own framework.
        options: The runtime's options, for example ``{method: predict_proba}``.
        trust: Whether a file that is code itself, as a pickle, may be loaded.
        env: ``isolated`` runs an MLflow model in an environment made from its own requirements, in a process of its
            own; null runs it in the worker.

    Raises:
        ConfigError: ``MODEL_STEP`` if an argument is of the wrong type.
    """

    __pydantic_config__ = FORBID

    uri: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    sha256: str | None = None
    runtime: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    trust: bool = False
    env: Literal["isolated"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", as_text(self.uri))
        check_arguments(self, "MODEL_STEP")


@dataclass(frozen=True)
class PythonStep:
    """Run a function of the user's on tensors.

    Args:
        function: ``module:function``, or the function itself. It takes and returns a dict of arrays, a pandas
            DataFrame or an Arrow table, as its first argument's annotation says; without one, a dict of arrays. One
            without an import path, such as a lambda, works in ``infer`` only.
        inputs: Name in the function to the column or earlier output that feeds it.
        outputs: Every output's declaration: ``{name: {dtype, shape}}``.
        data: Files of the function's package that it reads, as patterns relative to the package's folder; only they
            and Python files are shipped and logged.
        sha256: Refuse any other code than this (``lakemill plan`` shows it); part of the pipeline's version.
        code: The logged pipeline whose own code the function is from, by its URI; set by Lakemill.

    Raises:
        ConfigError: ``PYTHON_STEP`` if an argument is of the wrong type, or the function cannot take the inputs.
    """

    __pydantic_config__ = FORBID

    function: Any  # str or a callable, for which pydantic has no JSON schema
    outputs: Mapping[str, Mapping[str, Any]]
    inputs: Mapping[str, str] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    sha256: str | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "function", as_import_path(self.function))
        check_arguments(self, "PYTHON_STEP")
        if callable(self.function):
            form_of(self.function, self.inputs)
        if not callable(self.function) and not IMPORT_PATH.fullmatch(str(self.function)):
            raise ConfigError(
                "PYTHON_STEP",
                f"the function of a Python step is 'module:function'; got '{self.function}'.",
                hint="put the function into a module, for example features.py, and write features:scale",
            )
        if not self.outputs:
            raise ConfigError(
                "PYTHON_STEP", f"'{self.name}' declares no outputs.", hint="outputs: {score: {dtype: float32}}"
            )

    @property
    def name(self) -> str:
        """What to call its function."""
        return name_of(self.function)


@dataclass(frozen=True)
class FormatStep:
    """Turn a model's numbers into what people and SQL read.

    It does one of these:

    * class scores ``(classes,)`` to ``label`` and ``probability`` of the best class; with ``top_k`` above 1 also
      ``top_labels`` and ``top_probabilities``, best first;
    * with ``threshold``: scores of any shape to booleans, ``above``; with two labels, one score also to ``label``; with
      a label for each class, class scores also to ``labels``, those that are above;
    * with ``argmax``: scores with an axis of classes to ``mask``, the best class of each place;
    * with ``boxes``: scores ``(count,)`` or ``(count, classes)`` to ``boxes``, ``scores`` and ``classes`` or ``labels``
      of those above the threshold, best first; as many as each row has;
    * with ``encode``: an image or mask to the bytes of a file, under the input's own name.

    Args:
        input: Tensor that is formatted.
        softmax: Turn class scores into probabilities first.
        top_k: How many classes to keep.
        labels: The classes' names in order, or a text file with one a line; without them labels are class indices.
        threshold: What a score must be above.
        argmax: Axis of the classes, without the batch dimension.
        boxes: Tensor ``(count, 4)`` that the scores belong to.
        classes: Tensor ``(count,)`` with the class of each box, where the scores do not say it.
        encode: ``png`` (uint8, bool, uint16 with one channel) or ``jpeg`` (uint8).
        outputs: New names, or null to leave one out.

    Raises:
        ConfigError: ``FORMAT_STEP`` if the arguments do not go together.
    """

    __pydantic_config__ = FORBID

    input: str
    softmax: bool = False
    top_k: int = 1
    labels: tuple[str, ...] | str | None = None
    threshold: float | None = None
    argmax: int | None = None
    boxes: str | None = None
    classes: str | None = None
    encode: Literal["png", "jpeg"] | None = None
    outputs: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_arguments(self, "FORMAT_STEP")
        if self.top_k < 1:
            raise ConfigError("FORMAT_STEP", f"'top_k' must be 1 or more; got {self.top_k}.")
        ways = [way for way in ("encode", "argmax", "boxes") if getattr(self, way) is not None]
        if self.threshold is not None and "boxes" not in ways:
            ways.append("threshold")
        if self.softmax or self.top_k > 1:
            ways.append("softmax" if self.softmax else "top_k")
        if len(ways) > 1:
            raise ConfigError(
                "FORMAT_STEP", f"'{ways[0]}' and '{ways[1]}' do not go together.", hint="write two format steps."
            )
        if self.classes is not None and self.boxes is None:
            raise ConfigError("FORMAT_STEP", "'classes' are those of 'boxes'; name the boxes too.")
        unknown = sorted(set(self.outputs) - set(self.names))
        if unknown:
            raise ConfigError(
                "FORMAT_STEP", f"the format step has no output '{unknown[0]}'; it has: {', '.join(self.names)}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Every output that such a step can have, under its own name; the input's shape says which it does have."""
        if self.encode is not None:
            return (self.input,)
        if self.boxes is not None:
            return ("boxes", "scores", "classes" if self.labels is None else "labels")
        if self.argmax is not None:
            return ("mask",)
        if self.threshold is not None:
            return ("above",) if self.labels is None else ("above", "label", "labels")
        return ("label", "probability", *(("top_labels", "top_probabilities") if self.top_k > 1 else ()))

    @property
    def sources(self) -> dict[str, str]:
        """What it reads: ``input``, ``boxes``, ``classes``, and the name of each tensor."""
        named = {"input": self.input, "boxes": self.boxes, "classes": self.classes}
        return {name: source for name, source in named.items() if source is not None}


@dataclass(frozen=True)
class Check:
    """A named condition; a row for which it is true is flagged in ``anomaly``, never dropped.

    Args:
        name: Name of its field in ``anomaly``.
        expr: Polars SQL over the structs ``in`` and ``out``, row by row: ``out.probability < 0.5``; or
            ``module:function``, or the function itself, which takes nothing and returns a ``polars.Expr`` over them:
            ``pl.col("out").struct.field("probability") < 0.5``. A function without an import path works in ``infer``
            only.
        sha256: As in ``PythonStep``, of a function's code.
        code: As in ``PythonStep``.
    """

    __pydantic_config__ = FORBID

    name: str
    expr: Any  # str or a callable, for which pydantic has no JSON schema
    sha256: str | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "expr", as_import_path(self.expr))
        check_arguments(self, "CHECK_NAME")
        if not isinstance(self.expr, str) and not callable(self.expr):
            raise ConfigError("CHECK_EXPRESSION", f"check '{self.name}' is a text or a function.")
        if self.name == "count":
            raise ConfigError(
                "CHECK_NAME", "a check cannot be called 'count': anomaly.count is the number of failed checks."
            )

    @property
    def function(self) -> Any:
        """The function, or its import path; None if ``expr`` is SQL."""
        is_function = callable(self.expr) or IMPORT_PATH.fullmatch(self.expr) is not None
        return self.expr if is_function else None
