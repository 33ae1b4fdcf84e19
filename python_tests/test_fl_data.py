"""Datasets read from files in the official formats, and what is refused."""

import contextlib
import gzip
import io
import itertools
import re
import shutil
import tarfile
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import WRITERS, idx, tree, write_cifar10, write_mnist, write_mr, write_sst
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from cgsv_ext.fl.data import DATASETS, load
from cgsv_ext.fl.data.mnist import read_idx
from cgsv_ext.fl.data.sst import read_tree
from cgsv_ext.fl.data.text import numbering, tokens


def parts(data):
    return (
        (data.train_x, data.train_y),
        (data.validation_x, data.validation_y),
        (data.test_x, data.test_y),
    )


def equal(one, other):
    return one[7:] == other[7:] and all(torch.equal(a, b) for a, b in zip(one[1:7], other[1:7], strict=True))


def assert_raises(folder, name, error, *texts):
    """All texts must be in the error's."""
    with pytest.raises(error) as caught:
        load(name, folder, 0)
    assert type(caught.value) in (error, FileNotFoundError)
    for text in texts:
        assert text in str(caught.value)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Dataset name -> (folder, what the writer returned)."""
    folder = tmp_path_factory.mktemp("data")
    return {name: (folder / name, write(folder / name)) for name, write in WRITERS.items()}


@pytest.fixture
def copy(written, tmp_path):
    """A function: dataset name -> a copy of its folder, to be damaged."""

    def copied(name):
        return Path(shutil.copytree(written[name][0], tmp_path / name))

    return copied


# All datasets


@pytest.mark.parametrize("name", DATASETS)
def test_types_and_shapes(name, written):
    data = load(name, written[name][0] if name in written else None, 1)
    text = data.vocabulary > 0
    for x, y in parts(data):
        assert x.dtype == (torch.int64 if text else torch.float32)
        assert y.dtype == torch.int64
        assert len(x) == len(y) > 0
        assert x.shape[1:] == data.train_x.shape[1:]
        assert y.min() >= 0
        assert y.max() < data.classes
    shapes = {"digits": (1, 8, 8), "mnist": (1, 32, 32), "cifar10": (3, 32, 32)}
    assert text or data.train_x.shape[1:] == shapes[name]
    assert data.name == name


@pytest.mark.parametrize("name", DATASETS)
def test_the_seed_decides_the_split_and_nothing_else_does(name, written):
    folder = written[name][0] if name in written else None
    one, other, again = (load(name, folder, seed) for seed in (1, 2, 1))
    assert again is not one  # read anew, as another was read in between
    assert equal(one, again)
    assert equal(one, other) == (name == "sst")  # whose split is official
    official = name in ("mnist", "cifar10")
    assert torch.equal(one.test_y, other.test_y) == (official or name == "sst")


def test_a_second_call_returns_the_same_tensors(written):
    folder = written["sst"][0]
    assert load("sst", folder, 1) is load("sst", str(folder), 1)


@pytest.mark.parametrize(
    ("name", "shares"),
    [("digits", (0.7, 0.1, 0.2)), ("mnist", (0.9, 0.1)), ("cifar10", (0.9, 0.1)), ("mr", (0.8, 0.1, 0.1))],
)
def test_every_class_gives_the_same_share(name, shares, written):
    data = load(name, written[name][0] if name in written else None, 3)
    counts = torch.stack([y.bincount(minlength=data.classes) for _, y in parts(data)][: len(shares)])
    expected = counts.sum(0) * torch.tensor(shares)[:, None]
    assert (counts - expected).abs().max() <= 1


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_channels_are_standardised_by_training_pixels(name, written):
    x = load(name, written[name][0] if name in written else None, 1).train_x.double()
    deviation, mean = torch.std_mean(x, dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(deviation, torch.ones_like(mean), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", WRITERS)
def test_samples_keep_their_labels(name, written):
    """A linear model of pixels or of word counts learns the classes of files that have learnable ones."""
    data = load(name, written[name][0], 1)

    def features(x):
        if data.vocabulary:
            return torch.nn.functional.one_hot(x, data.vocabulary).sum(1)
        return torch.nn.functional.avg_pool2d(x, 4).flatten(1)

    model = LogisticRegression(max_iter=200).fit(features(data.train_x), data.train_y)
    for x, y in parts(data)[1:]:
        assert model.score(features(x), y) > 0.9


@pytest.mark.parametrize("name", WRITERS)
def test_reading_warns_of_nothing(name, written):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(name, written[name][0], 7)


def test_digits_are_those_of_scikit_learn_each_once():
    data = load("digits", None, 1)
    pixels, labels = load_digits(return_X_y=True)
    x = torch.cat([x.flatten(1) for x, _ in parts(data)]).double()
    y = torch.cat([y for _, y in parts(data)])
    # Standardised values are evenly spaced, one step a grey level, and 0 is the least.
    levels = ((x - x.min()) / (x.max() - x.min()) * 16).round().int()
    found = Counter((row.tobytes(), label) for row, label in zip(levels.numpy(), y.tolist(), strict=True))
    wanted = Counter(
        (row.tobytes(), int(label)) for row, label in zip(pixels.astype(np.int32), labels, strict=True)
    )
    assert found == wanted


# What is missing


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_file_is_named_with_all_that_are_expected(name, written, copy):
    files = sorted(path.name for path in written[name][0].iterdir())
    for missing in files:
        folder = copy(name)
        (folder / missing).unlink()
        assert_raises(folder, name, FileNotFoundError, *files, f"got no {missing}", str(folder))
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", WRITERS)
def test_no_folder_names_the_files_expected(name, written, tmp_path):
    files = [path.name for path in written[name][0].iterdir()]
    assert_raises(None, name, ValueError, "load(): expected --data DIR", *files, "got none")
    assert_raises(tmp_path / "x", name, FileNotFoundError, *files, f"got no folder {tmp_path / 'x'}")
    (tmp_path / "y").touch()
    assert_raises(tmp_path / "y", name, NotADirectoryError, *files, "got no folder")


def test_an_unknown_dataset_is_answered_by_the_known():
    assert_raises(None, "imagenet", ValueError, *DATASETS, "'imagenet'")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "MNIST/raw"),
        ("cifar10", "cifar-10-batches-bin"),
        ("mr", "rt-polaritydata"),
        ("sst", "trees"),
    ],
)
def test_the_official_folder_may_be_in_the_one_given(name, place, written, tmp_path):
    shutil.copytree(written[name][0], tmp_path / place)
    assert equal(load(name, tmp_path, 1), load(name, written[name][0], 1))


@pytest.mark.parametrize(("name", "file"), [("mr", "rt-polarity.pos"), ("mnist", "train-labels-idx1-ubyte")])
def test_too_few_samples_of_a_class_to_hold_some_out(name, file, tmp_path):
    if name == "mr":
        write_mr(tmp_path, each=4)
    else:
        write_mnist(tmp_path, train=90)
    assert_raises(tmp_path, name, ValueError, f"{name}: expected at least", "of every class")


# Images


def pixels_of(data, pixels):
    """Undo the standardisation, whose two numbers a channel follow from the test pixels; uint8."""
    x, known = data.test_x.double(), torch.from_numpy(pixels.astype(np.float64))
    found = []
    for part, _ in parts(data):
        channels = []
        for c in range(part.shape[1]):
            low, high = known[:, c].flatten().argmin(), known[:, c].flatten().argmax()
            (v0, v1), (p0, p1) = (
                (values[:, c].flatten()[low], values[:, c].flatten()[high]) for values in (x, known)
            )
            channels.append((part[:, c].double() - v0) / (v1 - v0) * (p1 - p0) + p0)
        values = torch.stack(channels, 1)
        torch.testing.assert_close(values, values.round(), atol=1e-3, rtol=0)
        found.append(values.round().to(torch.uint8).numpy())
    return found


def counted(pixels, labels):
    return Counter((image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_images_are_those_of_the_files(name, written):
    folder, (train, test) = written[name]
    if name == "mnist":
        # As 32 x 32 pixels with a margin of background.
        margins = ((0, 0), (0, 0), (2, 2), (2, 2))
        train, test = (each._replace(pixels=np.pad(each.pixels[:, None], margins)) for each in (train, test))
    data = load(name, folder, 1)
    found = pixels_of(data, test.pixels)
    assert np.array_equal(found[2], test.pixels)
    assert data.test_y.tolist() == test.labels.tolist()
    dealt = counted(found[0], data.train_y) + counted(found[1], data.validation_y)
    assert dealt == counted(train.pixels, train.labels)


@pytest.mark.parametrize("dots", [False, True])
@pytest.mark.parametrize("gzipped", [False, True])
def test_mnist_is_the_same_under_all_its_names(gzipped, dots, written, tmp_path):
    write_mnist(tmp_path, gzipped=gzipped, dots=dots)
    assert equal(load("mnist", tmp_path, 1), load("mnist", written["mnist"][0], 1))


def test_gzip_is_known_by_its_bytes_not_by_its_name(written, copy):
    folder = copy("mnist")
    file = folder / "t10k-images-idx3-ubyte"
    file.write_bytes(gzip.compress(file.read_bytes()))
    labels = folder / "t10k-labels-idx1-ubyte"
    labels.rename(f"{labels}.gz")
    assert equal(load("mnist", folder, 1), load("mnist", written["mnist"][0], 1))


ITEMS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch") / "file"


@settings(max_examples=30)
@given(st.lists(st.integers(1, 5), max_size=3), st.integers(1, 5), st.booleans(), st.randoms())
def test_idx_files_are_read_exactly(scratch, shape, count, gzipped, random):
    array = np.array([random.randrange(256) for _ in range(count * int(np.prod(shape)))], np.uint8)
    array = array.reshape(count, *shape)
    scratch.write_bytes(gzip.compress(idx(array)) if gzipped else idx(array))
    assert np.array_equal(read_idx(scratch, tuple(shape)), array)


@pytest.mark.parametrize("gzipped", [False, True])
def test_any_cut_or_longer_idx_file_is_refused(scratch, gzipped):
    whole = gzip.compress(idx(ITEMS)) if gzipped else idx(ITEMS)
    for content in [whole[:n] for n in range(len(whole))] + [whole + b"\1"]:
        scratch.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(f"{scratch}: expected")):
            read_idx(scratch, (3, 4))


def test_any_changed_byte_of_a_gzip_file_is_refused_or_harmless(scratch):
    whole = gzip.compress(idx(ITEMS))
    refused = 0
    for place, change in itertools.product(range(len(whole)), (1, 0x10, 0xFF)):
        scratch.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        with contextlib.suppress(ValueError):
            assert np.array_equal(read_idx(scratch, (3, 4)), ITEMS)
            continue
        refused += 1
    assert refused > 2 * (len(whole) - 10)  # the header has bytes that mean nothing here


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {2: 0x0D},
            "expected an IDX file of bytes in 3 dimension(s), which begins with 00 00 08 03, got 00 00 0d 03",
        ),
        (
            {3: 1},
            "expected an IDX file of bytes in 3 dimension(s), which begins with 00 00 08 03, got 00 00 08 01",
        ),
        ({7: 0}, "expected M × 3 × 4 values with M > 0, got a header that says 0 × 3 × 4"),
        ({7: 3}, "expected 36 bytes after the header, as it says, got 24"),
        ({7: 1}, "expected 12 bytes after the header, as it says, got more"),
        ({11: 4}, "expected M × 3 × 4 values with M > 0, got a header that says 2 × 4 × 4"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(scratch, change, expected):
    content = bytearray(idx(ITEMS))
    for place, value in change.items():
        content[place] = value
    scratch.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{scratch}: {expected}")):
        read_idx(scratch, (3, 4))


@pytest.mark.parametrize("gzipped", [False, True])
def test_nothing_is_allocated_for_a_header_that_lies(scratch, gzipped):
    content = bytearray(idx(np.zeros((2, 28, 28), np.uint8)))
    content[4:8] = b"\xff" * 4  # four thousand million images
    scratch.write_bytes(gzip.compress(content) if gzipped else content)
    tracemalloc.start()
    with pytest.raises(
        ValueError, match="expected 3367254359280 bytes after the header, as it says, got a file too"
    ):
        read_idx(scratch, (28, 28))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_the_most_compressible_file_is_not_taken_for_a_lie(scratch):
    scratch.write_bytes(gzip.compress(idx(np.zeros((9000, 28, 28), np.uint8)), 9))
    assert read_idx(scratch, (28, 28)).shape == (9000, 28, 28)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_label_that_is_no_class_is_refused(name, copy):
    folder = copy(name)
    file = {"mnist": "t10k-labels-idx1-ubyte", "cifar10": "data_batch_3.bin"}[name]
    content = bytearray((folder / file).read_bytes())
    content[{"mnist": 8 + 5, "cifar10": 3073 * 5}[name]] = 10
    (folder / file).write_bytes(content)
    assert_raises(folder, name, ValueError, file, "expected labels from 0 to 9, got 10 for sample 5")


def test_labels_of_another_number_than_images_are_refused(copy):
    folder = copy("mnist")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(399, np.uint8)))
    assert_raises(folder, "mnist", ValueError, "train-labels-idx1-ubyte", "expected 400 labels", "got 399")


@pytest.mark.parametrize("length", [0, 1, 3072, 3073 * 80 - 1, 3073 * 80 + 1])
def test_a_batch_of_an_odd_length_is_refused(length, copy):
    folder = copy("cifar10")
    (folder / "test_batch.bin").write_bytes(bytes(length))
    assert_raises(
        folder, "cifar10", ValueError, "test_batch.bin", "a multiple of 3073 bytes", f"got {length}"
    )


def test_a_batch_cut_between_two_images_is_refused(copy):
    folder = copy("cifar10")
    with (folder / "data_batch_2.bin").open("r+b") as file:
        file.truncate(3073 * 79)
    assert_raises(
        folder, "cifar10", ValueError, str(folder), "as many images in each of", "got 80, 79, 80, 80, 80, 80"
    )


def packed(path, files):
    """A tar.gz of (name, content) pairs."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_the_archive_of_cifar10_is_read_where_it_lies(written, tmp_path):
    source = written["cifar10"][0]
    archive = tmp_path / "cifar-10-binary.tar.gz"
    files = [(f"cifar-10-batches-bin/{path.name}", path.read_bytes()) for path in sorted(source.iterdir())]
    packed(archive, [("cifar-10-batches-bin/readme.html", b"x"), *files[::-1]])
    assert equal(load("cifar10", tmp_path, 1), load("cifar10", source, 1))
    assert list(tmp_path.iterdir()) == [archive]
    whole = archive.read_bytes()
    for content in (
        b"",
        whole[: len(whole) // 2],
        whole[:-1],
        b"\0" * 1024,
        whole[:5000] + b"?" + whole[5001:],
    ):
        archive.write_bytes(content)
        assert_raises(tmp_path, "cifar10", ValueError, str(archive), "expected")
    packed(archive, files[1:])
    assert_raises(tmp_path, "cifar10", ValueError, str(archive), "got no data_batch_1.bin")
    packed(archive, [(name, content[:-7]) for name, content in files])
    assert_raises(tmp_path, "cifar10", ValueError, f"{archive}/data_batch_1.bin", "a multiple of 3073")


def test_links_in_the_archive_are_not_followed(written, tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for path in sorted(written["cifar10"][0].iterdir()):
            member = tarfile.TarInfo(path.name)
            member.type, member.linkname = tarfile.SYMTYPE, str(path)
            file.addfile(member)
    assert_raises(tmp_path, "cifar10", ValueError, str(archive), "got no data_batch_1.bin")


def test_a_size_in_the_archive_that_cannot_be_is_refused(tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    member = tarfile.TarInfo("data_batch_1.bin")
    member.size = 2**33
    archive.write_bytes(gzip.compress(member.tobuf() + bytes(10240)))
    tracemalloc.start()
    assert_raises(tmp_path, "cifar10", ValueError, str(archive), "unexpected end of data")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


# Texts


def kim(text):
    """Cleaning as in Kim (2014), for texts without quotes."""
    text = re.sub(r"[^A-Za-z0-9(),!?]", " ", text)
    return re.sub(r"([(),!?])", r" \1 ", text).lower().split()


@given(st.text('abYZ019 (),!?.-"_:;\t'))
def test_tokens_are_those_of_kim(text):
    assert tokens(text) == kim(text)


def test_contractions_are_parted_as_in_the_penn_treebank():
    text = "It's a shame they DON'T , can't and won't ; i'd've , we'll , you're , 'quoted' ``so''"
    assert " ".join(tokens(text)) == (
        "it 's a shame they do n't , ca n't and wo n't i 'd 've , we 'll , you 're , ' quoted ' `` so ''"
    )
    # Parted already, as SST's are.
    assert tokens("It 's n't café") == ["it", "'s", "n't", "café"]


def test_numbers_go_by_frequency_then_alphabet_and_words_met_once_have_none():
    assert numbering([["b", "a", "c"], ["a", "b", "d"], ["c", "c"]]) == {"c": 2, "a": 3, "b": 4}


def expected_rows(training, texts):
    """Oracle: rows of numbers for lists of words."""
    counts = Counter(word for words in training for word in words)
    known = sorted((word for word in counts if counts[word] > 1), key=lambda word: (-counts[word], word))
    length = max(len(words) for words in training)
    rows = [[known.index(word) + 2 if word in known else 1 for word in words] for words in texts]
    return [(row + [0] * length)[:length] for row in rows], len(known) + 2


def test_sst_is_what_the_trees_say(written):
    folder, files = written["sst"]
    data = load("sst", folder, 1)

    def plain(words):
        return " ".join(words).replace("doesn't", "does n't").replace("-", "").split()

    texts = {name: [plain(words) for words, _ in part] for name, part in files.items()}
    for name, (x, y) in zip(("train", "dev", "test"), parts(data), strict=True):
        rows, vocabulary = expected_rows(texts["train"], texts[name])
        assert x.tolist() == rows
        assert y.tolist() == [label for _, label in files[name]]
        assert data.vocabulary == vocabulary
    assert data.classes == 5
    assert data.train_y.unique().tolist() == [0, 1, 2, 3, 4]


def write_lines(folder, **files):
    for name, lines in files.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_the_vocabulary_knows_training_texts_only(tmp_path):
    twice = ["(3 (2 very) (3 good))", "(1 (2 very) (1 bad))", "(3 (3 good) (2 once))"]
    write_lines(tmp_path, train=twice, dev=["(3 (2 fresh) (3 good))"] * 3, test=["(2 (2 bad) (2 fresh))"] * 3)
    data = load("sst", tmp_path, 0)
    assert data.vocabulary == 4
    assert data.train_x[:, :2].tolist() == [[3, 2], [3, 1], [2, 1]]
    assert data.validation_x[0].tolist() == [1, 2, 0, 0, 0]
    assert data.test_x[0].tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(("longest", "length"), [(1, 5), (5, 5), (6, 6), (64, 64), (65, 64)])
def test_training_texts_decide_the_length_within_bounds(longest, length, tmp_path):
    rng = np.random.default_rng(0)
    line, longer = tree(["a"] * longest, 1, rng), tree(["a"] * (longest + 1), 1, rng)
    write_lines(tmp_path, train=[line, "(1 a)"], dev=["(2 b)"], test=[longer])
    data = load("sst", tmp_path, 0)
    assert [x.shape[1] for x, _ in parts(data)] == [length] * 3
    assert data.train_x[0].tolist() == [2] * min(longest, length) + [0] * (length - longest)
    assert data.test_x[0].tolist() == [2] * min(longest + 1, length) + [0] * (length - longest - 1)


WORDS = st.lists(st.text("ab.'`0\xa0é/\\-", min_size=1, max_size=4), min_size=1, max_size=12)


@given(WORDS, st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_a_tree_is_read_back(words, label, seed):
    assert read_tree(tree(words, label, np.random.default_rng(seed))) == (words, label)


@settings(max_examples=50)
@given(WORDS, st.data())
def test_a_tree_that_lacks_a_bracket_or_has_one_more_is_refused(words, draw):
    line = tree(words, 3, np.random.default_rng(0))
    places = [i for i, c in enumerate(line) if c in "()"]
    place = draw.draw(st.sampled_from(places))
    more = line[:place] + line[place] + line[place:]
    for bad in (line[:place] + line[place + 1 :], more, line[:place]):
        with pytest.raises(ValueError, match="expected a tree"):
            read_tree(bad)


@pytest.mark.parametrize(
    "line",
    ["good", "(3 )", "(3)", "()", "(5 good)", "(-1 good)", "(33 good)", "(3 very good)", "(3 (2 very) good)",
     "(3 good (2 x))", "(3 (2 a)(3 b))", "(3 a) (2 b)", "(3  a)", "(3 a )", "(x (2 a))", "(3 a))", ")(3 a)"],
)  # fmt: skip
def test_what_is_no_tree_is_refused_with_its_line(line, copy):
    folder = copy("sst")
    with (folder / "dev.txt").open("a") as file:
        file.write(f"{line}\n")
    assert_raises(
        folder, "sst", ValueError, f"{folder / 'dev.txt'}, line 61: expected a tree such as", "from character"
    )


def test_brackets_of_the_treebank_are_brackets(tmp_path):
    lines = ["(2 (2 -LRB-) (2 (2 so) (2 -RRB-)))"] * 2
    write_lines(tmp_path, train=lines, dev=lines, test=lines)
    assert load("sst", tmp_path, 0).train_x.tolist() == [[2, 4, 3, 0, 0]] * 2  # ( ) so


@pytest.mark.parametrize(
    ("content", "expected"), [(b"", "a tree a line, got none"), (b"(3 \xff)\n", "UTF-8")]
)
def test_a_file_of_trees_that_is_empty_or_no_text_is_refused(content, expected, copy):
    folder = copy("sst")
    (folder / "test.txt").write_bytes(content)
    assert_raises(folder, "sst", ValueError, str(folder / "test.txt"), expected)


def write_numbered(folder, each):
    """MR whose sentences are all different, and so known again: their number in base 5, a word a digit."""
    folder.mkdir(exist_ok=True)
    for ending in ("pos", "neg"):
        lines = [
            " ".join(
                [
                    ending,
                    *(
                        f"{place}{digit}"
                        for place, digit in zip("abcd", f"{np.base_repr(i, 5):0>4}", strict=True)
                    ),
                ]
            )
            for i in range(each)
        ]
        (folder / f"rt-polarity.{ending}").write_text("".join(f"{line}\n" for line in lines))


def test_mr_is_shuffled_and_no_sentence_is_in_two_parts(tmp_path):
    write_numbered(tmp_path, 300)
    data = load("mr", tmp_path, 1)
    rows = torch.cat([x for x, _ in parts(data)])
    assert len(rows.unique(dim=0)) == len(rows) == 600
    assert [len(y) for _, y in parts(data)] == [480, 60, 60]
    for x, y in parts(data):
        assert y.sum() * 2 == len(y)
        # The first word tells the class, whatever the order: one number goes with one label in all parts.
        assert len({(int(word), int(label)) for word, label in zip(x[:, 0], y, strict=True)}) == 2
        # Neighbours differ as often as in a random order, not just where one file ends.
        assert (y.diff() != 0).sum() > len(y) / 4


def test_mr_is_latin_1_split_at_newlines_alone(tmp_path):
    # NEL and a file separator would end a line of str.splitlines().
    content = b"one\x85two caf\xe9 three\x1cfour five\r\n" * 20
    for ending in ("pos", "neg"):
        (tmp_path / f"rt-polarity.{ending}").write_bytes(content)
    data = load("mr", tmp_path, 0)
    assert sum(len(y) for _, y in parts(data)) == 40
    assert data.vocabulary == 2 + 6
    assert (data.train_x > 1).all()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "got a file that is empty"),
        (b"good film\nbad fi", "cut off after b'good film\\nbad fi'"),
        (b"good\0film\n", "got a zero byte at 4"),
    ],
)
def test_a_file_of_reviews_that_is_cut_or_no_text_is_refused(content, expected, copy):
    folder = copy("mr")
    (folder / "rt-polarity.neg").write_bytes(content)
    assert_raises(folder, "mr", ValueError, str(folder / "rt-polarity.neg"), expected)


def test_the_writers_write_what_they_return(tmp_path):
    """Read here by hand: a writer and a loader with the same mistake would agree."""
    train, _ = write_mnist(tmp_path)
    raw = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    assert raw[:16] == b"\0\0\x08\x03\0\0\x01\x90\0\0\0\x1c\0\0\0\x1c"
    assert raw[16 + 784 * 7 + 28 * 3 + 5] == train.pixels[7, 3, 5]
    train, test = write_cifar10(tmp_path)
    raw = (tmp_path / "test_batch.bin").read_bytes()
    assert raw[3073 * 4] == test.labels[4]
    assert raw[3073 * 4 + 1 + 1024 * 2 + 32 * 3 + 5] == test.pixels[4, 2, 3, 5]
    assert (tmp_path / "data_batch_2.bin").read_bytes()[0] == train.labels[80]
    files = write_sst(tmp_path)
    line = (tmp_path / "dev.txt").read_text().split("\n")[2]
    words, label = files["dev"][2]
    assert line[:3] == f"({label} "
    assert re.findall(r"[^() ]+(?=\))", line) == words
    positive, negative = write_mr(tmp_path)
    assert (tmp_path / "rt-polarity.pos").read_bytes().split(b"\n")[0] == positive[0].encode("latin-1")
    assert len(negative) == (tmp_path / "rt-polarity.neg").read_bytes().count(b"\n")
