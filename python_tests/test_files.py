"""Files are whole or not there, whenever a write is cut short; any bytes give the value or Unreadable."""

import json
import os
import random
import resource
import threading
import time
import zlib
from collections import OrderedDict
from unittest import mock

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from cgsv_ext import _files
from cgsv_ext._files import Unreadable, read, read_latest, remove, write

VALUE = {
    "format": "a test",
    "t": 3,
    "agents": {"a": (torch.arange(6.0).view(2, 3), 0.25), 7: [None, True, float("inf")]},
    "generator": torch.arange(5, dtype=torch.uint8),
    "none": torch.empty(0, 4, dtype=torch.float64),
    "aggregate": torch.tensor([float("nan"), -0.0, 1e-300], dtype=torch.float64),
}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.tuples(st.integers()), inner, max_size=3)
    ),
)


def same(a, b):
    """Types, values, and bits of tensors."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        raw = [x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(*raw)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)  # tells -0.0 from 0.0, and nan from nothing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state"


# What is written comes back


@given(value=PLAIN)
def test_any_plain_data_comes_back(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "plain"
    write(path, value)
    assert same(read(path), value)


@pytest.mark.parametrize("dtype", sorted(_files.DTYPES, key=str), ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)], ids=str)
def test_any_tensor_comes_back_with_its_bits(dtype, shape, path):
    random_bytes = torch.randint(2 if dtype is torch.bool else 256, (6 * dtype.itemsize,), dtype=torch.uint8)
    tensor = random_bytes.view(dtype)[: torch.Size(shape).numel()].view(shape)
    value = [
        torch.ones(1, dtype=torch.bool),
        tensor,
        torch.ones(3, dtype=torch.int16),
    ]  # of odd sizes around it
    write(path, value)
    assert same(read(path), value)


def test_of_a_view_only_the_view_is_written(path):
    large = torch.arange(100_000.0).view(100, 1000)
    views = [
        large[5],
        large[:, 3],
        large[5],
        large[0, :1].expand(7),
        large.to(torch.complex64).conj()[1].imag,
    ]
    write(path, views)
    assert same(read(path), views)
    assert path.stat().st_size < 20_000


def test_subclasses_come_back_as_what_they_are_made_of(path):
    write(path, [OrderedDict(a=1), torch.Size([2]), torch.nn.Parameter(torch.ones(1))])
    assert same(read(path), [{"a": 1}, (2,), torch.ones(1)])


def test_a_file_may_be_replaced_while_its_tensors_are_in_use(path):
    write(path, torch.zeros(100_000))
    value = read(path)
    path.write_bytes(b"\xff" * path.stat().st_size)  # in place, as write() never does
    write(path, torch.ones(10))
    assert value.sum() == 0


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"", torch.ones(2).to_sparse(), torch.ones(1, dtype=torch.cfloat)]
)
def test_other_values_are_refused_and_the_file_stays(value, path):
    write(path, 1)
    with pytest.raises(TypeError, match=r"write\(\): expected dicts, lists and tuples.*got"):
        write(path, {"a": [value]})
    assert read(path) == 1
    assert names(path.parent) == ["state"]


def test_other_programs_can_read_its_tensors(path):
    write(path, VALUE)
    tensors = safetensors.torch.load(path.read_bytes())
    assert len(tensors) == 4
    assert same(tensors["0"], VALUE["agents"]["a"][0])


# Writes that are cut short


class Cuts:
    """Copies of a folder as a power cut would leave it, at every step of what is done to it.

    What has not been synced is lost: an unsynced file is empty. Names change in the order of the calls.
    """

    def __init__(self, folder, copies, patch):
        self.folder, self.copies, self.found = folder, copies, []
        self.safe = {path.stat().st_ino for path in folder.iterdir()}
        for module, name in [
            (os, "link"),
            (os, "replace"),
            (os, "fsync"),
            (os, "unlink"),
            (zlib, "crc32"),
        ]:
            patch.setattr(module, name, self.around(getattr(module, name), name))
        self.take()

    def around(self, call, name):
        def cut(*arguments, **options):
            self.take()
            result = call(*arguments, **options)
            if name == "fsync":
                self.safe.add(os.fstat(arguments[0]).st_ino)
            self.take()
            return result

        return cut

    def take(self):
        for lost in (False, True):
            copy = self.copies / str(len(self.found))
            copy.mkdir(parents=True)
            for each in self.folder.iterdir():
                kept = not lost or each.stat().st_ino in self.safe
                (copy / each.name).write_bytes(each.read_bytes() if kept else b"")
            self.found.append(copy)


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
@pytest.mark.parametrize("keep_previous", [True, False], ids=["previous", "alone"])
@pytest.mark.parametrize("left", [True, False], ids=["after another cut", "first"])
def test_whenever_it_is_cut_short_a_whole_version_is_there(
    links, keep_previous, left, path, tmp_path, monkeypatch
):
    folder, copies = tmp_path / "folder", tmp_path / "copies"
    path = folder / "state"
    if not links:  # below Cuts, which counts the attempt
        monkeypatch.setattr(os, "link", fail_to_link)
    for t in (1, 2):
        write(path, t, keep_previous=keep_previous)
    if left:
        for name in [".state.tmp", ".state.previous.tmp"][: 1 + keep_previous]:
            (folder / name).write_bytes(b"left by a write that was killed" * 1000)
    with monkeypatch.context() as patch:
        cuts = Cuts(folder, copies, patch)
        write(path, 3, keep_previous=keep_previous)
    found = []
    for copy in cuts.found:
        value, note = read_latest(copy / "state")
        assert note is None
        found.append(value)
        if keep_previous:  # and if something else damages it, the one before
            content = (copy / "state").read_bytes()
            (copy / "state").write_bytes(content[:-1])
            assert read_latest(copy / "state")[0] in (value - 1, value)
            (copy / "state").write_bytes(content)
        write(copy / "state", 4, keep_previous=keep_previous)  # what is left does not matter to the next
        assert read(copy / "state") == 4
        assert names(copy) == (["state", "state.previous"] if keep_previous else ["state"])
        if keep_previous:
            assert read(copy / "state.previous") == value
    assert found == sorted(found)
    assert set(found) == {2, 3}


def fail_to_link(*names):
    raise PermissionError("no hard links here")


@pytest.mark.parametrize("damaged", ["state", "state.previous"])
def test_the_one_whole_version_is_not_given_up(damaged, tmp_path, monkeypatch):
    path = tmp_path / "folder" / "state"
    for t in (1, 2):
        write(path, t, keep_previous=True)
    path.with_name(damaged).write_bytes(b"damaged")
    with monkeypatch.context() as patch:
        cuts = Cuts(path.parent, tmp_path / "copies", patch)
        write(path, 3, keep_previous=True)
    assert {read_latest(copy / "state")[0] for copy in cuts.found} == {1 if damaged == "state" else 2, 3}


def test_a_write_that_fails_leaves_the_former_file_and_nothing_beside_it(path, monkeypatch):
    write(path, 1, keep_previous=True)
    for name in ("fsync", "link", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                write(path, 2, keep_previous=True)
        assert read(path) == 1
        assert ".state.tmp" not in names(path.parent)
    write(path, 3, keep_previous=True)
    assert (read(path), read(path.with_name("state.previous"))) == (3, 1)
    assert names(path.parent) == ["state", "state.previous"]


def test_many_may_write_the_same_file_at_once(path):
    """One after the other: every version is whole, and the previous one is the one before."""
    versions, failures = {}, []

    def rewrite(k):
        try:
            for i in range(15):
                write(path, {"who": (k, i), "w": torch.full((1000,), float(k))}, keep_previous=True)
                value = read(path)
                assert torch.equal(value["w"], torch.full((1000,), float(value["who"][0])))
                versions[k] = value
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=rewrite, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert read(path)["who"] != read(path.with_name("state.previous"))["who"]
    assert names(path.parent) == ["state", "state.previous"]


def test_removed_it_leaves_nothing(path):
    remove(path)
    for t in (1, 2):
        write(path, t, keep_previous=True)
    for name in (".state.tmp", ".state.previous.tmp"):
        path.with_name(name).write_bytes(b"left")
    remove(path)
    assert names(path.parent) == []


# The previous version


def damage(path, how):
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[:-1])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "one bit":
        path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])


DAMAGES = ["missing", "truncated", "empty", "one bit"]


@pytest.mark.parametrize("how", DAMAGES)
def test_the_previous_version_is_used_and_said(how, path):
    for t in (1, 2):
        write(path, t, keep_previous=True)
    damage(path, how)
    value, note = read_latest(path)
    assert value == 1
    assert str(path) in note
    assert note.endswith("; state.previous is used")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_previous_version_does_not_matter(how, path):
    for t in (1, 2):
        write(path, t, keep_previous=True)
    damage(path.with_name("state.previous"), how)
    assert read_latest(path) == (2, None)


def test_where_no_version_is_left_each_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*state'$"):
        read_latest(path)
    for t in (1, 2):
        write(path, t, keep_previous=True)
    damage(path, "empty")
    damage(path.with_name("state.previous"), "truncated")
    with pytest.raises(Unreadable, match=r"state: not a whole file.*; .*state\.previous: not a whole file"):
        read_latest(path)
    path.with_name("state.previous").unlink()
    with pytest.raises(Unreadable, match="state: not a whole file"):
        read_latest(path)


# Any bytes


def file_of(tensors, data=b"", value="null", **metadata):
    """A file with this header and the checksum that its plain data asks for."""
    found = f"{zlib.crc32(value.encode()):08x}"
    header = {"__metadata__": {"crc32": found, "value": value} | metadata} | tensors
    return headed(json.dumps(header).encode(), data)


def headed(text, data=b""):
    return len(text).to_bytes(8, "little") + text + data


def entry(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


HOSTILE = {
    "nothing": b"",
    "a length of 2⁶⁴ - 1": b"\xff" * 8 + file_of({})[8:],
    "a length of 0": bytes(8) + file_of({})[8:],
    "a length of 100 MB": (10**8).to_bytes(8, "little") + file_of({})[8:],
    "a tensor of 4 TB": file_of({"0": entry([2**40], 0, 2**42)}),
    "a tensor of 4 TB in 4 bytes": file_of({"0": entry([2**40], 0, 4)}, bytes(4)),
    "a shape that overflows to 4": file_of({"0": entry([2**32 + 1, 2**32 - 1, 2**62 + 4], 0, 16)}, bytes(16)),
    "a shape that overflows to 0": file_of({"0": entry([2**32, 2**32], 0, 0)}),
    "an empty one that is not": file_of({"0": entry([0, 2**62, 2**62], 0, 0)}),
    "two negative sizes": file_of({"0": entry([-1, -4], 0, 16)}, bytes(16)),
    "a negative size": file_of({"0": entry([-1], 0, -4)}),
    "a negative place": file_of({"0": entry([1], -4, 0)}, bytes(4)),
    "two tensors in one place": file_of({"0": entry([1], 0, 4), "1": entry([1], 0, 4)}, bytes(4)),
    "a hole": file_of({"0": entry([1], 0, 4), "1": entry([1], 8, 12)}, bytes(12)),
    "more data than tensors": file_of({"0": entry([1], 0, 4)}, bytes(8)),
    "fractions": file_of({"0": entry([1.0], 0.0, 4.0)}, bytes(4)),
    "not numbers": file_of({"0": entry([1], float("nan"), float("nan"))}, bytes(4)),
    "a million dimensions": file_of({"0": entry([1] * 1_000_000, 0, 4)}, bytes(4)),
    "an unknown dtype": file_of({"0": entry([1], 0, 4, "object")}, bytes(4)),
    "half a byte": file_of({"0": entry([1], 0, 0, "F4")}),
    "an unknown tensor": file_of({}, value='{"tensor":"0"}'),
    "an unknown kind": file_of({}, value='{"os.system":["true"]}'),
    "two kinds": file_of({}, value='{"tuple":[],"dict":[]}'),
    "no kind": file_of({}, value="{}"),
    "a key that cannot be one": file_of({}, value='{"dict":[[[],1]]}'),
    "deep lists": file_of({}, value="[" * 1_000_000),
    "deep tuples": file_of({}, value='{"tuple":[' * 2000 + "]}" * 2000),
    "a deep header": headed(b'{"__metadata__":' + b"[" * 1_000_000),
    "a number of a million digits": file_of({}, value="1" * 1_000_000),
    "no value": headed(b'{"__metadata__":{"crc32":"00000000"}}'),
    "no checksum": headed(b'{"__metadata__":{"value":"null"}}'),
    "another's checksum": file_of({}, crc32="00000000"),
    "no metadata": headed(b"{}"),
    "no text": headed(b'{"__metadata__":{"crc32":"00000000","value":"\xff"}}'),
    "half a surrogate": headed(b'{"__metadata__":{"crc32":"00000000","value":"\\ud800"}}'),
    "UTF-16": headed('{"__metadata__":{}}'.encode("utf-16")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_unreadable_at_no_cost(name, path):
    path.write_bytes(HOSTILE[name])
    before, began = peak_memory(), time.process_time()
    with pytest.raises(Unreadable, match=r"state: not a whole file"):
        read(path)
    assert time.process_time() - began < 1
    assert peak_memory() - before < 32e6 + 50 * len(HOSTILE[name])


def peak_memory():
    """The most bytes this process has had in memory so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_the_hostile_ones_fail_by_what_they_claim(path):
    """They are files of this format but for one thing each."""
    path.write_bytes(file_of({}, value='{"tuple":[[1],{"dict":[["a",null]]}]}'))
    assert same(read(path), ([1], {"a": None}))


