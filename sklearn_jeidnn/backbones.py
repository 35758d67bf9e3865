"""Ready backbones: a residual network for tables and a small one for images.

Both are plain torch modules with a ``ModuleList`` named ``blocks``, so that they are cut after each
block like any other. ``from_data`` builds one from training samples, which give the shape of the
input and what its first layers keep (bins, means, and filters of an image's patches).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ._encoding import InputNoise, PiecewiseLinearEncoding, RobustScaling, bin_edges
from ._image_layers import FlipsAndShifts, ImageInput
from ._images import ImageResNet
from ._tables import TabularResNet

__all__ = [
    "BagOfEmbeddings",
    "FlipsAndShifts",
    "ImageInput",
    "ImageResNet",
    "InputNoise",
    "PiecewiseLinearEncoding",
    "RobustScaling",
    "TabularResNet",
    "bin_edges",
    "default_backbone",
]


class BagOfEmbeddings(nn.Module):
    """Linear classifier on the mean of a sample's token embeddings: a companion for text.

    Parameters
    ----------
    n_tokens : int
        Number of embeddings; tokens beyond them use the last one.
    n_classes : int
    width : int, default=64
        Length of an embedding.
    dropout : float, default=0.5
        Share of the mean's units dropped while training.
    ids, mask : str, default=None
        Names of the tokens, and of the 0/1 mask of those that count, if inputs are passed by name.
        If ``mask`` is None, all tokens count.

    References
    ----------
    Joulin, Grave, Bojanowski, Mikolov, "Bag of Tricks for Efficient Text Classification", EACL
    2017.
    """

    ids: Any  # str or None

    def __init__(
        self,
        n_tokens: int,
        n_classes: int,
        *,
        width: int = 64,
        dropout: float = 0.5,
        ids: str | None = None,
        mask: str | None = None,
    ) -> None:
        super().__init__()
        self.ids, self.mask = ids, mask
        self.embedding = nn.Embedding(n_tokens, width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, n_classes)

    @classmethod
    def from_data(
        cls, X: np.ndarray | dict[str, np.ndarray], n_classes: int, **params: Any
    ) -> "BagOfEmbeddings":
        """Build a network for these training samples.

        Parameters
        ----------
        X : ndarray of int (n_samples, length), or dict of such
            In a dict, the array with the largest numbers holds the tokens, and one of zeros and
            ones the mask.
        n_classes : int
        **params
            Passed to the constructor: ``width``, ``dropout``.

        Raises
        ------
        ValueError
            If a dict holds no tokens (n_samples, length).
        """
        if not isinstance(X, dict):
            return cls(int(X.max()) + 1, n_classes, **params)
        largest = {k: int(a.max()) for k, a in X.items() if a.ndim == 2 and a.dtype.kind in "iub"}
        if not largest or max(largest.values()) < 2:
            raise ValueError(
                f"X has keys {sorted(X)}, none of which holds tokens (n_samples, length); give the companions as "
                f"members of module."
            )
        ids = max(largest, key=largest.__getitem__)
        mask = next((k for k, a in largest.items() if a == 1 and X[k].shape == X[ids].shape), None)
        return cls(largest[ids] + 1, n_classes, ids=ids, mask=mask, **params)

    @property
    def settings(self) -> dict[str, Any]:
        """What of the network its state does not tell."""
        return {"ids": self.ids, "mask": self.mask, "dropout": self.dropout.p}

    @classmethod
    def of_state(cls, state: Mapping[str, torch.Tensor], **settings: Any) -> "BagOfEmbeddings":
        """A network of the sizes of a state dict, which it does not hold yet."""
        n_tokens, width = state["embedding.weight"].shape
        n_classes = len(state["classifier.weight"])
        return cls(n_tokens, n_classes, width=width, **settings)

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        """Tokens (n_samples, length), by position or by name -> logits (n_samples, n_classes)"""
        ids = named[self.ids] if named else inputs[0]
        embedded = self.embedding(ids.clamp(max=self.embedding.num_embeddings - 1))
        counts = torch.ones_like(embedded[..., :1])
        if self.mask is not None:
            counts = named[self.mask][..., None].to(embedded.dtype)
        mean = (embedded * counts).sum(1) / counts.sum(1).clamp(min=1)
        logits: torch.Tensor = self.classifier(self.dropout(mean))
        return logits


def default_backbone(
    n_dimensions: int, params: dict[str, Any]
) -> type[TabularResNet] | type[ImageResNet]:
    """Choose the ready backbone for ``X`` of 2 dimensions (a table) or more (images).

    Images may be flattened if the user's ``params`` give their ``image_shape``.
    """
    return ImageResNet if n_dimensions > 2 or "image_shape" in params else TabularResNet
