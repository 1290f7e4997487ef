"""Search: by words, by meaning, by both, and messages like one that is known."""

import asyncio
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.datastructures import ResponseHeader
from litestar.di import Provide
from litestar.params import Parameter
from psycopg import AsyncConnection

from adapters.embeddings import Embedders
from adapters.postgres import ReadPool
from api.common import WaitFor, until_reached
from api.filters import NO_FILTERS, Filters, search_filters
from api.fusion import Hit, Way, fused
from api.models import is_served
from api.problems import ProblemError
from api.security import Principal
from api.services import Services
from domain.masking import mask
from domain.ports import AnswerRefused, Embedder, ModelUnavailable
from sql import queries

_SEARCH: Final = queries("search", "apsycopg")
_FILTERS: Final = {"filters": Provide(search_filters, sync_to_thread=False)}

#: Hits that each way contributes to the fusion at least, and three for each that is asked for. Beyond 200 the search
#: by meaning would compare every vector.
_DEPTH: Final = 60
_DEPTH_MAX: Final = 200
#: The least cosine of a hit by meaning, unless another is asked for. Chosen for the offline embedder, on the
#: tuning half of benchmarks/quality: of two texts that mean the same, four in five are nearer.
THRESHOLD: Final = 0.2
#: How often a search begins again because the tenant's model changed under it.
_TRIES: Final = 3
#: Seconds for which a search waits for a model server to embed what is looked for.
PATIENCE_S: Final = 2.0
_NO_MODEL: Final = (
    "the model that this tenant's messages were embedded with is not part of this installation, so they can't be "
    "searched by meaning until `evosense reembed` has moved them to another; mode=text finds them by their words"
)
_SILENT: Final = (
    "the model server that embeds does not answer at the moment, so nothing can be searched by meaning; mode=text "
    "finds messages by their words"
)
#: Header of an answer in which only words had a part, though the meaning was asked for.
NOTICE: Final = "X-EvoSense-Notice"
_BY_WORDS: Final = "found by words alone: "
_NOTICE_HEADER: Final = ResponseHeader(
    name=NOTICE,
    description="why hits were found by words alone, where the meaning was asked for, too",
    required=False,
    documentation_only=True,
)

Mode = Literal["hybrid", "semantic", "text"]
Words = Annotated[
    str,
    Parameter(
        min_length=1,
        max_length=2000,
        description='what to look for; by words: all of them, "a phrase", -without, this OR that',
    ),
]
HowMany = Annotated[int, Parameter(ge=1, le=100, required=False)]
Threshold = Annotated[
    float,
    Parameter(
        ge=-1,
        le=1,
        required=False,
        description="the least cosine of a hit by meaning; the default suits the offline embedder",
    ),
]


@get("/search", dependencies=_FILTERS, conflicts=True, response_headers=[_NOTICE_HEADER])
async def search(
    services: Services,
    principal: Principal,
    filters: Filters,
    q: Words,
    mode: Annotated[
        Mode, Parameter(required=False, description="hybrid: by words and by meaning; semantic; text")
    ] = "hybrid",
    limit: HowMany = 20,
    threshold: Threshold = THRESHOLD,
    wait_for: WaitFor = None,
) -> Response[list[Hit]]:
    """Messages that say or mean what `q` says, best first. docs/search.md explains modes, syntax and scores."""
    # What no text can have and PostgreSQL does not take.
    words = mask(q.replace("\0", " "))
    if not words.strip():
        raise ProblemError(400, "query.q: it is empty: say what to look for")
    await until_reached(services, wait_for)
    try:
        found = await find(
            services.reads,
            services.embedders,
            principal.tenant_id,
            words,
            mode=mode,
            limit=limit,
            threshold=threshold,
            filters=filters,
        )
    except ModelSilent:
        raise ProblemError(503, _SILENT, retry_after=5) from None
    except ModelMissing:
        raise ProblemError(409, _NO_MODEL) from None
    return Response(found.hits, headers={} if found.notice is None else {NOTICE: found.notice})


class ModelMissing(Exception):
    """The tenant's vectors are of a model that is not part of this installation."""

    notice = f"{_BY_WORDS}the model of this tenant's vectors is not part of this installation (evosense reembed)"


class ModelSilent(Exception):
    """The model that has to embed what is looked for can't be asked now."""

    notice = f"{_BY_WORDS}the model server that embeds does not answer at the moment"


class Found(msgspec.Struct, frozen=True):
    """What a search found. `notice`: why the meaning had no part in it, though it was asked for."""

    hits: list[Hit]
    notice: str | None = None


