"""Tests of what both engines mean alike: each runs on ``local``, and on Spark in ``make test-all``.

``@pytest.mark.seam`` is for what also shows a part of Spark's own: ``make test`` runs that on Spark too.
"""

from __future__ import annotations

import pytest

from tests.both.on import On


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that asks for ``on`` on both engines; on Spark most are of ``make test-all``."""
    if "on" in metafunc.fixturenames:
        is_seam = metafunc.definition.get_closest_marker("seam") is not None
        spark = pytest.param("spark", marks=[] if is_seam else [pytest.mark.matrix])
        metafunc.parametrize("on", ["local", spark], indirect=True)


@pytest.fixture
def on(request: pytest.FixtureRequest) -> On:
    """Return the engine; Spark is started only for tests that run there."""
    if request.param == "local":
        return On("local")
    return On("spark", request.getfixturevalue("spark"))
