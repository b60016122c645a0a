from __future__ import annotations

from tornado_proxy.providers.openai.chat.text_shape import TextShape, find_shape

HEAD = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"'
TAIL = b'"}}],"usage":null}\n\n'
PADDED_TAIL = b'"}}],"obfuscation":"'

PLAIN = TextShape(HEAD, TAIL, padded=False)
PADDED = TextShape(HEAD, PADDED_TAIL, padded=True)


def test_a_shape_is_the_bytes_around_the_text():
    assert find_shape(HEAD + b"Hello" + TAIL) == PLAIN
    assert find_shape(HEAD + b"Hello" + PADDED_TAIL + b'a1"}\n\n') == PADDED


def test_a_chunk_without_one_plain_text_has_no_shape():
    assert find_shape(b'data: {"choices":[{"delta":{}}]}\n\n') is None
    assert find_shape(HEAD + b"a \\n" + TAIL) is None
    assert find_shape(HEAD + b'one"}},{"delta":{"content":"two' + TAIL) is None


def test_the_text_of_a_run_is_counted_to_its_end():
    blocks = HEAD + b"Hello" + TAIL + HEAD + "größer".encode() + TAIL + HEAD + TAIL

    assert PLAIN.count_run(blocks, 0) == (len(blocks), 5 + 8)


def test_padding_does_not_count_as_text():
    blocks = HEAD + b"Hello" + PADDED_TAIL + b'a1b2"}\n\n' + HEAD + b" you" + PADDED_TAIL + b'"}\n\n'

    assert PADDED.count_run(blocks, 0) == (len(blocks), 5 + 4)


def test_a_run_ends_before_the_first_different_chunk():
    before, first = b"data: [DONE]\n\n", HEAD + b"Hello" + TAIL
    for other in (
        HEAD + b"a \\n" + TAIL,
        HEAD + b'say \\"hi\\"' + TAIL,
        HEAD + b'x"}}],"usage":{"total_tokens":1}}\n\n',
        HEAD.replace(b"c1", b"c2") + b"Hello" + TAIL,
        b'data: {"choices":[]}\n\n',
        HEAD,
    ):
        blocks = before + first + first + other + first
        end = len(before) + 2 * len(first)
        assert PLAIN.count_run(blocks, len(before)) == (end, 10), other


def test_other_members_after_the_padding_end_a_run():
    good = HEAD + b"Hello" + PADDED_TAIL + b'a1"}\n\n'
    for other in (b'a1","usage":{"total_tokens":1}}\n\n', b'a\\"1"}\n\n', b"a1"):
        assert PADDED.count_run(good + HEAD + b"x" + PADDED_TAIL + other, 0) == (len(good), 5), other


def test_a_chunk_with_escapes_fits_the_shape():
    assert PLAIN.fits(HEAD + b"a \\n" + TAIL)
    assert PADDED.fits(HEAD + b"a \\n" + PADDED_TAIL + b'a1"}\n\n')
    assert not PLAIN.fits(HEAD + b'x"}}],"usage":{}}\n\n')
    assert not PLAIN.fits(b"data: [DONE]\n\n")
