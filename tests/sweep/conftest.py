import pytest


@pytest.fixture(scope="module")
def cluster():
    """Ray with one processor, for the tests of a file."""
    import ray

    ray.shutdown()
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
