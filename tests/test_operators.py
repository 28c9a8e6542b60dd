"""No operator costs nothing but those that touch no data, and where there is a closed form, it is exact."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from duo.routing.counter import Counter

pytestmark = QUIET = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # torch's own, of sparse, ragged and quantised tensors
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.ao"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
]

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))  # B, T, D
Q = X.view(2, 5, 4, 4).transpose(1, 2)  # B, H, T, K
W = torch.randn(16, 3)
ROWS = X[0]
SPARSE = torch.tensor([[1.0, 0, 2], [0, 0, 3]]).to_sparse()  # 3 values
INDEX = torch.tensor([0, 3])


@torch.no_grad()
def work_of(call):
    """What the counter says of a call."""
    counter = Counter()
    with counter.running():
        call()
    return counter.work


ATTENTION = 2 * 2 * 4 * 5 * 5 * 4 * 2  # sequences, heads, queries, keys, width; two products
HEADS = 2 * 10 * 16 * 16 * 4 + ATTENTION  # and the projections of queries, keys, values and output
PRODUCTS = {
    "mm": (lambda: ROWS @ W, 2 * 5 * 16 * 3),
    "linear": (lambda: F.linear(X, W.T, torch.zeros(3)), 2 * 10 * 16 * 3),
    "bmm": (lambda: X @ X.mT, 2 * 2 * 5 * 16 * 5),
    "baddbmm": (lambda: torch.baddbmm(torch.zeros(5), X, X.mT), 2 * 2 * 5 * 16 * 5),
    "addbmm": (lambda: torch.addbmm(torch.zeros(5, 5), X, X.mT), 2 * 2 * 5 * 16 * 5),
    "mm into a result": (lambda: torch.mm(ROWS, W, out=torch.empty(5, 3)), 2 * 5 * 16 * 3),
    "addmm in place": (lambda: torch.zeros(5, 3).addmm_(ROWS, W), 2 * 5 * 16 * 3),
    "mv": (lambda: ROWS @ ROWS[0], 2 * 5 * 16),
    "addmv": (lambda: torch.addmv(torch.zeros(5), ROWS, ROWS[0]), 2 * 5 * 16),
    "dot": (lambda: ROWS[0].dot(ROWS[1]), 2 * 16),
    "vdot": (lambda: torch.vdot(ROWS[0], ROWS[1]), 2 * 16),
    "inner": (lambda: torch.inner(X, X), 2 * 10 * 10 * 16),
    "einsum": (lambda: torch.einsum("bid,bjd->bij", X, X), 2 * 2 * 5 * 5 * 16),
    "tensordot": (lambda: torch.tensordot(X, W, ([2], [0])), 2 * 10 * 16 * 3),
    "chain": (lambda: torch.linalg.multi_dot([ROWS, W, W.T]), 2 * 5 * 16 * 3 * 2),
    "int8 mm": (lambda: torch._int_mm(torch.ones(32, 16).char(), torch.ones(16, 8).char()), 2 * 32 * 16 * 8),
    "sparse mm": (lambda: torch.sparse.mm(SPARSE, W[:3]), 2 * 3 * 3),
    "sparse @": (lambda: SPARSE @ W[:3], 2 * 3 * 3),
    "csr @": (lambda: SPARSE.to_sparse_csr() @ W[:3], 2 * 3 * 3),
    "csr mv": (lambda: SPARSE.to_sparse_csr() @ torch.ones(3), 2 * 3),
    "sparse addmm": (lambda: torch.sparse.addmm(torch.zeros(2, 3), SPARSE, W[:3]), 2 * 3 * 3),
    "sparse times sparse": (lambda: torch.sparse.mm(SPARSE, SPARSE.t()), 2 * 3 * 2),
    "sampled": (
        lambda: torch.sparse.sampled_addmm(SPARSE.to_sparse_csr(), W[:2], W[:3].T.contiguous()),
        2 * 3 * 3,
    ),
    "conv1d": (lambda: F.conv1d(X.mT, torch.ones(4, 16, 3)), 2 * 2 * 3 * 4 * 16 * 3),
    "conv in time": (lambda: torch.conv_tbc(X, torch.ones(2, 16, 3), torch.zeros(3)), 2 * 5 * 3 * 2 * 16),
    "grouped conv1d": (lambda: F.conv1d(X.mT, torch.ones(16, 1, 3), groups=16), 2 * 2 * 3 * 16 * 3),
    "conv2d": (lambda: F.conv2d(Q, torch.ones(2, 4, 2, 2)), 2 * 2 * 4 * 3 * 2 * 4 * 2 * 2),
    "transposed conv1d": (lambda: F.conv_transpose1d(X.mT, torch.ones(16, 4, 3)), 2 * 2 * 5 * 16 * 4 * 3),
    "attention": (lambda: F.scaled_dot_product_attention(Q, Q, Q), ATTENTION),
    "causal attention": (lambda: F.scaled_dot_product_attention(Q, Q, Q, is_causal=True), ATTENTION),
    "masked attention": (lambda: F.scaled_dot_product_attention(Q, Q, Q, torch.ones(5, 5).bool()), ATTENTION),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(16, 4, batch_first=True).eval()(X, X, X), HEADS),
    "TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()(X),
        HEADS + 2 * 10 * 2 * 16 * 32,
    ),
    "LSTM": (lambda: nn.LSTM(16, 8)(X), 2 * 10 * 4 * 8 * (16 + 8)),
    "LSTM of two layers, both ways": (
        lambda: nn.LSTM(16, 8, num_layers=2, bidirectional=True)(X),
        2 * 10 * 4 * 8 * 2 * ((16 + 8) + (2 * 8 + 8)),
    ),
    "GRU": (lambda: nn.GRU(16, 8)(X), 2 * 10 * 3 * 8 * (16 + 8)),
    "RNN": (lambda: nn.RNN(16, 8)(X), 2 * 10 * 8 * (16 + 8)),
    "LSTMCell": (lambda: nn.LSTMCell(16, 8)(ROWS), 2 * 5 * 4 * 8 * (16 + 8)),
    "GRUCell": (lambda: nn.GRUCell(16, 8)(ROWS), 2 * 5 * 3 * 8 * (16 + 8)),
    "Bilinear": (lambda: nn.Bilinear(16, 3, 4, bias=False)(ROWS, ROWS[:, :3]), 3 * 5 * 16 * 3 * 4),
    "cdist": (lambda: torch.cdist(X, X, p=1), 3 * 2 * 5 * 5 * 16),
    "cdist by products": (lambda: torch.cdist(torch.ones(30, 4), torch.ones(40, 4)), 3 * 30 * 40 * 4),
    "pdist": (lambda: F.pdist(ROWS), 3 * 10 * 16),
    "rfft": (lambda: torch.fft.rfft(X), 5 * 160 * math.log2(16)),
    "inverse": (lambda: torch.linalg.inv(torch.eye(4)), 2 * 4**3),
    "solve": (lambda: torch.linalg.solve(torch.eye(4), torch.ones(4, 3)), 4**3 + 2 * 4 * 4 * 3),
    "triangular solve": (
        lambda: torch.linalg.solve_triangular(torch.eye(4), torch.ones(4, 3), upper=True),
        4 * 4 * 3,
    ),
    "solve of a symmetric": (
        lambda: torch.linalg.ldl_solve(*torch.linalg.ldl_factor(torch.eye(4)), torch.ones(4, 3)),
        4**3 + 2 * 4 * 4 * 3,
    ),
    "svd": (lambda: torch.linalg.svd(ROWS), 25 * 5 * 5 * 16),
    "matrix exponential": (lambda: torch.linalg.matrix_exp(torch.eye(4)), 25 * 4**3),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_costs_its_closed_form(name):
    call, flops = PRODUCTS[name]
    assert work_of(call).products == flops


N = X.numel()
ELEMENTS = {
    "sum": (lambda: X.sum(), N + 1),
    "product": (lambda: X.prod(-1), N + 10),
    "sums along": (lambda: X.cumsum(1), 2 * N),
    "add": (lambda: X + X, 3 * N),
    "multiply by a number": (lambda: X * 2, 2 * N),
    "in place": (lambda: X.clone().mul_(2), 2 * N + 2 * N),
    "into a result": (lambda: torch.add(X, X, out=torch.empty_like(X)), 3 * N),
    "outer": (lambda: torch.outer(ROWS[0], ROWS[0]), 16 + 16 + 256),
    "compare": (lambda: X > 0, 2 * N),
    "equal": (lambda: torch.equal(X, X), 2 * N),
    "choose": (lambda: torch.where(X > 0, X, X), 2 * N + 4 * N),
    "copy": (lambda: X.clone(), 2 * N),
    "another type": (lambda: X.double(), 2 * N),
    "softmax": (lambda: X.softmax(-1), 2 * N),
    "gelu": (lambda: F.gelu(X), 2 * N),
    "layer norm": (lambda: F.layer_norm(X, (16,)), 2 * N + 2 * 10),
    "argmax": (lambda: X.argmax(-1), N + 10),
    "concatenate": (lambda: torch.cat([X, X]), 4 * N),
    "fill": (lambda: torch.zeros(7), 7),
    "numbers from Python": (lambda: torch.tensor([1.0, 2.0]), 2 * 2),
    "numbers from numpy": (lambda: torch.from_numpy(np.ones(6)), 2 * 6),
    "one number to Python": (lambda: ROWS[0, 0].item(), 1),
    "random": (lambda: torch.rand(7), 7),
    "random permutation": (lambda: torch.randperm(7), 7),
    "embedding": (lambda: F.embedding(INDEX, ROWS), 2 + 2 * 2 * 16),
    "embedding bag": (lambda: torch.embedding_bag(ROWS, INDEX, torch.tensor([0])), None),
    "index": (lambda: ROWS[INDEX], 2 + 2 * 2 * 16),
    "index select": (lambda: ROWS.index_select(0, INDEX), 2 + 2 * 2 * 16),
    "gather": (lambda: ROWS.gather(1, INDEX.expand(5, 2)), 10 + 2 * 10),
    "take": (lambda: ROWS.take(INDEX), 2 + 2 * 2),
    "scatter": (lambda: torch.scatter(ROWS, 1, INDEX.expand(5, 2), 1.0), 80 + 10 + 80),
    "sort": (lambda: ROWS.sort(-1), 80 + 2 * 80 + 80 * 4),
    "topk": (lambda: ROWS.topk(2), 80 + 2 * 10 + 80 * 4),
    "unique": (lambda: INDEX.unique(), None),
    "median": (lambda: ROWS.median(), 80 + 1 + 80 * 7),
    "binary search": (lambda: torch.searchsorted(torch.arange(16.0), ROWS[0]), 16 + 16 + 16 + 16 + 16 * 4),
    "pooling": (lambda: F.avg_pool1d(ROWS, 4, 1), 80 + 5 * 13 + 5 * 13 * 4),
    "windows": (lambda: F.unfold(Q, 2), None),
    "cosine similarity": (lambda: F.cosine_similarity(X, X, -1), None),
    "many at once": (lambda: torch._foreach_add_([X.clone(), X.clone()], 1), 4 * N + 4 * N),
    "sparse copy": (lambda: SPARSE.clone(), 2 * (3 + 2 * 3)),
    "product over nothing": (lambda: torch.addmm(ROWS, X[0, :, :0], W[:0, :1].expand(0, 16), beta=3), 80 + 80),
    "ragged batch": (lambda: torch.nested.nested_tensor([ROWS, ROWS[:2]]), None),
    "complex": (lambda: torch.view_as_complex(X.view(2, 5, 8, 2)).abs(), 2 * N // 2),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_what_is_no_product_costs_the_elements_it_reads_and_writes(name):
    call, flops = ELEMENTS[name]
    work = work_of(call)
    assert work.products == 0
    assert work.elements == flops if flops is not None else work.elements > 0


FREE = {
    "view": lambda: X.view(10, 16),
    "transpose": lambda: X.mT,
    "slice": lambda: X[:, 1:3],
    "split": lambda: X.split(2, dim=1),
    "expand": lambda: X[:1].expand(7, -1, -1),
    "windows": lambda: X.unfold(1, 3, 1),
    "detach": lambda: X.detach(),
    "empty": lambda: torch.empty(5),
    "empty like": lambda: torch.empty_like(X),
    "turned in place": lambda: X[0].t_(),
    "to numpy": lambda: X.numpy(),
}


@pytest.mark.parametrize("name", FREE)
def test_what_touches_no_data_costs_nothing(name):
    work = work_of(FREE[name])
    assert (work.products, work.elements) == (0, 0)


COPIES = {
    "another type": lambda: X.double(),
    "in one piece": lambda: X.mT.contiguous(),
    "another shape": lambda: X.mT.reshape(-1),
    "flat": lambda: X.mT.flatten(),
}


@pytest.mark.parametrize("name", COPIES)
def test_in_inference_mode_all_costs_what_it_does_outside(name):
    def inside():
        with torch.inference_mode():
            COPIES[name]()

    assert work_of(inside).elements == work_of(COPIES[name]).elements == 2 * N
