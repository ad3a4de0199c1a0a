"""Of every command that reads a file and writes another: its input stays, and what is somebody else's."""

import pytest

COMMANDS = {
    "compress": ("-o",),
    "decompress": ("-o",),
    "import": ("-o",),
    "graph": ("-o", "--html", "--export", "--erf"),
}
CASES = [(name, flag) for name, flags in COMMANDS.items() for flag in flags]
OTHERS = [
    ("curves", "-o", "run"),
    ("report", "-o", "results"),
]


@pytest.mark.parametrize(("name", "flag"), CASES)
@pytest.mark.parametrize("how", ["same", "link", "hard", "other"])
def test_nothing_is_lost(glic, model_file, tmp_path, monkeypatch, name, flag, how):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "a.png"
    source.write_bytes(b"precious")
    target = tmp_path / "b.png"
    match how:
        case "same":
            target = "./a.png"
        case "link":
            target.symlink_to(source)
        case "hard":
            target.hardlink_to(source)
        case "other":
            target.write_bytes(b"precious")
    model = [] if name == "import" else ["--model", model_file]
    status, out, err = glic(name, source, flag, target, *model)
    assert (status, out, err.count("\n")) == (2, "", 1)
    expected = "an output that is new or" if how == "other" else "another file for the output than"
    assert err.startswith(f"error: Expected {expected}")
    assert source.read_bytes() == b"precious"
    assert how == "same" or target.read_bytes() == b"precious"


@pytest.mark.parametrize(("name", "flag", "argument"), OTHERS)
def test_a_users_file_is_not_overwritten(glic, tmp_path, monkeypatch, name, flag, argument):
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "report" / "report.html" if name == "report" else tmp_path / "mine.png"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(b"precious")
    status, out, err = glic(name, argument, flag, target.parent if name == "report" else target)
    assert (status, out) == (2, "")
    assert err == (
        "error: Expected an output that is new or that an earlier call wrote "
        f"(got {target}); --force overwrites it\n"
    )
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize(("name", "flag"), [*CASES[2:], ("curves", "-o")])
def test_a_folders_name_is_no_files(glic, model_file, tmp_path, name, flag):
    """Of those that make one file: compress and decompress make it in the folder."""
    status, _, err = glic(name, tmp_path / "a.png", flag, f"{tmp_path}/new/")
    assert (status, err.count("\n")) == (2, 1)
    assert "Expected a file name for the output" in err
    assert not (tmp_path / "new").exists()


def test_a_report_overwrites_no_results(glic, tmp_path):
    results, report = tmp_path / "results", tmp_path / "report"
    results.mkdir()
    report.mkdir()
    for name in ("a.json", "pictures.csv"):
        (results / name).write_text("precious")
        (report / "report.html").symlink_to(results / name)
        status, _, err = glic("report", results, "-o", report, "--force")
        assert (status, err) == (
            2, f"error: Expected another file for the output than {results / name} (got the same)\n"
        )  # fmt: skip
        (report / "report.html").unlink()
