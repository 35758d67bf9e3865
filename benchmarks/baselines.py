"""What a user would do instead: a plain backbone trained alone, on the same rows in the same way."""

import numpy as np
import torch
from sklearn.utils import check_random_state
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from skorch.helper import predefined_split
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from sklearn_jeidnn._cut import multiply_adds
from sklearn_jeidnn._fit.callbacks import KeepBestEpoch
from sklearn_jeidnn._fit.schedules import WarmUpAndCosine
from sklearn_jeidnn._splits import hold_out


def train_plain(backbone_class, X, y, *, max_epochs=100, lr=None, batch_size=256, seed=0, **params):
    """Train a backbone without exits as ``EarlyExitClassifier`` trains it with them.

    The same rows train and pick the epoch; the rows that would calibrate are left out here too.

    Returns
    -------
    net : NeuralNetClassifier
        Fitted; its labels are codes of ``numpy.unique(y)``.
    cost : float
        Multiply-adds of one row.
    """
    classes, codes = np.unique(y, return_inverse=True)
    train, chosen, _ = hold_out(codes, 0.1, check_random_state(seed))
    torch.manual_seed(seed)
    backbone = backbone_class.from_data(X[train], len(classes), y=codes[train], **params)
    if lr is None:
        lr = getattr(backbone, "learning_rate", 2e-3)
    n_steps = -(-len(train) // batch_size) * max_epochs
    net = NeuralNetClassifier(
        backbone,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=lr,
        max_epochs=max_epochs,
        batch_size=batch_size,
        iterator_train__shuffle=True,
        train_split=predefined_split(
            torch.utils.data.TensorDataset(
                torch.as_tensor(X[chosen]), torch.as_tensor(codes[chosen])
            )
        ),
        callbacks=[
            (
                "lr_schedule",
                LRScheduler(
                    LambdaLR,
                    lr_lambda=WarmUpAndCosine(n_steps),
                    step_every="batch",
                    event_name=None,
                ),
            ),
            ("best_epoch", KeepBestEpoch()),
        ],
        verbose=0,
    )
    net.fit(X[train], codes[train])
    backbone.eval()
    _, cost = multiply_adds(backbone, torch.as_tensor(X[:2]))
    return net, cost
