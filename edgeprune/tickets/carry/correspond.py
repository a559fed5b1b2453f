# SPDX-License-Identifier: Apache-2.0
"""Which blocks of two networks of one family correspond, whatever the depths of their stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from edgeprune.errors import InputError
from edgeprune.mask import Mask, look
from edgeprune.model import Model
from edgeprune.tickets.carry.stages import Block, Layout, Stage, common_path, find_stages

__all__ = ["Item", "Pair", "Part", "correspond"]


@dataclass(frozen=True)
class Item:
    """One use of parameters and buffers, or, where only a ticket is known, one weight."""

    states: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    form: object
    """Equal for what does the same in equal shapes."""
    op: str = ""


@dataclass(frozen=True)
class Part:
    """A block, or what stands between stages."""

    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        """What the names of its states have in common."""
        return common_path([state for item in self.items for state in item.states])

    @property
    def forms(self) -> tuple[object, ...]:
        """Equal for blocks of equal operators and shapes."""
        return tuple(item.form for item in self.items)


@dataclass(frozen=True)
class Pair:
    """A stage (or what stands between stages) in both networks."""

    source: tuple[Part, ...]
    target: tuple[Part, ...]
    repeats: bool
    """Whether it is a stage."""


@dataclass(frozen=True)
class _Slot:
    """A part of the network whose stages are known."""

    blocks: tuple[Part, ...]
    repeats: bool


def correspond(
    mask: Mask, source: Model | None, target: Model, loose: Collection[str]
) -> tuple[Pair, ...]:
    """Match the parts of two networks, in the order of their graphs.

    Args:
        mask: Of the source.
        source: ``None``: its masks alone are matched with the target's weights.
        target: Its stages are found in its graph.
        loose: Weights of the target that may have other shapes, or no mask.

    Raises:
        InputError: Something has no counterpart.
    """
    mine = find_stages(target)
    if source is None:
        return _by_weights(mask, target, mine, loose)
    theirs = find_stages(source)
    first, turned = _matched(_slots(mine), _flat(theirs), loose)
    if first is not None:
        return tuple(Pair(other, slot.blocks, slot.repeats) for slot, other in first)
    second, _ = _matched(_slots(theirs), _flat(mine), loose)
    if second is not None:
        return tuple(Pair(slot.blocks, other, slot.repeats) for slot, other in second)
    raise InputError(turned)


def _by_weights(
    mask: Mask, target: Model, layout: Layout, loose: Collection[str]
) -> tuple[Pair, ...]:
    shapes = {layer.name: layer.shape for layer in look(target).layers}
    tokens = [_weight(name, shape) for name, shape in mask.shapes.items()]
    seen: set[str] = set()

    def items(block: Block) -> tuple[Item, ...]:
        new = [name for name in dict.fromkeys(block.layers) if name not in seen]
        seen.update(new)
        return tuple(_weight(name, shapes[name]) for name in new)

    slots = [_slot(part, items) for part in layout.parts]
    found, why = _matched(slots, tokens, loose)
    if found is None:  # maybe the ticket has no mask for the head
        headless = [_without(slot, loose) for slot in slots]
        found, _ = _matched(headless, tokens, ())
    if found is None:
        raise InputError(
            f"{why}; where names or excluded weights are why, --from with the network of the "
            "ticket helps"
        )
    return tuple(Pair(other, slot.blocks, slot.repeats) for slot, other in found)


def _weight(name: str, shape: tuple[int, ...]) -> Item:
    return Item((name,), (shape,), shape)


def _uses(block: Block) -> tuple[Item, ...]:
    return tuple(Item(use.states, use.shapes, use.form, use.op) for use in block.uses)


def _slot(part: Stage | Block, items: Callable[[Block], tuple[Item, ...]]) -> _Slot:
    blocks = part.blocks if isinstance(part, Stage) else (part,)
    made = tuple(Part(items(block)) for block in blocks)
    return _Slot(made, isinstance(part, Stage) and all(block.items for block in made))


def _slots(layout: Layout) -> list[_Slot]:
    return [_slot(part, _uses) for part in layout.parts]


def _flat(layout: Layout) -> list[Item]:
    return [item for slot in _slots(layout) for block in slot.blocks for item in block.items]


def _without(slot: _Slot, loose: Collection[str]) -> _Slot:
    blocks = [
        Part(tuple(i for i in block.items if not any(s in loose for s in i.states)))
        for block in slot.blocks
    ]
    return _Slot(tuple(blocks), slot.repeats and all(block.items for block in blocks))


Found = list[tuple[_Slot, tuple[Part, ...]]]


def _matched(
    slots: Sequence[_Slot], tokens: Sequence[Item], loose: Collection[str]
) -> tuple[Found | None, str]:
    """For each slot the blocks in ``tokens`` that are like it, or why there are none."""
    search = _Search(slots, tokens, loose)
    found = search.match(0, 0)
    return found, "" if found is not None else search.why()


@dataclass
class _Search:
    """Parts in order, stages with as many later blocks as fit; fewer where the rest wants it."""

    slots: Sequence[_Slot]
    tokens: Sequence[Item]
    loose: Collection[str]
    farthest: tuple[int, Item | None] = (-1, None)

    def match(self, number: int, begin: int) -> Found | None:
        """The slots from ``number`` on, in the tokens from ``begin`` on."""
        if number == len(self.slots):
            if begin == len(self.tokens):
                return []
            self._miss(begin, None)
            return None
        slot = self.slots[number]
        least = 1 if slot.repeats else len(slot.blocks)
        made = self._most(slot, begin)
        for count in range(len(made), least - 1, -1):
            taken = tuple(made[:count])
            rest = self.match(number + 1, begin + sum(len(block.items) for block in taken))
            if rest is not None:
                return [(slot, taken), *rest]
        return None

    def why(self) -> str:
        """The farthest place where something had no counterpart."""
        place, item = self.farthest
        here = _shown(self.tokens[place]) if place < len(self.tokens) else "nothing"
        there = "nothing" if item is None else _shown(item)
        return (
            "the stages of the two networks don't correspond: the ticket's has "
            f"{here} where the target has {there}"
        )

    def _most(self, slot: _Slot, begin: int) -> list[Part]:
        made: list[Part] = []
        wanted = chain(slot.blocks[:1], repeat(slot.blocks[1])) if slot.repeats else slot.blocks
        for block in wanted:
            end = begin + len(block.items)
            if not self._fits(block, begin):
                break
            made.append(Part(tuple(self.tokens[begin:end])))
            begin = end
        return made

    def _fits(self, block: Part, begin: int) -> bool:
        for place, item in enumerate(block.items, begin):
            if place >= len(self.tokens) or not _alike(item, self.tokens[place], self.loose):
                self._miss(place, item)
                return False
        return True

    def _miss(self, place: int, item: Item | None) -> None:
        if place > self.farthest[0]:
            self.farthest = (place, item)


def _alike(item: Item, other: Item, loose: Collection[str]) -> bool:
    if any(state in loose for state in (*item.states, *other.states)):
        return item.op == other.op and len(item.shapes) == len(other.shapes)
    return item.form == other.form


def _shown(item: Item) -> str:
    return f"'{item.states[0]}' of shape {item.shapes[0]}"
