"""The rig of the optimisers' seconds, with a tiny model."""

from dataclasses import replace


def test_every_optimiser_has_its_line(rig, tiny_config, tmp_path):
    (tmp_path / "tiny.yaml").write_text(replace(tiny_config, qualities=2).to_yaml())
    arguments = ["--config", tmp_path / "tiny.yaml", "--size", 64, "--batch-size", 1, "--steps", 2]
    status, out, err = rig("optimizer_pace", *arguments)
    assert status == 0, err
    lines = [line.split() for line in out.splitlines()[1:]]
    assert [line[0] for line in lines] == ["adam", "muon", "soap"]
    for _, gradients, update, step, ratio in lines:
        assert abs(float(gradients) + float(update) - float(step)) < 0.0021
        assert abs(float(step) / float(lines[0][3]) - float(ratio)) < 0.1 * float(ratio)
    assert lines[0][4] == "1.00"
