"""Draw which rooms of the package import which, at some commits, side by side.

python lab/imports.py 4e92522 HEAD -o docs/images/imports.svg
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
from pathlib import Path

import networkx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glic_pyg.figures import save_figure

ROOT = Path(__file__).parents[1]
PACKAGE = "glic_pyg"
DOWN, AROUND = "#5b7f99", "#D55E00"
WIDTH = 13
"""Of a floor, in places of rooms."""


def room(module: str) -> str:
    """Return the room of a module; the package itself is none."""
    return module.split(".")[1] if "." in module else ""


def imports(commit: str) -> networkx.DiGraph:
    """Return the rooms of the package as it was, and who imports whom, wherever in a file, for types too."""
    packed = subprocess.run(
        ["git", "archive", commit, PACKAGE], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        texts = {
            ".".join(Path(file.name).with_suffix("").parts).removesuffix(".__init__"): files.extractfile(
                file
            ).read()
            for file in files.getmembers()
            if file.name.endswith(".py")
        }
    graph = networkx.DiGraph()
    for module, text in texts.items():
        graph.add_node(room(module))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in texts else node.module for name in whole]
            else:
                continue
            graph.add_edges_from((room(module), room(name)) for name in names if name in texts)
    graph.remove_node("")
    graph.remove_edges_from([(a, b) for a, b in graph.edges if a == b])
    return graph


def draw(axes: Axes, graph: networkx.DiGraph, title: str) -> None:
    """Draw rooms on floors, each above all that it imports; rooms that import each other share a floor.

    An arrow is left out where others lead there too.
    """
    circles = networkx.condensation(graph)
    part = circles.graph["mapping"]
    floors = list(networkx.topological_generations(circles.reverse()))
    places: dict[str, tuple[float, float]] = {}
    for height, some in enumerate(floors):
        rooms = [name for circle in some for name in circles.nodes[circle]["members"]]
        # Beside what they import.
        rooms.sort(
            key=lambda name: sum(places[b][0] for b in graph[name] if b in places) / (len(graph[name]) or 1)
        )
        for i, name in enumerate(rooms):
            places[name] = (i - (len(rooms) - 1) / 2) * min(1.8, WIDTH / len(rooms)), height
    around = {(a, b) for a, b in graph.edges if part[a] == part[b]}
    direct = networkx.transitive_reduction(circles).edges
    for a, b in graph.edges:
        if (a, b) in around:
            look = {"color": AROUND, "lw": 1.8, "connectionstyle": "arc3,rad=0.3"}
        elif (part[a], part[b]) in direct:
            look = {"color": DOWN, "lw": 0.8, "connectionstyle": "arc3"}
        else:
            continue
        axes.annotate("", places[b], places[a], arrowprops={"arrowstyle": "->", "shrinkB": 9, **look})
    for name, place in places.items():
        box = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": "#444444", "lw": 0.6}
        axes.text(*place, name, ha="center", va="center", fontsize=7.5, bbox=box, zorder=3)
    axes.set_title(
        f"{title}: {len(graph)} rooms, {len(graph.edges)} arrows, {len(around)} in circles", fontsize=9
    )
    axes.set(xlim=(-WIDTH / 2, WIDTH / 2), ylim=(-0.6, max(len(floors), 1) - 0.4))
    axes.axis("off")


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commits", nargs="+", metavar="COMMIT")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="SVG, PNG or PDF")
    args = parser.parse_args()
    figure = Figure(figsize=(9.5, 6 * len(args.commits)), layout="constrained")
    for axes, commit in zip(
        figure.subplots(len(args.commits), squeeze=False).flat, args.commits, strict=True
    ):
        short = ["git", "rev-parse", "--short", commit]
        name = subprocess.run(short, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        draw(axes, imports(commit), name)
    save_figure(figure, args.output)


if __name__ == "__main__":
    main()
