import random
import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nexus_marketing.core.conditions.patterns import (
    MAX_SUBJECT_BYTES,
    PatternError,
    matcher,
    parse,
    postgres_source,
    re2_source,
)
from tests.common.conditions import catastrophic_patterns, catastrophic_subjects

pytestmark = pytest.mark.req("SR-002", "FR-P2-003")


@pytest.mark.parametrize(
    ("pattern", "subject", "answer"),
    [
        ("", "", True),
        ("^a.c$", "abc", True),
        ("^a.c$", "a\nc", False),
        ("^a$", "a\n", False),
        ("a$|^b", "xa", True),
        (r"^\d+$", "١٢", False),
        (r"^\w+$", "é", False),
        (r"^\W$", "é", True),
        ("[^a-c]", "abc", False),
        (r"[\d\-x]", "-", True),
        ("[a-]", "-", True),
        ("^x{2,3}$", "xxxx", False),
        ("^x{2,}$", "xxxx", True),
        ("^(ab|c)*$", "abcab", True),
        ("^()$", "", True),
        (r"\.\*\\\{", r".*\{", True),
        ("😀", "a😀b", True),
        ("[é-ü]", "ö", True),
        (".", "x" * (MAX_SUBJECT_BYTES + 1), False),
        (".", "é" * (MAX_SUBJECT_BYTES // 2 + 1), False),
        (".", "é" * (MAX_SUBJECT_BYTES // 2), True),
    ],
)
def test_patterns_find(pattern, subject, answer):
    assert matcher(pattern)(subject) is answer


@pytest.mark.parametrize(
    ("pattern", "position"),
    [
        ("(a", 0), ("a)", 1), ("[a", 0), ("[]", 0), ("a**", 2), ("a+?", 2), ("*a", 0), ("^*", 1), ("a{256}", 1), ("a{3,1}", 1), ("a{,3}", 1),
        ("a{", 1), ("{", 0), ("]", 0), ("}", 0), (r"\b", 0), (r"a\1", 1), ("(?i)a", 0), ("(?:a)", 0), ("(?P<n>a)", 0), ("[[:alpha:]]", 1),
        ("[z-a]", 1), (r"[\d-z]", 1), (r"[\D]", 1), ("\\", 0), (r"\p{L}", 0), ("a" * 257, 256), ("(a{200}){200}", 0), ("(a?){200}", 0),
        ("(" * 20 + "a" + ")" * 20, 13), ("\ud800", 0), ("a\x00", 1), (r"\Qa", 0), (r"\x41", 0), (r"a\u0041", 1),
    ],
)  # fmt: skip
def test_patterns_outside_the_grammar_are_refused_with_their_position(pattern, position):
    with pytest.raises(PatternError) as refusal:
        parse(pattern)
    assert refusal.value.position == position


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", r"\s", "é", "-", "1", " ", "^", "$", r"\."])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}"])).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=8,
)


@given(PATTERNS, st.text("ab1é \n.-", max_size=8))
def test_answers_are_those_of_a_backtracking_oracle(pattern, subject):
    try:
        found = matcher(pattern)(subject)
    except PatternError:
        assume(False)
    oracle = re.compile(pattern.replace("$", r"\Z"), re.ASCII)
    assert found is (oracle.search(subject) is not None)


@given(st.text(max_size=30))
def test_no_text_reaches_an_engine(pattern):
    try:
        tree = parse(pattern)
    except PatternError as error:
        place = error.position
    else:
        place = None
    if place is not None:
        assert 0 <= place <= len(pattern)
        return
    for source in (re2_source(tree), postgres_source(tree)):
        assert source.isascii()
        assert source.isprintable()
    matcher(pattern)("aé1 \n")


@pytest.mark.req("SR-002")
def test_two_hundred_catastrophic_patterns_answer_within_fifty_milliseconds_or_are_refused():
    patterns = catastrophic_patterns()
    assert len(set(patterns)) == 200
    slowest, refused = 0.0, 0
    for pattern in patterns:
        for subject in catastrophic_subjects():
            for text in (subject, subject[: MAX_SUBJECT_BYTES - 1] + "!"):
                start = time.thread_time()
                try:
                    matcher(pattern)(text)
                except PatternError:
                    refused += 1
                slowest = max(slowest, time.thread_time() - start)
    assert slowest < 0.05
    assert refused < 500


def test_random_mutations_of_patterns_never_crash():
    rng = random.Random(9)
    alphabet = r"ab.^$|()*+?{}[]\-,0123456789dwsé"
    for _ in range(20_000):
        pattern = "".join(rng.choices(alphabet, k=rng.randrange(12)))
        try:
            matcher(pattern)("ab1 é")
        except PatternError as error:
            place = error.position
        else:
            place = 0
        assert place <= len(pattern)
