# %% [markdown]
# # Train and study a network
#
# Train a small network, read its curves, and look at what it gets wrong and why. It uses the drawn scenes
# that come with the lab and takes about two minutes on two cores. With CIFAR-10 on the machine, write
# `DATASET = "cifar10"`.

# %%
import plotly.express as px

from cifar_core import CLASS_NAMES, RunStore, explain, load_dataset, mistakes, plots, preset, train
from cifar_core.analysis.diagnosis import remarks

DATASET = "synthetic"
EPOCHS = 8
LIMIT = None  # a number takes as many training images only

# %% [markdown]
# ## The images
#
# Images are `uint8 (N, 32, 32, 3)` in 0..255, labels are numbers in the order of `CLASS_NAMES`. Validation
# images are cut from the training images; the test images are looked at once, at the end of a run.

# %%
dataset = load_dataset(DATASET)
print(dataset.x_train.shape, dataset.x_test.shape, dataset.source)

# %% [markdown]
# ## Train
#
# A preset is a complete setting; anything in it can be changed. With `store=` the run is recorded, so that
# the app shows it too. Without, nothing is written anywhere.

# %%
store = RunStore()
config = preset("base_cnn/recommended", dataset=DATASET, epochs=EPOCHS, train_limit=LIMIT)
run = train(config, dataset=dataset, store=store)
run.history[["epoch", "accuracy", "val_accuracy", "loss", "val_loss", "seconds"]].round(3)

# %% [markdown]
# ## Read the curves
#
# The strong line is accuracy on validation images, the dotted one on training images. `remarks` says what a
# practised eye would notice: no learning at all, validation at chance level, overfitting. Usually it finds
# nothing.

# %%
curve = plots.Curve(label=config.model, model=config.model, history=run.history)
plots.learning_curves([curve])

# %%
print(remarks(run.epochs) or "Nothing unusual.")
print(f"Best epoch: {run.best_epoch}. Test accuracy: {run.metrics['accuracy']:.2%}.")

# %% [markdown]
# ## Which classes are hard?

# %%
run.report.per_class.round(3)

# %%
plots.confusion_matrix(run.report.confusion)

# %% [markdown]
# ## Which images?
#
# One row for each test image: its label, the predicted class, the probability of that class, the loss. The
# surest mistakes come first: they tell most about what the network has learned.

# %%
table = mistakes.mistakes(store.predictions(run.id))
surest = mistakes.ordered(mistakes.narrowed(table, kind="wrong"), "surest")
surest.head(10)

# %%
mistakes.confused_pairs(table).head(5)

# %% [markdown]
# ## Where did the network look?
#
# Grad-CAM gives a map in 0..1 of where in the image it found evidence for the class that it predicted.

# %%
shown = surest if len(surest) else table
index, said = (int(shown.iloc[0][name]) for name in ("index", "predicted"))
tested = dataset.limited(config.train_limit, config.test_limit, config.seed)
image = tested.x_test[index]
heat = explain.saliency(run.model, image, class_index=said)
print(f"Test image {index} is a {CLASS_NAMES[tested.y_test[index]]}, predicted {CLASS_NAMES[said]}.")
px.imshow(heat)

# %% [markdown]
# Its record stays in the store: `cifar-lab show` prints it, and the app's pages Runs and Mistakes show it.
# Next: [tune and compare](tune_and_compare.md).

# %%
print(f"cifar-lab show {run.id}")
