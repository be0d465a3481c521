"""README's Python as a user's type checker reads it (`make lint` runs one); not executed."""

from typing import assert_type

import numpy as np

import als

predictor = als.load()
assert_type(predictor, als.Predictor)
found = predictor.predict("photo.jpg", localization_map="neutral", classification_map=0.5)
assert_type(found, als.Prediction)
assert_type(found.boxes, np.ndarray)
assert_type(found.names, list[str])
assert_type(found.localization_map, np.ndarray | None)
analysis = predictor.analyse("photo.jpg")
assert_type(analysis.prediction, als.Prediction)
told = predictor.explain(analysis, detection=0, explainer="gradcam", kind="dw")
assert_type(told.map, np.ndarray)
