from uuid import UUID, uuid5

from hypothesis import given
from hypothesis import strategies as st

from streams.ids import run_id

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(TEXT, TEXT, TEXT, TEXT)
def test_a_run_id_is_a_uuid_of_version_5(
    project: str, workflow: str, source: str, event: str
) -> None:
    name = f"{project}\x00{workflow}\x00{source}\x00{event}"
    expected = uuid5(UUID("6e1f2c5a-2f0b-5a43-9d0e-3d1c3b0a7c51"), name)
    assert run_id(project, workflow, source, event) == str(expected)
