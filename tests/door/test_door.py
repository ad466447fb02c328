"""There is one way out: whatever a stranger writes, whatever his names resolve to, nothing connects to where it must not.

Every trick is played through every way on which the service goes out, while a canary listens behind every address that is not
public, and everything that connects or looks up a name in this process is watched."""

from __future__ import annotations

import pytest

from tests.door.callers import CALLERS, Caller
from tests.door.conftest import World
from tests.door.tricks import ADDRESSES, HOSTS, PUBLIC, PUBLIC_6, REBINDINGS, REDIRECTS, Trick

each_caller = pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS.keys())


def each(tricks: list[Trick]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("trick", tricks, ids=str)


@pytest.mark.parametrize("address", [PUBLIC, PUBLIC_6])
@each_caller
def test_a_public_host_is_connected_to(caller: Caller, address: str, world: World) -> None:
    host = world.stage(Trick("none", looks=((address,),)))
    caller.call(world, host)
    assert world.asked == [host]
    assert world.requests == [(host, caller.path)]
    world.check()


@each_caller
def test_a_redirect_to_a_public_host_is_followed_but_for_streams(caller: Caller, world: World) -> None:
    other = world.new_name()
    host = world.stage(Trick("none", location=f"https://{other}/elsewhere"))
    caller.call(world, host)
    following = [(other, "/elsewhere")] if caller.follows_redirects else []
    assert world.requests == [(host, caller.path), *following]
    world.check()


@each(ADDRESSES)
@each_caller
def test_a_name_with_an_address_that_is_not_public_is_not_connected_to(
    caller: Caller, trick: Trick, world: World
) -> None:
    host = world.stage(trick)
    caller.call(world, host)
    assert world.asked == [host]
    assert world.requests == []
    world.check()


@each(HOSTS)
@pytest.mark.parametrize("caller", [name for name, caller in CALLERS.items() if caller.is_open])
def test_what_is_no_public_name_is_not_even_looked_up(caller: str, trick: Trick, world: World) -> None:
    CALLERS[caller].call(world, world.stage(trick))
    assert world.asked == []
    assert world.requests == []
    world.check()


@each(REDIRECTS)
@each_caller
def test_a_redirect_to_what_is_not_public_is_not_followed(caller: Caller, trick: Trick, world: World) -> None:
    host = world.stage(trick)
    caller.call(world, host)
    most = 4 if trick.title == "around in circles" and caller.follows_redirects else 1
    assert [asked for asked, _ in world.requests] == [host] * most
    world.check()


@each(REBINDINGS)
@each_caller
def test_a_name_is_looked_up_once_for_a_connection_and_again_for_the_next(
    caller: Caller, trick: Trick, world: World
) -> None:
    host = world.stage(trick)
    caller.call(world, host)
    assert (world.asked, world.requests) == ([host], [(host, caller.path)])
    world.check()
    caller.call(world, host)
    assert (world.asked, world.requests) == ([host, host], [(host, caller.path)])
    world.check()


@each(REBINDINGS)
@each_caller
def test_a_name_that_changes_while_it_redirects_to_itself_is_not_connected_to(
    caller: Caller, trick: Trick, world: World
) -> None:
    host = world.stage(Trick(trick.title, looks=trick.looks, location="https://{name}/again"))
    caller.call(world, host)
    assert world.asked == [host] * (1 + caller.follows_redirects)
    assert world.requests == [(host, caller.path)]
    world.check()


def test_the_tricks_are_forty_and_more_and_no_two_are_the_same() -> None:
    tricks = [*ADDRESSES, *HOSTS, *REDIRECTS, *REBINDINGS]
    assert len({(trick.host, trick.looks, trick.location) for trick in tricks}) == len(tricks) > 40
