"""Datasets that people bring: a folder by class and other forms, imported into the home."""

import fnmatch
import gzip
import json
import os
import pickle
import shutil
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cifar_core.data import catalogue, import_cifar10, load_dataset
from cifar_core.data.imported import import_images, is_current, read, remove, result_of
from cifar_core.data.problem import CIFAR10
from cifar_core.errors import ConfigError, DataError, DataNotFoundError

CLASSES = ("ant", "bee", "Cow")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def picture(file, colour=(200, 30, 30), size=(40, 36), mode="RGB", **options):
    """A plain picture whose left third is black."""
    image = Image.new("RGB", size, colour)
    image.paste((0, 0, 0), (0, 0, size[0] // 3, size[1]))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(file, **options)
    return file


def colour(label, number):
    return (60 * label + 20, 5 * number, 100)


@pytest.fixture
def folder(tmp_path):
    """Ten pictures in each of three classes, without a test split."""
    for label, name in enumerate(CLASSES):
        for number in range(10):
            picture(tmp_path / "own" / name / f"{number}.png", colour(label, number))
    return tmp_path / "own"


def test_a_folder_by_class_becomes_a_dataset(folder):
    found = import_images("own", folder)
    assert (found.kind, found.train, found.test, found.drawn_test) == ("folder", 24, 6, True)
    dataset = load_dataset("own")
    assert dataset.class_names == ("ant", "bee", "Cow"), "in order of their names, whatever their case"
    assert dataset.x_train.shape == (24, 32, 32, 3)
    assert np.bincount(dataset.y_train).tolist() == [8, 8, 8], "each class is shared out alike"
    assert np.bincount(dataset.y_test).tolist() == [2, 2, 2]
    label = int(dataset.y_train[0])
    assert dataset.x_train[0, 16, 30, 0] == colour(label, 0)[0]
    entry = catalogue.get("own")
    assert (entry.problem.count, entry.problem.side, entry.train, entry.test) == (3, 32, 24, 6)
    assert "20 % of each class were drawn" in " ".join(found.lines())


def test_an_import_measures_the_channels_and_earlier_ones_are_as_they_were(folder, home):
    import_images("own", folder)
    dataset = read("own")
    pixels = dataset.x_train.reshape(-1, 3) / 255
    np.testing.assert_allclose(dataset.problem.channel_mean, pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(dataset.problem.channel_sd, np.maximum(pixels.std(axis=0), 0.01), rtol=1e-5)
    file = home / "datasets" / "own" / "about.json"
    about = json.loads(file.read_text())
    del about["channel_mean"], about["channel_sd"]
    file.write_text(json.dumps(about))
    assert read("own").problem == dataset.problem
    assert read("own").problem.channel_sd == CIFAR10.channel_sd


def test_the_drawn_test_split_is_the_same_each_time(folder):
    import_images("one", folder)
    import_images("two", folder)
    np.testing.assert_array_equal(read("one").x_test, read("two").x_test)


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "val")])
def test_folders_for_training_and_test_are_used_as_they_are(tmp_path, names):
    for label, name in enumerate(CLASSES):
        for number in range(4):
            picture(tmp_path / "own" / names[0] / name / "deeper" / f"{number}.jpg", colour(label, number))
        picture(tmp_path / "own" / names[1] / name / "1.jpg", colour(label, 9))
    found = import_images("own", tmp_path / "own")
    assert (found.train, found.test, found.drawn_test) == (12, 3, False)
    assert read("own").y_test.tolist() == [0, 1, 2]


