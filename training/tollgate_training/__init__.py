"""Training: a history of labelled transactions becomes a registered model that the model server can load.

In: the history's files. Out: a version of the registered model `fraud` in MLflow. The way through: `history` reads,
`window_sums` and `dataset` make the point-in-time features, `split` takes the days, `train` fits and calibrates,
`evaluate` measures, `artifact` writes the folder, `register` logs it; `run` puts them in order.
"""

import os

# Before XGBoost or scikit-learn load OpenMP: threads that spin at every barrier take ten times as long on a machine
# that is busy with something else (the first `tollgate up`: Spark, downloads), and gain nothing on an idle one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
