"""Contraction programs: their interpreter against a naive einsum, sharing, and what `verify` refuses."""

from dataclasses import replace

import numpy as np
import pytest

from tensorgraph.algebra import Layout, embedding
from tensorgraph.basis import derive
from tensorgraph.contractions import Output, contraction_program, run
from tensorgraph.contractions.search import cuts
from tensorgraph.graphs import Kind, Multigraph, canonical

CASES = [
    ("connected", 5, 3),
    ("connected", 6, 2),
    ("flexible", 5, 4),
    ("flexible", 6, 3),
    ("hiphop", 2, 0),
    ("hiphop", 5, 3),
]


@pytest.mark.parametrize(("family", "body_order", "max_rank"), CASES)
def test_interpreter_equals_naive_einsum(family, body_order, max_rank):
    graphs = derive(family, body_order, max_rank).graphs
    program = contraction_program(graphs, Layout.full(max_rank))
    random = np.random.default_rng(0)
    tensors = {Kind(rank): embedding(rank) @ random.standard_normal(2 * rank + 1) for rank in range(max_rank + 1)}
    for graph, value in zip(graphs, run(program, tensors), strict=True):
        naive = np.einsum(graph.einsum, *(tensors[kind] for kind in graph.kinds), optimize="greedy")
        np.testing.assert_allclose(value, naive, rtol=1e-11, atol=1e-12)


def test_intermediates_are_shared_across_the_family():
    graphs = derive("hiphop", 5, 3).graphs
    together = contraction_program(graphs, Layout.full(3))
    alone = sum(len(contraction_program([graph], Layout.full(3)).steps) for graph in graphs)
    assert len(together.steps) == 18 < alone
    assert len({step.graph for step in together.steps}) == len(together.steps)


def test_every_intermediate_is_the_canonical_open_graph_that_it_names():
    for step in contraction_program(derive("flexible", 6, 3).graphs, Layout.full(3)).steps:
        assert canonical(step.graph) == step.graph
        assert len(step.result) == sum(step.graph.legs)


def test_cuts_split_into_connected_parts():
    square = canonical(Multigraph((2, 2, 2, 2), ((0, 1, 1), (0, 3, 1), (1, 2, 1), (2, 3, 1))))
    sizes = sorted((len(cut.left), len(cut.right)) for cut in cuts(square))
    assert sizes == [(1, 3), (2, 2)]
    assert all(cut.left_class.is_connected and cut.right_class.is_connected for cut in cuts(square))
    assert min(cuts(square), key=lambda cut: cut.cost).left_class.order in (1, 2)


def test_text_form_reads_as_index_notation():
    text = str(contraction_program(derive("hiphop", 4, 2).graphs, Layout.full(2)))
    assert text.splitlines()[0] == "w1 = v[a] v[a]    # v_a v_a"
    assert text.splitlines()[-1].startswith("return s, w1, w2")


def test_verify_refuses_what_is_no_program():
    program = contraction_program(derive("hiphop", 5, 3).graphs, Layout.full(3))
    program.verify()
    step = program.steps[3]
    same_legs = next(other.graph for other in program.steps if sum(other.graph.legs) == 1 and other is not step)
    wrong = [
        replace(step, left=replace(step.left, value=99)),
        replace(step, left=replace(step.left, indices="a")),
        replace(step, left=replace(step.left, indices="aa")),
        replace(step, result="ab"),
        replace(step, result="c"),
        replace(step, graph=program.steps[0].graph),
        replace(step, graph=same_legs),
    ]
    for bad in wrong:
        with pytest.raises(ValueError, match="step 3"):
            replace(program, steps=(*program.steps[:3], bad, *program.steps[4:])).verify()
    for value in (1, 999, -1):
        with pytest.raises(ValueError, match="has other legs than what closes it"):
            replace(program, outputs=(Output(value),)).verify()


def test_verify_sees_axes_in_the_wrong_order():
    """t_ijk t_ijm v_m: legs at different tensors are not interchangeable once the tensors differ."""
    program = contraction_program(derive("connected", 5, 3).graphs, Layout.full(3))
    number, step = next(
        (number, step)
        for number, step in enumerate(program.steps)
        if len(step.graph.ranks) == 2 and len(set(step.graph.ranks)) == 2 and all(step.graph.legs)
    )
    swapped = replace(step, result=step.result[::-1])
    if step.graph.legs[0] == step.graph.legs[1] == 1:
        with pytest.raises(ValueError, match=f"step {number}"):
            replace(program, steps=(*program.steps[:number], swapped, *program.steps[number + 1 :])).verify()
