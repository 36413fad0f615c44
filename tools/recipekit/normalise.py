"""How two values are compared: each kind of task.yml's `compare` maps a value to the form in which it is compared.

docs/evaluation_rules.md shows every kind with examples.
"""

from collections.abc import Callable

from recipekit.normal_address import address
from recipekit.normal_law import law
from recipekit.normal_name import organization, person_name, police
from recipekit.normal_number import age, date, number
from recipekit.normal_text import Form, text

KINDS: dict[str, Callable[[str], Form]] = {
    "text": text,
    "number": number,
    "age": age,
    "date": date,
    "address": address,
    "person_name": person_name,
    "organization": organization,
    "law": law,
    "police": police,
}


def agree(a: Form, b: Form) -> bool:
    """Tell whether two values count as the same: equal keys, and equal details where both have one."""
    return a.key == b.key and (a.detail == b.detail or not a.detail or not b.detail)
