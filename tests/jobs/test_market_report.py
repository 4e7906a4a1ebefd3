"""The report of a market run: harmless, self-contained, and readable when there is little in it."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from websockets.sync.client import ClientConnection, connect

from jobs.market_report import render, thin
from jobs.page import embed
from state.schemas import EDGES, SCORED

START = datetime(2020, 1, 1, tzinfo=UTC)
HOSTILE = "</script><script>alert(1)</script>"


def write_run(
    directory: Path,
    names: list[str],
    *,
    rows: int = 300,
    step: timedelta = timedelta(days=1),
    windows: int = 6,
    alerts: int = 5,
) -> Path:
    """Write the result files of a simulated run: random walks, and one link that holds."""
    rng = np.random.default_rng(3)
    times = [START + i * step for i in range(rows)]
    columns: dict[str, list[object]] = {name: [] for name in SCORED.names}
    raised = []
    for name in names:
        price = 50 * np.exp(np.cumsum(0.01 * rng.standard_normal(rows)))
        drawdown = price / np.maximum.accumulate(price) - 1
        hit = set(range(rows // 2, rows, max(1, rows // 2 // alerts))[:alerts]) if alerts else set()
        for i, time in enumerate(times):
            change = float(np.log(price[i] / price[i - 1])) if i else None
            row = (time, name, float(price[i]), change, float(drawdown[i]), 0.5, i in hit)
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            if i in hit:
                alert = dict(zip(SCORED.names[:-1], row[:-1], strict=True))
                raised.append({**alert, "time": rfc(time), "detectors": ["robust EWMA"]})
    pq.write_table(pa.table(columns, schema=SCORED), directory / "returns.parquet")
    write_lines(directory / "alerts.ndjson", raised)
    pairs = [(c, e) for c in names for e in names if c != e]
    edges = [
        edge(times, w, windows, cause, effect, lag, held=(cause, effect) == pairs[0])
        for w in range(windows)
        for cause, effect in pairs
        for lag in (None, 1, 2)
    ]
    pq.write_table(pa.Table.from_pylist(edges, EDGES), directory / "edges.parquet")
    hypotheses = [
        {
            "cause": cause,
            "effect": effect,
            "lag": 1,
            "start": rfc(times[0]),
            "end": rfc(times[-1]),
            "windows": windows,
            "q": 0.002,
            "weight": -0.3,
            "confidence": confidence,
            "crashes": 1,
            "text": f"{cause} led {effect} at lag 1",
        }
        for (cause, effect), confidence in zip(pairs[: 2 * bool(windows)], (0.4, 0.9), strict=False)
    ]
    write_lines(directory / "hypotheses.ndjson", hypotheses)
    return directory


def edge(
    times: list[datetime],
    w: int,
    windows: int,
    cause: str,
    effect: str,
    lag: int | None,
    *,
    held: bool,
) -> dict[str, object]:
    size = len(times) // windows
    q = 0.001 if held and lag != 2 else 0.6
    return {
        "window": w,
        "start": times[w * size],
        "end": times[(w + 1) * size - 1],
        "rows": size,
        "method": "granger" if lag is None else "pcmci",
        "cause": cause,
        "effect": effect,
        "lag": lag,
        "statistic": 1.5,
        "weight": 0.2,
        "p": q / 2,
        "q": q,
        "significant": q < 0.05,
        "note": None,
    }


def rfc(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Page(HTMLParser):
    """The elements of a page, its text, and the data it carries."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.source = path.read_text()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        kind = self.tags[-1][1].get("type", "") if self.tags else ""
        key = "json" if kind == "application/json" else "text"
        if self.lasttag not in ("style", "script") or key == "json":
            self.texts[key] = self.texts.get(key, "") + data

    @property
    def data(self) -> dict:
        return json.loads(self.texts["json"])

    @property
    def text(self) -> str:
        return " ".join(self.texts["text"].split())


