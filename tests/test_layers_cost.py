"""Layers, kernels and code of other kinds cost what they are made of."""

import pytest
import torch
import torch.nn.functional as F
from test_operators import ATTENTION, QUIET, ROWS, Q, W, X, work_of
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

pytestmark = QUIET


@pytest.mark.parametrize("name", ["MultiheadAttention", "TransformerEncoderLayer", "attention"])
def test_a_fused_operator_costs_the_products_it_is_made_of(name):
    heads = nn.MultiheadAttention(16, 4, batch_first=True)
    encoder = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    layer = {
        "MultiheadAttention": lambda mode: heads.train(mode)(X, X, X),
        "TransformerEncoderLayer": lambda mode: encoder.train(mode)(X),
        "attention": lambda mode: F.scaled_dot_product_attention(Q, Q, Q),
    }[name]
    fused = work_of(lambda: layer(False))
    with sdpa_kernel(SDPBackend.MATH):
        plain = work_of(lambda: layer(True))  # no fast path
    assert fused.products == plain.products
    assert fused.operators < plain.operators


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_costs_the_same_whichever_kernel_runs_it(kind):
    layer = kind(16, 8, num_layers=2, bidirectional=True)
    single, double = work_of(lambda: layer(X)), work_of(lambda: layer.double()(X.double()))  # of doubles none is fused
    assert single.products == double.products > 0


def test_a_padded_encoder_pays_for_the_tokens_there_are():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 1).eval()
    padding_BT = torch.arange(5).expand(2, 5) >= torch.tensor([[5], [3]])
    flops = sum(2 * n * 16 * 16 * 4 + 4 * n * n * 16 + 2 * n * 2 * 16 * 32 for n in (5, 3))
    assert work_of(lambda: encoder(X, src_key_padding_mask=padding_BT)).products == flops


@pytest.fixture
def quantised():
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch was built without fbgemm")
    before, torch.backends.quantized.engine = torch.backends.quantized.engine, "fbgemm"
    yield lambda layer, kind=torch.qint8: torch.ao.quantization.quantize_dynamic(
        nn.Sequential(layer), {type(layer)}, dtype=kind
    )
    torch.backends.quantized.engine = before


@pytest.mark.parametrize(
    ("layer", "flops"),
    [
        (nn.Linear(16, 3), 2 * 10 * 16 * 3),
        (nn.LSTM(16, 8, num_layers=2, bidirectional=True), 2 * 10 * 4 * 8 * 2 * (24 + 24)),
        (nn.GRU(16, 8), 2 * 10 * 3 * 8 * 24),
    ],
)
def test_what_is_quantised_pays_like_what_is_not(quantised, layer, flops):
    small = quantised(layer)
    assert work_of(lambda: small(X)).products == flops == work_of(lambda: layer(X)).products


def test_a_quantised_cell_and_half_precision_pay_too(quantised):
    cell, linear = quantised(nn.LSTMCell(16, 8)), quantised(nn.Linear(16, 3), torch.float16)
    assert work_of(lambda: cell(ROWS)).products == 2 * 5 * 4 * 8 * 24
    assert work_of(lambda: linear(X)).products == 2 * 10 * 16 * 3


def test_a_learning_gate_pays_for_its_gradients():
    weight = W.clone().requires_grad_()

    def learn():
        with torch.enable_grad():
            (ROWS @ weight).sum().backward()

    assert work_of(learn).products == 2 * (2 * 5 * 16 * 3)  # forward, and the weight's gradient
    assert work_of(lambda: nn.LSTM(16, 8)(X)).products > 0


def test_inference_mode_hides_nothing():
    def call():
        with torch.inference_mode():
            F.linear(X, W.T)
            F.scaled_dot_product_attention(Q, Q, Q)

    assert work_of(call).products == 2 * 10 * 16 * 3 + ATTENTION


def test_compiled_code_is_counted():
    compiled = torch.compile(lambda x: (x @ x.T).relu(), backend="eager")
    compiled(ROWS)
    work = work_of(lambda: compiled(ROWS))
    assert (work.products, work.elements) == (2 * 5 * 5 * 16, 2 * 25)


def test_an_operator_of_another_package_pays_for_what_it_calls_and_for_what_it_touches():
    @torch.library.custom_op("duo_tests::gram", mutates_args=())
    def gram(x: torch.Tensor) -> torch.Tensor:
        return x @ x.T

    library = torch.library.Library("duo_tests_too", "DEF")
    library.define("gram(Tensor x) -> Tensor")
    library.impl("gram", lambda x: x @ x.T, "CPU")
    for operator in (gram, torch.ops.duo_tests_too.gram):
        work = work_of(lambda operator=operator: operator(ROWS))
        assert (work.products, work.elements) == (2 * 5 * 5 * 16, 80 + 25)


def test_what_sounds_like_a_product_and_has_no_formula_pays_for_its_longest_row():
    library = torch.library.Library("duo_tests_fast", "DEF")
    library.define("my_linear(Tensor x, Tensor w) -> Tensor")
    library.impl("my_linear", lambda x, w: torch.from_numpy(x.numpy() @ w.numpy()), "CPU")
    assert work_of(lambda: torch.ops.duo_tests_fast.my_linear(ROWS, W)).products == 2 * 5 * 3 * 16


def test_an_operator_that_takes_functions_is_refused_in_a_sentence():
    double = lambda x: x + x  # noqa: E731
    with pytest.raises(
        NotImplementedError, match="cond costs cannot be counted: write it with torch's plain operators"
    ):
        work_of(lambda: torch.cond(torch.tensor(True), double, double, (ROWS,)))


def test_counting_changes_no_result():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    with torch.no_grad():
        plain, counted = layer(X), []
    work_of(lambda: counted.append(layer(X)))
    assert torch.equal(plain, counted[0])
