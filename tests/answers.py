"""Answers and gold rows of the hawks task, for tests."""

from recipekit.gold import GoldRow

FIELDS = {
    "person_name": "name",
    "person_age_at_published": "age",
    "person_address": "address",
    "person_belongs_company": "affiliation",
    "person_position_name": "position",
    "person_violated_law": "act",
}


def person(name: str = "", **values) -> dict:
    """A person as the model writes one: an offender, if nothing else is said."""
    keys = ("age", "position", "affiliation", "address")
    return {
        "name": name,
        "is_real": True,
        "is_offender": True,
        **dict.fromkeys(keys, ""),
        "category": "法令違反",
        "act": "",
    } | values


def answer(*persons: dict, places=(), police=()) -> dict:
    return {"persons": list(persons), "occured_locations": list(places), "police_departments": list(police)}


def gold(*persons: dict, places=(), police=(), id="A") -> GoldRow:
    """A gold row of persons given as `person` makes them."""
    found = [{column: each[key] for column, key in FIELDS.items() if each[key]} for each in persons]
    sets = {"occured_locations": list(places), "police_departments": list(police)}
    return GoldRow(id, 2, {"person": found}, sets)