def test_what_was_found_is_said_and_embedded(tmp_path):
    path = render(write_run(tmp_path, ["A", "B", "C"]))
    assert path == tmp_path / "report.html"
    page = Page(path)
    assert "15 crash alerts and 2 causal hypotheses in A, B and C" in page.text
    assert "The strongest hypothesis: A led C at lag 1" in page.text
    data = page.data
    assert data["names"] == ["A", "B", "C"]
    assert len(data["alerts"]) == 15
    assert len(data["windows"]) == 6
    assert data["pairs"][0] == [0, 1]
    # The link that holds is significant by Granger and by PCMCI at lag 1, not at lag 2.
    found = {tuple(cell[:4]) for cell in data["cells"] if cell[6]}
    assert found == {(w, 0, m, lag) for w in range(6) for m, lag in ((0, None), (1, 1))}


def test_embedded_prices_are_those_of_the_file(tmp_path):
    data = Page(render(write_run(tmp_path, ["A", "B"]))).data
    table = pq.read_table(tmp_path / "returns.parquet").to_pylist()
    for name, line in zip(data["names"], data["series"], strict=True):
        rows = [row for row in table if row["series"] == name]
        times = line["start"] + line["unit"] * np.cumsum(line["steps"])
        assert times.tolist() == [round(row["time"].timestamp() * 1000) for row in rows]
        price = np.array(line["index"]) * line["first"] / 100
        np.testing.assert_allclose(price, [row["price"] for row in rows], rtol=1e-5)
        np.testing.assert_allclose(
            line["drawdown"], [row["drawdown"] for row in rows], rtol=1e-3, atol=1e-12
        )


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    page = Page(render(write_run(tmp_path, ["A", "B"])))
    loads = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "srcset")]
    assert loads == ["data:,"]
    assert not re.search(r"@import|url\((?!#)", page.source.replace("url(#${id}", "url(#"))
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page.source))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never fetched
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_hostile_names_are_text(tmp_path):
    plain, hostile = tmp_path / "plain", tmp_path / "hostile"
    plain.mkdir()
    hostile.mkdir()
    expected = Page(render(write_run(plain, ["A", "B"])))
    page = Page(render(write_run(hostile, [HOSTILE, '"><img src=x onerror=alert(2)>'])))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in expected.tags]
    assert [set(a) for _, a in page.tags] == [set(a) for _, a in expected.tags]
    assert HOSTILE in page.data["names"]
    assert "<script>alert" not in page.source


def test_embedding_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="JSON"):
        embed([float("nan")])


@pytest.mark.parametrize(
    ("names", "windows", "alerts", "says"),
    [
        (["A"], 0, 3, "There is one series in this run. Links need two."),
        (["A", "B"], 0, 3, "No links were tested: no window held enough rows"),
        (["A", "B"], 3, 0, "No alert was raised"),
    ],
)
def test_little_to_show_is_said(tmp_path, names, windows, alerts, says):
    page = Page(render(write_run(tmp_path, names, windows=windows, alerts=alerts)))
    assert says in page.text
    assert len(page.data["series"]) == len(names)


def test_an_empty_run_is_said(tmp_path):
    page = Page(render(write_run(tmp_path, [], windows=0)))
    assert "No prices came through" in page.text
    assert page.data["series"] == []


def test_long_runs_stay_small_and_keep_extremes(tmp_path):
    names = [f"S{i}" for i in range(4)]
    step = timedelta(seconds=1)
    path = render(write_run(tmp_path, names, rows=20_000, step=step, alerts=50))
    assert path.stat().st_size < 1_500_000
    data = Page(path).data
    assert not data["day"]
    prices = pq.read_table(tmp_path / "returns.parquet").to_pandas().groupby("series").price
    for name, line in zip(data["names"], data["series"], strict=True):
        assert len(line["index"]) <= 6000
        held = np.array(line["index"]) * line["first"] / 100
        assert held.min() == pytest.approx(prices.min()[name], rel=1e-5)
        assert held.max() == pytest.approx(prices.max()[name], rel=1e-5)


