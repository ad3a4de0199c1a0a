import pytest
import wrong_inputs


def test_wrong_inputs_are_taken_or_refused(rig, tmp_path):
    status, out, err = rig("fuzz", "file", "results", "-n", 100, "-o", tmp_path / "inputs", "--seed", 7)
    assert (status, err) == (0, "")
    parts = out.split("results:")[0].split("file:")
    assert parts[1].startswith(" 100 inputs in ")
    assert parts[1].splitlines()[0].endswith("; 0 did what they should not")
    counts = {line[10:]: int(line[:8]) for line in parts[0].splitlines()}
    assert sum(counts.values()) == 100
    assert counts["Expected checksum N"] > 0
    assert not (tmp_path / "inputs").exists()


def test_inputs_that_are_problems_are_kept(rig, tmp_path, monkeypatch):
    findings = wrong_inputs.Findings(problems=[(b"one", "IndexError"), (b"two", "10 s")])
    monkeypatch.setattr(wrong_inputs, "try_target", lambda *arguments, **settings: findings)
    status, out, _ = rig("fuzz", "table", "-n", 2, "-o", tmp_path)
    assert status == 1
    assert out.splitlines()[:2] == [f"IndexError: {tmp_path}/table-0.csv", f"10 s: {tmp_path}/table-1.csv"]
    assert (tmp_path / "table-0.csv").read_bytes() == b"one"


def test_guided_needs_its_package(rig, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "atheris", None)
    status, _, err = rig("fuzz", "file", "-n", 3, "-o", tmp_path, "--guided")
    assert (status, err) == (2, "error: Expected package atheris for --guided (got none)\n")


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["file", "-n", "0"], ["file", "--memory", "much"]])
def test_a_wrong_command_line_is_one_line(rig, tmp_path, arguments):
    status, _, err = rig("fuzz", *arguments, "-o", tmp_path)
    assert (status, err.count("\n")) == (2, 1)
