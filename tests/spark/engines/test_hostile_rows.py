"""What hostile rows and names do on Spark: no text of theirs leaves a worker, and a session is this user's alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from lakemill import PredictConfig, predict_table
from tests.lake import image_rows, onnx_classifier, steps
from tests.security.hostile import CONTROL, SECRET, TEXTS
from tests.security.test_secrets import SECRETS, planted_in
from tests.security.test_terminals import NAMES, obeyed

ROOT = Path(__file__).parents[3]


def job(lake: Path, texts: list[str], function: str, **changes: object) -> Path:
    """Write rows of these texts, and the YAML of a job on Spark that puts them through a function of ``hostile``."""
    write_deltalake(lake / "rows", pa.table({"id": [str(number) for number in range(len(texts))], "text": texts}))
    dtype = "string" if function == "same" else "float64"
    step = {"function": f"tests.security.hostile:{function}", "inputs": {"text": "text"}}
    raw = {
        "source": {"table": f"{lake}/rows", "key": ["id"], "columns": ["text"]},
        "pipeline": {"steps": [{"python": step | {"outputs": {"y": {"dtype": dtype}}}}]},
        "output": {"table": f"{lake}/predictions"},
        "engine": {"name": "spark"},
    }
    (lake / "job.yaml").write_text(yaml.safe_dump(raw | changes), encoding="utf-8")
    return lake / "job.yaml"


def lakemill(file: Path, *arguments: str, variables: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a predict job in a process of its own; return its exit status and all it and its Java said."""
    script = "import sys; from lakemill.cli.app import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "predict", "--config", str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=variables)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["connection", pytest.param("import", marks=pytest.mark.matrix)])
def test_no_text_of_a_row_reaches_a_log(tmp_path: Path, kind: str) -> None:
    """Spark's block manager wrote such a text to the driver's log, whatever the log settings were."""
    status, said = lakemill(job(tmp_path, [kind, *TEXTS], "is_away"))
    assert status == 1
    assert "[STEP_ENVIRONMENT]" in said
    assert SECRET not in said
    assert not any(secret in said for secret in TEXTS)


def test_hostile_rows_are_their_own_errors_and_any_name_is_one(spark: SparkSession, tmp_path: Path) -> None:
    done = predict_table(PredictConfig.load(job(tmp_path, ["good", *TEXTS], "refuse")), spark)
    assert (done.rows, done.rows_error) == (5, 4)
    names = tmp_path / "names"
    columns = {name: [f"{name} 1", f"{name} 2"] for name in NAMES} | {"text": [CONTROL, "b"]}
    write_deltalake(names / "rows", pa.table(columns))
    file = job(tmp_path / "other", ["a"], "same")
    settings = {"source__table": f"{names}/rows", "output__table": f"{names}/predictions"}
    predict_table(PredictConfig.load(file, (), source__key=["[/x]"], source__columns=NAMES[1:], **settings), spark)
    rows = spark.read.format("delta").load(f"{names}/predictions").collect()  # delta-rs reads no mapped columns
    assert sorted(row["out"]["y"] for row in rows) == sorted([CONTROL, "b"])
    assert sorted(row[NAMES[0]] for row in rows) == ["[/x] 1", "[/x] 2"]


@pytest.mark.matrix  # tests/security/test_secrets.py and test_terminals.py ask the same of the local engine
def test_a_run_on_spark_leaves_no_secret_and_nothing_that_a_terminal_obeys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEMILL_PLANTED", SECRETS["variable"])
    (tmp_path / "lake").mkdir()
    write_deltalake(tmp_path / "lake" / "images", image_rows(0, 4, broken=(2,)))
    name = f"model?token={SECRETS['token']}&sig={SECRETS['signature']}.onnx"
    raw = {
        "name": "secrets",
        "source": {"table": f"{tmp_path}/lake/images", "where": "label <> '${LAKEMILL_PLANTED}'"},
        "pipeline": {"steps": steps(onnx_classifier(tmp_path / "lake" / name))},
        "output": {"table": f"{tmp_path}/lake/predictions"},
        "registry": f"http://me:{SECRETS['user']}@127.0.0.1:9/mlflow",
        "engine": {"name": "spark"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    status, said = lakemill(tmp_path / "job.yaml", "--json")
    assert status == 0, said
    assert "engine: spark" in said
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(raw | {"source": raw["source"] | {"where": f"x = '{CONTROL}'"}}))  # type: ignore[operator]  # it is a dict
    status, failed = lakemill(tmp_path / "job.yaml")
    assert status != 0
    assert planted_in(said + failed, tmp_path) == []
    assert obeyed(said + failed) == []


def test_a_local_session_asks_for_a_secret(tmp_path: Path) -> None:
    """Whoever can open the driver's port on this machine could read blocks of rows, and give work to it."""
    script = (
        "from lakemill import get_session\n"
        "spark = get_session()\n"
        "security = spark.sparkContext._jsc.sc().env().securityManager()\n"
        "print(security.isAuthenticationEnabled(), len(security.getSecretKey()) >= 32)\n"
        "print(spark.conf.get('spark.authenticate.secret', 'not among the settings'))\n"
        "import os, stat, pathlib\n"
        "print(oct(stat.S_IMODE(os.stat(spark.sparkContext.getConf().get('spark.local.dir')).st_mode)))\n"
        "log = spark.sparkContext._jvm.org.slf4j.LoggerFactory.getLogger('x')\n"
        f"log.warn('s3://me:{SECRETS['user']}@bucket/t?sig={SECRETS['signature']}&x=1 \\x1b[2Jend')\n"
        "print(spark.range(10).repartition(3).mapInArrow(lambda rows: rows, 'id long').count())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.splitlines() == ["True True", "not among the settings", "0o700", "10"], done.stderr
    assert "WARN x: s3://***@bucket/t?sig=***&x=1 ?[2Jend\n" in done.stderr
    assert planted_in(done.stderr, tmp_path) == []
