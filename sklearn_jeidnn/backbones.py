"""Ready backbones: a residual network for tables and a small one for images.

Both are plain torch modules with a ``ModuleList`` named ``blocks``, so that they are cut after each
block like any other. ``from_data`` builds one from training rows: the shape of the input, and what
its input layer keeps of the training rows (bins, means), are read off them.
"""

import numpy as np
import torch
from torch import nn

MAX_IMAGE_CHANNELS = 4


class PiecewiseLinearEncoding(nn.Module):
    """Encode each numeric column by how far its value has come through each of the column's bins.

    One value per bin: 0 below the bin, 1 above it, linear inside [1]_. A column of two values
    keeps one bin, so one-hot columns pass unchanged (up to scale).

    Parameters
    ----------
    edges : list of ndarray
        Increasing bin edges of each column, at least two each.

    References
    ----------
    .. [1] Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep
       Learning", NeurIPS 2022, equation 1.
    """

    def __init__(self, edges):
        super().__init__()
        bins_per_column = [len(column_edges) - 1 for column_edges in edges]
        column = np.repeat(np.arange(len(edges)), bins_per_column)
        lower = np.concatenate([column_edges[:-1] for column_edges in edges])
        width = np.concatenate([np.diff(column_edges) for column_edges in edges])
        self.register_buffer("column", torch.as_tensor(column))
        self.register_buffer("scale", torch.as_tensor(1 / width, dtype=torch.float32))
        self.register_buffer("offset", torch.as_tensor(-lower / width, dtype=torch.float32))

    @property
    def n_outputs(self):
        return len(self.column)

    def forward(self, X):
        """(n_samples, n_features) -> (n_samples, n_bins_total)"""
        through_bin = X.index_select(1, self.column) * self.scale + self.offset
        return through_bin.clamp(0, 1)


def bin_edges(X, n_bins):
    """Bin edges of each column: its values where they are few, quantiles where they are many.

    Half of the edges are quantiles of the rows, half of the distinct values: a column that is
    mostly zero keeps edges among its other values.

    Parameters
    ----------
    X : ndarray (n_samples, n_features)
    n_bins : int
        Most bins of a column.

    Returns
    -------
    edges : list of n_features ndarray
        Increasing; a constant column gets one bin.
    """
    return [_column_edges(column, n_bins) for column in np.asarray(X, dtype=np.float64).T]


