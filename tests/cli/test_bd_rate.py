import json
import math

import pytest

from glic_pyg.evaluation.anchors import anchor_names, load_anchor, load_paper_table
from glic_pyg.evaluation.measure import settings_hash
from glic_pyg.image import write_png

SETTINGS = {"identity": "now"}


def results(path, *, scale=1.0, gain=0.0):
    scores = [gain + score for score in (28, 30, 32, 34)]
    values = {"bpp": [scale * rate for rate in (0.1, 0.2, 0.4, 0.8)], "psnr-rgb": scores}
    path.write_text(json.dumps({"name": path.stem, "settings": SETTINGS, "results": values}))
    return path


def test_two_files(glic, tmp_path):
    anchor, test = results(tmp_path / "a.json"), results(tmp_path / "b.json", scale=0.7)
    status, out, _ = glic("bd-rate", "--anchor", anchor, "--compare", test, "--method", "pchip")
    assert status == 0
    first, second = out.splitlines()
    assert first == f"psnr-rgb against {anchor}, pchip, overlap 100%"
    assert second == f"{test}  BD-rate -30.00 %, BD-score +1.029 dB"


def test_thin_overlap_is_told(glic, tmp_path):
    """28 to 34 dB beside 32 to 38 dB, and beside 30 to 36 dB."""
    anchor, thin = results(tmp_path / "a.json"), results(tmp_path / "b.json", gain=4)
    near = results(tmp_path / "c.json", gain=2)
    _, out, _ = glic("bd-rate", "--anchor", anchor, "--compare", thin, near)
    first, second, third = out.splitlines()
    assert first.endswith(", overlap 33% to 67%")
    assert second.endswith("; overlap 33% (thin!)")
    assert ", overlap" not in third and third.endswith(" dB")


def test_a_curve_within_a_longer_one_is_not_thin(glic, tmp_path):
    rates, scores = zip(*((0.1 * 2**i, 20 + 2 * i) for i in range(12)), strict=True)
    longer = broken(tmp_path / "longer.json", **{"bpp": rates, "psnr-rgb": scores})
    _, out, _ = glic("bd-rate", "--anchor", longer, "--compare", results(tmp_path / "a.json"))
    assert out.splitlines()[0].endswith(", overlap 100%")


def test_means_of_other_pictures_are_refused(glic, tmp_path):
    """As many, or others; where nothing is told of the pictures, they are taken for the same."""
    three = broken(tmp_path / "three.json", pictures=[3] * 4)
    kodak = broken(tmp_path / "kodak.json", pictures=[24] * 4)
    status, out, err = glic("bd-rate", "--anchor", "kodak/webp", "--compare", three, kodak)
    both = f"kodak/webp of 24 pictures of kodak and {three} (three) of 3 pictures"
    assert (status, err) == (2, f"error: Expected means of the same pictures (got {both})\n")
    assert out.startswith("psnr-rgb against kodak/webp, cubic, means of 24 pictures, overlap ")
    assert out.splitlines()[1].startswith(f"{kodak}  BD-rate ")

    status, _, err = glic("bd-rate", "--anchor", "kodak/glic", "--compare", "tecnick/glic")
    assert (status, "kodak/glic of 24 pictures of kodak and tecnick/glic of 100" in err) == (2, True)

    for path, digest in ((three, "a"), (kodak, "b")):
        content = json.loads(path.read_text())
        content["results"]["pictures"] = [24] * 4
        path.write_text(json.dumps(content | {"pictures_sha256": digest}))
    status, _, err = glic("bd-rate", "--anchor", three, "--compare", kodak)
    assert (status, "Expected means of the same pictures" in err) == (2, True)
    status, _, _ = glic("bd-rate", "--anchor", three, "--compare", results(tmp_path / "a.json"))
    assert status == 0


