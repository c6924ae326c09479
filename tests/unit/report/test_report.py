"""The report page from plain values: no Spark."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

from lakemill.predict.evidence import Share
from lakemill.report import layout
from lakemill.report.page import render, thumbnail_uri, with_thumbnails
from lakemill.report.values import Card, Compared, Count, Differing, ErrorGroup, Histogram, Named, Report, Totals

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def count(one: str, two: str | None, rows: int, wrong: int = 0) -> Count:
    return Count(one, two, rows, wrong, None, "a", "b")


def picture(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def sections(page: str) -> set[str]:
    return set(re.findall(r'<section id="(\w+)"', page))


def test_what_the_table_lacks_is_left_out() -> None:
    page = render(Report("nothing", "lake/predictions", None, Totals(0)))
    assert sections(page) == set()
    assert "right, of" not in page
    assert "flagged" not in page


def test_numbers_alone_make_a_report() -> None:
    values = Histogram("price", 1.0, 3.0, 2.0, (1, 0, 2), not_finite=4, mean_absolute_error=0.25)
    page = render(Report("prices", "lake/prices", "lake/houses", Totals(7), histograms=(values,)))
    assert sections(page) == {"outputs"}
    assert "Mean absolute error 0.25" in page
    assert "4 not a finite number" in page


def test_several_models_are_compared_with_intervals() -> None:
    share = str(Share(426, 599))
    matrix = layout.confusion([count("1", "8", 31), count("1", "1", 568)])
    newer = Compared(
        "newer",
        "digits, version 2",
        599,
        "0.41 ms a row (0.39 to 0.44; 12 batches)",
        "2,439 rows/s alone (2,273 to 2,564)",
        str(Share(0, 599)),
        share,
        share,
        (("8", str(Share(3, 4))),),
        matrix,
        (Differing("img/a.png", "1 (0.9)", "8 (0.8)", "8"), Differing("img/b.png", "1", "8")),
    )
    report = Report("trial", "lake/trial", None, Totals(599), compared=(newer,))
    page = render(with_thumbnails(report, {"img/a.png": picture(8)}))
    assert sections(page) == {"compared"}
    assert page.count("71.12% (67.31% to 74.72%; 426 of 599)") == 2
    assert "0.41 ms a row (0.39 to 0.44; 12 batches)" in page
    assert "<td>8</td><td>75.00% (19.41% to 99.37%; 3 of 4)</td>" in page
    assert 'title="1 by the champion, by newer 8">31<' in page
    assert "<td>1</td><td>8</td>" in page
    assert page.count("data:image/png") == 1
    assert page.count("no image") == 1


def test_everything_from_data_is_escaped() -> None:
    card = Card(HOSTILE, HOSTILE, HOSTILE + "!", 0.5)
    used = count('{"pipeline": "<b>", "models": [{"name": "<b>", "version": "<b>", "sha256": "<b>"}]}', None, 1)
    page = render(
        Report(
            HOSTILE,
            HOSTILE,
            HOSTILE,
            Totals(3, 1, 1, 3, 1),
            sample=(card,),
            wrong=(card,),
            confusion=layout.confusion([count(HOSTILE, HOSTILE + "!", 2, 2), count(HOSTILE, HOSTILE, 1)]),
            errors=(ErrorGroup(HOSTILE, HOSTILE, HOSTILE, 1, (HOSTILE,)),),
            checks=(Named(HOSTILE, 1),),
            histograms=(Histogram(HOSTILE, 0, 1, 0.5, (1,)),),
            models=layout.models([used]),
            compared=(
                Compared(
                    HOSTILE,
                    HOSTILE,
                    1,
                    HOSTILE,
                    HOSTILE,
                    HOSTILE,
                    HOSTILE,
                    HOSTILE,
                    ((HOSTILE, HOSTILE),),
                    layout.confusion([count(HOSTILE, HOSTILE + "!", 2)]),
                    (Differing(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
                ),
            ),
        )
    )
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "<td><b>" not in page
    assert "&lt;script&gt;alert(&#34;x&#34;)" in page


def test_the_page_needs_no_network_and_no_script() -> None:
    card = with_thumbnails(Report("t", "t", None, Totals(1), sample=(Card("a", "1"),)), {"a": picture(8)})
    page = render(card)
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', page))


def test_thumbnails_are_small_and_tiny_images_keep_their_pixels() -> None:
    def opened(side: int) -> Image.Image:
        uri = thumbnail_uri(picture(side))
        assert uri is not None
        return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))

    assert opened(600).size == (128, 128)
    assert np.array_equal(np.asarray(opened(8)), np.asarray(Image.open(io.BytesIO(picture(8)))))


def test_a_card_without_a_picture_says_so() -> None:
    cards = (Card("damaged", "1"), Card("not in the source", "1"))
    report = with_thumbnails(Report("t", "t", None, Totals(2), sample=cards), {"damaged": picture(8)[:40]})
    assert [card.thumbnail for card in report.sample] == [None, None]
    assert render(report).count("no image") == 2


def test_the_matrix_counts_truth_in_rows_and_labels_in_columns() -> None:
    matrix = layout.confusion([count("10", "9", 3, 3), count("9", "9", 5), count("10", "10", 4)])
    assert matrix is not None
    assert matrix.labels == ("9", "10")
    assert matrix.counts == ((5, 0), (3, 4))
    nine, ten = matrix.classes
    assert (nine.recall, nine.precision) == (1.0, 5 / 8)
    assert (ten.recall, ten.precision) == (4 / 7, 1.0)
    assert [(pair.truth, pair.predicted) for pair in matrix.pairs] == [("10", "9")]


def test_a_label_that_is_never_true_has_no_recall() -> None:
    matrix = layout.confusion([count("cat", "dog", 2, 2)])
    assert matrix is not None
    cat, dog = matrix.classes
    assert (cat.recall, cat.precision) == (0.0, None)
    assert (dog.recall, dog.precision) == (None, 0.0)
    assert "\N{EN DASH}" in render(Report("t", "t", None, Totals(2, judged=2), confusion=matrix))


def test_too_many_classes_leave_the_most_frequent_mistakes() -> None:
    mistakes = [count(str(n), str(n + 1), 40 - n, 40 - n) for n in range(40)]
    matrix = layout.confusion(mistakes)
    assert matrix is not None
    assert matrix.labels == ()
    assert [pair.rows for pair in matrix.pairs] == list(range(40, 30, -1))
    labels = layout.labels([count("7", None, 9)])
    page = render(Report("t", "t", None, Totals(40, judged=40), confusion=matrix, labels=labels))
    assert sections(page) == {"classes"}


def test_only_all_is_shown_as_a_hundred_percent() -> None:
    def accuracy(right: int) -> str:
        page = render(Report("t", "t", None, Totals(10_000, judged=10_000, right=right)))
        shown = re.search(r"<b>([\d.]+)\N{NARROW NO-BREAK SPACE}%</b>", page)
        assert shown
        return shown[1]

    assert [accuracy(right) for right in (10_000, 9_999, 9_750, 1, 0)] == ["100", "99.9", "97.5", "0.1", "0"]