def _column_edges(column, n_bins):
    edges = distinct = np.unique(column)
    if len(distinct) > n_bins + 1:
        levels = np.linspace(0, 1, n_bins // 2 + 1)
        edges = np.unique([np.quantile(column, levels), np.quantile(distinct, levels)])
    float32_resolution = 1e-6 * np.abs(edges).max()
    edges = edges[np.append(True, np.diff(edges) > float32_resolution)]
    return edges if len(edges) > 1 else edges[0] + np.array([0, max(1, abs(edges[0]))])


class InputNoise(nn.Module):
    """Gaussian noise on the input while training.

    Parameters
    ----------
    deviations : array-like (n_features,)
        Standard deviation of the noise on each column; 0 leaves it as it is.

    References
    ----------
    Bishop, "Training with Noise is Equivalent to Tikhonov Regularization", Neural Computation 1995.
    """

    def __init__(self, deviations):
        super().__init__()
        self.register_buffer("deviations", torch.as_tensor(deviations, dtype=torch.float32))

    def forward(self, X):
        """(n_samples, n_features) -> (n_samples, n_features)"""
        return X + self.deviations * torch.randn_like(X) if self.training else X


class TabularBlock(nn.Module):
    """Residual block: normalise, widen, ReLU, dropout, project back, add."""

    def __init__(self, width, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(width, width)

    def forward(self, hidden):
        inner = torch.relu(self.linear1(self.norm(hidden)))
        return hidden + self.linear2(self.dropout(inner))


class TabularResNet(nn.Module):
    """Residual network for tables, with piecewise-linear encoding of its columns.

    Parameters
    ----------
    edges : list of ndarray
        Bin edges of each column (see :func:`bin_edges`).
    n_classes : int
    width : int, default=256
        Units of each layer.
    n_blocks : int, default=6
        Residual blocks of two layers each.
    dropout : float, default=None
        Share of units dropped inside each block while training. None: 0.3, and less below a width of
        128, where a network rather learns too little.
    noise : array-like (n_features,), default=None
        Deviation of the noise added to each column while training (see :class:`InputNoise`).

    References
    ----------
    Gorishniy, Rubachev, Khrulkov, Babenko, "Revisiting Deep Learning Models for Tabular Data",
    NeurIPS 2021 (the residual network); layer normalisation replaces batch normalisation, so that a
    row never depends on its batch.
    """

    def __init__(self, edges, n_classes, *, width=256, n_blocks=6, dropout=None, noise=None):
        super().__init__()
        if dropout is None:
            dropout = 0.3 * min(1, (width / 128) ** 2)
        # The steps that suit a network shrink with its width.
        self.learning_rate = min(1e-2, 2e-3 * 256 / width)
        noisy = noise is not None and np.any(noise)
        self.noise = InputNoise(noise) if noisy else nn.Identity()
        self.encoding = PiecewiseLinearEncoding(edges)
        self.input = nn.Linear(self.encoding.n_outputs, width)
        self.blocks = nn.ModuleList(TabularBlock(width, dropout) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, n_classes)

    @classmethod
    def from_data(cls, X, n_classes, *, n_bins=32, noise=0.2, **params):
        """Build one for these training rows.

        Parameters
        ----------
        X : ndarray (n_samples, n_features)
        n_classes : int
        n_bins : int, default=32
            Most bins of each column's encoding.
        noise : float, default=0.2
            Noise on the columns of more than two values while training, in units of their deviation.
        **params
            Passed to the constructor: ``width``, ``n_blocks``, ``dropout``.
        """
        edges = bin_edges(X, n_bins)
        many_values = [len(column_edges) > 2 for column_edges in edges]
        deviations = np.std(X, axis=0, dtype=np.float64)
        return cls(edges, n_classes, noise=noise * deviations * many_values, **params)

    def forward(self, X):
        """(n_samples, n_features) -> logits (n_samples, n_classes)"""
        hidden = self.input(self.encoding(self.noise(X)))
        for block in self.blocks:
            hidden = block(hidden)
        return self.classifier(torch.relu(self.norm(hidden)))


class ImageInput(nn.Module):
    """Rows as they come -> standardised images, channels first.

    Parameters
    ----------
    image_shape : tuple of int
        Shape of one row: ``(height, width)``, ``(channels, height, width)`` or
        ``(height, width, channels)``; at most four channels, and channels first where both fit.
    mean, scale : float
        Subtracted from, and divided into, every pixel.
    """

    def __init__(self, image_shape, mean=0.0, scale=1.0):
        super().__init__()
        self.image_shape = _checked_image_shape(image_shape)
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    @property
    def channels_last(self):
        return len(self.image_shape) == 3 and self.image_shape[0] > MAX_IMAGE_CHANNELS

    @property
    def n_channels(self):
        if len(self.image_shape) == 2:
            return 1
        return self.image_shape[-1 if self.channels_last else 0]

    @property
    def size(self):
        """(height, width)"""
        return self.image_shape[:2] if self.channels_last else self.image_shape[-2:]

    def forward(self, X):
        """(n_samples, ...) -> (n_samples, n_channels, height, width)"""
        images = ((X - self.mean) / self.scale).reshape(-1, *self.image_shape)
        if self.channels_last:
            return images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        images = images.reshape(-1, self.n_channels, *self.size)
        return images.contiguous(memory_format=torch.channels_last)


def _checked_image_shape(image_shape):
    image_shape = tuple(int(length) for length in image_shape)
    channels_fit = len(image_shape) == 2 or (
        len(image_shape) == 3 and min(image_shape[0], image_shape[-1]) <= MAX_IMAGE_CHANNELS
    )
    if not channels_fit or min(image_shape) < 1:
        raise ValueError(
            f"image_shape={image_shape} is not the shape of an image; give (height, width), "
            f"(channels, height, width) or (height, width, channels) with at most "
            f"{MAX_IMAGE_CHANNELS} channels."
        )
    return image_shape


class ImageBlock(nn.Module):
    """Residual block of two 3x3 convolutions with batch normalisation."""

    def __init__(self, width_in, width_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.stride = stride
        self.shortcut = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, bias=False), nn.BatchNorm2d(width_out)
            )

    def forward(self, maps):
        inner = torch.relu(self.norm1(self.conv1(maps)))
        # A 1x1 convolution with a stride, of few channels, is what has_narrow_strides warns of.
        passed = maps[:, :, :: self.stride, :: self.stride] if self.stride > 1 else maps
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(passed))


