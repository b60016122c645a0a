import pytest

from tornado_proxy.simulator.model.tokens import count_tokens, split_pieces


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        pytest.param("", 0, id="nothing"),
        pytest.param("Say this, please.", 5, id="words and marks"),
        pytest.param("  two \n words ", 2, id="white space counts nothing"),
        pytest.param('{"city":"Paris"}', 9, id="JSON"),
        pytest.param("snake_case x2", 2, id="underscores and digits belong to the word"),
        pytest.param("grüße 漢字", 2, id="letters of any script"),
    ],
)
def test_tokens_are_words_and_single_marks(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_pieces_join_to_the_text_and_hold_one_token_each() -> None:
    text = "Hello,  world!\nIt is {ok}."

    pieces = split_pieces(text)

    assert "".join(pieces) == text
    assert [count_tokens(piece) for piece in pieces] == [1] * count_tokens(text)
