"""Nearest training images: the search against brute force, features of every model, and what is kept."""

import numpy as np
import pytest

from cifar_core.analysis import neighbours as n
from cifar_core.errors import CifarLabError, ConfigError, DataError, RunNotFoundError, StoreError
from cifar_core.models import MODELS, create_model
from cifar_core.serving.inference import Inference
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from tests.analysis.small_models import SMALL


@pytest.fixture(scope="module", autouse=True)
def _keras():
    """`keras` for this module: imported by the first test, not when tests are collected."""
    global keras
    import keras


# -- The search ----------------------------------------------------------------------------------


def by_hand(features, queries, k):
    """Every cosine, one after the other; of equals the lower row first."""
    found = []
    for query in queries:
        cosines = []
        for row, feature in enumerate(features):
            lengths = np.sqrt((feature**2).sum()) * np.sqrt((query**2).sum())
            cosines.append((-float((feature * query).sum() / lengths) if lengths else 0.0, row))
        found.append([row for _, row in sorted(cosines)[:k]])
    return found


@pytest.mark.parametrize("piece", [1, 7, 100, 10**9])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_search_agrees_with_brute_force(monkeypatch, piece, k):
    """Whatever the size of the pieces that the rows are gone through in."""
    rng = np.random.default_rng(0)
    features, queries = rng.standard_normal((90, 5)), rng.standard_normal((6, 5))
    monkeypatch.setattr(n, "_SEARCH_BYTES", piece * 4 * 6)
    index, cosine = n.nearest(features, queries, k)
    assert (index.dtype, cosine.dtype, index.shape) == (np.int64, np.float32, (6, k))
    assert index.tolist() == by_hand(features, queries, k)
    assert (np.diff(cosine, axis=1) <= 0).all()
    np.testing.assert_allclose(
        cosine[:, 0], (features @ queries.T / np.linalg.norm(features, axis=1)[:, None]).max(axis=0)
        / np.linalg.norm(queries, axis=1), rtol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("piece", [2, 5, 1000])
def test_of_equals_the_lower_row_is_first(monkeypatch, piece):
    monkeypatch.setattr(n, "_SEARCH_BYTES", piece * 4 * 2)
    features = np.array([[0, 1], [2, 0], [0, 0], [1, 0], [3, 0], [0, 2], [1, 0]], np.float32)
    index, cosine = n.nearest(features, np.array([[5.0, 0]]), 6)
    assert index[0].tolist() == [1, 3, 4, 6, 0, 2]
    assert cosine[0].tolist() == [1, 1, 1, 1, 0, 0]


def test_a_memory_mapped_array_of_halves_is_searched(tmp_path):
    values = np.random.default_rng(2).standard_normal((300, 16)).astype(np.float16)
    np.save(tmp_path / "f.npy", values)
    mapped = np.load(tmp_path / "f.npy", mmap_mode="r")
    index, cosine = n.nearest(mapped, values[[250]].astype(np.float32), 2)
    assert index[0, 0] == 250
    assert cosine[0, 0] == pytest.approx(1)


def test_fewer_rows_than_wanted_give_all():
    index, _ = n.nearest(np.eye(3), np.eye(3)[:1], 8)
    assert index.shape == (1, 3)


@pytest.mark.parametrize(
    ("features", "queries", "k", "words"),
    [
        (np.eye(3), np.eye(4), 1, r"\(3, 3\) and \(4, 4\)"),
        (np.eye(3), np.ones(3), 1, "same d"),
        (np.eye(3), np.eye(3), 0, "from 1; got 0"),
        (np.eye(3), np.full((1, 3), np.nan), 1, "finite"),
    ],
)
def test_what_cannot_be_searched_is_said(features, queries, k, words):
    with pytest.raises(ConfigError, match=words):
        n.nearest(features, queries, k)


# -- Features ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "base_cnn" else pytest.mark.slow) for name in MODELS]
)
def test_the_last_layer_gives_the_answer_from_the_features(name):
    """Of every model: features times the last layer's weights are its answer, and nothing has changed."""
    model = create_model(name, **SMALL[name])
    before, config = [weight.copy() for weight in model.get_weights()], model.get_config()
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8).astype(np.float32)
    inner = n.feature_model(model)
    raw = np.asarray(inner(images, training=False), np.float32)
    assert raw.shape[1:] == tuple(n.penultimate(model).output.shape[1:])
    head = model.layers[-1]
    scores = raw @ head.get_weights()[0] + (head.get_weights()[1] if head.use_bias else 0)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = shares / shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(model(images, training=False)), expected, atol=1e-4)
    assert model.get_config() == config
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_features_have_length_one_and_do_not_depend_on_the_batch():
    inner = n.feature_model(create_model("base_cnn"))
    images = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), np.uint8)
    whole = n.features_of(inner, images)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(n.features_of(inner, images, size=3), whole, atol=1e-5)