def test_pictures_of_every_kind_are_brought_to_one_size(tmp_path):
    root = tmp_path / "own"
    turned = Image.Exif()
    turned[0x0112] = 6
    made = [
        picture(root / "a" / "1.png", size=(300, 200), mode="L"),
        picture(root / "a" / "2.png", size=(31, 90), mode="RGBA"),
        picture(root / "a" / "3.jpg", size=(400, 300), mode="CMYK"),
        picture(root / "b" / "1.gif", mode="P"),
        picture(root / "b" / "2.webp", size=(32, 32)),
        picture(root / "b" / "3.jpg", size=(90, 60), exif=turned),
    ]
    (root / "b" / "notes.txt").write_text("not a picture")
    (root / "b" / ".hidden.png").write_text("nor this")
    found = import_images("own", root, side=64)
    dataset = read("own")
    assert dataset.problem.side == 64
    assert len(dataset.x_train) + len(dataset.x_test) == len(made)
    assert found.notes == ("1 other files in own are left out",)
    every = np.concatenate([dataset.x_train, dataset.x_test])
    upright = [image for image in every if image[:10].max() < 30 < image[50:].max()]
    assert len(upright) == 1, "the one that its EXIF turns has its black third on top"


def test_broken_files_are_named_and_left_out_only_where_that_is_said(folder):
    broken = folder / "bee" / "3.png"
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(DataError, match=r"1 of 30 files cannot be read: .*3.png is damaged") as refused:
        import_images("own", folder)
    assert "Nothing was imported" in str(refused.value)
    assert catalogue.find("own") is None
    found = import_images("own", folder, skip_broken=True)
    assert (found.broken_files, found.train + found.test) == (1, 29)
    assert "3.png" in found.broken[0]
    assert result_of("own") == found


def test_the_same_picture_in_training_and_test_is_told(tmp_path):
    for split in ("train", "test"):
        for label, name in enumerate(CLASSES):
            picture(tmp_path / "own" / split / name / "1.png", colour(label, 1))
    found = import_images("own", tmp_path / "own")
    assert found.duplicates == 3
    assert "3 test images are exactly a training image" in " ".join(found.lines())


def test_links_are_not_followed(folder, tmp_path):
    secret = picture(tmp_path / "elsewhere.png")
    (folder / "ant" / "link.png").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    found = import_images("own", folder)
    assert found.train + found.test == 30
    assert found.notes == ("1 links in own are left out",)
    assert read("own").class_names == CLASSES


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: [os.remove(file) for file in (root / "ant").iterdir()], "ant has fewer than 2 images"),
        (
            lambda root: [os.rename(root / name, root / f".{name}") for name in CLASSES[:2]],
            "1 folders, and each",
        ),
        (lambda root: picture(root / "test" / "dog" / "1.png"), None),
    ],
)
def test_folders_that_are_no_dataset_say_why(folder, spoil, message):
    spoil(folder)
    if message is None:
        os.rename(folder / "test", folder.parent / "test")
        train = folder.parent / "both" / "train"
        train.parent.mkdir()
        os.rename(folder, train)
        os.rename(folder.parent / "test", train.parent / "test")
        folder, message = train.parent, "classes that .*train lacks: dog"
    with pytest.raises(DataError, match=message):
        import_images("own", folder)
    assert catalogue.find("own") is None


def test_nothing_is_left_of_an_import_that_was_stopped(folder, home):
    import_images("own", folder)
    before = read("own").fingerprint
    with pytest.raises(DataError, match="stopped"):
        import_images("own", folder, side=64, should_stop=lambda: True)
    assert read("own").fingerprint == before
    assert sorted(path.name for path in (home / "datasets").iterdir()) == [".lock", "own"]


def test_a_path_is_imported_once_and_again_where_it_has_changed(folder):
    first = load_dataset("own", folder)
    assert is_current("own", folder, None)
    assert load_dataset("own", folder).fingerprint == first.fingerprint
    picture(folder / "bee" / "new.png", (1, 2, 3))
    assert not is_current("own", folder, None)
    assert len(load_dataset("own", folder).x_train) + 1 > len(first.x_train)
    assert load_dataset("own", folder, side=48).problem.side == 48


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", "comes with the lab"),
        ("Own", "small letters"),
        ("../own", "small letters"),
        ("", "small letters"),
    ],
)
def test_names_that_cannot_be_are_refused(folder, name, message):
    with pytest.raises(ConfigError, match=message):
        import_images(name, folder)