class ImageResNet(nn.Module):
    """Small residual convolutional network for images of any size.

    The blocks come in three groups; each later group halves the map and doubles the width. Images
    of at least 24 pixels are halved once more by the stem.

    Parameters
    ----------
    image_shape : tuple of int
        Shape of one row (see :class:`ImageInput`); rows may come flattened.
    n_classes : int
    width : int, default=32
        Channels of the first group.
    n_blocks : int, default=6
        Residual blocks in all, spread evenly over the three groups.
    mean, scale : float
        Subtracted from, and divided into, every pixel.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """

    def __init__(self, image_shape, n_classes, *, width=32, n_blocks=6, mean=0.0, scale=1.0):
        super().__init__()
        self.input = ImageInput(image_shape, mean, scale)
        large = min(self.input.size) >= 24
        self.stem = nn.Sequential(
            nn.Conv2d(self.input.n_channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2) if large else nn.Identity(),
        )
        group = [3 * i // n_blocks for i in range(n_blocks)]
        widths = [width * 2**g for g in group]
        width_before = [width, *widths[:-1]]
        self.blocks = nn.ModuleList(
            ImageBlock(before, after, 1 if before == after else 2)
            for before, after in zip(width_before, widths, strict=True)
        )
        self.classifier = nn.Linear(widths[-1], n_classes)

    @classmethod
    def from_data(cls, X, n_classes, *, image_shape=None, **params):
        """Build one for these training rows.

        Parameters
        ----------
        X : ndarray (n_samples, ...)
        n_classes : int
        image_shape : tuple of int, default=None
            Shape of one row; None reads it off ``X``. Needed where rows come flattened.
        **params
            Passed to the constructor: ``width``, ``n_blocks``.

        Raises
        ------
        ValueError
            Where ``image_shape`` is not the shape of an image, or has not as many values as a row.
        """
        image_shape = _checked_image_shape(X.shape[1:] if image_shape is None else image_shape)
        if np.prod(image_shape) != np.prod(X.shape[1:]):
            raise ValueError(
                f"module__image_shape={image_shape} has {np.prod(image_shape)} values, but a row of X "
                f"has {np.prod(X.shape[1:])} (X.shape={X.shape})."
            )
        mean = np.mean(X, dtype=np.float64)
        scale = np.std(X, dtype=np.float64) or 1.0
        return cls(image_shape, n_classes, mean=mean, scale=scale, **params)

    def forward(self, X):
        """(n_samples, ...) -> logits (n_samples, n_classes)"""
        maps = self.stem(self.input(X))
        for block in self.blocks:
            maps = block(maps)
        return self.classifier(maps.mean((2, 3)))


class BagOfEmbeddings(nn.Module):
    """Linear classifier on the mean of a row's token embeddings: a companion for text.

    Parameters
    ----------
    n_tokens : int
        Rows of the embedding; tokens beyond it read the last one.
    n_classes : int
    width : int, default=64
        Length of an embedding.
    dropout : float, default=0.5
        Share of the mean's units dropped while training.
    ids, mask : str, default=None
        Where the inputs come by name: of the tokens, and of the 0/1 mask that says which count
        (None: all).

    References
    ----------
    Joulin, Grave, Bojanowski, Mikolov, "Bag of Tricks for Efficient Text Classification", EACL 2017.
    """

    def __init__(self, n_tokens, n_classes, *, width=64, dropout=0.5, ids=None, mask=None):
        super().__init__()
        self.ids, self.mask = ids, mask
        self.embedding = nn.Embedding(n_tokens, width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, n_classes)

    @classmethod
    def from_data(cls, X, n_classes, **params):
        """Build one for these training rows.

        Parameters
        ----------
        X : ndarray of int (n_samples, length), or dict of such
            Of a dict, the array with the largest numbers holds the tokens; one of zeros and ones, the
            mask.
        n_classes : int
        **params
            Passed to the constructor: ``width``, ``dropout``.

        Raises
        ------
        ValueError
            Where a dict holds no whole numbers (n_samples, length).
        """
        if not isinstance(X, dict):
            return cls(int(X.max()) + 1, n_classes, **params)
        largest = {k: int(a.max()) for k, a in X.items() if a.ndim == 2 and a.dtype.kind in "iub"}
        if not largest or max(largest.values()) < 2:
            raise ValueError(
                f"X has keys {sorted(X)}, none of which holds tokens (n_samples, length); give the companions as "
                f"members of module."
            )
        ids = max(largest, key=largest.get)
        mask = next((k for k, a in largest.items() if a == 1 and X[k].shape == X[ids].shape), None)
        return cls(largest[ids] + 1, n_classes, ids=ids, mask=mask, **params)

    def forward(self, *inputs, **named):
        """Tokens (n_samples, length), or by name -> logits (n_samples, n_classes)"""
        ids = named[self.ids] if named else inputs[0]
        embedded = self.embedding(ids.clamp(max=self.embedding.num_embeddings - 1))
        counts = torch.ones_like(embedded[..., :1])
        if self.mask is not None:
            counts = named[self.mask][..., None].to(embedded.dtype)
        mean = (embedded * counts).sum(1) / counts.sum(1).clamp(min=1)
        return self.classifier(self.dropout(mean))


def default_backbone(n_dimensions, params):
    """The ready backbone for rows of data: tables are 2-D, images 3-D, 4-D, or have an ``image_shape``.

    Parameters
    ----------
    n_dimensions : int
        Of ``X``, rows included.
    params : dict
        The backbone's own parameters, as the user gave them.
    """
    return ImageResNet if n_dimensions > 2 or "image_shape" in params else TabularResNet
