"""What is kept for the next step."""

import ctypes
import os
import sys

import pytest

from onebit_distill.system import memory


def test_glibc_understands_what_it_is_told(monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    told = []

    class Library:
        def mallopt(self, name, value):
            told.append((name, value))
            return 1

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: Library())
    monkeypatch.setattr(memory.sys, "platform", "linux")
    assert memory.keep_memory() and len(told) == 3 and os.environ["THP_MEM_ALLOC_ENABLE"] == "1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc of Linux")
def test_glibc_here_takes_the_numbers():
    if not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("this system's malloc is another")
    environment = dict(os.environ)
    try:
        assert memory.keep_memory()
    finally:
        os.environ.clear()
        os.environ.update(environment)


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not memory.keep_memory()