def test_thinning_keeps_order_and_borders():
    times = np.sort(np.random.default_rng(1).integers(0, 10**6, 5000))
    kept = thin(times, [np.sin(times / 1e4)], 200)
    assert len(kept) <= 200
    assert (np.diff(kept) > 0).all()
    assert (kept[0], kept[-1]) == (0, 4999)


def test_an_earlier_report_is_replaced_and_nothing_else_is_left(tmp_path):
    write_run(tmp_path, ["A", "B"])
    (tmp_path / "report.html").write_text("old")
    before = {path.name for path in tmp_path.iterdir()}
    assert render(tmp_path).read_text() != "old"
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_damaged_line_is_named(tmp_path):
    write_run(tmp_path, ["A", "B"])
    with (tmp_path / "alerts.ndjson").open("a") as file:
        file.write('{"time": "yest')
    with pytest.raises(ValueError, match=r"alerts\.ndjson, line 11"):
        render(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    write_run(tmp_path, ["A", "B"])
    (tmp_path / "edges.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"edges\.parquet"):
        render(tmp_path)


class Browser:
    """One tab of a headless Chromium, over the DevTools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._calls = 0
        self.complaints: list[dict] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict:
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        return self._until(lambda m: m.get("id") == self._calls)["result"]

    def _until(self, wanted) -> dict:
        while True:
            message = json.loads(self._socket.recv(timeout=20))
            method, parameters = message.get("method"), message.get("params", {})
            error = parameters.get("entry", {}).get("level") == "error"
            if error or method == "Runtime.exceptionThrown" or parameters.get("type") == "error":
                self.complaints.append(parameters)
            if wanted(message):
                return message

    def open(self, path: Path, width: int) -> None:
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self._until(lambda m: m.get("method") == "Page.loadEventFired")

    def run(self, script: str) -> object:
        """Run a script after two frames, when whatever was to be drawn has been."""
        frames = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        code = f"{frames}.then(() => {{ {script} }})"
        done = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        return done["result"].get("value")


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the PATH (apt package: chromium)")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
    ]
    command = [program, *options, "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = (re.search(r"listening on ws://([^/]+)/", line) for line in process.stderr)
            host = next(match.group(1) for match in found if match)
            with urlopen(f"http://{host}/json") as answer:
                tab = next(t for t in json.load(answer) if t["type"] == "page")
            with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
                yield Browser(socket)
        finally:
            process.kill()


def test_a_browser_shows_it_without_complaint_at_any_width(tmp_path):
    runs = {
        "many": [f"Series number {i} with quite a long name" for i in range(12)],
        "hostile": [HOSTILE, "B" * 80],
        "single": ["A"],
        "none": [],
    }
    with chromium(tmp_path / "profile") as browser:
        for kind, names in runs.items():
            directory = tmp_path / kind
            directory.mkdir()
            path = render(write_run(directory, names, windows=4 * (len(names) > 1)))
            for width in (390, 1440):
                browser.open(path, width)
                shown = browser.run("return document.documentElement.scrollWidth")
                assert shown <= width, (kind, width)
            lines = browser.run("return document.querySelectorAll('#price path').length")
            assert lines == min(8, len(names))
            assert browser.complaints == []


def test_the_slider_the_graph_and_zoom_follow_the_reader(tmp_path):
    path = render(write_run(tmp_path, ["A", "B", "C"]))
    with chromium(tmp_path / "profile") as browser:
        browser.open(path, 1440)
        browser.run(
            "$('slider').focus(); $('slider').value = 4; $('slider').oninput({target: $('slider')})"
        )
        assert browser.run("return $('rows').textContent").startswith("window 5 of 6")
        assert "A to B" in browser.run("return $('graph').getAttribute('aria-label')")
        before = browser.run("return $('span').textContent")
        browser.run("$('in').click()")
        assert browser.run("return $('span').textContent") != before
        browser.run("document.querySelector('#hypotheses th button').click()")
        assert browser.run("return document.querySelector('#hypotheses td').textContent") == "A → C"
        assert browser.complaints == []
