# SPDX-License-Identifier: Apache-2.0
from edgeprune.clock import Clock


def test_every_second_belongs_to_the_part_that_ends_next():
    times = iter((10.0, 12.0, 15.0, 15.5, 20.0))
    clock = Clock(lambda: next(times))
    clock.lap("load")
    assert clock.running == 3.0
    clock.lap("prune")
    clock.lap("load")  # once more
    assert clock.parts == {"load": 6.5, "prune": 3.5}
    assert clock.total == sum(clock.parts.values()) == 10.0


def test_what_an_interrupted_run_spent_counts_for_the_part_under_way():
    times = iter((0.0, 1.0, 2.0, 3.0))
    clock = Clock(lambda: next(times))
    clock.add(100.0)
    assert clock.running == 101.0
    clock.lap("finetune")
    clock.lap("export")
    assert clock.parts == {"finetune": 102.0, "export": 1.0}
    assert clock.total == 103.0
