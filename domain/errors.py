"""Why a command was refused. Each message is fit for a user: what was wrong and what would be right."""


class DomainError(Exception):
    """A command could not be carried out; nothing was changed."""


class Invalid(DomainError):
    """A value in the command breaks a rule; the same command will never succeed."""


class NotFound(DomainError):
    """The thing that the command speaks of does not exist (or not for this tenant)."""


class AlreadyExists(DomainError):
    """The command would create a thing that is there already under the same natural key."""


class NotAllowed(DomainError):
    """The thing is in a state in which this command makes no sense."""
