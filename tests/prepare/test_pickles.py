"""Pickles of Python 2 by their opcodes, and pickles that would run code."""

import pickle
from fractions import Fraction

import numpy as np
import pytest

from perpo.errors import PerpoError
from perpo.prepare.refer.pickles import read_plain_pickle

# [{'n': 2**40 (a long), 'sent': 'caf\xe9' (a str of bytes), u'raw': u'café'}, (1.5, True, None)] in protocol 2
PROTOCOL_2 = (
    b"\x80\x02]q\x00(}q\x01("
    b"U\x01nq\x02\x8a\x06\x00\x00\x00\x00\x00\x01"
    b"U\x04sentq\x03U\x04caf\xe9q\x04"
    b"X\x03\x00\x00\x00rawq\x05X\x05\x00\x00\x00caf\xc3\xa9q\x06"
    b"uG?\xf8\x00\x00\x00\x00\x00\x00\x88N\x87q\x07e."
)
# the same in protocol 0, as pickle.dump(object, file) of Python 2 writes it
PROTOCOL_0 = (
    b"(lp0\n(dp1\nS'n'\np2\nL1099511627776L\nsS'sent'\np3\nS'caf\\xe9'\np4\nsVraw\np5\nVcaf\\u00e9\np6\n"
    b"sa(F1.5\nI01\nNtp7\na."
)
PLAIN = [{"n": 2**40, "sent": "café", "raw": "café"}, (1.5, True, None)]


def _write(tmp_path, data: bytes):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("data", [PROTOCOL_0, PROTOCOL_2], ids=["protocol 0", "protocol 2"])
def test_plain_data_of_python_2_are_read(tmp_path, data):
    assert read_plain_pickle(_write(tmp_path, data)) == PLAIN


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_python_3_are_read(tmp_path, protocol):
    assert read_plain_pickle(_write(tmp_path, pickle.dumps(PLAIN, protocol=protocol))) == PLAIN


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_code_is_refused_and_the_code_does_not_run(tmp_path, protocol):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = _write(tmp_path, pickle.dumps([1, Trap()], protocol=protocol))
    with pytest.raises(PerpoError, match=r"is refused: it asks for \S*open. A pickle that names code") as caught:
        read_plain_pickle(path)
    assert not (tmp_path / "ran").exists()
    assert "authors" in caught.value.hint
    assert caught.value.exit_code == 2


def test_the_classic_attack_by_hand_is_refused(tmp_path):
    path = _write(tmp_path, b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(PerpoError, match=r"posix\.system"):
        read_plain_pickle(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("what", [np.arange(3), np.float64(1), Fraction(1, 2), {1, 2}, bytearray(b"x")])
def test_classes_are_refused_even_harmless_ones(tmp_path, what):
    with pytest.raises(PerpoError, match="is refused"):
        read_plain_pickle(_write(tmp_path, pickle.dumps(what, protocol=2)))


@pytest.mark.parametrize("data", [b"", PROTOCOL_2[:40], PROTOCOL_0[:-1], b"not a pickle", b"\x80\xff.", b"]q\x00e."])
def test_what_is_no_whole_pickle_is_said_to_be_none(tmp_path, data):
    with pytest.raises(PerpoError, match="is not a complete pickle"):
        read_plain_pickle(_write(tmp_path, data))


def test_references_to_the_outside_are_refused(tmp_path):
    with pytest.raises(PerpoError, match="objects outside the file"):
        read_plain_pickle(_write(tmp_path, b"Psomewhere\n."))


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(PerpoError, match="found no such file") as caught:
        read_plain_pickle(tmp_path / "refs(unc).p")
    assert caught.value.hint == "check the path"
