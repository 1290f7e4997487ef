"""`evosense shards`: in how many tenant shards the projections run."""

from typing import Annotated

import typer

from api.cli.projecting import projecting
from api.cli.screen import CommandError, console
from projections.builds import BuildError
from projections.sharding import MOST_SHARDS, NotLevel, lay_out


def shards(
    number: Annotated[int, typer.Argument(help="How many.", min=1, max=MOST_SHARDS)],
) -> None:
    """Divide the projections into so many tenant shards, which running projectors share among themselves.

    Each shard is held by one process at a time; with one shard, further projectors stand by. Nothing has to be stopped.
    """
    try:
        with projecting() as (_, side):
            position = lay_out(side.builder, number, folder=side.parked.folder)
    except (BuildError, NotLevel) as error:
        raise CommandError(str(error)) from None
    console.print(f"the projections run in {number} shards from position {position:,} on")
