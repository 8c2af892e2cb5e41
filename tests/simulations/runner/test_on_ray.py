import pytest

pytestmark = pytest.mark.slow


def test_ray_gives_the_same_bytes_though_a_worker_is_killed(toy):
    (toy.work / "marks").mkdir()
    here = toy("--csv", "-", "--quiet", "--chunks", "6").out
    options = ["--chunks", "6", "--marks", toy.work / "marks", "--killed-at", "3", "--output", "run"]
    ran = toy("--ray", "local", "--csv", "-", *options)
    assert ran.status == 0, ran.err
    assert ran.out == here
    assert (toy.work / "marks" / "3.1").exists(), "the chunk whose worker was killed was run again"
    assert len(list((toy.work / "run" / "chunks").iterdir())) == 6


def test_an_error_on_a_worker_is_one_sentence(toy):
    ran = toy("--ray", "local", "--fails-at", "1", "--quiet")
    assert ran.status == 2
    assert "error [CHUNK_FAILED]: chunk part-1 failed: the sum is too hard" in ran.err
    assert "Traceback" not in ran.err


def test_no_ray_at_the_address_is_said(toy):
    ran = toy("--ray", "127.0.0.1:1", "--quiet")
    assert ran.status == 2
    assert "RAY_UNAVAILABLE" in ran.err
