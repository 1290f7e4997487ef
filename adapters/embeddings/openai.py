"""The embedder behind a server that speaks OpenAI's protocol."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from adapters.model_server import EmbedderServer
from adapters.model_server.client import OpenAIServer
from adapters.model_server.counting import counted, usage_of
from adapters.model_server.faults import Fault
from adapters.model_server.gate import Gate, GateState
from domain.ports import DIMENSIONS, AnswerRefused, Embedded, Usage, VectorsDoNotFit

#: Characters of a text that are sent. What is too long for a model all the same is halved, down to so many.
MAX_CHARACTERS: Final = 8000
MIN_CHARACTERS: Final = 250
#: Characters of a name that are recorded.
MAX_NAME: Final = 64
#: Bytes of an answer: for one thing, and for each vector (4096 numbers as text).
_MAX_HEAD: Final = 64 * 1024
_MAX_VECTOR: Final = 4096 * 24
#: Stands for a text without a letter: servers refuse an empty one.
_NOTHING: Final = "."

Vector = npt.NDArray[np.float64]


class _Item(msgspec.Struct):
    embedding: str | list[float | None]
    index: int


class _Usage(msgspec.Struct):
    prompt_tokens: Any = 0


class _Answer(msgspec.Struct):
    data: list[_Item]
    usage: _Usage | None = None


class OpenAIEmbedder:
    """Implements `domain.ports.ServedEmbedder`.

    Vectors are normalised to length 1; smaller ones are filled up with zeros to `DIMENSIONS`: zeros add nothing to a
    product of two vectors and nothing to a length, so each cosine stays exactly what it was. Larger ones are refused:
    what is cut off a vector changes its cosines, unless the model was trained for that, and then the server can do it
    (`dimensions`).
    """

    def __init__(self, server: EmbedderServer) -> None:
        """Nothing is asked before the first text. Raises `ValueError` where the name is too long to be recorded."""
        self._server = server
        self._model_name = server.model if server.dimensions is None else f"{server.model}@{server.dimensions}"
        if len(self._model_name) > MAX_NAME:
            raise ValueError(f"{self._model_name} is longer than the {MAX_NAME} characters of a model's recorded name")
        self._client = OpenAIServer(
            server.url,
            server.api_key,
            timeout=server.timeout,
            concurrency=server.concurrency,
            most=_MAX_HEAD + _MAX_VECTOR * server.batch,
        )
        self._gate = Gate(
            f"{server.name} at {self._client.host}", concurrency=server.concurrency, timeout=server.timeout
        )
        #: Numbers in this model's vectors, once they are known: they never change.
        self._size = server.dimensions
        #: An error that quotes a text may name `dimensions`: it is believed before the first answer alone.
        self._answered = False
        self._asks_base64 = True

    @property
    def name(self) -> str:
        """See `ServedEmbedder`."""
        return self._server.name

    @property
    def model_name(self) -> str:
        """Such as `nomic-embed-text`, or `text-embedding-3-small@768` where it is asked for vectors of that size."""
        return self._model_name

    def wait(self) -> float:
        """See `ServedEmbedder`."""
        return self._gate.wait()

    def state(self) -> GateState:
        """How its gate stands, for showing."""
        return self._gate.state()

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """See `ServedEmbedder`."""
        return (await self.embed_counted(texts)).vectors

    async def embed_counted(self, texts: Sequence[str]) -> Embedded:
        """See `ServedEmbedder`. Texts are sent in batches of `batch`; one answer of no use refuses them all."""
        vectors: list[bytes] = []
        usage = Usage()
        sent = [text[:MAX_CHARACTERS] if text.strip() else _NOTHING for text in texts]
        for start in range(0, len(sent), self._server.batch):
            try:
                batch = await self._batch(sent[start : start + self._server.batch])
            except AnswerRefused as error:
                error.usage += usage
                raise
            vectors += batch.vectors
            usage += batch.usage
        return Embedded(vectors, usage)

    async def probe(self) -> None:
        """Ask for one vector. Raises `VectorsDoNotFit`, and what `embed` raises."""
        await self._batch(["bom dia"])

    async def close(self) -> None:
        """See `ServedEmbedder`."""
        await self._client.close()

    async def _batch(self, texts: list[str]) -> Embedded:
        async def call(seconds: float) -> _Answer | None:
            try:
                return await self._asked(texts, seconds)
            except Fault as fault:
                if fault.kind == "rejected" and fault.about == "length" and _shorter(texts):
                    return None
                raise

        answer = await self._gate.run(call)
        if answer is None:
            shorter = _shorter(texts)
            parts = [await self._batch(part) for part in shorter]
            return Embedded(
                [vector for part in parts for vector in part.vectors], sum((part.usage for part in parts), Usage())
            )
        tokens = counted(answer.usage.prompt_tokens if answer.usage else 0)
        usage = usage_of(self._server, tokens)
        try:
            return Embedded(self._stored(answer, len(texts)), usage)
        except AnswerRefused as error:
            error.usage += usage
            raise

    async def _asked(self, texts: list[str], seconds: float) -> _Answer:
        body: dict[str, Any] = {"model": self._server.model, "input": texts}
        if self._server.dimensions is not None:
            body["dimensions"] = self._server.dimensions
        # As base64 where the server can: a quarter of the bytes, and exact.
        encoding = "base64" if self._asks_base64 else "float"
        try:
            return await self._client.embeddings({**body, "encoding_format": encoding}, seconds, _Answer)
        except Fault as fault:
            if fault.kind == "rejected" and fault.parameter == "encoding_format" and self._asks_base64:
                self._asks_base64 = False
                return await self._client.embeddings({**body, "encoding_format": "float"}, seconds, _Answer)
            if (
                fault.kind == "rejected"
                and fault.parameter == "dimensions"
                and "dimensions" in body
                and not self._answered
            ):
                raise Fault(
                    "denied", f"the model {self._server.model} can't shorten its vectors: leave out `dimensions`"
                ) from None
            raise

    def _stored(self, answer: _Answer, texts: int) -> list[bytes]:
        """The vectors in the order of their texts, as they are stored. Raises `AnswerRefused`."""
        if sorted(item.index for item in answer.data) != list(range(texts)):
            raise AnswerRefused(f"{len(answer.data)} vectors came for {texts} texts, or not one for each")
        in_order = sorted(answer.data, key=lambda item: item.index)
        vectors = [_numbers(item.embedding) for item in in_order]
        self._check_sizes({vector.size for vector in vectors})
        stored = np.zeros((texts, DIMENSIONS))
        for row, vector in enumerate(vectors):
            # By its largest number first, so that no square is too large or too small.
            largest = float(np.max(np.abs(vector), initial=0.0))
            if not np.isfinite(largest) or largest == 0.0:
                raise AnswerRefused("a vector is zero, or holds what is no number")
            scaled = vector / largest
            stored[row, : vector.size] = scaled / np.linalg.norm(scaled)
        self._answered = True
        return [row.tobytes() for row in stored.astype("<f4")]

    def _check_sizes(self, sizes: set[int]) -> None:
        model, asked = self._server.model, self._server.dimensions
        for size in sizes:
            if asked is not None and size != asked:
                raise VectorsDoNotFit(
                    f"the model {model} was asked for vectors of {asked} numbers (`dimensions`) and gives {size}: "
                    "this server or model can't shorten them; leave `dimensions` out, or take another model"
                )
            if size > DIMENSIONS:
                raise VectorsDoNotFit(
                    f"the vectors of the model {model} have {size} numbers, and {DIMENSIONS} are the most that can be "
                    f"stored: take another model, or, if this one can shorten its vectors, set `dimensions` to "
                    f"{DIMENSIONS}"
                )
        if len(sizes) > 1 or (self._size is not None and sizes - {self._size}):
            raise AnswerRefused(f"the model {model} gives vectors of different sizes")
        self._size = next(iter(sizes), self._size)


def _shorter(texts: list[str]) -> list[list[str]]:
    """What to send instead of what was too long: a batch's halves, or a text's first half, unless that is too short."""
    if len(texts) > 1:
        return [texts[: len(texts) // 2], texts[len(texts) // 2 :]]
    half = texts[0][: len(texts[0]) // 2]
    return [[half]] if len(half) >= MIN_CHARACTERS else []


def _numbers(embedding: str | list[float | None]) -> Vector:
    """The numbers of a vector. Raises `AnswerRefused` where there are none."""
    if not isinstance(embedding, str):
        # Some servers write null for what is no number.
        return np.array([np.nan if value is None else value for value in embedding], dtype=np.float64)
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float64)
    except (binascii.Error, ValueError):
        raise AnswerRefused("a vector is not encoded as it was asked for") from None
