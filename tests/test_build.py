"""Parts by name and by import path, and models of them."""

from dataclasses import replace

import pytest

from glic_pyg import GLIC
from glic_pyg.build import NAMES, find_class, make_part
from glic_pyg.config import Aggregation, ConfigError, GraphConfig, Part
from glic_pyg.graph.candidates import CandidateSet
from glic_pyg.graph.complexity import Score
from glic_pyg.graph.quota import Quota
from glic_pyg.graph.selection import KNN, Selection
from glic_pyg.graph.similarity import Similarity
from glic_pyg.nn.graph_attention import GraphAttention

BASES = {
    "aggregation": GraphAttention,
    "candidates": CandidateSet,
    "score": Score,
    "quota": Quota,
    "selection": Selection,
    "similarity": Similarity,
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in NAMES for name in NAMES[kind]])
def test_every_name_has_its_class(kind, name):
    if "torch_cluster" in name:
        pytest.importorskip("torch_cluster")
    assert issubclass(find_class(kind, name, BASES[kind]), BASES[kind])


def test_settings_and_what_is_known_arrive():
    assert make_part("selection", Part("knn", {"k": 5}), Selection, channels=7).k == 5
    learned = make_part("score", Part("learned", {"hidden": 3}), Score, channels=7)
    assert learned.convolution.weight.shape == (3, 7, 3, 3)


def test_a_class_in_a_file_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "my_selection_4711.py").write_text(
        "from glic_pyg.graph.selection import KNN\n"
        "class Five(KNN):\n"
        "    def __init__(self):\n"
        "        super().__init__(k=5)\n"
    )
    part = Part("my_selection_4711.Five")
    with pytest.raises(
        ConfigError, match=r"No module named 'my_selection_4711'\); its folder must be in PYTH"
    ):
        make_part("selection", part, Selection)
    monkeypatch.syspath_prepend(tmp_path)
    made = make_part("selection", part, Selection)
    assert isinstance(made, KNN)
    assert made.k == 5


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            Part("sober"),
            r"^Expected score to be one of sobel, local_entropy, rescaling_residual, none, learned or the "
            r"import path of a class \(got sober\)$",
        ),
        (Part("torch.nn.Linear"), r"^Expected score to be derived from Score \(got torch\.nn\.Linear\)$"),
        (Part("os.system"), r"^Expected score to be derived from Score \(got os\.system\)$"),
        (
            Part("glic_pyg.graph.complexity.Nothing"),
            r"^Expected score to be a class that Python finds \(got gl",
        ),
        (
            Part("sobel", {"poling": "rms"}),
            r"^Expected settings that score sobel takes \(got \{'poling': 'rms'",
        ),
        (Part("sobel", {"pooling": "max"}), r"Expected pooling to be one of rms, mean \(got max\)\)$"),
    ],
)
def test_what_is_no_part(part, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_part("score", part, Score)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"aggregation": Aggregation("attentive")},
        {"graph": GraphConfig(selection=Part("best"))},
        {"graph": GraphConfig(candidates=(Part("local"), Part("near")))},
        {"graph": GraphConfig(quota=Part("line"))},
        {"graph": GraphConfig(similarity=Part("sine"))},
    ],
)
def test_names_that_nobody_has_are_refused_when_a_model_is_made(tiny_config, change):
    with pytest.raises(ConfigError, match=r"^Expected \w+ to be one of .* \(got [a-z]+\)$"):
        GLIC(replace(tiny_config, **change))