def test_very_wide_features_are_mixed_and_keep_their_angles():
    rows = np.random.default_rng(3).standard_normal((40, 5000)).astype(np.float32)
    rows[1] = rows[0] + 0.3 * rows[1]
    mixed = n._narrowed(rows)
    assert mixed.shape == (40, n.MIXTURES)
    np.testing.assert_allclose(n._of_length_one(mixed) @ n._of_length_one(mixed).T,
                               n._of_length_one(rows) @ n._of_length_one(rows).T, atol=0.15)  # fmt: skip
    assert n.nearest(mixed, mixed[:1], 2)[0][0].tolist() == [0, 1]
    assert n._narrowed(rows[:, :4096]) is not mixed
    assert n._narrowed(rows[:, :4096]).shape == (40, 4096)


def test_a_model_without_such_a_layer_is_refused():
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((32, 32, 3)), layers.Flatten(), layers.Dense(10), layers.Softmax()]
    )
    with pytest.raises(CifarLabError, match="not dense with softmax"):
        n.penultimate(model)


# -- What is kept with a run -----------------------------------------------------------------------


class Here(Inference):
    """Answers in this very process, so that no other is started; counts the parts."""

    parts = 0

    def _call(self, function, *args):
        self.parts += 1
        return function(*args)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny):
    """A store with a run of one epoch, and its folder."""
    from cifar_core.training.run import train

    folder = tmp_path_factory.mktemp("neighbours")
    config = TrainConfig(
        dataset="synthetic", epochs=1, batch_size=32, validation_fraction=0.2, precision="float32"
    )
    with RunStore(folder) as store:
        run = train(config, dataset=tiny, store=store)
        yield store, run


@pytest.fixture
def asking(monkeypatch):
    monkeypatch.setattr("cifar_core.serving.inference.PART_IMAGES", 64)
    return Here()


@pytest.fixture(autouse=True)
def nothing_kept(trained):
    for path in trained[1].folder.glob("features-*"):
        path.unlink()


def test_neighbours_of_a_real_run(trained, tiny, asking):
    """The features, their order and the labels against the model itself; asked once, then kept."""
    store, run = trained
    told = []
    found = n.neighbours(
        store, run.id, tiny, 7, 5, inference=asking, progress=lambda *how_far: told.append(how_far)
    )
    inner = keras.Model(run.model.inputs[0], run.model.layers[-2].output)
    train_features, query = (
        np.asarray(inner(images.astype("float32"))) for images in (tiny.x_train, tiny.x_test[7:8])
    )
    cosines = (train_features @ query[0]) / np.linalg.norm(train_features, axis=1) / np.linalg.norm(query)
    np.testing.assert_allclose(found["similarity"], np.sort(cosines)[::-1][:5], atol=2e-3)
    np.testing.assert_allclose(cosines[found["index"]], found["similarity"], atol=2e-3)
    np.testing.assert_array_equal(found["label"], tiny.y_train[found["index"]])
    assert told == [(64, 200), (128, 200), (192, 200), (200, 200)]
    assert asking.parts == 5
    n.neighbours(store, run.id, tiny, 8, 5, inference=asking)
    assert asking.parts == 6  # the query alone


