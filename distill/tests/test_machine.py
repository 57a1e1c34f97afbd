"""What a run was computed with, in words."""

import re

import pytest

from onebit_distill.system.machine import describe_machine

#: as Linux has them, with what follows for the next processor
AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel\t: 9\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n"


def about(tmp_path, text):
    (tmp_path / "cpuinfo").write_text(text)
    return tmp_path / "cpuinfo"


def test_processors_of_one_name_are_told_apart(tmp_path):
    said = describe_machine(2, about(tmp_path, AMD))
    assert re.fullmatch(r"AMD EPYC, family 25, model 17; PyTorch with [A-Z0-9]+, products in (bf16|f32); 2 threads", said)
    assert describe_machine(1, about(tmp_path, AMD)).endswith("; 1 thread")


@pytest.mark.parametrize("text", [ARM, "", "model name\n"])
def test_a_processor_without_a_name_is_known_as_python_knows_it(tmp_path, text):
    for where in (about(tmp_path, text), tmp_path / "absent"):
        assert re.match(r"[^;\n]+; PyTorch with ", describe_machine(0, where))
