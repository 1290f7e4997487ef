"""What is wrong with an answer."""

from domain.errors import Invalid


class BrokenContract(Invalid):
    """A model's answer breaks a rule. The text says which and what would be right, to the model and to the operator.

    It quotes neither message nor answer, not so much as a label: an answer may hold anything.
    """
