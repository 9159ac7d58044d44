# %% [markdown]
# # Your own pictures
#
# What does a trained network say of pictures of yours, how often is it right, and where does it look? The
# pictures are only for prediction: training on images of your own is not possible yet.
#
# Put them into a folder with one subfolder for each class: `pictures/cat/…`, `pictures/dog/…`. Where there is
# no such folder this notebook draws some scenes, so that it can be read from top to end.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.express as px

from cifar_core import CLASS_NAMES, RunStore, explain, images, plots, preset, train
from cifar_core.analysis.evaluation import predict_probabilities
from cifar_core.analysis.metrics import report
from cifar_core.data.synthetic import synthetic_dataset
from cifar_core.errors import ImageError
from cifar_core.models.model_file import load_model

FOLDER = Path("pictures")
EPOCHS = 8
LIMIT = None  # a number takes as many training images only

# %%
if not FOLDER.exists():
    from PIL import Image

    drawn = synthetic_dataset(7, 10, 60)  # other scenes than those that the network learns from
    for number, (pixels, label) in enumerate(zip(drawn.x_test, drawn.y_test, strict=True)):
        file = FOLDER / CLASS_NAMES[label] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((160, 160)).save(file)

# %% [markdown]
# ## A network
#
# The newest finished run of the store, or a new one on drawn scenes if there is none.

# %%
store = RunStore()
finished = store.runs(state="finished")
if finished.empty:
    config = preset("base_cnn/recommended", dataset="synthetic", epochs=EPOCHS, train_limit=LIMIT)
    run_id = train(config, store=store).id
else:
    run_id = finished.iloc[0]["id"]
model = load_model(store.artifact(run_id, "model.keras"))
print(run_id, "on", store.get(run_id).config.dataset)

# %% [markdown]
# ## Read the pictures
#
# `read_image` sets a picture upright, cuts out its middle square and scales it to 32x32. What cannot be read
# is named.

# %%
found = {}
for file in sorted(FOLDER.glob("*/*")):
    try:
        found[file] = images.read_image(file)
    except ImageError as error:
        print(error)
labels = np.array([CLASS_NAMES.index(file.parent.name) for file in found])
pixels = np.stack(list(found.values()))
print(pixels.shape)

# %% [markdown]
# ## What does the network say?

# %%
probabilities = predict_probabilities(model, pixels)
answers = pd.DataFrame(
    {
        "file": [str(file) for file in found],
        "true": [CLASS_NAMES[label] for label in labels],
        "predicted": [CLASS_NAMES[best] for best in probabilities.argmax(axis=1)],
        "confidence": probabilities.max(axis=1),
    }
)
answers.head(10)

# %%
result = report(probabilities, labels)
print(f"{result.accuracy:.1%} of {result.n} pictures are right.")
plots.confusion_matrix(result.confusion)

# %% [markdown]
# Expect less than on the test images: photographs of today differ from those of CIFAR-10, and with so few
# pictures the figure is rough.
#
# ## What does it get wrong, and where does it look?
#
# The surest mistakes first. A sure mistake on a picture that you find easy says most: look at the heat map,
# then crop the picture to its object and ask again.

# %%
wrong = answers[answers["true"] != answers["predicted"]].sort_values("confidence", ascending=False)
wrong.head(10)

# %%
place = int(wrong.index[0]) if len(wrong) else 0
heat = explain.saliency(model, pixels[place])
print(answers.loc[place].to_dict())
px.imshow(heat)
