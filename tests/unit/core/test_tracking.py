"""Tokens: nobody without the key makes one, and none is good for anything but what it was made for (S13)."""

import random
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.tracking import Token, TokenKind, TokenSigner, TokenUse

pytestmark = pytest.mark.req("S13")

SIGNER = TokenSigner([b"k" * 32])
ALPHABET = string.ascii_letters + string.digits + "-_"
TOKENS = st.builds(
    Token,
    kind=st.sampled_from(list(TokenKind)),
    tenant_id=st.integers(1, 2**32 - 1),
    send_id=st.integers(1, 2**63 - 1),
    seq=st.integers(1, 2**32 - 1),
    lead_id=st.integers(1, 2**63 - 1),
)
LINKS = st.integers(0, 2**16 - 1)


def accepted(text: str, signer: TokenSigner = SIGNER) -> list[TokenKind]:
    """For what a text would be taken."""
    return [kind for kind in TokenKind if signer.read(text, kind) is not None]


def sample(kind: TokenKind = TokenKind.CLICK, **values: int) -> Token:
    return Token(**{"kind": kind, "tenant_id": 7, "send_id": 1234, "seq": 56, "lead_id": 7890, "link": 0, **values})


@given(TOKENS, LINKS)
def test_what_is_signed_is_read_back(token, link):
    if token.kind is TokenKind.CLICK:
        token = Token(token.kind, token.tenant_id, token.send_id, token.seq, token.lead_id, link)
    text = SIGNER.sign(token)
    assert SIGNER.read(text, token.kind) == token
    assert set(text) <= set(ALPHABET)


@given(TOKENS)
def test_a_token_is_good_for_its_own_use_only(token):
    assert accepted(SIGNER.sign(token)) == [token.kind]


@pytest.mark.parametrize("kind", TokenKind)
@pytest.mark.parametrize("link", [0, 3, 65535])
def test_every_flipped_bit_is_noticed(kind, link):
    text = SIGNER.sign(sample(kind, link=link if kind is TokenKind.CLICK else 0))
    from base64 import urlsafe_b64decode, urlsafe_b64encode

    raw = urlsafe_b64decode(text)
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        assert accepted(urlsafe_b64encode(flipped).decode()) == [], bit


def test_every_changed_character_is_noticed():
    text = SIGNER.sign(sample())
    for place in range(len(text)):
        for character in ALPHABET + "+/=. \n\x00é":
            changed = text[:place] + character + text[place + 1 :]
            assert accepted(changed) == ([TokenKind.CLICK] if changed == text else [])


def test_only_the_canonical_spelling_is_accepted():
    text = SIGNER.sign(sample())
    for other in (text + "=", text + "\n", " " + text, text[:-1], text + "A", text.upper(), "", "=" * len(text)):
        assert accepted(other) == []
    # Characters that decoders skip, put in for characters at the end.
    for skipped in ("\n", "=", " ", "."):
        assert accepted(text[:-1] + skipped) == []
        assert accepted(skipped + text[1:]) == []


@pytest.mark.parametrize("name", ["tenant_id", "send_id", "seq", "lead_id", "link"])
def test_the_tag_of_one_token_is_no_use_for_another(name):
    mine, other = SIGNER.sign(sample()), SIGNER.sign(sample(**{name: 3}))
    # The tag is the last 16 characters (12 bytes); the 4 before them say what the token is for.
    for cut in (len(mine) - 16, len(mine) - 20):
        for first, second in ((mine, other), (other, mine)):
            mixed = first[:cut] + second[cut:]
            if mixed not in (mine, other):
                assert accepted(mixed) == []


def test_neither_is_a_tag_of_the_same_recipient_for_another_use():
    uses = [TokenUse.of(TokenKind.OPEN), TokenUse.of(TokenKind.UNSUBSCRIBE)]
    uses += [TokenUse.of(TokenKind.CLICK, link) for link in range(12)]
    texts = SIGNER.signing(uses).tokens(7, 1234, [(56, 7890)])
    texts = [text for (text,) in texts]
    assert len({text[-16:] for text in texts}) == len(texts)
    for first in texts:
        for second in texts:
            if first is not second:
                assert accepted(first[:-16] + second[-16:]) == []


def test_many_are_signed_as_one_by_one():
    uses = [TokenUse.of(TokenKind.OPEN), TokenUse.of(TokenKind.UNSUBSCRIBE), TokenUse.of(TokenKind.CLICK, 300)]
    texts = SIGNER.signing(uses).tokens(7, 1234, [(56, 7890), (57, 1)])
    assert texts == [
        [SIGNER.sign(replace(token, seq=seq, lead_id=lead)) for seq, lead in ((56, 7890), (57, 1))]
        for token in (sample(TokenKind.OPEN), sample(TokenKind.UNSUBSCRIBE), sample(link=300))
    ]


def test_guesses_are_never_right():
    rng = random.Random(13)
    length = len(SIGNER.sign(sample()))
    head = SIGNER.sign(sample())[:-16]
    for number in range(100_000):
        tail = "".join(rng.choices(ALPHABET, k=16))
        text = head + tail if number % 2 else "".join(rng.choices(ALPHABET, k=length - 16)) + tail
        assert SIGNER.read(text, TokenKind.CLICK) is None


@given(st.text())
def test_no_text_is_an_error(text):
    assert accepted(text) == []


@given(st.text(alphabet=ALPHABET, min_size=56, max_size=56))
def test_no_text_of_the_right_shape_is_an_error(text):
    assert accepted(text) == []


def test_a_link_that_no_token_can_carry_is_refused_when_signing():
    with pytest.raises(Exception, match=r"format requires|range"):
        SIGNER.sign(sample(link=65536))


def test_old_keys_still_read_and_only_the_newest_signs():
    old, new = b"o" * 32, b"n" * 32
    before, after, later = TokenSigner([old]), TokenSigner([new, old]), TokenSigner([new])
    mailed = before.sign(sample())
    assert accepted(mailed, after) == [TokenKind.CLICK]
    assert accepted(mailed, later) == []
    assert accepted(after.sign(sample()), later) == [TokenKind.CLICK]
    assert accepted(after.sign(sample()), before) == []


def test_nothing_personal_is_in_a_token():
    assert len(SIGNER.sign(sample())) == 56


def test_a_token_is_the_same_in_every_version_of_the_product():
    # Links in mail that left years ago, and messages that are made again, depend on it.
    uses = [TokenUse.of(TokenKind.UNSUBSCRIBE), TokenUse.of(TokenKind.CLICK, 2), TokenUse.of(TokenKind.LEAD)]
    assert TokenSigner([b"k" * 32]).signing(uses).tokens(1, 2, [(3, 4)]) == [
        ["AQAAAAEAAAAAAAAAAgAAAAAAAAAEAAAAAwAAdQAApeZmDpyfPh_G1sF_"],
        ["AQAAAAEAAAAAAAAAAgAAAAAAAAAEAAAAAwAAYwACefC874an5H0eASCn"],
        ["AQAAAAEAAAAAAAAAAgAAAAAAAAAEAAAAAwAAbAAAki2xhAwlDKCq_EiM"],
    ]
