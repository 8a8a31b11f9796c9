"""The file of tokens: what it may say, what it never holds, and whom a presented token stands for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.access import secrets as secrets_of_tokens
from serving.access.new_token import Wanted, new_token
from serving.access.principal import ADMIN, EITHER, INFER, OPEN, Scope
from serving.access.tokens import Tokens, TokensError, parse_tokens, read_tokens
from serving.engine.messages import Quota
from serving.errors import PermissionDenied, Unauthenticated


def two() -> tuple[Tokens, str, str]:
    reader, entry = new_token(Wanted("reader", ["infer"], 600.0, 3600.0, 2.0, 5))
    boss, other = new_token(Wanted("boss", ["infer", "admin"]))
    return parse_tokens(entry + other, "tokens"), reader, boss


def test_a_new_token_opens_what_it_was_made_for_and_its_entry_does_not_hold_it() -> None:
    secret, entry = new_token(Wanted("team-a", ["infer"], 600.0, 3600.0, 2.0, 5, "2999-01-31T00:00:00Z"))
    assert secret not in entry
    assert len(secret) > 40
    principal = parse_tokens(entry, "entry").principal([f"Bearer {secret}"])
    assert principal.name == "team-a"
    assert principal.scopes == {Scope.INFER}
    assert (principal.share_weight, principal.max_priority) == (2.0, 5)
    assert principal.quota == Quota(600.0, 3600.0)


def test_two_tokens_of_one_name_are_never_the_same() -> None:
    assert new_token(Wanted("a", ["infer"]))[0] != new_token(Wanted("a", ["infer"]))[0]


def test_each_secret_stands_for_its_own_name_whatever_the_scheme_is_written_like() -> None:
    tokens, reader, boss = two()
    assert tokens.principal([f"Bearer {reader}"]).name == "reader"
    assert tokens.principal([f"bearer {boss}"]).name == "boss"


@pytest.mark.parametrize(
    "authorization",
    [
        [],
        ["Bearer"],
        ["Bearer "],
        ["Bearer  two-blanks"],
        ["Bearer no such token"],
        ["Bearer pxs_unknown"],
        ["Basic dXNlcjpwYXNz"],
        ["pxs_without_a_scheme"],
        [b"Bearer pxs_bytes"],
        ["Bearer pxs_one", "Bearer pxs_two"],
        ["Bearer " + "a" * 600],
        ["Bearer pxs_\u00e9"],
    ],
)
def test_missing_malformed_and_unknown_tokens_are_unauthenticated_and_never_echoed(
    authorization: list[str | bytes],
) -> None:
    tokens, _, _ = two()
    with pytest.raises(Unauthenticated) as caught:
        tokens.principal(authorization)
    assert "pxs_" not in str(caught.value)


def test_every_known_hash_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, reader, _ = two()
    compared: list[str] = []

    def counting(one: str, other: str) -> bool:
        compared.append(one)
        return secrets_of_tokens.same(one, other)

    monkeypatch.setattr("serving.access.tokens.same", counting)
    tokens.principal([f"Bearer {reader}"])
    with pytest.raises(Unauthenticated):
        tokens.principal(["Bearer nobody"])
    assert len(compared) == 4


def test_while_a_secret_is_replaced_the_old_and_the_new_one_are_good() -> None:
    old, new = secrets_of_tokens.new_secret(), secrets_of_tokens.new_secret()
    hashes = ", ".join(f'"{secrets_of_tokens.hash_of(one)}"' for one in (old, new))
    tokens = parse_tokens(f'[[token]]\nname = "a"\nscopes = ["infer"]\nsha256 = [{hashes}]\n', "x")
    assert {tokens.principal([f"Bearer {one}"]).name for one in (old, new)} == {"a"}


def test_an_expired_token_is_unauthenticated() -> None:
    secret, entry = new_token(Wanted("a", ["infer"], expires="2030-01-01T00:00:00+01:00"))
    tokens = parse_tokens(entry, "x")
    before, after = datetime(2029, 12, 31, 22, 59, tzinfo=UTC), datetime(2029, 12, 31, 23, 0, tzinfo=UTC)
    assert tokens.principal([f"Bearer {secret}"], before).name == "a"
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.principal([f"Bearer {secret}"], after)


def test_scopes_open_what_they_say_and_nothing_else() -> None:
    tokens, reader, boss = two()
    for secret, wanted, opened in [
        (reader, INFER, True),
        (reader, EITHER, True),
        (reader, ADMIN, False),
        (reader, OPEN, True),
        (boss, ADMIN, True),
    ]:
        principal = tokens.principal([f"Bearer {secret}"])
        if opened:
            principal.demand(wanted)
            continue
        with pytest.raises(PermissionDenied, match="reader") as caught:
            principal.demand(wanted)
        assert caught.value.metadata == {"scope": "admin"}


GOOD = {"name": '"a"', "sha256": f'"{"0" * 64}"', "scopes": '["infer"]'}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": '""'}, "name"),
        ({"name": '"a\\nb"'}, "name"),
        ({"name": f'"{"x" * 65}"'}, "name"),
        ({"sha256": '"abc"'}, "sha256"),
        ({"sha256": f'"{"G" * 64}"'}, "sha256"),
        ({"sha256": "[]"}, "sha256"),
        ({"scopes": "[]"}, "scopes"),
        ({"scopes": '["root"]'}, "scopes"),
        ({"scopes": '"infer"'}, "scopes"),
        ({"share-weight": "0"}, "share-weight"),
        ({"share-weight": "inf"}, "share-weight"),
        ({"share-weight": "true"}, "share-weight"),
        ({"max-priority": "1.5"}, "max-priority"),
        ({"max-priority": "1000"}, "max-priority"),
        ({"quota-device-s": "1.0"}, "quota-window-s"),
        ({"quota-device-s": "-1", "quota-window-s": "1"}, "quota-device-s"),
        ({"expires": '"soon"'}, "expires"),
        ({"expires": "2030-01-01T00:00:00"}, "expires"),
        ({"secret": '"s"'}, "secret"),
    ],
)
def test_a_wrong_entry_is_named_with_its_key(changes: dict[str, str], named: str) -> None:
    lines = "".join(f"{key} = {value}\n" for key, value in {**GOOD, **changes}.items())
    with pytest.raises(TokensError, match=named):
        parse_tokens(f"[[token]]\n{lines}", "tokens.toml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[token", "TOML"),
        ('tokens = "a"', "nothing else"),
        ("token = 3", "nothing else"),
        ("token = [3]", "nothing else"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, named: str) -> None:
    with pytest.raises(TokensError, match=named):
        parse_tokens(text, "tokens.toml")


def test_names_and_secrets_are_unique() -> None:
    entry = "[[token]]\n" + "".join(f"{key} = {value}\n" for key, value in GOOD.items())
    with pytest.raises(TokensError, match="name"):
        parse_tokens(entry + entry.replace("0" * 64, "1" * 64), "x")
    with pytest.raises(TokensError, match="same secret"):
        parse_tokens(entry + entry.replace('"a"', '"b"'), "x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokensError, match=r"none\.toml"):
        read_tokens(tmp_path / "none.toml")