def test_the_mean_over_pictures_is_told_where_there_is_a_table(glic, tmp_path):
    """Two pictures, for which one codec takes a half and four fifths of the other's bits.

    Rows of its earlier weights do not count.
    """
    header = (
        "codec,settings,quality,picture,picture_bytes,bpp,payload_bpp,estimated_bpp,psnr,psnr_unrounded,"
        "ms_ssim,encoding_seconds,decoding_seconds,encoding_bytes,decoding_bytes"
    )
    lines = [header]
    for codec, shares in {"a": (1, 1), "b": (0.5, 0.8)}.items():
        for picture, share in enumerate(shares):
            for quality in range(4):
                rate, score = share * 0.1 * 2**quality, 28 + 2 * quality
                for settings, factor in ((settings_hash(SETTINGS), 1), ("earlier", 3)):
                    rest = f"{factor * rate},1,1,{score},{score},0.9,1,1,1,1"
                    lines.append(f"{codec},{settings},{quality},p{picture},9,{rest}")
    (tmp_path / "pictures.csv").write_text("\n".join(lines) + "\n")
    anchor, test = results(tmp_path / "a.json"), results(tmp_path / "b.json", scale=0.65)
    _, out, _ = glic("bd-rate", "--anchor", anchor, "--compare", test)
    assert "BD-rate -35.00 %" in out
    assert out.rstrip().endswith("; mean over 2 pictures -35.00 %")

    # A file of another tool, which tells no settings, has no rows in a table beside it.
    content = json.loads(test.read_text())
    del content["settings"]
    test.write_text(json.dumps(content))
    status, out, _ = glic("bd-rate", "--anchor", anchor, "--compare", test)
    assert (status, "mean over" in out) == (0, False)

    # A picture that a codec restores exactly has no curve, and is counted.
    content["settings"] = SETTINGS
    test.write_text(json.dumps(content))
    exact = [
        line.replace(",34,34,", ",inf,inf,") if line.startswith("b,") and ",3,p1," in line else line
        for line in lines
    ]
    (tmp_path / "pictures.csv").write_text("\n".join(exact) + "\n")
    _, out, _ = glic("bd-rate", "--anchor", anchor, "--compare", test)
    assert out.rstrip().endswith("; mean over 1 of 2 pictures -50.00 %")


def broken(path, **columns):
    content = json.loads(results(path).read_text())
    content["results"] |= columns
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"psnr-rgb": [28, math.nan, 32, 34]}, "Expected finite scores of {b} (b) (got none at 0.2 bpp)"),
        ({"psnr-rgb": [28, 30, 32, None]}, "Expected finite scores of {b} (b) (got none at 0.8 bpp)"),
        ({"psnr-rgb": [28, 30, 32, math.inf]}, "Expected finite scores of {b} (b) (got inf at 0.8 bpp)"),
        ({"bpp": [0, 0.2, 0.4, 0.8]}, "Expected rates above 0 bpp of {b} (b) (got 0 as number 1)"),
        ({"bpp": [0.1, 0.2, math.nan, 0.8]}, "Expected rates above 0 bpp of {b} (b) (got nan as number 3)"),
        (
            {"psnr-rgb": [58, 60, 62, 64]},
            "Expected curves that overlap (got {a} (a) with 28 to 34 and {b} (b) with 58 to 64)",
        ),
        ({"psnr-rgb": [30] * 4}, "Expected at least 4 rising points of {b} (b) (got 1)"),
    ],
)
def test_figures_that_cannot_be_compared_are_named_and_the_others_go_on(glic, tmp_path, columns, message):
    a, b, c = (
        results(tmp_path / "a.json"),
        broken(tmp_path / "b.json", **columns),
        results(tmp_path / "c.json"),
    )
    status, out, err = glic("bd-rate", "--anchor", a, "--compare", b, c)
    assert (status, err) == (2, f"error: {message.format(a=a, b=b)}\n")
    assert len(out.splitlines()) == 2
    assert out.splitlines()[1].startswith(f"{c}  BD-rate +0.00 %")


def test_without_a_rate_in_common_there_is_no_bd_score(glic, tmp_path):
    a, b = results(tmp_path / "a.json"), results(tmp_path / "b.json", scale=100)
    status, out, _ = glic("bd-rate", "--anchor", a, "--compare", b)
    assert status == 0
    assert "BD-rate +9900.00 %, BD-score none, without a rate in common" in out


def test_points_that_do_not_rise_are_counted(glic, tmp_path):
    a = results(tmp_path / "a.json")
    b = broken(tmp_path / "b.json", **{"bpp": [0.1, 0.2, 0.4, 0.8, 0.9], "psnr-rgb": [28, 30, 32, 34, 33]})
    _, out, _ = glic("bd-rate", "--anchor", a, "--compare", b)
    assert out.rstrip().endswith("; 1 of 5 points left out: more bits did not make them better")


@pytest.mark.parametrize("names", [("psnr-rgb", "ms-ssim-rgb"), ("psnr", "ms-ssim")], ids=["now", "earlier"])
def test_results_of_compressais_tools(glic, tmp_path, names):
    """The rates are less by a fifth, whatever the scores."""
    paths = []
    for name, scale in (("a", 1), ("b", 0.8)):
        rates = [scale * rate for rate in (0.1, 0.2, 0.4, 0.8)]
        scores = dict(zip(names, ([28, 30, 32, 34], [0.9, 0.95, 0.975, 0.9875]), strict=True))
        content = {
            "name": f"{name}-mse",
            "description": "Inference (ans)",
            "results": {"bpp": rates} | scores,
        }
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(
            json.dumps(content | {"results": content["results"] | {"encoding_time": [1] * 4}})
        )
    for metric in ("psnr-rgb", "ms-ssim-db-rgb", "ms-ssim-rgb"):
        status, out, _ = glic("bd-rate", "--anchor", paths[0], "--compare", paths[1], "--metric", metric)
        assert (status, "BD-rate -20.00 %" in out) == (0, True)
        assert (" dB" in out) == (metric != "ms-ssim-rgb")