def test_an_imported_dataset_can_be_removed(folder):
    import_images("own", folder)
    remove("own")
    with pytest.raises(
        DataNotFoundError, match="no dataset 'own' on this machine; there are: cifar10, synthetic"
    ):
        load_dataset("own")
    with pytest.raises(ConfigError, match="comes with the lab"):
        remove("synthetic")
    assert folder.is_dir()


def test_a_damaged_import_says_what_to_do(folder, home):
    import_images("own", folder)
    (home / "datasets" / "own" / "x_test.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"own .*is damaged .*: import it again"):
        read("own")
    (home / "datasets" / "own" / "about.json").write_text("{")
    assert catalogue.find("own") is None


# --- Other forms ----------------------------------------------------------------------------------


def arrays(count, classes=3, side=32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, 3), np.uint8), np.arange(count) % classes


def test_arrays(tmp_path):
    x, y = arrays(12, side=40)
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, classes=np.array(["a", "b", "c"]))
    found = import_images("own", tmp_path / "own.npz")
    dataset = read("own")
    assert (found.kind, dataset.problem.side, dataset.class_names) == ("npz", 40, ("a", "b", "c"))
    kept = {image.tobytes() for image in (*dataset.x_train, *dataset.x_test)}
    assert kept == {image.tobytes() for image in x}, "images of that size keep their pixels"


def test_cifar100(tmp_path, monkeypatch):
    from cifar_core.data.readers import cifar100

    monkeypatch.setattr(cifar100, "ROWS", {"train": 200, "test": 100})
    root = tmp_path / "cifar-100-python"
    root.mkdir()
    names = [f"thing {place}" for place in range(100)]
    coarse = [b"even things", b"odd things"]
    meta = {b"fine_label_names": names, b"coarse_label_names": coarse}
    (root / "meta").write_bytes(pickle.dumps(meta, 2))
    for name, rows in cifar100.ROWS.items():
        x, y = arrays(rows, 100)
        content = {b"data": x.transpose(0, 3, 1, 2).reshape(rows, -1), b"fine_labels": y.tolist(),
                   b"coarse_labels": (y % 2).tolist(), b"filenames": [b"x"] * rows}  # fmt: skip
        (root / name).write_bytes(pickle.dumps(content, 2))
    found = import_images("cifar100", tmp_path)
    dataset = read("cifar100")
    assert (found.kind, found.title, dataset.class_names) == ("cifar100", "CIFAR-100", tuple(names))
    np.testing.assert_array_equal(dataset.x_train, arrays(200, 100)[0])
    assert catalogue.get("cifar100").superclasses == ("even things", "odd things") * 50


def test_fashion_mnist(tmp_path):
    from cifar_core.data.readers.fashion import CLASSES as NAMES
    from cifar_core.data.readers.fashion import STEMS

    root = tmp_path / "fashion"
    root.mkdir()
    for images, labels in STEMS.values():
        grey = np.full((20, 28, 28), 90, np.uint8)
        header = b"\0\0\x08\x03" + np.array([20, 28, 28], ">u4").tobytes()
        (root / f"{images}.gz").write_bytes(gzip.compress(header + grey.tobytes()))
        header = b"\0\0\x08\x01" + np.array([20], ">u4").tobytes()
        (root / labels).write_bytes(header + (np.arange(20) % 10).astype(np.uint8).tobytes())
    import_images("fashion", root)
    dataset = read("fashion")
    assert dataset.class_names == NAMES
    assert dataset.x_train.shape == (20, 32, 32, 3)
    assert set(np.unique(dataset.x_train)) == {90}


def test_svhn(tmp_path):
    from scipy.io import savemat

    x, y = arrays(20, 10)
    for name in ("train", "test"):
        compressed = name == "train"
        content = {"X": x.transpose(1, 2, 3, 0), "y": np.where(y == 0, 10, y)[:, None].astype(np.uint8)}
        savemat(tmp_path / f"{name}_32x32.mat", content, do_compression=compressed)
    import_images("svhn", tmp_path)
    dataset = read("svhn")
    np.testing.assert_array_equal(dataset.x_train, x)
    np.testing.assert_array_equal(dataset.y_test, y)
    assert dataset.class_names == tuple("0123456789")


