"""One number of threads for torch and for code that Numba compiled."""

import numba
import torch


def use_torch_threads() -> int:
    """Let Numba's next parallel loop run on as many threads as torch does.

    Returns:
        That number, at most `NUMBA_NUM_THREADS`.
    """
    wanted = torch.get_num_threads()
    threads = min(wanted, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(threads)
    if torch.get_num_threads() != wanted:  # starting Numba's threads sets OpenMP's number, torch's too
        torch.set_num_threads(wanted)
    return threads