async def find(
    reads: ReadPool,
    embedders: Embedders,
    tenant_id: UUID,
    words: str,
    *,
    mode: Mode = "hybrid",
    limit: int = 20,
    threshold: float = THRESHOLD,
    filters: Filters = NO_FILTERS,
    patience: float = PATIENCE_S,
) -> Found:
    """The best `limit` messages of a tenant. `words` are masked, and not blank; `patience`: seconds for a model server.

    Raises `ModelMissing` or `ModelSilent` where nothing but the meaning was asked for and there is no model to compare
    it by, or none that answers.
    """
    depth = min(_DEPTH_MAX, max(_DEPTH, 3 * limit)) if mode == "hybrid" else limit
    found: dict[Way, list[Any]] = {}
    notice = None
    if mode != "semantic":
        async with reads.as_tenant(tenant_id) as conn:
            rows = _SEARCH.by_words(conn, words=words, depth=depth, **msgspec.structs.asdict(filters))
            found["text"] = [row async for row in rows]
    if mode != "text":
        try:
            found["meaning"] = await _meaning_of(
                reads, embedders, tenant_id, words, depth, threshold, filters, patience
            )
        except (ModelMissing, ModelSilent) as error:
            if mode == "semantic":
                raise
            notice = error.notice
    return Found(fused(found, limit), notice)


@get("/messages/{identifier:int}/similar", dependencies=_FILTERS, conflicts=True)
async def similar(
    identifier: int,
    services: Services,
    principal: Principal,
    filters: Filters,
    limit: HowMany = 20,
    threshold: Threshold = THRESHOLD,
    wait_for: WaitFor = None,
) -> list[Hit]:
    """Other messages that mean nearly what this one means, best first."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        row = await _SEARCH.vector_of(conn, id=identifier)
        if row is None:
            raise ProblemError(404, f"there is no message {identifier}")
        if row["vector"] is None:
            raise ProblemError(409, f"message {identifier} has no vector yet: try again when it has been analysed")
        found = await _by_meaning(
            conn, principal.tenant_id, row["vector"], row["model"], limit, threshold, filters, without=identifier
        )
    return fused({"meaning": found}, limit)


async def _meaning_of(
    reads: ReadPool,
    embedders: Embedders,
    tenant_id: UUID,
    words: str,
    depth: int,
    threshold: float,
    filters: Filters,
    patience: float,
) -> list[Any]:
    """Hits by meaning, compared by the model that answers for the tenant. Raises `ModelMissing` and `ModelSilent`."""
    found: list[Any] = []
    async with reads.as_tenant(tenant_id) as conn:
        model = await _model_of(conn, tenant_id)
    for _ in range(_TRIES):
        if model is None:  # and no vectors
            break
        embedder = embedders.get(model)
        if embedder is None:
            raise ModelMissing
        vector = _as_text(await _vector_of(embedder, words, patience))
        async with reads.as_tenant(tenant_id) as conn:
            found = await _by_meaning(conn, tenant_id, vector, embedder.model_name, depth, threshold, filters)
            # Where another model was adopted meanwhile, the vectors of this one may be gone.
            if (now := await _model_of(conn, tenant_id)) == model:
                break
            model = now
    return found


async def _vector_of(embedder: Embedder, words: str, patience: float) -> bytes:
    """The vector of what is looked for. Raises `ModelSilent`: a search waits no longer than its user would."""
    if not is_served(embedder):
        return (await embedder.embed([words]))[0]
    if embedder.wait() > patience:
        raise ModelSilent
    try:
        async with asyncio.timeout(patience):
            return (await embedder.embed([words]))[0]
    except (ModelUnavailable, AnswerRefused, TimeoutError):
        raise ModelSilent from None


async def _model_of(conn: AsyncConnection[Any], tenant_id: UUID) -> str | None:
    row = await _SEARCH.model_of(conn, tenant_id=tenant_id)
    model: str | None = row["model"]
    return model


async def _by_meaning(
    conn: AsyncConnection[Any],
    tenant_id: UUID,
    vector: str,
    model: str,
    depth: int,
    threshold: float,
    filters: Filters,
    without: int | None = None,
) -> list[Any]:
    rows = _SEARCH.by_meaning(
        conn,
        tenant_id=tenant_id,
        vector=vector,
        model=model,
        depth=depth,
        threshold=threshold,
        without=without,
        **msgspec.structs.asdict(filters),
    )
    return [row async for row in rows]


def _as_text(vector: bytes) -> str:
    floats = memoryview(vector).cast("f")
    return f"[{','.join(map(repr, floats))}]"


HANDLERS: list[Any] = [search, similar]
