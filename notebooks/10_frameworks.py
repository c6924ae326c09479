# Databricks notebook source
# MAGIC %md
# MAGIC # Models of every framework, on one table
# MAGIC
# MAGIC 1. a table of measurements, with a text beside each,
# MAGIC 2. a model of each kind, registered with one call: a file, a folder or what is in memory,
# MAGIC 3. all of them score the table, each on its own runtime,
# MAGIC 4. one becomes an ONNX graph, if that agrees with it on your rows.
# MAGIC
# MAGIC It needs no Spark. Results go to `./lake`; for another folder set `LAKEMILL_LAKE`, or the widget on Databricks,
# MAGIC where the extras come first: `%pip install lakemill[mlflow,sklearn,xgboost,convert,tensorflow,huggingface]`.

# COMMAND ----------

import os
from pathlib import Path

os.environ.setdefault("USE_TF", "0")  # transformers is to run on PyTorch
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

REGISTRY = f"sqlite:///{LAKE}/mlflow.db"  # None on Databricks: its own registry
FILES = Path(LAKE) / "models"
FILES.mkdir(parents=True, exist_ok=True)

# COMMAND ----------

# MAGIC %md
# MAGIC ## 1. The table

# COMMAND ----------

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

ROWS = 500
features = np.random.default_rng(0).random((ROWS, 4), dtype="float32")
labels = (features[:, 0] + features[:, 1] > 1).astype(int)
notes = np.where(labels == 1, "all is well here", "this one is bad")
columns = {
    "id": np.arange(ROWS),
    "features": pa.array(list(features), pa.list_(pa.float32())),
    "note": notes.tolist(),
}
write_deltalake(f"{LAKE}/measurements", pa.table(columns), mode="overwrite")

# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. A model of each kind
# MAGIC
# MAGIC `log_model` looks at a model, runs it once and registers it as an ordinary MLflow model. What is code when it is
# MAGIC loaded needs `trust=True`.

# COMMAND ----------

import lakemill

logged = {}


def register(model, kind, **options):  # noqa: ANN001, ANN003, ANN201
    logged[kind] = lakemill.log_model(
        model, name=f"{kind}-model", alias="production", registry=REGISTRY, trust=True, **options
    )
    print(logged[kind].summary())


from sklearn.linear_model import LogisticRegression

register(LogisticRegression().fit(features, labels), "sklearn", options={"method": "predict_proba"})

# COMMAND ----------

import xgboost

trees = xgboost.XGBClassifier(n_estimators=10).fit(features, labels)
register(trees, "xgboost", options={"method": "predict_proba"})

# COMMAND ----------

from skl2onnx import to_onnx

graph = to_onnx(LogisticRegression().fit(features, labels), features[:1], options={"zipmap": False})
register(graph, "onnx")

# COMMAND ----------

# MAGIC %md
# MAGIC What MLflow has a flavor for, and no runtime here has, goes through pyfunc.

# COMMAND ----------

import lightgbm
import mlflow.lightgbm
from mlflow.models import infer_signature

boosted = lightgbm.LGBMRegressor(n_estimators=10, verbose=-1).fit(features, labels)
signature = infer_signature(features, boosted.predict(features))
mlflow.lightgbm.save_model(boosted, FILES / "boosted", signature=signature, pip_requirements=["lightgbm"])
register(FILES / "boosted", "pyfunc")

# COMMAND ----------

(FILES / "mean.py").write_text("def process_data(inputs):\n    return {'mean': inputs['features'].mean(axis=1)}\n")
numbers = pa.schema([("features", pa.list_(pa.float32(), 4))])
register(FILES / "mean.py", "python", input_schema=numbers, output_schema=pa.schema([("mean", pa.float32())]))

# COMMAND ----------

import torch

network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2), torch.nn.Softmax(dim=1))
rows = {"input": {0: torch.export.Dim("rows")}}
program = torch.export.export(network.eval(), (torch.from_numpy(features),), dynamic_shapes=rows)
register(program, "torch")

# COMMAND ----------

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

words = ["[PAD]", "[UNK]", *sorted({word for note in notes for word in note.split()})]
tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")  # noqa: S106
tiny = transformers.BertConfig(
    vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
)
classifier = transformers.BertForSequenceClassification(tiny).eval()
pipeline = transformers.pipeline("text-classification", model=classifier, tokenizer=fast, device="cpu")
register(pipeline, "huggingface")

# COMMAND ----------

import keras

layers = [keras.Input((4,), name="features"), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")]
register(keras.Sequential(layers), "keras")

# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. All of them score the table
# MAGIC
# MAGIC A job differs in the model's name only, and in what feeds its input where the names differ.

# COMMAND ----------

FED_BY = {"huggingface": "note"}


def score(kind):  # noqa: ANN001, ANN201
    model = logged[kind]
    name = model.inputs[0].split()[0]
    job = lakemill.PredictConfig.load(
        name=f"{kind}-job",
        registry=REGISTRY,
        source={"table": f"{LAKE}/measurements", "key": ["id"]},
        pipeline={
            "steps": [
                {"model": {"uri": f"models:/{kind}-model@production", "inputs": {name: FED_BY.get(kind, "features")}}}
            ]
        },
        output={"table": f"{LAKE}/predictions_by_{kind}"},
        engine={"name": "local"},
    )
    return lakemill.predict_table(job)


scored = {kind: score(kind) for kind in logged}
for kind, result in scored.items():
    print(f"{kind:12} {logged[kind].runtime:12} {result.rows} rows, {result.rows_error} errors")

# COMMAND ----------

# MAGIC %md
# MAGIC ## 4. Another form, if it agrees

# COMMAND ----------

register(program, "converted", convert="onnx", input_example={"input": features})
print(logged["converted"].certificate["summary"])
scored["converted"] = score("converted")
