import shutil
import subprocess

import pytest

from glic_pyg.cli.main import COMMANDS


def test_bash_completes_commands_flags_and_choices(glic, tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    status, out, err = glic("completion", "bash")
    assert (status, err) == (0, "")
    (tmp_path / "glic.bash").write_text(out)

    def completed(*words):
        script = f"source {tmp_path}/glic.bash; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        script += "_shtab_glic; printf '%s\\n' \"${COMPREPLY[@]}\""
        return subprocess.check_output(["bash", "-c", script], text=True).split()

    assert set(completed("glic", '""')) >= COMMANDS.keys()
    assert completed("glic", "comp") == ["compress", "completion"]
    assert "--max-memory" in completed("glic", "compress", "--m")
    assert completed("glic", "evaluate", "--method", "p") == ["pchip"]
    for words in (["compress"], ["compress", "a.png", "-o"], ["train", "--config"], ["info"]):
        assert f"{tmp_path}/glic.bash" in completed("glic", *words, f"{tmp_path}/gl")


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells(glic, shell):
    status, out, err = glic("completion", shell)
    assert (status, err) == (0, "")
    assert "decompress" in out
