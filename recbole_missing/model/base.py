"""The base class of all models.

It checks the hyper-parameters, takes the modalities, unpacks batches, sums the loss terms and
computes scores. A model adds :meth:`MultimodalRecommender.encode` and
:meth:`MultimodalRecommender.loss_terms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_missing.config import constraints
from recbole_missing.graph import knn
from recbole_missing.graph.sparse import SparseMatrix, bipartite
from recbole_missing.nn.distinct import Distinct
from recbole_missing.nn.layers import rows


class MultimodalRecommender(GeneralRecommender):
    """A RecBole general recommender that reads ``dataset.modalities``.

    Args:
        config: RecBole's config (or any mapping with the same keys).
        dataset: the training split of a :class:`~recbole_missing.data.dataset.MultimodalDataset`.

    Attributes:
        modalities: :class:`~recbole_missing.modality.Modalities`, completed by imputation, on the
            CPU. A model registers as parameters or buffers what it needs on its device.
        observed: bool ``(n_items, n_modalities)``, True where an item truly has the modality.
        new_items: bool ``(n_items,)``, True for the items of the new-item setting, which have no
            interaction in training.
        last_terms: the loss terms of the last batch, without gradient.

    ``observed`` and ``new_items`` are buffers and copies: loading a checkpoint does not change the
    data set. Every name in ``hyperparameters`` becomes an attribute with the value of the config.

    A test holds for every model unless its class declares an exception and the reason:

    ``idle_parameters``
        Every parameter gets a gradient. Pattern of names -> why theirs is zero.
    ``new_items_in_training``
        New items change no loss of other items, and no vector of users and other items in training
        mode. Loss term, ``users`` or ``items`` -> how new items change it.
    ``new_features_ignored``
        The features of a new item have an effect on its scores. Why not.

    A run can be resumed from a checkpoint exactly. Besides parameters and buffers, checkpoints hold
    the attributes that training has changed, if they are plain values, arrays, tensors, random
    generators or containers of these. Names in ``remade``, of a class and of its bases, are left
    out: every epoch makes these attributes anew, or nothing of the result depends on them.

    Raises:
        ValueError: if a hyper-parameter breaks its constraint or the data set has no modalities.
    """

    input_type = InputType.PAIRWISE
    hyperparameters: ClassVar[Mapping[str, Any]] = {}
    idle_parameters: ClassVar[Mapping[str, str]] = {}
    new_items_in_training: ClassVar[Mapping[str, str]] = {}
    new_features_ignored: ClassVar[str] = ""
    remade: ClassVar[tuple[str, ...]] = ("last_terms", "modalities", "_scoring", "_embeddings")
    auxiliary_options: Mapping[str, Any] = {"lr": 1e-4}
    observed: Tensor
    new_items: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Check the hyper-parameters and take the modalities."""
        super().__init__(config, dataset)
        name = type(self).__name__
        # Not getattr with a default: an AttributeError inside an imputer must be seen.
        if "modalities" not in dir(dataset) or dataset.modalities is None:
            raise ValueError(
                f"{name}: the data set must have modalities, got none; list them in `modalities`."
            )
        constraints.check(name, config, self.hyperparameters)
        for key in self.hyperparameters:
            setattr(self, key, config[key])
        knn.SEARCHES.progress = "show_progress" in config and bool(config["show_progress"])
        self.modalities = dataset.modalities
        self.register_buffer("observed", dataset.modalities.observed)
        self.register_buffer("new_items", dataset.new_items.clone())
        self.last_terms: dict[str, Tensor] = {}
        self._scoring = False
        self._embeddings: tuple[Tensor, Tensor] | None = None

    # ------------------------------------------------------------------ what a model implements

    def encode(self) -> tuple[Tensor, Tensor]:
        """Return users ``(n_users, d)`` and items ``(n_items, d)``; inner products are scores."""
        raise NotImplementedError(f"{type(self).__name__} must implement encode().")

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """Return the named, already weighted scalars of one batch."""
        raise NotImplementedError(f"{type(self).__name__} must implement loss_terms().")

    def on_epoch_start(self, minimise: Callable[[Tensor], None]) -> None:
        """Do what the model does once an epoch, before the first batch.

        Args:
            minimise: takes a scalar loss and makes one step of the second optimiser, which owns
                :meth:`auxiliary_parameters`.
        """

    def on_batch_start(self, interaction: Any, minimise: Callable[[Tensor], None]) -> None:
        """Do what comes before the loss of a batch, for instance a step of the second optimiser.

        Arguments as in :meth:`loss_terms` and :meth:`on_epoch_start`.
        """

    def on_validation_start(self) -> None:
        """Do what the model does before each validation."""

    def auxiliary_parameters(self) -> Iterable[torch.nn.Parameter]:
        """Parameters that the second optimiser trains, and the main one does not.

        The second optimiser is an Adam with the options ``auxiliary_options``, an attribute of the
        class or of the model.
        """
        return ()

    def completed_features(self) -> dict[str, Tensor]:
        """Features of each modality with a value for every item: name -> ``(n_items, dim)``.

        By default they are those that imputation completed. A model that generates features returns
        its own. Then also the rows of items that have the modality may differ from the data,
        because the model may train them.
        """
        return {name: modality.features for name, modality in self.modalities.items()}

    # ----------------------------------------------------------------------- what models share

    def user_item_matrix(self, dataset: Any) -> SparseMatrix:
        """Binary training matrix R, shape ``(n_users, n_items)``."""
        users, items = dataset.inter_feat[self.USER_ID], dataset.inter_feat[self.ITEM_ID]
        return bipartite(users, items, self.n_users, self.n_items)

    def batch(self, interaction: Any) -> tuple[Tensor, Tensor, Tensor]:
        """User, positive and negative item ids of a BPR batch, each ``(batch,)``.

        Raises:
            ValueError: if the batch has no negatives.
        """
        if self.NEG_ITEM_ID not in interaction:
            raise ValueError(
                f"{type(self).__name__}: a batch must hold negatives, got none; set "
                "train_neg_sample_args."
            )
        return interaction[self.USER_ID], interaction[self.ITEM_ID], interaction[self.NEG_ITEM_ID]

    def complete(self, items: Distinct) -> Distinct:
        """Set of those ``items`` that truly have every modality."""
        return items.once().where(self.observed[items.ids].all(dim=1))

    @staticmethod
    def gather(users: Tensor, items: Tensor, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Rows of ``users`` for the first ids of the batch, rows of ``items`` for the other ids.

        With the batch of :meth:`batch` these are users, positives and negatives.
        """
        return rows(users, batch[0]), *(rows(items, ids) for ids in batch[1:])

    # --------------------------------------------------------------------- RecBole's interface

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Sum of the loss terms. It keeps their values in ``last_terms``."""
        terms = self.loss_terms(interaction)
        self.last_terms = {name: term.detach() for name, term in terms.items()}
        return torch.stack(list(terms.values())).sum()

    def predict(self, interaction: Any) -> Tensor:
        """Scores of user-item pairs, shape ``(batch,)``."""
        users, items = self.embeddings()
        return (users[interaction[self.USER_ID]] * items[interaction[self.ITEM_ID]]).sum(dim=-1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores of every item for each user, flattened, shape ``(batch * n_items,)``."""
        users, items = self.embeddings()
        return (users[interaction[self.USER_ID]] @ items.T).flatten()

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)`` of :meth:`encode`, without gradient."""
        if not self._scoring:
            return self.encode()
        if self._embeddings is None:
            self._embeddings = self.encode()
        return self._embeddings

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Call :meth:`encode` only once for all scores inside a ``with`` block.

        Parameters must not change inside the block. Outside of one, every call of
        :meth:`predict` or :meth:`full_sort_predict` encodes anew.
        """
        self._scoring = True
        try:
            yield
        finally:
            self._scoring, self._embeddings = False, None