def test_a_file_that_compressai_wrote(glic, photo, tmp_path, monkeypatch, capsys):
    bench = pytest.importorskip("compressai.utils.bench.__main__")
    (tmp_path / "photos").mkdir()
    write_png(photo(176, 192), tmp_path / "photos" / "a.png")
    bench.main(["jpeg", str(tmp_path / "photos"), "-q", "10,30,50,70,90"])
    (tmp_path / "jpeg.json").write_text(capsys.readouterr().out)
    for metric in ("psnr-rgb", "ms-ssim-db-rgb"):
        jpeg = tmp_path / "jpeg.json"
        status, out, err = glic("bd-rate", "--anchor", jpeg, "--compare", jpeg, "--metric", metric)
        assert (status, err) == (0, "")
        assert "BD-rate +0.00 %" in out


def test_an_anchor_by_its_name_is_taken_in_every_data_set_that_has_it(glic):
    """The figures are the paper's, of HPCM and LALIC on Tecnick and CLIC."""
    status, out, _ = glic("bd-rate", "--anchor", "vtm-9.1", "--compare", "hpcm-base", "lalic")
    assert status == 0
    heads = [line for line in out.splitlines() if " against " in line]
    assert heads == [
        "psnr-rgb against tecnick/vtm-9.1, cubic, means of 100 pictures, overlap 100%",
        "psnr-rgb against clic/vtm-9.1, cubic, means of 41 pictures, overlap 100%",
    ]
    table = {row["method"]: row["bd_rate"] for row in load_paper_table()["rows"]}
    for dataset in ("tecnick", "clic"):
        for name, points in {"HPCM": "hpcm-base", "LALIC": "lalic"}.items():
            (line,) = [line for line in out.splitlines() if line.startswith(f"{dataset}/{points} ")]
            assert float(line.split()[2]) == pytest.approx(table[name][dataset], abs=0.02)


def test_the_papers_table(glic):
    """The 20 cells that others have rebuilt from the same points."""
    status, out, _ = glic("bd-rate", "--paper")
    assert status == 0
    assert out.splitlines()[-1] == "20 of 33 cells reproduced"
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    for name in ("MLIC++", "FTIC", "CCA", "HPCM", "DCAE", "LALIC"):
        assert rows[name].count("reproduced") == 3
    assert rows["MambaIC"].count("no data") == 3
    assert rows["HPCM-Large"].count("not in the paper") == 3


def test_every_published_curve_has_a_source_and_rises(glic):
    for name in anchor_names():
        anchor = load_anchor(name)
        assert anchor["source"]
        assert anchor["results"]["bpp"] == sorted(anchor["results"]["bpp"])
        assert all(len(values) == len(anchor["results"]["bpp"]) for values in anchor["results"].values())
    _, out, _ = glic("bd-rate", "--list")
    assert out.split() == anchor_names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: Expected --anchor and --compare, or --paper, or --list (got neither)"),
        (
            ["--anchor", "kodak/dcea", "--compare", "kodak/glic"],
            "error: Expected a .json file or published points such as kodak/dcae (got kodak/dcea); did",
        ),
        (
            ["--anchor", "no.json", "--compare", "kodak/glic"],
            "error: Expected a JSON file (got no.json: No such file or directory)",
        ),
        (
            ["--anchor", "kodak/dcae-msssim", "--compare", "kodak/glic"],
            "error: Expected psnr-rgb of kodak/dcae-msssim (got",
        ),
    ],
)
def test_bad_input_gives_one_line(glic, arguments, message):
    status, _, err = glic("bd-rate", *arguments)
    (line,) = err.splitlines()
    assert status == 2
    assert line.startswith(message)


def test_results_for_programs(glic, tmp_path):
    anchor, test = results(tmp_path / "a.json"), results(tmp_path / "b.json", scale=0.7)
    status, out, _ = glic("bd-rate", "--anchor", anchor, "--compare", test, "--json")
    assert status == 0
    told = json.loads(out)
    assert (told["anchor"], told["name"], told["pictures"]) == (str(anchor), str(test), 0)
    assert told["delta"]["rate"] == pytest.approx(-30)
    cells = [json.loads(line) for line in glic("bd-rate", "--paper", "--json")[1].splitlines()]
    assert sum(cell["verdict"] == "reproduced" for cell in cells) == 20
