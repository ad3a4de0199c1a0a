import os

import pytest
import torch

from glic_pyg.entropy.context import PointwiseBlock, PointwiseNet
from glic_pyg.threads import map_in_threads, one_thread_per_operator


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_from_calls_with_one_thread(threads):
    results = map_in_threads(lambda x: (x, torch.get_num_threads(), torch.is_grad_enabled()), range(20))
    assert [x for x, _, _ in results] == list(range(20))
    assert {number for _, number, _ in results} == {1}
    if threads > 1:
        assert not any(grad for _, _, grad in results)
    assert torch.get_num_threads() == threads


def test_one_thread_per_operator_ends(threads):
    with pytest.raises(ZeroDivisionError), one_thread_per_operator():
        assert torch.get_num_threads() == 1
        assert map_in_threads(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
        raise ZeroDivisionError
    assert torch.get_num_threads() == threads


def test_errors_reach_the_caller(threads):
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda x: 1 // x, [1, 0])
    assert torch.get_num_threads() == threads


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(threads):
    map_in_threads(abs, [1, 2])
    child = os.fork()
    if child == 0:
        os._exit(0 if map_in_threads(abs, [-1, -2]) == [1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_bits_of_a_pointwise_net_do_not_depend_on_threads():
    torch.manual_seed(0)
    net = PointwiseNet(PointwiseBlock(24, 40, ratio=4), PointwiseBlock(40, 16, ratio=4))
    x = torch.randn(2, 24, 17, 23)
    expected = net(x).detach()  # as one map, for training
    results = []
    before = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            with torch.no_grad():
                results.append(net(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)
    torch.testing.assert_close(results[0], expected)
