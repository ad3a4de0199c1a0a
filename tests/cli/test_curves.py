import pytest


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_of_a_run(glic, suffix, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "eval.csv").write_text("step,quality,loss,bpp,psnr\n50,1,0.9,0.2,26\n")
    picture = tmp_path / f"curves{suffix}"
    assert glic("curves", tmp_path / "run", "-o", picture) == (0, f"{picture}\n", "")
    assert picture.read_bytes()[:4] in (b"\x89PNG", b"<?xm")


def test_a_run_that_has_just_begun(glic, config, tmp_path):
    (tmp_path / "log.csv").write_text("step,loss,bpp,psnr,seconds\n1,9,1,8,3\n")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    picture = tmp_path / "curves.svg"
    told = f"{tmp_path}: not evaluated up to step 1; the first evaluation comes at step 3, in about 6 s\n"
    assert glic("curves", tmp_path, "-o", picture) == (0, f"{picture}\n", told)
    assert picture.exists()


def test_no_run(glic, tmp_path):
    status, _, err = glic("curves", tmp_path, "-o", tmp_path / "curves.svg")
    assert (status, err) == (2, f"error: No such file or directory: {tmp_path / 'log.csv'}\n")
    assert not list(tmp_path.iterdir())
