"""The policy: who decides about a call, and the laws that no combination of rules, check and mode can bend."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turncell import Rule, UsageError
from turncell.core.policy import MODES, Decision, decide

RULES = st.lists(
    st.builds(
        Rule,
        st.sampled_from(["mail", "ma*", "*", "other"]),
        st.sampled_from(["allow", "deny", "ask"]),
        st.sampled_from([{}, {"to": "ana*"}, {"to": "bo*"}]),
        st.just(""),
        st.booleans(),
    ),
    max_size=3,
)
CHECKS = st.none() | st.builds(Decision, st.sampled_from(["allow", "deny", "ask"]), st.just("check"))
ARGUMENTS = {"to": "ana@home.example"}
STRICTNESS = {"allow": 0, "ask": 1, "deny": 2}


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "rules": draw(RULES),
        "mode": draw(st.sampled_from(MODES)),
        "tool": "mail",
        "arguments": ARGUMENTS,
        "effect": draw(st.sampled_from(["read", "write", "idempotent"])),
        "edits_notebook": draw(st.booleans()),
        "remembered": draw(RULES),
        "check": draw(CHECKS),
        "is_tainted": draw(st.booleans()),
    }


def first(rules: list[Rule]) -> Rule | None:
    return next((rule for rule in rules if rule.matches("mail", ARGUMENTS)), None)


def of_mode(case: dict[str, Any]) -> Decision:
    """What the mode alone says."""
    return decide(**case | {"rules": (), "remembered": (), "check": None, "is_tainted": False})


@pytest.mark.feature("B7")
class TestTheOrder:
    def test_rules_in_code_come_before_remembered_ones_these_before_the_check_and_the_check_before_the_mode(
        self,
    ) -> None:
        said = Decision("allow", "check of mail")
        denies, asks = [Rule("mail", "deny")], [Rule("mail", "ask")]

        def by(**given: Any) -> str:
            return decide(given.pop("rules", ()), "ask", "mail", {}, "write", **given).by

        assert by(rules=asks, remembered=denies, check=said) == "rule ask mail"
        assert by(remembered=denies, check=said) == "remembered rule deny mail"
        assert by(check=said) == "check of mail"
        assert by() == "mode ask"

    @given(cases())
    def test_the_first_rule_in_code_decides_unless_a_check_denies_or_taint_weighs(self, case: dict[str, Any]) -> None:
        rule = first(case["rules"])
        is_denied = case["check"] is not None and case["check"].verdict == "deny"
        if rule is not None and not is_denied and not (case["is_tainted"] and case["effect"] != "read"):
            assert decide(**case) == Decision(rule.verdict, f"rule {rule}")

    @given(cases())
    def test_without_rules_check_and_taint_the_mode_decides(self, case: dict[str, Any]) -> None:
        alone = of_mode(case)
        if case["mode"] == "auto":
            assert alone.verdict == "allow"
        elif case["effect"] == "read":
            assert alone.verdict == ("deny" if case["mode"] == "never" else "allow")
        else:
            edits = "allow" if case["edits_notebook"] else "ask"
            assert alone.verdict == {"ask": "ask", "edits": edits, "plan": "deny", "never": "deny"}[case["mode"]]


@pytest.mark.feature("B7")
class TestTheCheckOfATool:
    @given(cases())
    def test_its_denial_stands_whatever_the_rules_say(self, case: dict[str, Any]) -> None:
        no = Decision("deny", "check", "outside of the project")
        assert decide(**case | {"check": no}) == no

    @given(cases())
    def test_its_ask_beats_a_remembered_allow_and_the_allow_of_a_mode(self, case: dict[str, Any]) -> None:
        case |= {"rules": [], "check": Decision("ask", "check")}
        assert decide(**case).verdict != "allow"

    @given(cases())
    def test_its_ask_does_not_beat_the_allow_of_a_rule_in_code(self, case: dict[str, Any]) -> None:
        case |= {"rules": [Rule("mail", "allow", tainted=True)], "check": Decision("ask", "check")}
        assert decide(**case).verdict == "allow"

    @given(cases())
    def test_its_allow_never_lets_through_what_the_mode_denies(self, case: dict[str, Any]) -> None:
        case |= {"rules": [], "remembered": [], "check": Decision("allow", "check")}
        if of_mode(case).verdict == "deny":
            assert decide(**case) == of_mode(case)

    @pytest.mark.parametrize("mode", ["plan", "never"])
    def test_where_the_mode_asks_nobody_its_ask_is_a_denial_that_says_so(self, mode: Any) -> None:
        asks = Decision("ask", "check", "500 mails")
        said = decide([], mode, "mail", {}, "write", remembered=[Rule("mail", "allow")], check=asks)
        assert (said.verdict, said.by) == ("deny", f"mode {mode}")
        assert "500 mails" in said.reason

    def test_a_word_that_is_no_verdict_is_refused_and_not_taken_for_an_allow(self) -> None:
        wrong: Any = "Deny"
        with pytest.raises(UsageError, match=r"decision by 'check': verdict is 'Deny'; use 'allow', 'deny' or 'ask'"):
            Decision(wrong, "check")


@pytest.mark.feature("B12")
class TestTaint:
    @given(cases())
    def test_only_mode_auto_and_tainted_rules_in_code_allow_what_is_no_read(self, case: dict[str, Any]) -> None:
        case["is_tainted"] = True
        said = decide(**case)
        if said.verdict == "allow" and case["effect"] != "read":
            rule = first(case["rules"])
            assert (rule is not None and rule.tainted) or case["mode"] == "auto"

    @given(cases())
    def test_it_turns_an_allow_into_an_ask_or_where_the_mode_denies_into_a_denial(self, case: dict[str, Any]) -> None:
        clean, tainted = (decide(**case | {"is_tainted": is_tainted}) for is_tainted in (False, True))
        if clean != tainted:
            assert clean.verdict == "allow" and case["effect"] != "read"
            assert tainted.verdict == ("deny" if case["mode"] in ("plan", "never") else "ask")
            assert "untrusted output was read before this call" in tainted.reason

    @given(cases())
    def test_it_never_makes_a_decision_milder_and_never_touches_a_read(self, case: dict[str, Any]) -> None:
        clean, tainted = (decide(**case | {"is_tainted": is_tainted}) for is_tainted in (False, True))
        assert STRICTNESS[tainted.verdict] >= STRICTNESS[clean.verdict]
        assert tainted == clean or case["effect"] != "read"

    def test_a_remembered_allow_no_longer_counts_even_if_it_claims_to_stand(self) -> None:
        claims = [Rule("mail", "allow", tainted=True)]
        assert decide([], "ask", "mail", {}, "write", remembered=claims, is_tainted=True).verdict == "ask"

    def test_neither_does_the_allow_of_mode_edits_or_of_a_check(self) -> None:
        assert decide([], "edits", "cell", {}, "write", True, is_tainted=True).verdict == "ask"
        yes = Decision("allow", "check")
        assert decide([], "ask", "cell", {}, "idempotent", check=yes, is_tainted=True).verdict == "ask"


@pytest.mark.feature("B7")
class TestRules:
    @pytest.mark.parametrize(
        ("arguments", "found"),
        [
            (("", "allow"), "a rule's tool is ''"),
            ((None, "allow"), "a rule's tool is None"),
            (("mail", "yes"), "verdict is 'yes'"),
            (("mail", "allow", "to=*"), "where is 'to=*'"),
            (("mail", "allow", {"n": 3}), "where is {'n': 3}"),
            (("mail", "allow", {}, None), "reason is None"),
            (("mail", "allow", {}, "", "no"), "tainted is 'no'"),
        ],
    )
    def test_one_that_cannot_be_says_what_was_found(self, arguments: Any, found: str) -> None:
        with pytest.raises(UsageError, match=re.escape(found)):
            Rule(*arguments)

    def test_a_value_that_is_no_text_is_matched_as_json_writes_it(self) -> None:
        assert Rule("mail", "allow", {"urgent": "true"}).matches("mail", {"urgent": True})
        assert not Rule("mail", "allow", {"urgent": "true"}).matches("mail", {})
