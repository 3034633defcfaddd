"""STOP is understood however it is written, and nothing else is taken for it."""

import pytest

from nexus_marketing.core.sms import Keyword, keyword_of

pytestmark = pytest.mark.req("BR-012", "D07")

STOP = """STOP|stop|Stop.|STOP!|  stop  |"stop"|stop please|Please stop|STOP ALL|stopall|StopAll|unsubscribe|UNSUBSCRIBE me|unsub|
Cancel|END|end.|quit|QUIT!!|revoke|opt out|OPT-OUT|optout|please opt out|stop texting me|STOP\tNOW|s\u200btop|\ufeffSTOP|
ＳＴＯＰ|𝐒𝐓𝐎𝐏|stop 🛑|🛑 STOP 🛑|stopp|ARRÊT|arret|alto|BAJA|parar|abmelden|Stop, bitte|(stop)|stop\u00a0all|-stop-|cancel all messages"""
START = ["START", "start", "Yes", "YES!", "unstop", "yes please", "ＳＴＡＲＴ"]
HELP = ["HELP", "help?", "Info", "INFO.", "help please", "ｈｅｌｐ"]
NONE = """hello|when does the sale end?|I want to cancel my order|the bus will stop here|yes we can|don't stop|end of the line|help me with this order|
information|stopover|I quit my job|restart|no||   |!!!|🛑|yes or no|stops|halt"""


@pytest.mark.parametrize("text", [each.strip("\n") for each in STOP.split("|")])
def test_whoever_wants_no_more_gets_no_more(text):
    assert keyword_of(text) is Keyword.STOP


@pytest.mark.parametrize(("word", "texts"), [(Keyword.START, START), (Keyword.HELP, HELP)])
def test_the_other_words(word, texts):
    assert {keyword_of(each) for each in texts} == {word}


@pytest.mark.parametrize("text", [each.strip("\n") for each in NONE.split("|")])
def test_a_message_is_just_a_message(text):
    assert keyword_of(text) is None


@pytest.mark.parametrize("text", ["stop" * 100_000, "\u0301" * 100_000, "opt " * 50_000, "\ud800", "\x00"])
def test_what_is_long_or_broken_is_read_all_the_same(text):
    assert keyword_of(text) is None