def test_kaggle(tmp_path):
    for number in range(12):
        picture(tmp_path / "train" / f"{number + 1}.png", colour(number % 3, number))
    rows = "\n".join(f"{number + 1},{CLASSES[number % 3]}" for number in range(12))
    (tmp_path / "trainLabels.csv").write_text(f"id,label\n{rows}\n")
    import_images("own", tmp_path)
    assert read("own").class_names == ("ant", "bee", "Cow")
    (tmp_path / "train" / "5.png").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of the 12 pictures .*'5'"):
        import_images("own", tmp_path)


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def table(count):
        pictures = []
        for number in range(count):
            file = picture(tmp_path / "one.png", colour(number % 3, number))
            pictures.append({"bytes": file.read_bytes(), "path": None})
        about = {"info": {"features": {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}}}
        columns = {"img": pictures, "label": [number % 3 for number in range(count)]}
        return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(about)})

    (tmp_path / "data" / "plain").mkdir(parents=True)
    pq.write_table(table(12), tmp_path / "data" / "plain" / "train-00000-of-00001.parquet")
    pq.write_table(table(6), tmp_path / "data" / "plain" / "test-00000-of-00001.parquet")
    found = import_images("own", tmp_path / "data")
    assert (found.kind, found.train, found.test) == ("parquet", 12, 6)
    assert read("own").class_names == CLASSES


def packed(folder, file, top=""):
    """The folder as a zip or tar, with what programs leave beside the pictures."""
    (folder / "notes.txt").write_text("not a picture")
    files = {f"{top}{one.relative_to(folder).as_posix()}": one for one in folder.rglob("*") if one.is_file()}
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("__MACOSX/._0.png", "no picture")
            for name, one in files.items():
                archive.write(one, name)
    else:
        with tarfile.open(file, "w:gz") as archive:
            for name, one in files.items():
                archive.add(one, name)
    return file


@pytest.mark.parametrize(("name", "top"), [("own.zip", ""), ("own.tar.gz", "pictures/own/")])
def test_a_packed_folder_gives_what_the_folder_gives(folder, tmp_path, name, top):
    import_images("own", folder)
    unpacked = read("own").fingerprint
    found = import_images("own", packed(folder, tmp_path / name, top))
    assert (found.kind, found.drawn_test) == ("archive", True)
    assert found.notes == (f"1 other files in {name} are left out",)
    assert read("own").fingerprint == unpacked
    assert is_current("own", tmp_path / name, None)


def test_a_packed_folder_with_splits_and_a_broken_picture(tmp_path):
    for split in ("Train", "val"):
        for label, name in enumerate(CLASSES):
            picture(tmp_path / "own" / split / name / "1.png", colour(label, len(split)))
    (tmp_path / "own" / "Train" / "ant" / "2.png").write_bytes(b"")
    file = packed(tmp_path / "own", tmp_path / "own.zip", "own/")
    with pytest.raises(DataError, match=r"own.zip: own/Train/ant/2.png is empty"):
        import_images("own", file)
    found = import_images("own", file, skip_broken=True)
    assert (found.train, found.test, found.drawn_test, found.broken_files) == (3, 3, False, 1)
    assert "the folder val is the test split" in found.notes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.txt", "b/2.txt"], "holds no pictures by class, but"),
        (["a/1.png"], "the training part has 1 folders, and each is a class"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], "classes without training images: c"),
        (["a/1.png", "../b/1.png"], "outside its own folder"),
        (["a/1.png", "/b/1.png"], "outside its own folder"),
    ],
)
def test_archives_that_are_no_dataset_say_why(tmp_path, names, message):
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "anything")
    with pytest.raises(DataError, match=message):
        import_images("own", tmp_path / "own.zip")