def test_what_is_kept_is_mapped_and_not_held(trained, tiny, asking):
    store, run = trained
    features = n.training_features(store, run.id, tiny, asking)
    assert isinstance(features, np.memmap)
    assert not features.flags.writeable
    assert (features.dtype, len(features)) == (np.float16, 200)
    assert [artifact.name for artifact in store.artifacts(run.id) if artifact.name.startswith("features-")]


def test_another_model_or_other_images_are_never_mistaken(trained, tiny, asking, tmp_path):
    store, run = trained
    first = n.training_features(store, run.id, tiny, asking)
    names = {path.name for path in run.folder.glob("features-*")}
    path = run.folder / "model.keras"
    content = path.read_bytes()
    try:
        keras.utils.set_random_seed(5)
        create_model("base_cnn").save(tmp_path / "other.keras")
        path.write_bytes((tmp_path / "other.keras").read_bytes())
        assert n.kept_features(store, run.id, tiny) is None
        second = n.training_features(store, run.id, tiny, asking)
        assert not np.allclose(first, second)
        left = {path.name for path in run.folder.glob("features-*")}
        assert len(left) == 1
        assert left != names  # the older one is gone
    finally:
        path.write_bytes(content)
    with pytest.raises(DataError, match="trained on other images"):
        n.training_features(store, run.id, tiny.limited(100, None, 0), asking)


def test_stopping_keeps_nothing(trained, tiny, asking):
    store, run = trained
    with pytest.raises(n.StoppedError):
        n.training_features(store, run.id, tiny, asking, should_stop=lambda: asking.parts == 2)
    assert asking.parts == 2
    assert not [path for path in run.folder.iterdir() if "features-" in path.name]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY cut", b"no array at all"])
def test_a_damaged_file_is_said(trained, tiny, asking, content):
    store, run = trained
    n.training_features(store, run.id, tiny, asking)
    (path,) = run.folder.glob("features-*")
    path.write_bytes(content)
    with pytest.raises(StoreError, match="Delete the file; it is computed again"):
        n.training_features(store, run.id, tiny, asking)


def test_a_run_without_a_model_and_a_wrong_place_are_said(trained, tiny, asking):
    store, run = trained
    for index in (-1, 50):
        with pytest.raises(ConfigError, match="there are 0 to 49"):
            n.neighbours(store, run.id, tiny, index, inference=asking)
    bare = store.create_run(TrainConfig(dataset="synthetic"))
    with pytest.raises((RunNotFoundError, DataError)):
        n.neighbours(store, bare, tiny, 0, inference=asking)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train_limit": 120, "seed": 3},
        {"validation_fraction": 0.35, "train_limit": 200},
        {"protocol": "test-selected", "train_limit": 60},
    ],
)
def test_images_that_were_learned_from_are_told_from_the_others(tiny, settings):
    config = TrainConfig(dataset="synthetic", **settings)
    learned = tiny.x_train[n.trained_on(config, tiny.y_train)]
    from cifar_core.training.images import run_images

    np.testing.assert_array_equal(learned, run_images(config, tiny).train[0])


@pytest.mark.slow
def test_the_real_process_gives_the_same_features(trained, tiny):
    _, run = trained
    asking = Inference(idle_s=30)
    try:
        found = asking.features(run.folder / "model.keras", tiny.x_test)
        expected = n.features_of(n.feature_model(run.model), tiny.x_test)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        heat = asking.ask(
            run.folder / "model.keras", tiny.x_test[:1], explain=2, method="integrated_gradients"
        ).heat
        from cifar_core.analysis.explain import integrated_gradients

        np.testing.assert_allclose(heat[0], integrated_gradients(run.model, tiny.x_test[0], 2), atol=1e-3)
    finally:
        asking.close()
