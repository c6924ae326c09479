"""The report in a real browser: nothing is fetched, nothing fails, nothing sticks out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lakemill.report import layout
from lakemill.report.page import render, with_thumbnails
from lakemill.report.values import Bin, Card, Count, ErrorGroup, Histogram, ModelUse, Named, Report, Run, Totals
from tests.lake import WHEN, png

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium: apt-get install chromium, which make test does as root"
)

LONG = "a-label-without-a-single-space-in-it-" * 6

# A frame of the wanted width; its own script measures the report, whose policy lets none in.
FRAME = """<!doctype html><body style="margin:0">
<iframe src="report.html" style="width:{width}px;height:900px;border:0"></iframe>
<script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  const images = [...page.images];
  images.forEach(image => image.loading = "eager");
  // The browser's clock waits for what is loading, not for what is being decoded.
  const loaded = image => image.complete || new Promise(done => image.onload = image.onerror = done);
  Promise.all(images.map(loaded)).then(() => {{
    const shown = images.filter(image => image.naturalWidth > 0).length;
    document.title = [page.documentElement.scrollWidth, shown].join(" ");
  }});
}});
</script>"""


def browse(page: Path) -> tuple[str, str]:
    """Return the page's title once it has settled, and what the browser's console said."""
    done = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--dump-dom",
            "--allow-file-access-from-files",
            "--virtual-time-budget=60000",  # of a clock that runs ahead: a busy machine loads the frame late
            "--enable-logging=stderr",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout.partition("<title>")[2].partition("</title>")[0], console


def full_report() -> Report:
    names = [LONG, "cat", "dog", *map(str, range(27))]
    pairs = [Count(name, name, 1000, 0, None, "a", "b") for name in names]
    cards = tuple(Card(f"img/{LONG}/{n}.png", names[n % 3], "cat", n / 20) for n in range(18))
    report = Report(
        LONG,
        f"lake/{LONG}",
        f"lake/{LONG}",
        Totals(10**9, 10**6, 12, 10**9 - 10**6, 10**8, WHEN, WHEN),
        sample=cards,
        unsure=cards,
        wrong=cards,
        confusion=layout.confusion(pairs),
        scores=tuple(Bin(n / 20, (n + 1) / 20, n * n, n) for n in range(20)),
        histograms=(Histogram(LONG, -1e300, 1e300, 0.1, tuple(range(20)), 3, 1e-9),),
        errors=(ErrorGroup("decode", "IMAGE_DECODE", LONG, 10**6, (LONG, LONG)),),
        checks=(Named(LONG, 12), Named("none", 0)),
        runs=(Run(WHEN, "incremental", 12, 10**9, 10**6, 86400.0, {"decode": 0.001, "predict": 1e5}),),
        models=(ModelUse(LONG, "0123456789abcdef", LONG, "12", "ab" * 32, 10**9),),
    )
    return with_thumbnails(report, {card.key: png(n) for n, card in enumerate(cards)})


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_fits_and_shows_its_pictures(tmp_path: Path, width: int) -> None:
    (tmp_path / "report.html").write_text(render(full_report()), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    title, console = browse(frame)
    assert title == f"{width} 54"
    assert console == ""


def test_the_browser_tells_when_a_page_breaks_its_policy(tmp_path: Path) -> None:
    broken = render(full_report()).replace("</body>", "<script>document.title = 'ran'</script></body>")
    page = tmp_path / "broken.html"
    page.write_text(broken, encoding="utf-8")
    title, console = browse(page)
    assert title != "ran"
    assert "Content Security Policy" in console