class Anything(str):
    """Equal to any string."""

    __hash__ = str.__hash__

    def __ne__(self, other):
        return False


PIECES = (
    b"9",
    b"-1",
    b"0",
    b"[",
    b"]",
    b'"',
    b'\\"',
    b"{",
    b"1e9",
    b"4294967296",
    b"null",
    b"dict",
    b"F4",
    b"BF16",
)


def changed(content, chance):
    """A few bytes of a file changed, put in, taken out, repeated or cut off; its length often mended."""
    length = int.from_bytes(content[:8], "little")
    parts = {"length": bytearray(content[:8]), "header": bytearray(content[8 : 8 + length])}
    parts["data"] = bytearray(content[8 + length :])
    mended = chance.random() < 0.8
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        part = parts[chance.choice(("header",) * 6 + ("data", "data", "length"))]
        i = chance.randrange(len(part) + 1)
        j = i + chance.choice((1, 1, 2, 8, 64))
        kind = chance.randrange(6)
        if kind == 0 and i < len(part):
            part[i] ^= 1 << chance.randrange(8)
        elif kind == 1:
            part[i:j] = chance.randbytes(j - i)
        elif kind == 2:
            part[i:i] = part[i:j]
        elif kind == 3:
            del part[i:j]
        elif kind == 4:
            part[i : i + chance.randrange(3)] = chance.choice(PIECES)
        else:
            del part[len(part) - len(part) // chance.choice((2, 8, 64, 512)) :]
    if mended:
        parts["length"] = len(parts["header"]).to_bytes(8, "little")
    return bytes(b"".join(parts.values()))


def fuzz(path, seed, inputs):
    """Read so many changed files, two thirds of them as if their checksum were right.

    Returns how many gave a value, and the most processor time that one took.
    """
    chance, values, slowest = random.Random(seed), 0, 0.0
    originals = []
    for value in (VALUE, [torch.ones(3), torch.zeros(0), "text", {"a": 1.5}]):
        write(path, value)
        originals.append((path.read_bytes(), value))
    checked = _files._sum

    def believed(*parts):
        return Anything() if trusted else checked(*parts)

    with mock.patch.object(_files, "_sum", believed):
        for _ in range(inputs):
            original, value = chance.choice(originals)
            content, trusted = changed(original, chance), chance.random() < 0.67
            path.write_bytes(content)
            began = time.process_time()
            try:
                found = read(path)
            except Unreadable:
                pass
            else:
                values += 1
                touch(found, len(content))
                assert trusted or same(found, value)
            slowest = max(slowest, time.process_time() - began)
    return values, slowest


def touch(value, size):
    """Read every byte of every tensor, none of which is larger than the file."""
    if isinstance(value, torch.Tensor):
        assert value.untyped_storage().nbytes() <= size
        value.clone()
    elif isinstance(value, dict):
        for each in value.values():
            touch(each, size)
    elif isinstance(value, (list, tuple)):
        for each in value:
            touch(each, size)


def test_changed_files_give_a_value_or_unreadable(path):
    values, slowest = fuzz(path, 0, 3000)
    assert values > 100  # so that what lies behind the checksum is reached
    assert slowest < 1


@pytest.mark.stress
def test_a_million_changed_files(path):
    fuzz(path, 1, 10_000)
    before = peak_memory()
    values, slowest = fuzz(path, 2, int(os.environ.get("FUZZ_INPUTS", "1000000")))
    grown = peak_memory() - before
    print(f"{values} values, slowest {slowest:.3f} s, {grown / 1e6:.1f} MB more memory at most")
    assert slowest < 1
    assert grown < 32e6
