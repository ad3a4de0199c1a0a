import pytest
import torch

from glic_pyg.graph import GraphBuilder
from glic_pyg.inspection import (
    STAGES,
    StageRun,
    degrees,
    graph_page,
    neighborhood,
    page,
    run_model,
)
from glic_pyg.inspection.stages import Graphs, ModelRun
from glic_pyg.nn.graph_attention import GraphAttention

SIZE = (100, 150)
PADDED = (128, 192)


@pytest.fixture(scope="module")
def run(tiny_model):
    return run_model(tiny_model, picture())


@pytest.fixture(scope="module")
def runs(run):
    return run.stages


@pytest.fixture(scope="module")
def graphs(runs):
    return {stage: run.pair for stage, run in runs.items()}


@pytest.fixture(scope="module")
def address(tiny_model, run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    graph_page(tiny_model, picture(), title="<!--<script></script> & co", run=run).save(path)
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """Open the page: hash, options of the browser -> the tab; at the end it must have had no error."""
    tabs, errors = [], []

    def open_page(link="", **options):
        tab = browser.new_page(**options)
        tabs.append(tab)
        tab.on("pageerror", lambda error: errors.append(error))
        tab.on("request", lambda request: request.url.startswith("http") and errors.append(request.url))
        tab.goto(f"{address}#{link}")
        tab.evaluate("glic.ready")
        return tab

    yield open_page
    for tab in tabs:
        tab.close()
    assert not errors


def picture():
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, SIZE, mode="bicubic").clamp(0, 1)


def edges(graph, node):
    found = neighborhood(graph, node)
    return sorted(zip(found.source.tolist(), found.similarity.tolist(), strict=True))


def told(found):
    return sorted(zip(found["source"], found["similarity"], strict=True))


def assert_same_edges(found, expected):
    """Distances of unit vectors, sqrt(2 - 2 s) of at most 2, are told in 50 steps."""
    assert [source for source, _ in found] == [source for source, _ in expected]
    for (_, similarity), (_, other) in zip(found, expected, strict=True):
        distances = [max(2 - 2 * s, 0) ** 0.5 for s in (similarity, other)]
        assert distances[0] == pytest.approx(distances[1], abs=1 / 50 + 1e-3)


def point(tab, row, column, side):
    """Where a node's middle is on the current pane's photo, in pixels of the window."""
    box = tab.locator(".pane:not([hidden]) .photo").last.bounding_box()
    scale = box["width"] / PADDED[1]
    return box["x"] + (column + 0.5) * side * scale, box["y"] + (row + 0.5) * side * scale


def wait_for_node(tab, node):
    tab.wait_for_function(f"glic.shown().id === {node}")