def test_what_is_another_dataset_is_led_to_its_own_import(folder, tmp_path):
    for path in (folder, packed(folder, tmp_path / "own.zip")):
        with pytest.raises(DataNotFoundError, match=r"cifar-lab data add NAME PATH"):
            import_cifar10(path)
    with pytest.raises(DataNotFoundError) as refused:
        import_cifar10(tmp_path / "nothing")
    assert "data add" not in str(refused.value)


@pytest.fixture
def the_hub(tmp_path, monkeypatch):
    """Stands for the Hub's client: `the_hub(branch, name, ...)` makes files of a branch, seen as links."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def download(repository, *, repo_type, revision, allow_patterns):
        folder = tmp_path / "snapshots" / revision
        if (repository, repo_type) != ("owner/pets", "dataset") or not folder.exists():
            raise OSError(f"404 Client Error: no {revision} of {repository}")
        shown = tmp_path / "shown"
        shutil.rmtree(shown, ignore_errors=True)
        for file in folder.rglob("*.parquet"):
            name = file.relative_to(folder).as_posix()
            if fnmatch.fnmatch(name, allow_patterns):
                (shown / name).parent.mkdir(parents=True, exist_ok=True)
                (shown / name).symlink_to(file)
        shown.mkdir(exist_ok=True)
        return str(shown)

    def files(branch, *names):
        for name in names:
            file = tmp_path / "snapshots" / branch / name
            file.parent.mkdir(parents=True, exist_ok=True)
            pictures = [
                {"bytes": picture(tmp_path / "1.png", colour(n % 3, n)).read_bytes()} for n in range(9)
            ]
            pq.write_table(pa.table({"image": pictures, "label": [n % 3 for n in range(9)]}), file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=download))
    return files


def test_a_dataset_of_the_hub(the_hub):
    the_hub("main", "data/train-0.parquet", "data/test-0.parquet")
    found = import_images("own", "hub:owner/pets")
    assert (found.kind, found.origin, found.train, found.test) == ("hub", "hub:owner/pets", 9, 9)
    assert is_current("own", "hub:owner/pets", None)
    assert not is_current("own", "hub:owner/others", None)


def test_what_the_hub_has_made_parquet_of_and_its_parts(the_hub, tmp_path):
    (tmp_path / "snapshots" / "main").mkdir(parents=True)
    the_hub("refs/convert/parquet", "large/train/0.parquet", "small/train/0.parquet", "small/test/0.parquet")
    with pytest.raises(
        DataError, match=r"several parts: name one, as in hub:owner/pets/large. .* large, small"
    ):
        import_images("own", "hub:owner/pets")
    found = import_images("own", "hub:owner/pets/small")
    assert (found.train, found.test) == (9, 9)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("hub:pets", ConfigError, "is named hub:OWNER/NAME"),
        ("hub:owner/../etc/x", ConfigError, "is named hub:OWNER/NAME"),
        ("hub:owner/birds", DataError, "hub:owner/birds cannot be downloaded .*404 Client Error"),
    ],
)
def test_names_of_the_hub_that_lead_nowhere(the_hub, name, error, message):
    the_hub("main", "train.parquet")
    with pytest.raises(error, match=message):
        import_images("own", name)


def test_without_the_extra_the_hub_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r'pip install "cifar-lab\[hub\]"'):
        import_images("own", "hub:owner/pets")


@pytest.mark.parametrize(
    "name", ["cifar-10-batches-py/data_batch_1", "data_batch_1.bin", "cifar-10-python.tar.gz"]
)
def test_cifar10_itself_is_led_to_its_own_import(tmp_path, name):
    file = tmp_path / "own" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"anything")
    with pytest.raises(DataError, match=r"is CIFAR-10 itself.*cifar-lab data import"):
        import_images("own", file if name.endswith("gz") else tmp_path / "own")


def test_what_is_in_no_known_form_says_which_are(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=r"in no form that is known here. Known are: CIFAR-100"):
        import_images("own", tmp_path / "film.mp4")
    with pytest.raises(DataNotFoundError, match="There is nothing at"):
        import_images("own", tmp_path / "nowhere")
