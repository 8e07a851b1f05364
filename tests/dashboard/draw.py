"""Draws the chart's Grafana dashboard with the data of a Prometheus: draw.py PROMETHEUS_URL MINUTES FILE.svg

It runs the queries of charts/datakey-operator/files/dashboard.json and lays the panels out as Grafana does. docs/dashboard.svg is drawn
this way. It needs matplotlib.
"""

import datetime
import json
import pathlib
import re
import sys
import time
import urllib.parse
import urllib.request

import matplotlib
from matplotlib import dates
from matplotlib.ticker import FuncFormatter

matplotlib.use("svg")
# Without a salt and a date the same data give the same file.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "dashboard", "font.family": "sans-serif", "font.size": 8})

from matplotlib import pyplot  # noqa: E402  The backend comes first.

DASHBOARD = pathlib.Path(__file__).parents[2] / "charts/datakey-operator/files/dashboard.json"
# Grafana's grid has 24 columns.
COLUMNS, INCHES = 24, 0.42
BACKGROUND, PANEL, TEXT, GRID = "#111217", "#181b1f", "#ccccdc", "#2c3235"
COLORS = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#b877d9"]
POINTS = 120


def queried(prometheus, expression, begin, end, step):
    """The series of a query: the labels, the times and the values of each."""
    # As Grafana fills in its variables, for all jobs and a scrape every 5 seconds.
    expression = expression.replace("$job", ".+").replace("$__rate_interval", f"{max(4 * 5, int(step))}s")
    query = urllib.parse.urlencode({"query": expression, "start": begin, "end": end, "step": step})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{query}") as answer:
        result = json.load(answer)["data"]["result"]
    for series in result:
        times, values = zip(*((at, float(value)) for at, value in series["values"] if value != "NaN"), strict=True)
        yield series["metric"], times, values


def shown(value, unit):
    if unit == "s":
        return f"{value:.2g} s" if value >= 1 else f"{value * 1000:.3g} ms"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if unit == "percentunit":
        return f"{value * 100:.2g} %"
    return f"{value:g}" + {"reqps": " req/s", "ops": " ops/s"}.get(unit, "")


def legend(target, labels):
    """As Grafana writes it. A program that is scraped without Kubernetes has no pod."""
    labels = {"pod": "datakey-operator"} | labels
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), target["legendFormat"])


def draw_stat(axes, panel, series):
    value = series[0][3][-1] if series else 0
    axes.text(0.5, 0.45, shown(value, ""), ha="center", va="center", fontsize=26, color=COLORS[0], transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_lines(axes, panel, series):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for number, (target, labels, times, values) in enumerate(series):
        moments = [datetime.datetime.fromtimestamp(at, datetime.timezone.utc) for at in times]
        axes.plot(moments, values, color=COLORS[number % len(COLORS)], linewidth=1.2, label=legend(target, labels))
    axes.set_ylim(bottom=0)
    axes.grid(color=GRID, linewidth=0.5)
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.tick_params(colors=TEXT, length=0)
    if series:
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.02, -0.1), ncols=2, frameon=False, labelcolor=TEXT, fontsize=7, borderaxespad=0
        )


def main(prometheus, minutes, file):
    dashboard = json.loads(DASHBOARD.read_text())
    end = time.time()
    step = max(5, float(minutes) * 60 / POINTS)
    begin = end - float(minutes) * 60
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = pyplot.figure(figsize=(COLUMNS * INCHES, rows * INCHES), facecolor=BACKGROUND)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        is_stat = panel["type"] == "stat"
        # Room for the title above, for the axis and the legend below.
        left, right, top, bottom = (0.2, 0.2, 0.9, 0.2) if is_stat else (1.6, 0.3, 1.0, 1.6)
        box = (
            (place["x"] + left) / COLUMNS,
            1 - (place["y"] + place["h"] - bottom) / rows,
            (place["w"] - left - right) / COLUMNS,
            (place["h"] - top - bottom) / rows,
        )
        axes = figure.add_axes(box, facecolor=PANEL)
        for spine in axes.spines.values():
            spine.set_color(GRID)
        figure.text((place["x"] + 0.2) / COLUMNS, 1 - (place["y"] + 0.65) / rows, panel["title"], color=TEXT, fontsize=9)
        series = [
            (target, *one)
            for target in panel["targets"]
            for one in queried(prometheus, target["expr"], begin, end, step)
        ]
        (draw_stat if is_stat else draw_lines)(axes, panel, series)
    figure.savefig(file, facecolor=BACKGROUND, metadata={"Date": None})


main(*sys.argv[1:])