@pytest.mark.parametrize("stage", STAGES)
def test_hovered_nodes_show_the_edges_in_the_data(opened, graphs, stage):
    tab = opened(f"stage={stage}")
    _, height, width = graphs[stage].local.map_size
    side = 64 // (height // 2)
    for row, column in ((0, 0), (7, 10), (SIZE[0] // side - 1, SIZE[1] // side - 1)):
        tab.mouse.move(*point(tab, row, column, side))
        if (row, column) == (0, 0):  # a link's node is held, and here there was none
            assert tab.locator(".pane > h2").last.inner_text().startswith("row")
        node = row * width + column
        wait_for_node(tab, node)
        shown = tab.evaluate("glic.shown().shown")
        for scope, graph in zip(("local", "global"), graphs[stage], strict=True):
            assert_same_edges(told(shown[scope]), edges(graph, node))


def test_every_node_has_its_edges(opened, graphs):
    tab = opened()
    for stage, pair in graphs.items():
        for scope, graph in zip(("local", "global"), pair, strict=True):
            ids = range(0, graph.zero_node, 7)
            found = tab.evaluate(
                "([stage, scope, ids]) => ids.map(i => glic.neighbors(stage, scope, i))",
                [stage, scope, list(ids)],
            )
            for node, neighbors in zip(ids, found, strict=True):
                assert_same_edges(told(neighbors), edges(graph, node))


def errors_of_attention(tab, stage, run, number, head):
    """Logarithms of the page's attention over the model's, of many edges."""
    scope, graph = ("local", "global")[number % 2], run.graphs[number % 2]
    weights = run.attentions[number](run.inputs[number], graph, return_attention_weights=True)[1][1].detach()
    weights = weights.mean(dim=1) if head == "mean" else weights[:, int(head)]
    errors = []
    for node in range(0, graph.zero_node, graph.zero_node // 20):
        found = tab.evaluate(
            "([stage, scope, layer, i, head]) =>"
            "glic.attention(stage, layer, i, glic.neighbors(stage, scope, i), head)",
            [stage, scope, number, node, head],
        )
        assert sum(found) == pytest.approx(1)
        errors.append(torch.tensor(found).log() - weights[neighborhood(graph, node).edge].log())
    return torch.cat(errors)


@pytest.mark.parametrize("stage", STAGES)
def test_attention_of_every_layer_and_head(browser, tiny_model, runs, tmp_path, monkeypatch, stage):
    monkeypatch.setattr(page, "LOGIT_STEP", 0)  # as fine as a byte can be
    graph_page(tiny_model, picture()).save(tmp_path / "page.html")
    tab = browser.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    tab.evaluate("glic.ready")
    for number in range(len(runs[stage].attentions)):
        for head in ("0", "1", "mean"):
            assert errors_of_attention(tab, stage, runs[stage], number, head).abs().mean() < 0.05
    tab.close()


@pytest.mark.parametrize("stage", STAGES)
def test_attention_is_rounded_by_less_than_a_fifth(opened, runs, stage):
    tab = opened()
    for number in range(len(runs[stage].attentions)):
        errors = torch.cat([errors_of_attention(tab, stage, runs[stage], number, head) for head in "01"])
        assert errors.abs().mean() < 0.2


def test_layers_and_heads_are_chosen_for_attention_only(opened):
    tab = opened("stage=g_a.1&node=9,9")
    assert not tab.locator("#layer").is_visible()
    tab.get_by_text("attention", exact=True).click()
    assert tab.locator("#layer label").all_inner_texts() == ["0 local, 1 global"]
    assert tab.locator("#head label").all_inner_texts() == ["mean", "0", "1"]
    tab.locator("#head").get_by_text("1", exact=True).click()
    tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    for layer, scope in enumerate(("local", "global")):
        shown, expected = tab.evaluate(
            "([scope, layer]) => [glic.shown().shown[scope].attention,"
            "glic.attention('g_a.1', layer, 9 * 48 + 9, glic.neighbors('g_a.1', scope, 9 * 48 + 9), '1')]",
            [scope, layer],
        )
        assert shown == expected


def test_figures(opened, graphs):
    graph = graphs["g_a.1"].global_
    node = int(degrees(graph).argmax())
    tab = opened(f"stage=g_a.1&node={node // 48},{node % 48}")
    found = neighborhood(graph, node)
    others = ~found.is_zero & (found.source != node)
    far = 4 * (graph.pos[found.source[others]] - graph.pos[node]).float().norm(dim=1).max()
    rows = tab.locator("table").last.locator("tr:visible").all()
    cells = [row.locator("th, td").all_inner_texts() for row in rows]
    figures = {row[0]: row[-1] for row in cells}
    assert float(figures["score"]) == pytest.approx(float(graph.score[node]), rel=0.01)
    assert float(figures["quota"]) == pytest.approx(float(graph.quota[node]), abs=0.06)
    assert int(figures["kept"]) == found.source.numel()
    assert int(figures["zero nodes"]) == found.num_zero
    assert figures["self edge"] == ("yes" if found.has_self else "no")
    mean = float(found.similarity[others].mean())
    assert float(figures["mean similarity"]) == pytest.approx(mean, abs=0.005)
    assert int(figures["furthest, pixels"]) == round(float(far))
    sides = 4 * graph.pos[found.source[~found.is_zero]]
    in_padding = (sides >= torch.tensor(SIZE)).any(dim=1)
    assert int(figures["in the padding"]) == int(in_padding.sum()) > 0


def test_keys_move_hold_and_pin(opened):
    tab = opened("stage=g_a.2&node=3,4")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowDown")
    wait_for_node(tab, 4 * 24 + 5)
    tab.keyboard.press("p")
    tab.keyboard.press("Shift+ArrowRight")
    tab.keyboard.press("ArrowUp")
    wait_for_node(tab, 3 * 24 + 13)
    assert tab.locator(".pane:visible > h2").all_inner_texts() == [
        "pinned: row 4, column 5",
        "held: row 3, column 13",
    ]
    for _ in range(5):
        tab.keyboard.press("ArrowUp")
    wait_for_node(tab, 13)
    tab.keyboard.press("p")
    tab.wait_for_function("document.querySelectorAll('.pane:not([hidden])').length === 1")


def test_a_link_reopens_the_view(opened):
    tab = opened()
    tab.get_by_text("g_s.2", exact=True).click()
    tab.get_by_text("global", exact=True).first.click()
    tab.get_by_text("degree", exact=True).click()
    tab.get_by_text("attention", exact=True).click()
    tab.locator("#head").get_by_text("1", exact=True).click()
    tab.get_by_text("restored", exact=True).click()
    tab.evaluate("glic.show({node: [2, 3], pin: [5, 6], similarity: 0.9, degree: 2})")
    tab.wait_for_function("location.hash.includes('degree=2')")
    again = opened(tab.url.split("#")[1])
    assert again.evaluate("glic.state()") == tab.evaluate("glic.state()")
    assert again.evaluate("glic.state()") == {
        "stage": "g_s.2",
        "scope": "global",
        "by": "attention",
        "picture": "restored",
        "map": "degree",
        "layer": "0",
        "head": "1",
        "node": [2, 3],
        "pin": [5, 6],
        "similarity": 0.9,
        "degree": 2,
    }


def test_a_wrong_link_opens_the_default_view(opened):
    tab = opened("stage=g_x&scope=&node=900,-1&pin=9999,9999&similarity=x&degree=1e9")
    state = tab.evaluate("glic.state()")
    assert (state["stage"], state["scope"]) == ("g_a.1", "both")
    assert (state["node"], state["pin"]) == ([12, 18], [31, 47])


def test_least_similarity_hides_neighbors(opened, graphs):
    graph = graphs["g_a.1"].local
    expected = edges(graph, 500)
    middle = sorted(similarity for _, similarity in expected)[len(expected) // 2] - 1e-3
    tab = opened(f"stage=g_a.1&node={500 // 48},{500 % 48}&similarity={middle}")
    shown = tab.evaluate("glic.shown().shown.local.source")
    certain = {source for source, similarity in expected if similarity > middle + 2 / 50}
    possible = {source for source, similarity in expected if similarity > middle - 2 / 50}
    assert certain <= set(shown) <= possible
    assert 0 < len(shown) < len(expected)


def test_least_degree_veils_nodes_and_maps_cover_the_photo(opened):
    tab = opened("stage=g_a.1&node=8,8")
    pixels = "document.querySelectorAll('.photo')[1].toDataURL()"
    views = [tab.evaluate(pixels)]
    for change in ("{map: 'score'}", "{map: 'quota'}", "{map: 'bits'}", "{map: 'none', degree: 9}"):
        tab.evaluate(f"glic.show({change})")
        tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        views.append(tab.evaluate(pixels))
    assert len(set(views)) == len(views)


def test_hovering_a_large_photo_is_smooth(tiny_model, photo, browser, tmp_path):
    graph_page(tiny_model, photo(512, 768)).save(tmp_path / "page.html")
    tab = browser.new_page()
    tab.goto((tmp_path / "page.html").as_uri() + "#by=attention")
    tab.evaluate("glic.ready")
    box = tab.locator(".photo").last.bounding_box()
    milliseconds = []
    for i in range(1, 12):
        row, column = 10 * i, 15 * i
        x, y = (box["width"] * (place + 0.5) / 192 for place in (column, row))
        tab.mouse.move(box["x"] + x, box["y"] + y)
        wait_for_node(tab, row * 192 + column)
        milliseconds.append(tab.evaluate("glic.paintMilliseconds()"))
    assert sorted(milliseconds)[len(milliseconds) // 2] < 50
    tab.close()


def test_touch_and_dark(opened):
    tab = opened(has_touch=True, color_scheme="dark", viewport={"width": 400, "height": 800})
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    tab.touchscreen.tap(*point(tab, 6, 20, 4))
    wait_for_node(tab, 6 * 48 + 20)


def settle(tab):
    tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_touch_screens_are_told_of_taps_and_have_large_targets(opened):
    tab = opened("node=9,9", has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844})
    assert "Tap the photo" in tab.locator("#ofMoves").inner_text()
    assert tab.locator("#pin").inner_text() == "pin to compare"
    sizes = tab.evaluate(
        "[...document.querySelectorAll('#controls label > span, button')].filter(b => b.offsetParent)"
        ".map(b => b.closest('.slider') ? 44 : Math.min(b.offsetWidth, b.offsetHeight))"
    )
    assert min(sizes) >= 44
    tab.get_by_role("button", name="down").last.tap()
    wait_for_node(tab, 10 * 48 + 9)
    tab.locator("table:visible [data-word='self edge']").tap()
    assert "its own neighbour" in tab.locator("#hint").inner_text()
    near = tab.locator(".near").last  # 18 nodes, from row 3 and column 3
    part = near.bounding_box()["width"] / 18
    near.tap(position={"x": 5.5 * part, "y": 12.5 * part})
    wait_for_node(tab, 15 * 48 + 8)


def test_keys_work_after_any_click(opened):
    tab = opened("stage=g_a.2&node=3,4")
    tab.locator("#map").get_by_text("score", exact=True).click()
    settle(tab)
    tab.keyboard.press("ArrowRight")
    wait_for_node(tab, 3 * 24 + 5)
    assert tab.evaluate("glic.state().map") == "score"
    tab.locator("#similarity").click()
    tab.keyboard.press("p")
    assert tab.evaluate("glic.state().pin") == [3, 5]
    tab.locator("#map input[value=score]").focus()  # who comes by Tab chooses with the arrows
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("glic.state().map") == "quota"
    tab.keyboard.press("p")
    assert tab.evaluate("glic.state().pin") is None


def test_every_word_tells_what_it_means(opened):
    tab = opened("node=9,9&map=quota&by=attention&scope=both&pin=1,1")
    words = tab.locator("[data-word]:visible")
    names = set(words.evaluate_all("words => words.map(word => word.dataset.word)"))
    assert names >= {"stage", "stage g_s.2", "quota", "kept", "zero node", "score", "self edge", "map bits"}
    assert tab.evaluate("names => names.filter(name => !WORDS[name])", sorted(names)) == []
    for name in ("map quota", "kept"):
        tab.locator(f"[data-word='{name}']:visible").last.hover()
        assert tab.locator("#hint").inner_text() == tab.evaluate("name => WORDS[name]", name)
    tab.mouse.move(2, 2)
    assert not tab.locator("#hint").is_visible()


def test_the_panel_tells_what_is_shown(opened, graphs):
    tab = opened("node=9,9&stage=g_a.2&scope=local")
    kept = int(degrees(graphs["g_a.2"].local)[9 * 24 + 9])
    about = tab.locator("#ofNode").inner_text()
    assert about.startswith("★\nA node of g_a.2: 8 x 8 pixels at row 9, column 9")
    assert tab.locator("#ofLocal").inner_text().startswith(f"{kept} local neighbours")
    assert not tab.locator("#ofGlobal").is_visible()
    assert not tab.locator("#ofMap").is_visible()
    tab.locator("#map").get_by_text("degree", exact=True).click()
    tab.locator("#ofMap").get_by_text("The map: degree.").wait_for()  # it is drawn with the next frame
    assert tab.locator("#ofMap").inner_text().startswith("The map: degree.")


def test_colours_span_the_neighbours_that_are_shown(opened, graphs):
    tab = opened("node=9,9&scope=local")
    found = neighborhood(graphs["g_a.1"].local, 9 * 48 + 9)
    others = found.similarity[~found.is_zero & (found.source != found.node)]
    ends = tab.locator("#ofColor .scale span").all_inner_texts()
    assert [float(end) for end in ends] == pytest.approx([float(others.min()), float(others.max())], abs=0.02)
    colors = tab.evaluate(
        "() => { const { source, similarity } = glic.shown().shown.local, range = rangeOf([glic.shown()]);"
        "return similarity.filter((_, i) => source[i] !== glic.shown().id).map(s => colorOf(s, range)); }"
    )
    assert {"rgb(68,1,84)", "rgb(253,231,37)"} <= set(colors)  # both ends of viridis


def test_restored_picture_and_bits(opened, run, tiny_model):
    tab = opened()
    restored = tab.evaluate(
        "() => { const canvas = document.createElement('canvas'), { height, width } = content.photo;"
        "[canvas.width, canvas.height] = [width, height]; const context = canvas.getContext('2d');"
        "context.drawImage(pictures.restored, 0, 0);"
        "return [...context.getImageData(0, 0, width, height).data]; }"
    )
    with torch.no_grad():
        expected = tiny_model(picture())
    pixels = torch.tensor(restored).view(*SIZE, 4)[..., :3].permute(2, 0, 1)
    assert torch.equal(pixels, (expected["x_hat"][0].clamp(0, 1) * 255).round().int())
    total = sum(-value.log2().sum() for value in expected["likelihoods"].values())
    assert tab.evaluate("bits.reduce((a, b) => a + b)") == pytest.approx(float(total), rel=1e-3)
    assert tab.evaluate("bits.length") == run.bits.numel() == 8 * 12


def test_marks_of_a_held_node_tell_who_they_are(opened, graphs):
    tab = opened("node=9,9&scope=local")
    found = neighborhood(graphs["g_a.1"].local, 9 * 48 + 9)
    node = next(int(s) for s in found.source[~found.is_zero] if s != found.node)
    tab.mouse.move(*point(tab, node // 48, node % 48, 4))
    assert f"row {node // 48}, column {node % 48}" in tab.locator("#hint").inner_text()
    assert tab.evaluate("glic.state().node") == [9, 9]


def test_title_is_text(opened):
    tab = opened()
    assert tab.title() == "<!--<script></script> & co: graphs of tiny"
    assert tab.locator("h1").inner_text().startswith("<!--<script></script> & co")


def test_zero_nodes(tiny_model, browser, tmp_path, monkeypatch):
    feature_map = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    feature_map[..., 0, 0] = 0  # a node of zeros keeps all its candidates
    graphs = Graphs(*GraphBuilder()(feature_map))
    torch.manual_seed(0)
    attention = GraphAttention(channels=4, heads=2, position_hidden=4)
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(page, "LOGIT_STEP", 0)
    run = StageRun(graphs, attentions=[attention], inputs=[x])  # none on the global graph
    photo = torch.rand(1, 3, 64, 64)
    whole = ModelRun(stages={"g_a.1": run}, x_hat=photo, bits=torch.ones(4, 4), quality=None)
    graph_page(tiny_model, photo, run=whole).save(tmp_path / "page.html")
    tab = browser.new_page()
    tab.goto((tmp_path / "page.html").as_uri() + "#node=0,0")
    tab.evaluate("glic.ready")
    found = tab.evaluate("glic.neighbors('g_a.1', 'local', 0)")
    assert_same_edges(told(found), edges(graphs.local, 0))
    tab.get_by_text("attention", exact=True).click()
    tab.get_by_text("the layer works on the local graph only").wait_for(state="visible")
    weights = tab.evaluate("glic.attention('g_a.1', 0, 0, glic.neighbors('g_a.1', 'local', 0), 'mean')")
    _, (_, of_edges) = attention(x, graphs.local, return_attention_weights=True)
    expected = of_edges[neighborhood(graphs.local, 0).edge].mean(dim=1)
    assert weights == pytest.approx(expected.tolist(), rel=0.1, abs=0.01)
    places = zip(found["source"], found["row"], found["column"], strict=True)
    assert all((source == 256) == (min(row, column) < 0) for source, row, column in places)
    assert tab.locator("tr", has_text="zero nodes").last.locator("td").first.inner_text() == "112"
    tab.close()


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (8, 600)], ids=str)
def test_any_size(tiny_model, photo, browser, tmp_path, size):
    graph_page(tiny_model, photo(*size)).save(tmp_path / "page.html")
    tab = browser.new_page()
    errors = []
    tab.on("pageerror", lambda error: errors.append(error))
    tab.goto((tmp_path / "page.html").as_uri())
    tab.evaluate("glic.ready")
    assert not errors
    tab.close()


def test_notebook_shows_it_in_a_frame(tiny_model, photo, browser):
    shown = graph_page(tiny_model, photo(64, 64))._repr_html_()
    tab = browser.new_page()
    tab.set_content(shown)
    frame = tab.wait_for_selector("iframe").content_frame()
    frame.wait_for_function("window.glic")
    frame.evaluate("glic.ready")
    assert frame.evaluate("glic.neighbors('g_a.1', 'local', 0).source.length") > 0
    tab.close()
